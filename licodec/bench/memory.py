"""How much memory a call needs at its peak."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """`with PeakMemory() as peak: ...` then `peak.bytes`: by how much the process grew at most.

    What was there before, the loaded model for one, is not counted. On a GPU
    it is the GPU's memory. None where the system does not tell (it takes Linux).
    """

    def __init__(self, cuda: bool = False) -> None:
        self.cuda = cuda
        self.bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        if self.cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
            self.before: int | None = torch.cuda.memory_allocated()
        else:
            self.before = self._start()
        return self

    def _start(self) -> int | None:
        with contextlib.suppress(OSError, AttributeError):
            if sys.platform == "linux":
                ctypes.CDLL(None).malloc_trim(0)  # else freed memory, taken again, would not show
            _RESET.write_text("5")  # sets the peak to what is in use now
            return self._read("VmRSS")
        return None

    @staticmethod
    def _read(name: str) -> int:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) << 10

    def __exit__(self, *_) -> None:
        if self.before is None:
            return
        if self.cuda:
            import torch

            self.bytes = torch.cuda.max_memory_allocated() - self.before
        else:
            self.bytes = max(0, self._read("VmHWM") - self.before)

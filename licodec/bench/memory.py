"""How much memory a call needs at its peak."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def keep() -> None:
    """Freed memory stays with the process, as it pleases the C library."""


class PeakMemory:
    """`with PeakMemory() as peak: ...` then `peak.bytes`: by how much the process grew at most.

    What was there before, the loaded model for one, is not counted. On a GPU
    it is the GPU's memory. None where the system does not tell (it takes Linux).

    Args:
        return_memory: gives the system back what is freed, since that, taken again, would not show.
    """

    def __init__(self, cuda: bool = False, return_memory: Callable[[], None] = keep) -> None:
        self.cuda, self.return_memory = cuda, return_memory
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
            self.return_memory()
            _RESET.write_text("5")  # sets the peak to what is in use now
            return self._read("VmRSS")
        return None

    @staticmethod
    def _read(name: str) -> int:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) << 10

    def __exit__(self, *_: object) -> None:
        if self.before is None:
            return
        if self.cuda:
            import torch

            self.bytes = torch.cuda.max_memory_allocated() - self.before
        else:
            self.bytes = max(0, self._read("VmHWM") - self.before)

"""What the command line does to its own process. A library must not do this to its host."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import os
import sys

M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1  # of glibc's mallopt
GARBAGE = 20_000  # new objects after which Python looks for garbage; every 700, imports alone take 10 ms for it


def tune() -> None:
    """What makes this process fast; before torch and numpy are imported."""
    # torch's threads spin while they wait for each other; beside another busy program
    # that made coding ten times as slow (measured: 2.6 s against 0.22 s a picture)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # numpy's products are few and small here; its idle threads spin for 0.1 s of processor time after its import
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    gc.set_threshold(GARBAGE)
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        # keep freed memory instead of asking the system for zeroed pages again: TCM is 17 % faster
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def return_memory() -> None:
    """Give the system back what the C library keeps of freed memory, where it is glibc."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


class End:
    """The end of this process without taking its objects apart one by one: 0.01 s, with torch more.

    All else happens as it would: threads are waited for, and what is registered to be done at the end is done before,
    since that goes backwards and this comes first. Where something is registered already, say a debugger's, nothing
    is changed.
    """

    def __init__(self) -> None:
        self.code: int | None = None  # that the process ends with, once it is known
        if getattr(atexit, "_ncallbacks", lambda: 1)() == 0:
            atexit.register(self._leave)

    def _leave(self) -> None:
        if self.code is None:
            return
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
        except (OSError, ValueError):
            return  # Python flushes again, and says what is wrong
        os._exit(self.code)

"""What the command line does to its own process. A library must not do this to its host."""

from __future__ import annotations

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

"""What is set once for all models of a process."""

from __future__ import annotations

_threads = 0


def use_threads(count: int) -> None:
    """Let models that are opened from now on use `count` CPU threads; 0 for one per core."""
    global _threads
    _threads = count


def threads() -> int:
    """What `use_threads` was told."""
    return _threads

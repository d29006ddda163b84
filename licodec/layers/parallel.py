"""The work of one picture on several threads, each with operations of its own.

torch shares every single operation between its threads. They wait for each other
after each of some ten thousand a picture, and many gain little from a second
thread. Here torch works alone in each thread, and what goes side by side is more:
the networks of the means and of the scales, the strips of a map.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from threadpoolctl import LibController, ThreadpoolController
from torch import Tensor
from torch.nn import functional as F

STRIP = 4096  # positions of a map that a thread takes at a time; their activations fit the cache

Item = TypeVar("Item")
Result = TypeVar("Result")
Maps = TypeVar("Maps", Tensor, tuple[Tensor, ...])

_own = threading.local()


def threads() -> int:
    """How many threads the caller may use: 1 outside of a `team`."""
    return getattr(_own, "threads", 1)


def _work_alone() -> None:
    """Let torch's operations in this new thread use no other; what it does in threads yet to come stays as it is."""
    everyone = torch.get_num_threads()
    torch.set_num_threads(1)  # for this thread, and for those to come
    _own.helper = True
    restorer = threading.Thread(target=torch.set_num_threads, args=(everyone,))
    restorer.start()
    restorer.join()


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """Threads are made as they are needed; their number is bounded by `threads` of those who ask."""
    return ThreadPoolExecutor(max_workers=1 << 10, thread_name_prefix="licodec", initializer=_work_alone)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


class _OpenBLAS:
    """numpy's library for products: it shares them between threads of its own unless it is told not to."""

    def __init__(self) -> None:
        self.lock, self.teams = threading.Lock(), 0
        self.before: list[tuple[LibController, int]] = []

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """One thread for each product, for the whole process, until the last team is done."""
        with self.lock:
            self.teams += 1
            if self.teams == 1:
                libraries = _libraries()
                self.before = [(library, library.num_threads) for library in libraries]
                for library in libraries:
                    library.set_num_threads(1)
        try:
            yield
        finally:
            with self.lock:
                self.teams -= 1
                if not self.teams:
                    for library, count in self.before:
                        library.set_num_threads(count)


@functools.cache
def _libraries() -> list[LibController]:
    return ThreadpoolController().select(internal_api="openblas").lib_controllers


_openblas = _OpenBLAS()


@contextlib.contextmanager
def team(device: torch.device) -> Iterator[None]:
    """Within it, `each` uses as many threads as torch does outside. For the CPU; elsewhere nothing changes."""
    count = torch.get_num_threads()
    if device.type != "cpu" or count == 1 or threads() > 1:
        yield
        return
    _own.threads = count
    try:
        with _openblas.alone():
            yield
    finally:
        _own.threads = 1


def _next(waiting: deque[int]) -> int | None:
    try:
        return waiting.popleft()
    except IndexError:
        return None


def each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """function(item) of all items, side by side if the caller may use several threads.

    If one fails, its error is raised when those that had begun are done.
    """
    items = list(items)
    available = threads()
    count = min(available, len(items))
    if count < 2:
        return [function(item) for item in items]
    results: list[Result] = [None] * len(items)
    waiting = deque(range(len(items)))
    inference = torch.is_inference_mode_enabled()

    def work(share: int) -> None:
        _own.threads = share
        try:
            with torch.inference_mode(inference):
                while (i := _next(waiting)) is not None:
                    results[i] = function(items[i])
        except BaseException:
            waiting.clear()
            raise

    helpers = [_pool().submit(work, available // count + (i < available % count)) for i in range(count)]
    try:
        errors = [helper.exception() for helper in helpers]
    finally:
        waiting.clear()  # if this thread is interrupted while it waits, nothing more is begun
    for error in filter(None, errors):
        raise error
    return results


def alone(function: Callable[[], Result]) -> Result:
    """What the function gives in a thread whose operations use no other, as those within `each` do."""
    return function() if getattr(_own, "helper", False) else _pool().submit(function).result()


def together(*functions: Callable[[], Result]) -> list[Result]:
    """What the functions give, called as `each` does."""
    return each(lambda function: function(), functions)


class computed_once:
    """A property that is computed when it is first asked for.

    As functools.cached_property, which in Python 3.11 lets only one object of a class compute at a time.
    """

    def __init__(self, compute: Callable[[Any], Any]) -> None:
        self.compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        lock = instance.__dict__.setdefault(f"{self.name}, being computed", threading.Lock())
        with lock:
            if self.name not in instance.__dict__:
                instance.__dict__[self.name] = self.compute(instance)
        return instance.__dict__[self.name]


def pieces(total: int, most: int, unit: int = 1) -> list[slice]:
    """Cut range(total) into pieces of whole units and at most about `most`, as many for every thread."""
    units = -(-total // unit)
    count = -(-units // max(1, most // unit))
    count = min(units, -(-count // threads()) * threads())
    size = -(-units // count) * unit
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def rows_between(x: Tensor, first: int, last: int, right: int) -> Tensor:
    """Rows of a map [B, H, W, C], with zeros beyond it, in a column before it and in some on its right."""
    beyond = max(0, -first), max(0, last - x.shape[1])
    return F.pad(x[:, max(0, first) : last], (0, 0, 1, right, *beyond))


def positionwise(function: Callable[..., Maps], *maps: Tensor) -> Maps:
    """function(*maps), for a function that works position by position; in parts in inference on the CPU.

    Maps are [B, H, W, C], each with its own C, and so is the result: one of them or a tuple.
    """
    height, width = maps[0].shape[1:3]
    rows = pieces(height, STRIP // width)
    if len(rows) == 1 or not torch.is_inference_mode_enabled() or maps[0].device.type != "cpu":
        return function(*maps)
    made: list[Tensor] = []
    lock = threading.Lock()

    def part(rows: slice) -> bool:
        results = function(*(x[:, rows] for x in maps))
        several = isinstance(results, tuple)
        results = results if several else (results,)
        with lock:
            if not made:
                made.extend(result.new_empty(len(result), height, *result.shape[2:]) for result in results)
        for whole, result in zip(made, results, strict=True):
            whole[:, rows] = result
        return several

    several = each(part, rows)[0]
    return tuple(made) if several else made[0]

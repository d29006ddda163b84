"""The work of one picture on several threads, each with operations of its own.

torch shares every single operation between its threads. They wait for each other
after each of some ten thousand a picture, and many gain little from a second
thread. Here torch works alone in each thread, and what goes side by side is more:
the networks of the means and of the scales, the strips of a map. Who has nothing
left to do takes strips from the others.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import torch
from threadpoolctl import LibController, ThreadpoolController
from torch import Tensor
from torch.nn import functional as F

STRIP = 4096  # positions of a map that a thread takes at a time; their activations fit the cache

Item = TypeVar("Item")
Result = TypeVar("Result")
Maps = TypeVar("Maps", Tensor, tuple[Tensor, ...])


class _Own(threading.local):
    """What a thread knows of itself."""

    team: _Team | None = None  # that it belongs to
    batch: _Batch | None = None  # whose item it is at
    alone = False  # whether torch's operations in it use no other thread


_own = _Own()


def threads() -> int:
    """How many threads the caller's work is to be cut for: 1 outside of a `team`, and for parts of what is cut."""
    divisible = _own.batch is None or _own.batch.divisible
    return _own.team.size if _own.team and divisible else 1


_counts = threading.Lock()  # held while torch tells new threads a count that is not meant for them


def _count() -> int:
    """How many threads torch uses for an operation of this thread."""
    with _counts:
        return torch.get_num_threads()


def _work_alone() -> None:
    """Let torch's operations in this thread use no other; what it does in threads yet to come stays as it is."""
    with _counts:
        everyone = torch.get_num_threads()
        torch.set_num_threads(1)  # for this thread, and for those to come
        _own.alone = True
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


class _Batch:
    """The items of one call of `each` or `together`: whoever is free takes the next one."""

    def __init__(self, function: Callable[[Any], Any], items: list[Any], divisible: bool) -> None:
        self.function, self.items, self.divisible = function, items, divisible
        self.parent = _own.batch
        self.inference = torch.is_inference_mode_enabled()
        self.waiting = deque(range(len(items)))
        self.results: list[Any] = [None] * len(items)
        self.helpers = 0  # threads that work on it beside its owner
        self.error: BaseException | None = None

    def work(self) -> None:
        """Do items until none is left; an error ends it for all."""
        before, _own.batch = _own.batch, self
        try:
            with torch.inference_mode(self.inference):
                while (i := self._next()) is not None:
                    self.results[i] = self.function(self.items[i])
        except BaseException as error:  # an interruption too: others may still be at work
            self.waiting.clear()
            self.error = self.error or error
        finally:
            _own.batch = before

    def _next(self) -> int | None:
        try:
            return self.waiting.popleft()
        except IndexError:
            return None

    def within(self, other: _Batch | None) -> bool:
        """Whether it was begun by an item of the other one; any batch is within None."""
        batch: _Batch | None = self
        while batch is not other and batch is not None:
            batch = batch.parent
        return batch is other


class _Team:
    """The threads that work for one caller: itself, and `size` - 1 others that take what is left to take."""

    def __init__(self, size: int) -> None:
        self.size, self.closed = size, False
        self.lock = threading.Lock()
        self.begun: list[_Batch] = []
        self.idle: list[tuple[threading.Condition, _Batch | None]] = []

    def run(self, batch: _Batch) -> list[Any]:
        with self.lock:
            self.begun.append(batch)
            for condition, root in self.idle:
                if batch.within(root):
                    condition.notify()
        try:
            batch.work()
            self._help(batch)
        finally:
            batch.waiting.clear()  # if this thread is interrupted while it waits, nothing more is begun
            with self.lock:
                self.begun.remove(batch)
        if batch.error:
            raise batch.error
        return batch.results

    def serve(self) -> None:
        """What a helper does."""
        _own.team = self
        try:
            self._help(None)
        finally:
            _own.team = None

    def _help(self, root: _Batch | None) -> None:
        """Work on what was begun within a batch until all of that is done; on anything until the end if None.

        Who waits for a batch helps nowhere else: it may hold what others wait for.
        """
        condition = threading.Condition(self.lock)
        with self.lock:
            while True:
                batch = next((batch for batch in self.begun if batch.waiting and batch.within(root)), None)
                if batch is not None:
                    self._help_with(batch)
                elif self.closed if root is None else not root.helpers:
                    return
                else:
                    place = (condition, root)
                    self.idle.append(place)
                    try:
                        condition.wait()
                    finally:
                        self.idle.remove(place)

    def _help_with(self, batch: _Batch) -> None:
        """Called and left with the lock held."""
        batch.helpers += 1
        self.lock.release()
        try:
            batch.work()
        finally:
            self.lock.acquire()
            batch.helpers -= 1
            for condition, root in self.idle:
                if root is batch:
                    condition.notify()

    def close(self) -> None:
        with self.lock:
            self.closed = True
            for condition, _ in self.idle:
                condition.notify()


@contextlib.contextmanager
def team(device: torch.device) -> Iterator[None]:
    """Within it, `each` uses as many threads as torch does outside, and every operation of torch one.

    For the CPU; elsewhere nothing changes.
    """
    count = _count()
    if device.type != "cpu" or count == 1:
        yield
        return
    members, helpers = _Team(count), []
    try:
        for _ in range(count - 1):
            helpers.append(_pool().submit(members.serve))
        _work_alone()
        _own.team = members
        with _openblas.alone():
            yield
    finally:
        _own.team, _own.alone = None, False
        torch.set_num_threads(count)
        members.close()
        wait(helpers)


def _shared(function: Callable[[Item], Result], items: Iterable[Item], divisible: bool) -> list[Result]:
    items = list(items)
    if len(items) < 2 or threads() == 1:
        return [function(item) for item in items]
    return _own.team.run(_Batch(function, items, divisible))


def each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """function(item) of all items, parts of one operation, side by side if the caller may use several threads.

    If one fails, its error is raised when those that had begun are done.
    """
    return _shared(function, items, divisible=False)


def together(*functions: Callable[[], Result]) -> list[Result]:
    """What some functions give, called side by side as by `each`; but within them `each` shares out work again.

    So threads that have none left help the others.
    """
    return _shared(lambda function: function(), functions, divisible=True)


def alone(function: Callable[[], Result]) -> Result:
    """What the function gives in one thread, as it would within `each`."""
    if not _own.alone:
        return _pool().submit(function).result()
    team, _own.team = _own.team, None
    try:
        return function()
    finally:
        _own.team = team


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


def rows_between(x: Tensor, first: int, last: int, left: int = 0, right: int = 0) -> Tensor:
    """Rows of a map [B, H, W, C], with zeros beyond it, in some columns before it and in some on its right."""
    beyond = left, right, max(0, -first), max(0, last - x.shape[1])
    x = x[:, max(0, first) : last]
    return F.pad(x, (0, 0, *beyond)) if any(beyond) else x


def by_rows(function: Callable[[slice], Maps], rows: list[slice], scale: int = 1, out: Tensor | None = None) -> Maps:
    """A map [B, scale * H, W, C], or a tuple of some, put together from what a function gives; for inference.

    Args:
        function: gives [B, scale * n, W, C] for n of the H rows.
        rows: those that it is given at a time, as `pieces` has them.
        out: where a single map may go.
    """
    if len(rows) == 1:
        return function(rows[0])
    height = scale * rows[-1].stop
    made = [] if out is None else [out]
    lock = threading.Lock()

    def part(rows: slice) -> bool:
        results = function(rows)
        several = isinstance(results, tuple)
        results = results if several else (results,)
        with lock:
            if not made:
                made.extend(result.new_empty(len(result), height, *result.shape[2:]) for result in results)
        for whole, result in zip(made, results, strict=True):
            whole[:, scale * rows.start : scale * rows.stop] = result
        return several

    several = each(part, rows)[0]
    return tuple(made) if several else made[0]


def positionwise(function: Callable[..., Maps], *maps: Tensor, scale: int = 1, out: Tensor | None = None) -> Maps:
    """function(*maps), for a function that works position by position; in inference on the CPU `by_rows`.

    Maps are [B, H, W, C], each with its own C, and so is the result: one of them or a tuple.

    Args:
        scale: by how much the function multiplies the size.
        out: where a single map may go in inference; may be one of `maps`, which then is lost.
    """
    if not torch.is_inference_mode_enabled() or maps[0].device.type != "cpu":
        return function(*maps)
    height, width = maps[0].shape[1:3]
    return by_rows(lambda rows: function(*(x[:, rows] for x in maps)), pieces(height, STRIP // width), scale, out)


def positionwise_nchw(function: Callable[..., Tensor], *maps: Tensor, out: Tensor | None = None) -> Tensor:
    """`positionwise` for maps [B, C, H, W], which the function sees as [B, H, W, C]."""
    maps = tuple(x.permute(0, 2, 3, 1) for x in maps)
    out = None if out is None else out.permute(0, 2, 3, 1)
    return positionwise(function, *maps, out=out).permute(0, 3, 1, 2)

"""Work on several items side by side, in order, with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """function(item) of each item, in order; `workers` of them are at work or wait to be taken, never more.

    An error is raised in its turn; what was begun is then finished, and nothing more begun.
    """
    items = list(items)
    if workers < 2 or len(items) < 2:
        yield from map(function, items)
        return
    from concurrent.futures import ThreadPoolExecutor

    begun: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(min(workers, len(items)), thread_name_prefix="licodec") as pool:
        try:
            for item in items:
                if len(begun) == workers:
                    yield begun.popleft().result()
                begun.append(pool.submit(function, item))
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()

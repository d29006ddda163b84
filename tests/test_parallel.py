"""The work of one picture on several threads."""

from __future__ import annotations

import multiprocessing
import threading
import time

import numpy as np
import pytest
import torch
from conftest import render
from PIL import Image

import licodec
from licodec.layers import parallel
from licodec.layers.parallel import each, pieces, positionwise, team, threads, together

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 3, 5])
def count(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_items_go_to_as_many_threads_as_torch_has(count):
    meeting = threading.Barrier(count, timeout=20)

    def square(i: int) -> tuple[int, int]:
        if i < count:
            meeting.wait()  # all must be there at once
        return i * i, torch.get_num_threads()

    with team(CPU):
        assert threads() == count
        assert each(square, range(9)) == [(i * i, 1) for i in range(9)]
    assert threads() == 1
    assert torch.get_num_threads() == count
    seen = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [count]  # a host's new threads are not limited


def test_only_parts_of_what_is_cut_are_not_cut_again(count):
    with team(CPU):
        shares = together(threads, lambda: each(lambda _: threads(), range(4)))
    assert shares == [count, [1] * 4]


def test_who_has_nothing_left_helps_the_others(count):
    """One function is done at once; all threads then meet in the parts of the other one, and of one within it."""
    meeting = threading.Barrier(count, timeout=20)

    def parts() -> set[int]:
        def part(_: int) -> int:
            meeting.wait()
            return threading.get_ident()

        return set(each(part, range(count)))

    with team(CPU):
        _, (own, (nested, _)) = together(lambda: None, lambda: (parts(), together(parts, lambda: None)))
    assert len(own) == len(nested) == count
    assert own == nested


def test_who_waits_takes_nothing_from_elsewhere(count):
    """It may hold what others wait for: here, a lock."""
    if count < 3:
        return
    lock, meeting, begun = threading.Lock(), threading.Barrier(2, timeout=20), threading.Event()

    def value() -> int:
        assert lock.acquire(timeout=5)
        owner = threading.get_ident()

        def part(_: int) -> None:
            meeting.wait()  # the owner has a helper
            begun.set()
            time.sleep(0.2 * (threading.get_ident() != owner))

        try:
            if not begun.is_set():
                each(part, range(2))
        finally:
            lock.release()
        return owner

    def others() -> list[int]:
        begun.wait(20)
        return each(lambda _: value(), range(count))

    with team(CPU):
        first, rest = together(value, others)
    assert first and len(rest) == count


def test_alone_is_alone(count):
    """Trials between libraries: with one thread wherever they are made."""

    def seen() -> tuple[int, int]:
        assert len(set(each(lambda _: threading.get_ident(), range(4)))) == 1
        return threads(), torch.get_num_threads()

    assert parallel.alone(seen) == (1, 1)
    with team(CPU):
        assert parallel.alone(seen) == (1, 1)
        assert together(*[lambda: parallel.alone(seen)] * 3) == [(1, 1)] * 3
        assert threads() == count
    assert torch.get_num_threads() == count


def test_outside_of_a_team_the_caller_works_alone():
    assert set(each(lambda _: threading.get_ident(), range(4))) == {threading.get_ident()}


def test_inference_mode_holds_in_all_threads(count):
    for mode in (True, False):
        with torch.inference_mode(mode), team(CPU):
            assert each(lambda _: torch.is_inference_mode_enabled(), range(5)) == [mode] * 5


def test_an_error_ends_the_work(count):
    done = []

    def work(i: int) -> None:
        if i == 2:
            raise ValueError("two")
        time.sleep(0.01)
        done.append(i)

    with team(CPU):
        with pytest.raises(ValueError, match="two"):
            each(work, range(1000))
        assert len(done) < 100
        assert each(abs, [-1, -2, -3]) == [1, 2, 3]


def test_openblas_gets_its_threads_back(count):
    def counts() -> list[int]:
        return [library.num_threads for library in parallel._libraries()]

    np.ones((2, 2)) @ np.ones((2, 2))
    before = counts()
    assert before
    with team(CPU), pytest.raises(ZeroDivisionError):
        inside = counts()
        1 / 0  # noqa: B018
    assert counts() == before
    assert count == 1 or set(inside) == {1}


@pytest.mark.parametrize(("total", "most", "unit"), [(1, 5, 1), (64, 4096, 8), (63, 10, 8), (1000, 7, 1), (5, 1, 1)])
def test_pieces_cover_everything_once(count, total, most, unit):
    with team(CPU):
        found = pieces(total, most, unit)
    assert [i for piece in found for i in range(total)[piece]] == list(range(total))
    assert all(piece.start % unit == 0 for piece in found)
    assert max(piece.stop - piece.start for piece in found) <= max(most, unit)


def test_positionwise_is_the_function(count, monkeypatch):
    monkeypatch.setattr(parallel, "STRIP", 20)
    x, y = torch.randn(2, 9, 7, 3), torch.randn(2, 9, 7, 5)
    with torch.inference_mode(), team(CPU):
        assert torch.equal(positionwise(lambda a, b: a[..., :1] * b, x, y), x[..., :1] * y)
        double = positionwise(lambda a: 2 * a, x)
        product, negative = positionwise(lambda a, b: (a[..., :1] * b, -a), x, y)
    assert torch.equal(double, 2 * x) and torch.equal(product, x[..., :1] * y) and torch.equal(negative, -x)


def test_what_is_computed_once_is_computed_once(count):
    calls = []

    class Thing:
        @parallel.computed_once
        def value(self) -> object:
            calls.append(0)
            time.sleep(0.02)
            return object()

    thing = Thing()
    with team(CPU):
        values = each(lambda _: thing.value, range(8))
    assert len(calls) == 1 and len(set(map(id, values))) == 1


def test_pictures_do_not_depend_on_the_threads(count):
    data = licodec.encode(Image.fromarray(render(200, 136)), quality=5)
    many = np.asarray(licodec.decode(data)).astype(int)
    torch.set_num_threads(1)
    alone = np.asarray(licodec.decode(data)).astype(int)
    assert np.abs(alone - many).max() <= 1 and (alone != many).mean() < 1e-3


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")
def test_threads_after_a_fork():
    """A child has none of its parent's threads and must make its own."""
    with team(CPU):
        each(lambda _: None, range(4))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_child, args=(queue,))
    child.start()
    try:
        assert queue.get(timeout=60) == [0, 1, 4, 9]
    finally:
        child.kill()


def _child(queue) -> None:
    torch.set_num_threads(2)
    with team(CPU):
        queue.put(each(lambda i: i * i, range(4)))

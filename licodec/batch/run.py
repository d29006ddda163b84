"""Doing jobs: here, or in processes of their own. `Outcome`s come as they are done, whatever happens to a process."""

from __future__ import annotations

import contextlib
import glob
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licodec.batch.jobs import Job, first_of
from licodec.batch.places import Local
from licodec.batch.record import Outcome
from licodec.batch.tasks import Task, Tiles
from licodec.errors import InputError, LicodecError, OutOfMemoryError, UsageError, as_ours

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

TOO_LARGE = "needs more memory than --max-memory allows"
Doing = Callable[[Iterator[Job]], Generator[Outcome, None, None]]
LIVES = 2  # processes that may die of a job before it counts as failed
PATIENCE = 3.0  # seconds a process has to clean up when it is told to end


def attempt(task: Task, job: Job, tiles: Tiles, memory: int | None = None) -> Outcome:
    """Do a job; whatever it raises is in the outcome. `memory` is what the process may have, see `Caps`."""
    began = time.perf_counter()
    try:
        facts = task(job, tiles)
    except Exception as error:  # one bad input does not stop the others
        ours = as_ours(error)
        trace = "".join(traceback.format_exception(ours))
        ours.__cause__ = ours.__context__ = ours.__traceback__ = None  # they cannot be sent to another process
        if memory is not None and isinstance(ours, OutOfMemoryError):
            ours = OutOfMemoryError(TOO_LARGE)
        return Outcome(job, error=ours, seconds=time.perf_counter() - began, trace=trace)
    return Outcome(job, facts, seconds=time.perf_counter() - began)


def here(task: Task, jobs: Iterable[Job], tiles: Tiles) -> Iterator[Outcome]:
    """One job after the other, in this process. Raises what `task.prepare` does."""
    task.prepare()
    for job in jobs:
        yield attempt(task, job, tiles)


@dataclass(frozen=True)
class Caps:
    """What one job may take; None for no end.

    Attributes:
        seconds: until its process is ended.
        memory: bytes of memory of its process (RLIMIT_DATA).
    """

    seconds: float | None = None
    memory: int | None = None

    def __bool__(self) -> bool:
        return self.seconds is not None or self.memory is not None


def silent(done: int, total: int) -> None:
    pass


def begin(task: Task, most: int | None, first: Job | None) -> LicodecError | None:
    """Make a process ready for jobs, of which `first` is one, with `most` bytes of memory.

    Gives the error that ends the run: what `task.prepare` raises, or that `most` is too little for any job.
    """
    try:
        task.prepare()
        if most is not None:
            _limit_memory(task, most, first)
    except Exception as error:
        ours = as_ours(error)
        ours.__cause__ = ours.__context__ = ours.__traceback__ = None  # they cannot be sent to another process
        return ours
    return None


def _limit_memory(task: Task, most: int, first: Job | None) -> None:
    """Let this process have so many bytes; beyond them it is told that there is no more. Raises UsageError.

    What a job needs besides its picture is loaded before: libraries that find no memory while they are loaded
    say all kinds of things, and some end the process.
    """
    if not sys.platform.startswith("linux"):
        raise UsageError("--max-memory needs Linux")
    import resource

    if first is not None:
        with contextlib.suppress(Exception):  # if that job is at fault it will say so itself
            task.rehearse(first)
    status = Path("/proc/self/status").read_text()
    needed = 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:"))
    if needed >= most:
        raise UsageError(
            f"--max-memory {_megabytes(most)} is too little: the codec alone takes {_megabytes(needed)}, pictures come "
            "on top; with lite, 2G is enough for one of 100 megapixels"
        )
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _megabytes(count: int) -> str:
    """As --max-memory takes it."""
    return f"{-(-count // 1_000_000)}M"


def sweep(job: Job) -> None:
    """Remove what a process that was killed at a job had begun to write."""
    if isinstance(job.target, Local):
        path = job.target.path
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            left.unlink(missing_ok=True)
        path.with_name(f".{path.name}.lock").unlink(missing_ok=True)


def _serve(connection: Connection, task: Task, caps: Caps, first: Job | None) -> None:
    """What a worker does: prepare, then jobs until there are none. SIGTERM unwinds it, so that no half file stays."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver tells when to end
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    error = begin(task, caps.memory, first)
    connection.send(error)
    if error is not None:
        return
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the driver is gone
        while (job := connection.recv()) is not None:
            connection.send(attempt(task, job, silent, caps.memory))


@dataclass
class _Worker:
    """A process, and what it is at."""

    process: BaseProcess
    connection: Connection
    ready: bool = False
    job: Job | None = None
    deadline: float | None = None

    def give(self, job: Job, seconds: float | None) -> None:
        self.job = job
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.connection.send(job)


@dataclass
class Pool:
    """`count` processes that each load the codec once. Used once, by `run`; Linux, macOS and Windows."""

    task: Task
    count: int
    caps: Caps = field(default_factory=Caps)

    def run(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """Do all jobs. Raises what `task.prepare` does, and what finding the jobs does."""
        self.workers: list[_Worker] = []
        self.deaths: dict[Job, int] = {}
        self.again: list[Job] = []
        self.task = replace(self.task, side_by_side=self.count)
        head, source = first_of(jobs, 1)
        self.first = head[0] if head else None
        self.more = True
        try:
            for _ in range(self.count):
                self.workers.append(self._start())
            while True:
                self._hand_out(source)
                if not self.more and not self.again and all(worker.job is None for worker in self.workers):
                    return
                yield from self._wait()
        finally:
            self._end()

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")  # threads and sockets do not outlive a fork well
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self.task, self.caps, self.first), daemon=True)
        with _environment(), _without_main():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _hand_out(self, source: Iterator[Job]) -> None:
        for worker in self.workers:
            if not worker.ready or worker.job is not None:
                continue
            job = self.again.pop() if self.again else next(source, None) if self.more else None
            if job is None:
                self.more = False
                continue
            with contextlib.suppress(OSError):  # it has just died; `_wait` finds out
                worker.give(job, self.caps.seconds)

    def _wait(self) -> Iterator[Outcome]:
        """Until something happens: an outcome, a worker that is ready, or one that died or took too long."""
        deadlines = [worker.deadline for worker in self.workers if worker.deadline is not None]
        patience = max(0.0, min(deadlines) - time.monotonic()) if deadlines else None
        happened = wait([worker.connection for worker in self.workers], patience)
        for index, worker in enumerate(self.workers):
            if worker.connection in happened:
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    yield from self._bury(index)
                    continue
                if not worker.ready:
                    if message is not None:
                        raise message
                    worker.ready = True
                else:
                    worker.job = worker.deadline = None
                    yield message
            elif worker.deadline is not None and time.monotonic() >= worker.deadline:
                job = worker.job
                assert job is not None and self.caps.seconds is not None  # a deadline comes with both
                self._replace(index)
                yield Outcome(job, error=InputError(f"took longer than {self.caps.seconds:g} s (--timeout)"),
                              seconds=self.caps.seconds)  # fmt: skip

    def _bury(self, index: int) -> Iterator[Outcome]:
        """A worker died: its job is done again, unless that killed one before."""
        worker = self.workers[index]
        worker.process.join(PATIENCE)
        code = worker.process.exitcode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with code {code}"
        job = worker.job
        if job is None and not worker.ready:
            raise LicodecError(f"a worker process ended {how} before it could work")
        self._replace(index)
        if job is None:
            return
        self.deaths[job] = self.deaths.get(job, 0) + 1
        if self.deaths[job] < LIVES:
            self.again.append(job)
        elif self.caps.memory is not None:
            yield Outcome(job, error=OutOfMemoryError(TOO_LARGE))
        else:
            yield Outcome(job, error=LicodecError(f"its worker process ended {how}, {LIVES} times"))

    def _replace(self, index: int) -> None:
        worker = self.workers[index]
        _finish([worker])
        if worker.job is not None:
            sweep(worker.job)
        self.workers[index] = self._start()

    def _end(self) -> None:
        for worker in self.workers:
            if worker.job is None:
                with contextlib.suppress(OSError):
                    worker.connection.send(None)
        _finish(self.workers)
        for worker in self.workers:
            if worker.job is not None:
                sweep(worker.job)


def _finish(workers: list[_Worker]) -> None:
    """End processes: idle ones by themselves, others by SIGTERM, what hangs by SIGKILL."""
    for worker in workers:
        if worker.job is not None or not worker.ready:
            worker.process.terminate()
    until = time.monotonic() + PATIENCE
    for worker in workers:
        worker.process.join(max(0.0, until - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.connection.close()


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """What libraries read when they are loaded: threads that do not spin, as `cli` sets them for itself."""
    before = os.environ.get("OMP_WAIT_POLICY")
    os.environ["OMP_WAIT_POLICY"] = before or "PASSIVE"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_WAIT_POLICY"]


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """A spawned process would import the program's main module first; workers need only this one."""
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {
        name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in main.__dict__
    }
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update(hidden)

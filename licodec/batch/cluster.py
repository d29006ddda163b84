"""The same jobs on a Ray cluster: actors that keep the codec loaded, one for each share of the machines.

Ray restarts nothing here: a node may die with its CPUs, and a job must not wait for those. A
job whose actor died goes to another; a new actor is asked for and used once it is there.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from licodec.batch.jobs import Job, first_of
from licodec.batch.record import Outcome
from licodec.batch.run import LIVES, Caps, attempt, begin, silent, sweep
from licodec.batch.tasks import Task
from licodec.errors import InputError, LicodecError, UsageError

IMPATIENCE = 20.0  # seconds without any actor after which the user is told

KNOCK_SECONDS = 5.0
STILLBORN = 5  # actors that may die in a row before they can work: a node takes its own with it


class Worker:
    """What an actor is: a process of the cluster that does jobs."""

    def prepare(
        self, task: Task, memory: int | None, environment: dict[str, str], first: Job | None
    ) -> LicodecError | None:
        """Load what the jobs need; gives the error that ends the run, see `run.begin`."""
        self.task, self.memory = task, memory
        os.environ.update(environment)
        return begin(task, memory, first)

    def do(self, job: Job) -> Outcome:
        return attempt(self.task, job, silent, self.memory)


@dataclass
class _State:
    """Of a run. The references are Ray's promises of results."""

    task: Task
    caps: Caps
    share: dict[str, float]
    first: Job | None
    starting: dict[Any, Any] = field(default_factory=dict)
    working: dict[Any, tuple[Any, Job, float]] = field(default_factory=dict)
    idle: list[Any] = field(default_factory=list)
    again: list[Job] = field(default_factory=list)
    deaths: dict[Job, int] = field(default_factory=dict)
    stillborn: int = 0  # actors in a row that died before they could work

    def start(self) -> None:
        import ray

        actor: Any = ray.remote(Worker).options(max_restarts=0, max_task_retries=0, **self.share).remote()
        self.starting[actor.prepare.remote(self.task, self.caps.memory, _environment(), self.first)] = actor

    def give(self, actor: Any, job: Job) -> None:
        self.working[actor.do.remote(job)] = (actor, job, time.monotonic())


def run(task: Task, jobs: Iterable[Job], address: str, count: int | None, caps: Caps) -> Iterator[Outcome]:
    """Do all jobs; outcomes come as they are done.

    Args:
        address: of the cluster, `auto` for the one this machine belongs to, `local` for one of this machine alone.
        count: actors; None for as many as the cluster has CPUs (or GPUs) for.

    Raises:
        UsageError: Ray is not installed or does not answer.
        LicodecError: what `task.prepare` raises.
    """
    ray, ours = _connected(address)
    try:
        yield from _with_stdout_kept(_shared(ray, task, iter(jobs), count, caps))
    finally:
        if ours:
            ray.shutdown()


def _environment() -> dict[str, str]:
    """What actors shall know of the driver's; a runtime environment of Ray's would take half a minute to set up."""
    passed = {k: v for k, v in os.environ.items() if k.startswith(("LICODEC_", "HF_"))}
    return {"OMP_WAIT_POLICY": "PASSIVE", **passed}


def _knock(address: str) -> None:
    """Raises UsageError if nothing listens there; Ray would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()
    except OSError as error:
        raise UsageError(f"--ray {address}: no cluster answers ({error.strerror or error})") from None


def _with_stdout_kept(outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """Ray prints what dies to the driver's standard output, where results may go, and has no switch for it."""
    with open(os.devnull, "w") as nowhere:
        real, sys.stdout = sys.stdout, nowhere
        try:
            for outcome in outcomes:
                sys.stdout = real
                yield outcome
                sys.stdout = nowhere
        finally:
            sys.stdout = real


def _shared(ray: Any, task: Task, jobs: Iterator[Job], count: int | None, caps: Caps) -> Iterator[Outcome]:
    """By actors, as many as there is room for."""
    threads = task.threads or 1
    gpu = task.device.startswith("cuda")
    share: dict[str, float] = {"num_cpus": 0 if gpu else threads, "num_gpus": int(gpu)}
    there = ray.cluster_resources().get("GPU" if gpu else "CPU", 1)
    count = count or max(1, int(there // (1 if gpu else threads)))
    head, jobs = first_of(jobs, 1)
    task = replace(task, threads=threads, side_by_side=count)
    state = _State(task, caps, share, head[0] if head else None)
    for _ in range(count):
        state.start()
    yield from _loop(ray, state, jobs)


def _connected(address: str) -> tuple[Any, bool]:
    """Ray, and whether it was connected here."""
    try:
        import ray
    except ImportError:
        raise UsageError("--ray needs one more package: pip install 'licodec[ray]'") from None
    if ray.is_initialized():
        return ray, False
    _knock(address)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        where = None if address == "local" else address
        ray.init(where, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise UsageError(f"--ray {address}: no cluster answers ({' '.join(str(error).split())})") from None
    return ray, True


def _loop(ray: Any, state: _State, source: Iterator[Job]) -> Iterator[Outcome]:
    more, alone_since = True, time.monotonic()
    try:
        while True:
            while state.idle and (state.again or more):
                job = state.again.pop() if state.again else next(source, None)
                if job is None:
                    more = False
                else:
                    state.give(state.idle.pop(), job)
            if not (more or state.again or state.working):
                return
            ready, _ = ray.wait([*state.working, *state.starting], num_returns=1, timeout=_patience(state))
            for promise in ready:
                yield from _take(ray, state, promise)
            yield from _overdue(ray, state)
            if state.working or state.idle:
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since > IMPATIENCE:
                print("licodec: waiting for the cluster to have room", file=sys.stderr)
                alone_since = time.monotonic()
    finally:
        for actor, job, _ in state.working.values():
            ray.kill(actor)
            sweep(job)
        for actor in [*state.starting.values(), *state.idle]:
            ray.kill(actor)


def _patience(state: _State) -> float:
    """Seconds until something must be looked at."""
    if state.caps.seconds is None or not state.working:
        return 5.0
    return max(0.05, min(began + state.caps.seconds for _, _, began in state.working.values()) - time.monotonic())


def _take(ray: Any, state: _State, promise: Any) -> Iterator[Outcome]:
    """What a promise came to: an actor that is ready, an outcome, or a death."""
    if promise in state.starting:
        actor = state.starting.pop(promise)
        try:
            error = ray.get(promise)
        except ray.exceptions.RayError as error:
            state.stillborn += 1
            if state.stillborn >= STILLBORN:
                said = " ".join(str(error).split())[:300]
                raise LicodecError(f"{STILLBORN} workers of the cluster died before they could work ({said})") from None
            state.start()
            return
        state.stillborn = 0
        if error is not None:
            raise error
        state.idle.append(actor)
        return
    actor, job, _ = state.working.pop(promise)
    try:
        yield ray.get(promise)
    except ray.exceptions.RayActorError:
        state.start()
        state.deaths[job] = state.deaths.get(job, 0) + 1
        if state.deaths[job] < LIVES:
            state.again.append(job)
        else:
            yield Outcome(job, error=LicodecError(f"the process or machine that was at it died, {LIVES} times"))
    except ray.exceptions.RayError as error:
        state.idle.append(actor)
        yield Outcome(job, error=LicodecError(f"Ray cannot do it ({' '.join(str(error).split())[:300]})"))
    else:
        state.idle.append(actor)


def _overdue(ray: Any, state: _State) -> Iterator[Outcome]:
    if state.caps.seconds is None:
        return
    for promise, (actor, job, began) in list(state.working.items()):
        if time.monotonic() - began > state.caps.seconds:
            del state.working[promise]
            ray.kill(actor)
            sweep(job)
            state.start()
            error = InputError(f"took longer than {state.caps.seconds:g} s (--timeout)")
            yield Outcome(job, error=error, seconds=state.caps.seconds)

"""What encode and decode share: inputs and outputs, progress, and the report at the end."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import typer

from licodec.batch.places import Stream
from licodec.errors import LicodecError, UsageError, with_options
from licodec.weights import network

if TYPE_CHECKING:
    from rich.progress import Progress

    from licodec.batch.jobs import Job, Plan
    from licodec.batch.record import Outcome, Totals
    from licodec.batch.tasks import Task, Tiles

FEW = 4  # files that are not worth starting processes for
MOST_NAMED = 1000  # failed files that are listed at the end
QUIET_SECONDS = 2.0  # a single file shows progress after this time only


def complete_model(incomplete: str) -> list[str]:
    """Shell completion of model names."""
    from licodec.models import MODELS

    return [name for name in MODELS if name.startswith(incomplete)]


def traceback_wanted(arguments: list[str]) -> bool:
    """Whether -vv was given."""
    flags = [a for a in arguments if a.startswith("-") and not a.startswith("--") and set(a[1:]) == {"v"}]
    return sum(len(a) - 1 for a in flags) + arguments.count("--verbose") >= 2


FILES, MANY, LIMITS, SYSTEM = "Files", "Many files", "Limits", "Machine and messages"  # groups in --help
METADATA = ("icc", "exif", "xmp", "cicp")


class Options:
    """The options that several commands have in common."""

    out = typer.Option(None, "-o", "--output", help="Output file or folder, or URL; - for standard output.")
    force = typer.Option(False, "-f", "--force", help="Overwrite files that exist.")
    resume = typer.Option(
        False, "--resume", rich_help_panel=MANY, help="Leave out what is done; several processes can share the work."
    )
    jobs = typer.Option(
        None, "--jobs", min=1, rich_help_panel=MANY, help="Processes that share the files. [default: use the machine]"
    )
    report = typer.Option(
        None, "--report", rich_help_panel=MANY, help="Write a JSON line for each file, and totals, to a file or URL."
    )
    ray = typer.Option(
        None, "--ray", rich_help_panel=MANY, help="Do the work on a Ray cluster: its address, auto, or local."
    )
    timeout = typer.Option(
        None, "--timeout", min=0.1, rich_help_panel=LIMITS, help="Give up on a file after so many seconds."
    )
    max_memory = typer.Option(
        None, "--max-memory", rich_help_panel=LIMITS, help="Give up on a file that needs more: 2G. Linux."
    )
    max_pixels = typer.Option(
        None, "--max-pixels", min=1, rich_help_panel=LIMITS, help="Refuse larger pictures. [default: 200 million]"
    )
    max_side = typer.Option(
        None, "--max-side", min=1, rich_help_panel=LIMITS, help="Refuse longer sides. [default: 131072]"
    )
    max_tile = typer.Option(
        None, "--max-tile", min=64, rich_help_panel=LIMITS, help="Refuse tiles of more than N*N pixels. [default: 2896]"
    )
    preserve = typer.Option(
        False, "--preserve", rich_help_panel=FILES, help="Give the result the time stamps and mode of the input."
    )
    weights = typer.Option(
        None, "--weights", rich_help_panel=SYSTEM, help="Weights file to use in place of the installed ones."
    )
    offline = typer.Option(
        False, "--offline", callback=network.forbid, rich_help_panel=SYSTEM, help="Download no weights."
    )
    device = typer.Option("auto", "--device", rich_help_panel=SYSTEM, help="auto, cpu, cuda or cuda:N.")
    precision = typer.Option(
        "float32",
        "--precision",
        rich_help_panel=SYSTEM,
        help="float32, or bf16 for the transforms alone: files stay compatible, 1.3 (DCAE) to 1.5 (TCM) times as "
        "fast in all, about 0.1 dB less at 36 dB. Refused on processors without avx512_bf16 or AMX: slower there.",
    )
    threads = typer.Option(
        0, "-j", "--threads", min=0, rich_help_panel=SYSTEM, help="CPU threads of each process; 0 shares the cores."
    )
    as_json = typer.Option(
        False, "--json", rich_help_panel=SYSTEM, help="Print one JSON object per input on standard output."
    )
    quiet = typer.Option(False, "--quiet", callback=network.quieten, rich_help_panel=SYSTEM, help="Print errors only.")
    verbose = typer.Option(
        0, "-v", "--verbose", count=True, rich_help_panel=SYSTEM, help="Say more; twice for tracebacks."
    )


def size_of(text: str, option: str) -> int:
    """`120k`, `1.5M` or `120000` -> bytes (k = 1000). Raises UsageError."""
    factors = {"k": 1000, "m": 1_000_000, "g": 1_000_000_000}
    lowered = text.strip().lower().removesuffix("b")
    factor = factors.get(lowered[-1:], 1)
    try:
        size = int(float(lowered.rstrip("kmg")) * factor)
    except (ValueError, OverflowError):
        raise UsageError(f"{option} {text!r} is not a size; write 120k, 1.5M or 120000") from None
    if size <= 0:
        raise UsageError(f"{option} {text!r} must be more than nothing")
    return size


def left_out(endings: Counter[str]) -> str:
    """What a folder has that is not coded, by ending, and which extra would read it; the most frequent first."""
    from licodec.inputs import extra_for

    def part(ending: str, count: int) -> str:
        extra = extra_for(ending)
        hint = f" (pip install 'licodec[{extra}]')" if extra else ""
        return f"{count} {ending or 'without an ending'}{hint}"

    parts = [part(*item) for item in sorted(endings.items(), key=lambda item: (-item[1], item[0] or "~"))]
    total = endings.total()
    return f"left out {total} file{'s' if total > 1 else ''}: {', '.join(parts)}"


def read_source(source: str) -> bytes:
    """All bytes of a file, a URL or of standard input. Raises InputError."""
    from licodec.batch.places import of

    return of(source).read()


def write_target(target: str, data: bytes, force: bool) -> None:
    """Write a result to its file or URL, or to standard output if that is no terminal."""
    from licodec.batch.places import of

    of(target).write(data, force)


class _Progress:
    """A bar on standard error: of files at once for several, of one file's tiles after two seconds."""

    def __init__(self, plan: Plan, label: str, enabled: bool) -> None:
        self.several, self.over = plan.several, False
        self.bar: Progress | None = None
        if not (enabled and sys.stderr.isatty()):
            return
        from concurrent.futures import ThreadPoolExecutor

        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn

        from licodec.cli.progress import LateProgress

        columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        if self.several:
            columns.append(TextColumn("{task.fields[sums]}"))
        self.bar = bar = LateProgress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
        self.task = bar.add_task(label, total=None, sums="")
        bar.start_in(0 if self.several else QUIET_SECONDS)
        if self.several:  # found a second time, as the jobs themselves are taken only when a worker is free
            ThreadPoolExecutor(1).submit(self._count, plan, bar)

    def _count(self, plan: Plan, bar: Progress) -> None:
        total = 0
        with suppress(LicodecError):  # told when the jobs are taken
            for _ in plan.counted():
                total += 1
                if self.over:
                    return
            bar.update(self.task, total=total)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True
        if self.bar:
            self.bar.stop()

    def files(self, totals: Totals) -> None:
        """What has been done of several files."""
        if self.bar and self.several:
            self.bar.update(self.task, completed=totals.files, sums=sums(totals))

    def tiles(self, done: int, total: int) -> None:
        """Tiles done of a file, and all it has; shown if it is the only one."""
        if self.bar and not self.several:
            self.bar.update(self.task, completed=done, total=total)


def sums(totals: Totals) -> str:
    """Megapixels, bytes in and out, and their ratio, as a person reads them."""
    from licodec.weights.network import human

    ratio = f", {totals.bytes_in / totals.bytes_out:.1f} : 1" if totals.bytes_in > totals.bytes_out > 0 else ""
    return f"{totals.megapixels:.1f} MP, {human(totals.bytes_in)} in, {human(totals.bytes_out)} out{ratio}"


@dataclass(frozen=True)
class Manner:
    """How many files are done and reported: the options that commands have in common."""

    jobs: int | None = None
    timeout: float | None = None
    max_memory: str | None = None
    report: str | None = None
    ray: str | None = None
    as_json: bool = False
    quiet: bool = False
    verbose: int = 0


def run(plan: Plan, task: Task, manner: Manner) -> None:
    """Do all jobs and report them; raises typer.Exit with the documented code if any failed.

    With `resume`, jobs whose results exist are left out, and so are those that
    another process with `resume` is at.
    """
    from licodec.batch.places import of
    from licodec.batch.record import Outcome, Report, Totals

    began = time.perf_counter()
    totals = Totals()
    failed: list[Outcome] = []
    report = Report(of(manner.report), task.resume, task.force) if manner.report else None
    known = report.done if report else frozenset()
    with _Progress(plan, task.label, not manner.quiet and not manner.as_json) as progress:

        def remaining() -> Iterator[Job]:
            for job in plan:
                if str(job.source) in known:
                    totals.add(Outcome(job))
                else:
                    yield job

        try:
            for outcome in outcomes(remaining(), task, manner, progress.tiles):
                totals.add(outcome)
                progress.files(totals)
                if report:
                    report.add(outcome)
                _tell(outcome, manner)
                if outcome.error:
                    failed = [*failed, outcome][:MOST_NAMED]
        finally:
            totals.seconds = time.perf_counter() - began
            if report:
                report.close(totals)
    _conclude(plan, totals, failed, manner)


def outcomes(jobs: Iterator[Job], task: Task, manner: Manner, tiles: Tiles) -> Generator[Outcome, None, None]:
    """By this process for few files, by several for many, by a cluster if asked for."""
    from licodec.batch import run as runs
    from licodec.batch.jobs import first_of

    memory = None if manner.max_memory is None else size_of(manner.max_memory, "--max-memory")
    caps = runs.Caps(manner.timeout, memory)
    head, jobs = first_of(jobs, FEW + 1)
    if not head:
        return
    streams = any(isinstance(place, Stream) for job in head for place in (job.source, job.target))
    if manner.ray is not None:
        if streams:
            raise UsageError("--ray needs files or URLs, not standard input or output")
        from licodec.batch import cluster

        yield from cluster.run(task, jobs, manner.ray, manner.jobs, caps)
        return
    count = manner.jobs
    if count is None:
        count = task.processes(head) if len(head) > FEW else 1
    count = max(1, min(count, len(head) if len(head) <= FEW else count))
    if streams and caps:
        raise UsageError("--timeout and --max-memory need files, not standard input or output")
    if (count == 1 and not caps) or streams:
        yield from runs.here(task, jobs, tiles)
        return
    if count > 1 and not task.threads:
        task = replace(task, threads=share_of(count))
    yield from runs.Pool(task, count, caps).run(jobs)


def share_of(count: int) -> int:
    """Threads for each of `count` processes."""
    return max(1, (os.cpu_count() or 1) // count)


def _tell(outcome: Outcome, manner: Manner) -> None:
    """One file's line."""
    job, facts = outcome.job, outcome.facts
    if outcome.error is not None:
        if manner.verbose >= 2:
            print(outcome.trace, file=sys.stderr, end="")
        print(f"licodec: {job.source}: {with_options(str(outcome.error))}", file=sys.stderr)
    if facts is not None:
        for warning in facts.warnings or ():
            print(f"licodec: {job.source}: warning: {warning}", file=sys.stderr)
    if manner.as_json:
        if facts is not None or outcome.error is not None:
            print(json.dumps(outcome.document()), flush=True)
    elif facts is not None and not manner.quiet and not isinstance(job.target, Stream):
        to = f" -> {job.target}" if job.target is not None else ""
        print(f"{job.source}{to}  {facts.line}  {outcome.seconds:.2f} s", file=sys.stderr)


def _conclude(plan: Plan, totals: Totals, failed: list[Outcome], manner: Manner) -> None:
    if not manner.quiet:
        if plan.left and plan.again is not None:
            print(f"licodec: {left_out(plan.left)}", file=sys.stderr)
        if totals.skipped:
            rest = "were done already, or are in another process's hands"
            print(f"licodec: {totals.skipped} of {totals.files} {rest}", file=sys.stderr)
        if failed and totals.files > 1:
            print(f"licodec: {totals.failed} of {totals.files} inputs failed:", file=sys.stderr)
            for outcome in failed:
                print(f"licodec:   {outcome.job.source}", file=sys.stderr)
            if totals.failed > len(failed):
                print(f"licodec:   and {totals.failed - len(failed)} more", file=sys.stderr)
    if failed:
        only = failed[0].error if totals.files == 1 else None
        raise typer.Exit(only.exit_code if only else 1)

"""What encode and decode share: inputs and outputs, progress, and the report at the end."""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from licodec.errors import InputError, LicodecError, OutOfMemoryError, UsageError

STREAM = Path("-")
QUIET_SECONDS = 2.0  # a single file shows progress after this time only


def complete_model(incomplete: str) -> list[str]:
    """Shell completion of model names."""
    from licodec.models import MODELS

    return [name for name in MODELS if name.startswith(incomplete)]


def traceback_wanted(arguments: list[str]) -> bool:
    """Whether -vv was given."""
    flags = [a for a in arguments if a.startswith("-") and not a.startswith("--") and set(a[1:]) == {"v"}]
    return sum(len(a) - 1 for a in flags) + arguments.count("--verbose") >= 2


class Options:
    """The options that encode and decode have in common."""

    out = typer.Option(None, "-o", "--output", help="Output file or folder; - for standard output.")
    weights = typer.Option(None, "--weights", help="Weights file to use in place of the installed ones.")
    device = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:N.")
    threads = typer.Option(0, "-j", "--threads", min=0, help="CPU threads; 0 for one a core.")
    force = typer.Option(False, "-f", "--force", help="Overwrite files that exist.")
    as_json = typer.Option(False, "--json", help="Print one JSON object an input on standard output.")
    quiet = typer.Option(False, "--quiet", help="Print errors only.")
    verbose = typer.Option(0, "-v", "--verbose", count=True, help="Say more; twice for tracebacks.")


@dataclass(frozen=True)
class Job:
    """One input and where its result goes; `STREAM` is standard input or output."""

    source: Path
    target: Path


def plan(inputs: list[Path], out: Path | None, suffixes: Iterable[str], rename: Callable[[Path], Path]) -> list[Job]:
    """Pair each input with its output.

    Folders are searched for files with one of `suffixes`; below an output
    folder they keep their places. `rename` gives the output's name; inputs that
    would share it keep their endings, see `_tell_apart`.

    Raises:
        UsageError: an output for several inputs is not a folder, or two inputs share an output.
    """
    from licodec.imaging import files_below

    sources: list[tuple[Path, Path]] = []  # the file, and its place below the output folder
    for path in inputs:
        if path != STREAM and path.is_dir():
            found = files_below(path, suffixes)
            if not found:
                raise UsageError(f"{path}: no files to work on ({', '.join(sorted(suffixes))})")
            sources += [(p, p.relative_to(path)) for p in found]
        else:
            sources.append((path, Path(path.name)))
    several = len(sources) > 1 or any(p != STREAM and p.is_dir() for p in inputs)
    if several and STREAM in inputs:
        raise UsageError("standard input can only be the one input")
    into = out is not None and out != STREAM and (several or out.is_dir() or str(out).endswith(("/", "\\")))
    if several and out == STREAM:
        raise UsageError("several inputs cannot go to standard output; name a folder with -o")
    if into and out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; for several inputs -o must name a folder")
    jobs = []
    for source, place in sources:
        if into:
            target = out / rename(place if source != STREAM else Path("stdin"))
        else:
            target = out or (STREAM if source == STREAM else rename(source))
        jobs.append(Job(source, target))
    return _tell_apart(jobs)


def _tell_apart(jobs: list[Job]) -> list[Job]:
    """Inputs that would share an output, a.png and a.jpg, keep their endings: a.png.lic, a.jpg.lic."""
    shared = {target for target, count in Counter(job.target for job in jobs).items() if count > 1}
    jobs = [
        Job(job.source, job.target.with_name(job.source.name + job.target.suffix)) if job.target in shared else job
        for job in jobs
    ]
    seen: dict[Path, Path] = {}
    for job in jobs:
        if job.target in seen:
            raise UsageError(f"{seen[job.target]} and {job.source} would both be written to {job.target}")
        seen[job.target] = job.source
    return jobs


def read_source(source: Path) -> bytes:
    """All bytes of a file or of standard input. Raises InputError."""
    try:
        return sys.stdin.buffer.read() if source == STREAM else source.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from None


def write_target(target: Path, data: bytes, force: bool) -> None:
    """Write a result to its file, or to standard output if that is no terminal."""
    from licodec.imaging import write_file

    if target != STREAM:
        write_file(target, data, force)
        return
    if sys.stdout.isatty():
        raise UsageError("will not write a picture to the terminal; redirect it or name a file with -o")
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def refuse_existing(job: Job, force: bool) -> None:
    """Find out before the work is done that its result could not be written. Raises InputError."""
    if job.target != STREAM and job.target.exists() and not force:
        raise InputError(f"{job.target} exists; -f overwrites it")


@contextmanager
def _progress(count: int, label: str, enabled: bool) -> Iterator[Callable[[], None]]:
    """A bar on standard error, at once for several files, else after two seconds."""
    if not (enabled and sys.stderr.isatty()):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    task = bar.add_task(label, total=count)
    delay = threading.Timer(0 if count > 1 else QUIET_SECONDS, bar.start)
    delay.daemon = True
    delay.start()
    try:
        yield lambda: bar.advance(task)
    finally:
        delay.cancel()
        delay.join()
        bar.stop()


def run(
    jobs: list[Job],
    work: Callable[[Job], dict[str, object]],
    label: str,
    *,
    as_json: bool,
    quiet: bool,
    verbose: int,
) -> None:
    """Do all jobs and report them; raises typer.Exit with the documented code if any failed.

    `work` does one job and returns the facts that --json prints; the key
    "line" is what is printed otherwise, "warnings" a list of lines.
    """
    codes = []
    with _progress(len(jobs), label, not quiet and not as_json) as advance:
        for job in jobs:
            began = time.perf_counter()
            try:
                facts = work(job)
            except Exception as error:  # one bad input does not stop the others
                problem = as_ours(error)
                codes.append(problem.exit_code)
                _report_failure(job, problem, as_json, verbose)
            else:
                seconds = time.perf_counter() - began
                _report_success(job, facts, seconds, as_json, quiet or job.target == STREAM)
            advance()
    if codes:
        if len(jobs) > 1 and not quiet:
            print(f"licodec: {len(codes)} of {len(jobs)} inputs failed", file=sys.stderr)
        raise typer.Exit(codes[0] if len(jobs) == 1 else 1)


def as_ours(error: Exception) -> LicodecError:
    """Any exception as one with an exit code and a line; an unforeseen one is called a bug."""
    if isinstance(error, LicodecError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemoryError("memory does not suffice")
    ours = LicodecError(f"a bug in licodec: {type(error).__name__}: {error}; run again with -vv and report it")
    ours.__cause__ = error
    return ours


def _report_failure(job: Job, problem: LicodecError, as_json: bool, verbose: int) -> None:
    if verbose >= 2:
        traceback.print_exception(problem)
    message = " ".join(str(problem).split())
    print(f"licodec: {job.source}: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"path": str(job.source), "error": message, "exit_code": problem.exit_code}), flush=True)


def _report_success(job: Job, facts: dict[str, object], seconds: float, as_json: bool, quiet: bool) -> None:
    line = facts.pop("line")
    for warning in facts.get("warnings", ()):
        print(f"licodec: {job.source}: warning: {warning}", file=sys.stderr)
    if as_json:
        facts = {"path": str(job.source), "output": str(job.target)} | facts | {"seconds": round(seconds, 4)}
        print(json.dumps(facts), flush=True)
    elif not quiet:
        print(f"{job.source} -> {job.target}  {line}  {seconds:.2f} s", file=sys.stderr)


def use_threads(count: int) -> None:
    """Limit torch to `count` threads; 0 leaves it as it is."""
    if count:
        import torch

        torch.set_num_threads(count)

"""What encode and decode share: inputs and outputs, progress, and the report at the end."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import typer

from licodec.errors import InputError, LicodecError, OutOfMemoryError, UsageError
from licodec.weights import network

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
    max_pixels = typer.Option(None, "--max-pixels", min=1, help="Refuse larger pictures. [default: 200 million]")
    max_side = typer.Option(None, "--max-side", min=1, help="Refuse longer sides. [default: 131072]")
    max_tile = typer.Option(None, "--max-tile", min=64, help="Refuse tiles of more than N*N pixels. [default: 2896]")
    resume = typer.Option(False, "--resume", help="Leave out what is done; several processes can share the work.")
    force = typer.Option(False, "-f", "--force", help="Overwrite files that exist.")
    as_json = typer.Option(False, "--json", help="Print one JSON object an input on standard output.")
    quiet = typer.Option(False, "--quiet", help="Print errors only.", callback=network.quieten)
    offline = typer.Option(False, "--offline", help="Download no weights.", callback=network.forbid)
    verbose = typer.Option(0, "-v", "--verbose", count=True, help="Say more; twice for tracebacks.")


@dataclass(frozen=True)
class Job:
    """One input and where its result goes; `STREAM` is standard input or output."""

    source: Path
    target: Path


def plan(
    inputs: list[Path],
    out: Path | None,
    suffixes: Iterable[str],
    rename: Callable[[Path], Path],
    left: Counter[str] | None = None,
) -> list[Job]:
    """Pair each input with its output.

    Folders are searched for files with one of `suffixes`; below an output
    folder they keep their places. `rename` gives the output's name; inputs that
    would share it keep their endings, see `_tell_apart`. `left` counts the
    endings of what a folder has besides.

    Raises:
        UsageError: an output for several inputs is not a folder, two inputs share an output, or one is its own.
    """

    sources: list[tuple[Path, Path]] = []  # the file, and its place below the output folder
    for path in inputs:
        if path != STREAM and path.is_dir():
            found = _pictures_below(path, suffixes, left)
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


def _pictures_below(folder: Path, suffixes: Iterable[str], left: Counter[str] | None) -> list[Path]:
    """The files of a folder that end in one of `suffixes`; where there are none, and `left` is given, its .lic."""
    from licodec.files import files_below

    if left is None:
        return files_below(folder, suffixes)
    every = [p for p in files_below(folder) if not p.name.startswith(".")]
    found = [p for p in every if p.suffix.lower() in suffixes] or [p for p in every if p.suffix.lower() == ".lic"]
    left.update(p.suffix.lower() for p in set(every) - set(found))
    return found


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


def _tell_apart(jobs: list[Job]) -> list[Job]:
    """Inputs that would share an output, a.png and a.jpg, keep their endings: a.png.lic, a.jpg.lic."""
    shared = {target for target, count in Counter(job.target for job in jobs).items() if count > 1}
    jobs = [
        Job(job.source, job.target.with_name(job.source.name + job.target.suffix)) if job.target in shared else job
        for job in jobs
    ]
    seen: dict[Path, Path] = {}
    for job in jobs:
        if job.source == job.target != STREAM:
            raise UsageError(f"{job.source} would be written over itself; name another place with -o")
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


@contextmanager
def opened_target(target: Path, force: bool) -> Iterator[BinaryIO]:
    """A file to write a result with; it takes its place, or goes to standard output, when all of it is there."""
    from licodec.files import replacing

    if target != STREAM:
        with replacing(target, force) as file:
            yield file
        return
    if sys.stdout.isatty():
        raise UsageError("will not write a picture to the terminal; redirect it or name a file with -o")
    whole = io.BytesIO()
    yield whole
    sys.stdout.buffer.write(whole.getbuffer())
    sys.stdout.buffer.flush()


def write_target(target: Path, data: bytes, force: bool) -> None:
    """Write a result to its file, or to standard output if that is no terminal."""
    with opened_target(target, force) as file:
        file.write(data)


def refuse_existing(job: Job, force: bool) -> None:
    """Find out before the work is done that its result could not be written. Raises InputError."""
    if job.target != STREAM and job.target.exists() and not force:
        raise InputError(f"{job.target} exists; -f overwrites it")


class _Progress:
    """A bar on standard error: of files at once for several, of one file's tiles after two seconds."""

    def __init__(self, files: int, label: str, enabled: bool) -> None:
        self.files, self.bar = files, None
        if not (enabled and sys.stderr.isatty()):
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self.bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
        self.task = self.bar.add_task(label, total=files)
        self.delay = threading.Timer(0 if files > 1 else QUIET_SECONDS, self.bar.start)
        self.delay.daemon = True
        self.delay.start()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.delay.cancel()
            self.delay.join()
            self.bar.stop()

    def file_done(self) -> None:
        if self.bar and self.files > 1:
            self.bar.advance(self.task)

    def tiles(self, done: int, total: int) -> None:
        """Tiles done of a file, and all it has; shown if it is the only one."""
        if self.bar and self.files == 1:
            self.bar.update(self.task, completed=done, total=total)


Tiles = Callable[[int, int], None]


def run(
    jobs: list[Job],
    work: Callable[[Job, Tiles], dict[str, object]],
    label: str,
    *,
    as_json: bool,
    quiet: bool,
    verbose: int,
    resume: bool = False,
) -> None:
    """Do all jobs and report them; raises typer.Exit with the documented code if any failed.

    `work` does one job, tells how many tiles it has done, and returns the facts
    that --json prints; the key "line" is what is printed otherwise, "warnings" a
    list of lines. With `resume`, jobs whose results exist are left out, and so
    are those that another process with `resume` is at.
    """
    failed: list[tuple[Job, int]] = []
    skipped = 0
    with _Progress(len(jobs), label, not quiet and not as_json) as progress:
        for job in jobs:
            began = time.perf_counter()
            try:
                with _claim(job.target) if resume else nullcontext(True) as mine:
                    facts = work(job, progress.tiles) if mine else None
            except Exception as error:  # one bad input does not stop the others
                problem = as_ours(error)
                failed.append((job, problem.exit_code))
                _report_failure(job, problem, as_json, verbose)
            else:
                seconds = time.perf_counter() - began
                if facts is None:
                    skipped += 1
                else:
                    _report_success(job, facts, seconds, as_json, quiet or job.target == STREAM)
            progress.file_done()
    if skipped and not quiet:
        print(
            f"licodec: {skipped} of {len(jobs)} were done already, or are in another process's hands", file=sys.stderr
        )
    if failed:
        if len(jobs) > 1 and not quiet:
            print(f"licodec: {len(failed)} of {len(jobs)} inputs failed:", file=sys.stderr)
            for job, _ in failed:
                print(f"licodec:   {job.source}", file=sys.stderr)
        raise typer.Exit(failed[0][1] if len(jobs) == 1 else 1)


@contextmanager
def _claim(target: Path) -> Iterator[bool]:
    """Whether a result is still to be made, and by this process alone. A killed process's claim ends with it."""
    from filelock import FileLock, Timeout

    if target.exists():
        yield False
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f".{target.name}.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield not target.exists()
    finally:
        path.unlink(missing_ok=True)  # before the release: who waits for it then finds the result
        lock.release()


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

"""`licodec bench`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from licodec.cli.common import MANY, Manner, Options, outcomes, share_of
from licodec.errors import UsageError, with_options

if TYPE_CHECKING:
    from rich.console import Console

    from licodec.batch.jobs import Job
    from licodec.batch.place import Place
    from licodec.batch.record import Outcome
    from licodec.batch.run import Doing
    from licodec.bench.bd import Over
    from licodec.bench.codecs import Measured
    from licodec.bench.folder import Kept
    from licodec.bench.points import Point
    from licodec.bench.report import Report
    from licodec.bench.run import Result


def bench(
    inputs: Annotated[list[str], typer.Argument(help="A folder of pictures; or pictures, folders, URLs.")],
    models: str = typer.Option("lite", "-m", "--models", help="Models, separated by commas."),
    qualities: str = typer.Option("1-10", "-q", "--qualities", help="Qualities of the models: 1-8 or 2,4.5,8."),
    effort: str = typer.Option("1", "--effort", help="Efforts of lite's encoder, 1 to 9, a curve for each: 1,7."),
    against: list[str] = typer.Option(
        [],
        "--against",
        help="Rivals: jpeg,webp,avif,jxl,jpeg2000, also tuned, or a command (see above). May be repeated.",
    ),
    anchor: list[str] = typer.Option(
        [], "--anchor", help="Curves that BD-rates are against. May be repeated. [default: all rivals, else the first]"
    ),
    over: str | None = typer.Option(
        None, "--over", help="BD-rates only over the qualities of a rival's measured settings: avif@30-85."
    ),
    metrics: str | None = typer.Option(
        None, "--metrics", help="psnr,ms-ssim,ssimulacra2,lpips. [default: all that are installed, without lpips]"
    ),
    out: str = typer.Option("report", "-o", "--output", help="Folder of the report, or URL of one."),
    repeat: int = typer.Option(1, "--repeat", min=1, help="Repetitions; times are medians."),
    jobs: int | None = typer.Option(
        None,
        "--jobs",
        min=1,
        rich_help_panel=MANY,
        help="Processes that measure side by side, see above. [default: 1; with --ray, what the cluster has room for]",
    ),
    ray: str | None = Options.ray,
    crops: int = typer.Option(8, "--crops", min=0, help="Pictures to show side by side, the worst and the best."),
    device: str = Options.device,
    precision: str = Options.precision,
    threads: int = Options.threads,
    offline: bool = Options.offline,
    quiet: bool = Options.quiet,
) -> None:
    """Compare codecs on your own pictures.

    Every number is of a real file that was decoded again. The report folder gets
    index.html, table.md, results.json, results.csv, bd-rates.csv and rate-distortion
    plots.
    A killed run goes on where it was; only what changed is measured again.

    One measurement is made at a time. With --jobs and --ray bits and qualities are
    the same and come sooner, but each slows the others: the report then says that
    its seconds are too long, and how many were measured side by side.

    Example:  licodec bench kodak/ --against jpeg,webp,avif -o report/

    A rival is tuned after a colon: avif:tune=psnr,subsampling=4:4:4 or jxl:effort=9.
    Of one format several tunings may be named, each is a curve.

    A command is a rival as NAME@SETTINGS: ENCODER => DECODER, for instance
    --against 'jxl1@1,2,4: cjxl {in} {out.jxl} -d {q} -e 1 => djxl {in} {out}'.
    {in.ppm} and {out.ppm} say which format a command takes or gives, PNG else;
    without => Pillow reads the coded file.
    """
    try:
        import bjontegaard  # noqa: F401
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(f"the benchmark needs more packages ({error.name}): pip install 'licodec[bench]'") from None
    from licodec import runtime
    from licodec.batch.places import of
    from licodec.bench import bd, folder, pictures, report, rivals, run, tasks
    from licodec.bench.metrics import METRICS, available, choose
    from licodec.cli import process
    from licodec.inputs import suffixes

    jobs = jobs if ray is not None else jobs or 1
    if not threads and jobs != 1:
        threads = 1 if jobs is None or ray is not None else share_of(jobs)
    runtime.use_threads(threads or os.cpu_count() or 1)  # also for little pictures: what is reported is what is used
    chosen = choose(",".join(m for m in METRICS if m != "lpips" and available(m)) if metrics is None else metrics)
    steps = parse_numbers(qualities, "--qualities"), parse_numbers(effort, "--effort")
    wanted = tasks.Wanted(
        tuple(_names(models)), tuple(steps[0]), tuple(steps[1]), tuple(against), device, precision, threads
    )
    own, others = wanted.codecs()
    measured = [*own, *others]
    limits = None if over is None else bd.Over.parse(over)
    anchors = choose_anchors([name for text in anchor for name in rivals.split(text)], own, measured)
    check_curves(measured, limits)
    places = pictures.gather(inputs, suffixes())
    task = tasks.Measure(
        device=device,
        threads=threads,
        precision=precision,
        wanted=wanted,
        repeat=repeat,
        metrics=tuple(chosen),
        return_memory=process.return_memory,
    )
    manner = Manner(jobs, ray=ray)
    failing: set[str] = set()

    def complain(name: str, reason: str) -> None:
        failing.add(name)
        print(f"licodec: {places[name]}: {with_options(reason)}", file=sys.stderr)

    def do(jobs: Iterator[Job]) -> Generator[Outcome, None, None]:
        return outcomes(jobs, task, manner, lambda done, total: None)

    with folder.opened(of(out)) as kept:
        with _progress(len(places) * len(measured), quiet) as advance:
            results = run.run(places, measured, kept, chosen, do, advance, complain)
        results = [r for r in results if r.image not in failing]  # averages must be over the same pictures
        if not results:
            raise UsageError("none of the pictures could be measured")
        found = report.Report(results, list(dict.fromkeys(m.name for m in own)), anchors, limits)
        _write(found, kept, (measured[0].name, anchors[0] if anchors else ""), places, crops, do, quiet)
    if not quiet:
        _show(found)
        print(f"report: {of(out).child('index.html')}", file=sys.stderr)
    if failing:
        raise typer.Exit(1)


def _write(
    found: Report, kept: Kept, pair: tuple[str, str], places: dict[str, Place], crops: int, do: Doing, quiet: bool
) -> None:
    """The report's files; `pair` is the codec and the anchor whose worst and best pictures are shown."""
    from licodec.bench import page, report, tasks

    found.write(kept.path)
    plots = report.plot(found.results, kept.path)
    with _note("comparing side by side", quiet) as note:
        compared = tasks.compare(places, found.results, *pair, crops, do, note)
    page.write(kept.path / "index.html", found, plots, compared)
    kept.publish()


def choose_anchors(asked: list[str], own: Sequence[Measured], measured: Sequence[Measured]) -> list[str]:
    """Names of the curves to compare with. Raises UsageError."""
    names = list(dict.fromkeys(m.name for m in measured))
    for name in asked:
        if name not in names:
            raise UsageError(f"--anchor {name!r} is not measured; there are {' '.join(names)}")
    others = [name for name in names if name not in {m.name for m in own}]
    return list(dict.fromkeys(asked)) or others or (names[:1] if len(names) > 1 else [])


def check_curves(measured: Sequence[Measured], over: Over | None) -> None:
    """Raises UsageError for two curves of one name, and for an --over without a point."""
    seen = set()
    for codec in measured:
        if (codec.name, codec.setting) in seen:
            raise UsageError(f"{codec.name} at {codec.setting:g} is named twice")
        seen.add((codec.name, codec.setting))
    if over is not None and sum(over.has(*point) for point in seen) < 2:
        raise UsageError(f"--over {over}: fewer than two of these settings are measured")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_numbers(text: str, option: str) -> list[float]:
    """`1-8` or `2,4.5,8` -> numbers. Raises UsageError that names the option."""
    out: list[float] = []
    try:
        for part in _names(text):
            low, dash, high = part.partition("-")
            out += range(int(low), int(high) + 1) if dash else [float(part)]
    except ValueError:
        raise UsageError(f"{option} {text!r}: write 1-8 or 2,4.5,8") from None
    if not out:
        raise UsageError(f"{option} names none")
    return out


class _progress:
    """A bar on a terminal; nothing elsewhere."""

    def __init__(self, total: int, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self.bar = Progress(console=Console(stderr=True), transient=True, disable=quiet or not sys.stderr.isatty())
        self.task = self.bar.add_task("measuring", total=total)

    def __enter__(self) -> Callable[[Result], None]:
        self.bar.start()
        return lambda result: self.bar.update(
            self.task, advance=1, description=f"{result.codec} {result.setting:g} {result.image}"
        )

    def __exit__(self, *_: object) -> None:
        self.bar.stop()


@contextmanager
def _note(label: str, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A spinner on a terminal; nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status(label) as status:
        yield lambda text: status.update(f"{label}: {text}")


def _show(found: Report) -> None:
    from rich.console import Console

    from licodec.bench import table

    def text(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    columns: dict[str, Callable[[Point], str]] = {
        "codec": lambda p: p.codec,
        "setting": lambda p: f"{p.setting:g}",
        "bpp": lambda p: f"{p.bpp:.4f}",
        "PSNR": lambda p: f"{p.psnr:.2f}",
        "MS-SSIM": lambda p: text(p.ms_ssim, ".4f"),
        "SSIMULACRA2": lambda p: text(p.ssimulacra2, ".1f"),
        "LPIPS": lambda p: text(p.lpips, ".4f"),
        "encode s": lambda p: f"{p.encode_seconds:.3f}",
        "decode s": lambda p: f"{p.decode_seconds:.3f}",
        "peak MB": lambda p: text(max(p.encode_memory or 0, p.decode_memory or 0) / 1e6 or None, ".0f"),
    }
    rows = [[value(p) for value in columns.values()] for p in found.averages]
    console = Console(width=None if sys.stdout.isatty() else 160)
    kept = [i for i in range(len(columns)) if any(row[i] != "-" for row in rows)]
    _print(console, [list(columns)[i] for i in kept], [[row[i] for i in kept] for row in rows])
    for made in found.tables:
        console.print()
        _print(console, table.head(made), [table.cells(made, row) for row in made.rows])
    if below := found.about if found.tables else found.beside.strip():
        console.print(below)


def _print(console: Console, names: list[str], rows: list[list[str]]) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for i, name in enumerate(names):
        table.add_column(name, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)

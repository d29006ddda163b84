"""`licodec bench`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from licodec.cli.common import Options
from licodec.errors import UsageError


def bench(
    folder: Annotated[Path, typer.Argument(help="Folder of pictures.", exists=True, file_okay=False)],
    models: str = typer.Option("lite", "-m", "--models", help="Models, separated by commas."),
    qualities: str = typer.Option("1-8", "-q", "--qualities", help="Qualities of the models: 1-8 or 2,4.5,8."),
    against: list[str] = typer.Option(
        [], "--against", help="Rivals: jpeg,webp,avif,jxl,jpeg2000, or a command (see below). May be repeated."
    ),
    anchor: str = typer.Option("jpeg", "--anchor", help="What the BD-rates are against."),
    metrics: str | None = typer.Option(
        None, "--metrics", help="psnr,ms-ssim,ssimulacra2,lpips. [default: all that are installed, without lpips]"
    ),
    out: Path = typer.Option(Path("report"), "-o", "--output", help="Folder of the report."),
    repeat: int = typer.Option(1, "--repeat", min=1, help="Repetitions; times are medians."),
    crops: int = typer.Option(8, "--crops", min=0, help="Pictures to show side by side, the worst and the best."),
    device: str = Options.device,
    precision: str = Options.precision,
    threads: int = Options.threads,
    offline: bool = Options.offline,
    quiet: bool = Options.quiet,
) -> None:
    """Compare codecs on your own pictures.

    Every number is of a real file that was decoded again. The report folder gets
    index.html, results.json, results.csv and rate-distortion plots.
    A killed run goes on where it was; only what changed is measured again.

    Example:  licodec bench kodak/ --against jpeg,webp,avif -o report/

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
    from licodec.bench import codecs, page, report, run
    from licodec.bench.metrics import METRICS, available, choose
    from licodec.files import files_below
    from licodec.inputs import suffixes
    from licodec.runtime.torch import pick_device

    runtime.use_threads(threads)
    wanted = choose(",".join(m for m in METRICS if m != "lpips" and available(m)) if metrics is None else metrics)
    pictures = run.Pictures(files_below(folder, suffixes()), folder)
    if not pictures.paths:
        raise UsageError(f"{folder}: no pictures found")
    measured = [*codecs.models(_names(models), parse_qualities(qualities), device, precision), *codecs.rivals(against)]
    failed: list[Path] = []

    def complain(path: Path, reason: str) -> None:
        failed.append(path)
        print(f"licodec: {path}: {reason}", file=sys.stderr)

    cuda = pick_device(device).type == "cuda"
    with _progress(len(pictures.paths) * len(measured), quiet) as advance:
        results = list(run.run(pictures, measured, out, repeat, wanted, advance, complain, cuda))
    failing = {pictures.name(path) for path in failed}
    results = [r for r in results if r.image not in failing]  # averages must be over the same pictures
    if not results:
        raise UsageError(f"{folder}: none of the pictures could be measured")
    facts = report.document(results, anchor)
    report.write(facts, out)
    plots = report.plot(results, out)
    with _note("comparing side by side", quiet) as note:
        compared = list(page.compare(pictures, measured, results, measured[0].name, anchor, crops, note))
    page.write(out / "index.html", facts, plots, compared)
    if not quiet:
        _show(report.averages(results), report.differences(results, anchor))
        print(f"report: {out / 'index.html'}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_qualities(text: str) -> list[float]:
    """`1-8` or `2,4.5,8` -> numbers. Raises UsageError."""
    out: list[float] = []
    try:
        for part in _names(text):
            low, dash, high = part.partition("-")
            out += range(int(low), int(high) + 1) if dash else [float(part)]
    except ValueError:
        raise UsageError(f"--qualities {text!r}: write 1-8 or 2,4.5,8") from None
    if not out:
        raise UsageError("--qualities names none")
    return out


class _progress:
    """A bar on a terminal; nothing elsewhere."""

    def __init__(self, total: int, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self.bar = Progress(console=Console(stderr=True), transient=True, disable=quiet or not sys.stderr.isatty())
        self.task = self.bar.add_task("measuring", total=total)

    def __enter__(self):
        self.bar.start()
        return lambda result: self.bar.update(
            self.task, advance=1, description=f"{result.codec} {result.setting:g} {result.image}"
        )

    def __exit__(self, *_) -> None:
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


def _show(points: list, differences: list) -> None:
    from rich.console import Console

    def text(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    columns = {
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
    rows = [[value(p) for value in columns.values()] for p in points]
    console = Console(width=None if sys.stdout.isatty() else 160)
    kept = [i for i in range(len(columns)) if any(row[i] != "-" for row in rows)]
    _print(console, [list(columns)[i] for i in kept], [[row[i] for i in kept] for row in rows])
    if differences:
        names = ["codec", "BD-rate", "of pictures", "BD-PSNR", "BD-rate MS-SSIM", "SSIMULACRA2"]
        rows = [
            [d.codec, *(text(v, "+.2f") for v in (d.bd_rate, d.bd_rate_per_image)), text(d.bd_psnr, "+.2f"),
             *(text(v, "+.2f") for v in (d.bd_rate_ms_ssim, d.bd_rate_ssimulacra2))]
            for d in differences
        ]  # fmt: skip
        title = f"against {differences[0].anchor}: rates in %, PSNR in dB"
        _print(console, names, rows, title)


def _print(console, names: list[str], rows: list[list[str]], title: str | None = None) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", title=title, title_justify="left")
    for name in names:
        table.add_column(name, justify="left" if name == "codec" else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)

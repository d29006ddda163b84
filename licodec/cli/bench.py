"""`licodec bench`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from licodec.cli.common import Options, use_threads
from licodec.errors import UsageError


def bench(
    folder: Annotated[Path, typer.Argument(help="Folder of pictures.", exists=True, file_okay=False)],
    models: str = typer.Option("lite", "-m", "--models", help="Models, separated by commas."),
    qualities: str = typer.Option("1-8", "-q", "--qualities", help="Qualities of the models: 1-8 or 2,4.5,8."),
    against: str = typer.Option("", "--against", help="Rivals, separated by commas: jpeg, webp, avif, jpeg2000."),
    anchor: str = typer.Option("jpeg", "--anchor", help="What the BD-rates are against."),
    out: Path = typer.Option(Path("report"), "-o", "--output", help="Folder of the report."),
    repeat: int = typer.Option(1, "--repeat", min=1, help="Repetitions; times are medians."),
    device: str = Options.device,
    threads: int = Options.threads,
    quiet: bool = Options.quiet,
) -> None:
    """Compare codecs on your own pictures.

    Every number is of a real file that was decoded again. The report folder gets
    results.json, results.csv and rate-distortion plots.
    A killed run goes on where it was; only what changed is measured again.
    Example:  licodec bench kodak/ --against jpeg,webp,avif -o report/
    """
    try:
        import bjontegaard  # noqa: F401
        import matplotlib  # noqa: F401
        import pytorch_msssim  # noqa: F401
    except ImportError as error:
        raise UsageError(f"the benchmark needs more packages ({error.name}): pip install 'licodec[bench]'") from None
    from licodec.bench import codecs, report, run
    from licodec.imaging import SUFFIXES, files_below

    use_threads(threads)
    pictures = files_below(folder, SUFFIXES)
    if not pictures:
        raise UsageError(f"{folder}: no pictures found")
    measured = [
        *codecs.models(_names(models), parse_qualities(qualities), device),
        *codecs.rivals(_names(against)),
    ]
    failed: list[Path] = []

    def complain(path: Path, reason: str) -> None:
        failed.append(path)
        print(f"licodec: {path}: {reason}", file=sys.stderr)

    with _progress(len(pictures) * len(measured), quiet) as advance:
        results = list(run.run(pictures, measured, out, repeat, advance, complain))
    if not results:
        raise UsageError(f"{folder}: none of the pictures could be measured")
    report.write(results, anchor, out)
    report.plot(results, out)
    if not quiet:
        _show(report.averages(results), report.differences(results, anchor))
        print(f"report: {out}", file=sys.stderr)
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


def _show(points: list, differences: list) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for name in ("codec", "setting", "bpp", "PSNR", "MS-SSIM", "encode s", "decode s"):
        table.add_column(name, justify="left" if name == "codec" else "right")
    for p in points:
        similar = "" if p.ms_ssim is None else f"{p.ms_ssim:.4f}"
        numbers = (f"{p.setting:g}", f"{p.bpp:.4f}", f"{p.psnr:.2f}", similar)
        table.add_row(p.codec, *numbers, f"{p.encode_seconds:.3f}", f"{p.decode_seconds:.3f}")
    console = Console()
    console.print(table)
    if differences:
        table = Table(box=None, header_style="bold", title=f"against {differences[0].anchor}")
        for name in ("codec", "BD-rate", "BD-rate, mean of pictures", "BD-PSNR"):
            table.add_column(name, justify="left" if name == "codec" else "right")
        for d in differences:
            rates = ("-" if v is None else f"{v:+.2f} %" for v in (d.bd_rate, d.bd_rate_per_image))
            table.add_row(d.codec, *rates, "-" if d.bd_psnr is None else f"{d.bd_psnr:+.2f} dB")
        console.print(table)

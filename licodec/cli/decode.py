"""`licodec decode`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from licodec.cli.common import Manner, Options, run
from licodec.errors import UsageError


def decode(
    inputs: Annotated[list[str], typer.Argument(help=".lic files, folders of them, URLs, or - for standard input.")],
    out: str | None = Options.out,
    crop: str | None = typer.Option(None, "--crop", help="Decode a part only: X,Y,WIDTH,HEIGHT in pixels."),
    force: bool = Options.force,
    preserve: bool = Options.preserve,
    resume: bool = Options.resume,
    jobs: int | None = Options.jobs,
    report: str | None = Options.report,
    ray: str | None = Options.ray,
    timeout: float | None = Options.timeout,
    max_memory: str | None = Options.max_memory,
    max_pixels: int | None = Options.max_pixels,
    max_side: int | None = Options.max_side,
    max_tile: int | None = Options.max_tile,
    weights: Path | None = Options.weights,
    offline: bool = Options.offline,
    device: str = Options.device,
    precision: str = Options.precision,
    threads: int = Options.threads,
    as_json: bool = Options.as_json,
    quiet: bool = Options.quiet,
    verbose: int = Options.verbose,
) -> None:
    """Restore pictures from .lic files.

    They are written as PNG beside the files unless -o says otherwise. The ending
    of the output's name chooses the format: .png, .jpg, .webp, .tif, .ppm ...
    Pictures of 16 bits per sample stay so as PNG and PPM.

    Examples:  licodec decode photo.lic;  licodec decode photo.lic -o photo.tif;
    licodec decode out/ -o restored/;  licodec decode - < a.lic > a.png
    """
    from licodec.batch import tasks
    from licodec.batch.jobs import plan

    todo = plan(inputs, out, {".lic"}, ".png")
    if as_json and todo.streams():
        raise UsageError("--json and the picture itself cannot both go to standard output; name a file with -o")
    area = parse_crop(crop) if crop is not None else None
    limits = tasks.Limits(max_pixels, max_side, max_tile)
    task = tasks.Decode(weights, device, threads, limits, force, resume, precision, area, preserve)
    run(todo, task, Manner(jobs, timeout, max_memory, report, ray, as_json, quiet, verbose))


def parse_crop(text: str) -> tuple[int, int, int, int]:
    """`X,Y,WIDTH,HEIGHT` -> numbers. Raises UsageError."""
    try:
        left, top, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--crop {text!r}: write X,Y,WIDTH,HEIGHT, for instance 0,0,640,480") from None
    return left, top, width, height

"""`licodec decode`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from licodec.cli.common import (
    Job,
    Options,
    Tiles,
    opened_target,
    plan,
    read_source,
    refuse_existing,
    run,
)
from licodec.errors import UsageError


def decode(
    inputs: Annotated[list[Path], typer.Argument(help=".lic files, folders of them, or - for standard input.")],
    out: Path | None = Options.out,
    weights: Path | None = Options.weights,
    offline: bool = Options.offline,
    device: str = Options.device,
    threads: int = Options.threads,
    crop: str | None = typer.Option(None, "--crop", help="Decode a part only: X,Y,WIDTH,HEIGHT in pixels."),
    resume: bool = Options.resume,
    max_pixels: int | None = Options.max_pixels,
    max_side: int | None = Options.max_side,
    max_tile: int | None = Options.max_tile,
    force: bool = Options.force,
    as_json: bool = Options.as_json,
    quiet: bool = Options.quiet,
    verbose: int = Options.verbose,
) -> None:
    """Restore pictures from .lic files.

    They are written as PNG beside the files unless -o says otherwise. The ending
    of the output's name chooses the format: .png, .jpg, .webp, .tif, .ppm ...
    Pictures of 16 bits a sample stay so as PNG and PPM.
    Examples:  licodec decode photo.lic;  licodec decode photo.lic -o photo.tif;
    licodec decode out/ -o restored/;  licodec decode - < a.lic > a.png
    """
    from licodec import container, imaging, output, runtime

    jobs = plan(inputs, out, {".lic"}, lambda p: p.with_suffix(".png"))
    if as_json and any(str(j.target) == "-" for j in jobs):
        raise UsageError("--json and the picture itself cannot both go to standard output; name a file with -o")
    area = parse_crop(crop) if crop is not None else None
    runtime.use_threads(threads)

    def work(job: Job, tiles: Tiles) -> dict[str, object]:
        refuse_existing(job, force)
        format_name = "PNG" if str(job.target) == "-" else output.format_of(job.target)
        data = read_source(job.source)
        parsed = container.read(data)
        header = parsed.header
        imaging.check_pixels(
            header.width, header.height, max_pixels or imaging.MAX_PIXELS, max_side or imaging.MAX_SIDE
        )
        from licodec import codec

        chosen = codec.for_header(header, weights, device)
        decoding = chosen.open(parsed, area, tiles, max_tile or codec.MAX_TILE)
        with opened_target(job.target, force) as file:
            warnings = output.write(decoding, format_name, file)
            written = file.tell()
        width, height = decoding.size
        return {
            "width": width,
            "height": height,
            "model": header.model,
            "quality": header.quality,
            "bytes": len(data),
            "output_bytes": written,
            "warnings": warnings,
            "line": f"{width}x{height}  {written} bytes",
        }

    run(jobs, work, "decoding", as_json=as_json, quiet=quiet, verbose=verbose, resume=resume)


def parse_crop(text: str) -> tuple[int, int, int, int]:
    """`X,Y,WIDTH,HEIGHT` -> numbers. Raises UsageError."""
    try:
        left, top, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--crop {text!r}: write X,Y,WIDTH,HEIGHT, for instance 0,0,640,480") from None
    return left, top, width, height

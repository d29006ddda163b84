"""`licodec decode`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from licodec.cli.common import Job, Options, plan, read_source, refuse_existing, run, use_threads
from licodec.cli.common import write_target as write
from licodec.errors import UsageError


def decode(
    inputs: Annotated[list[Path], typer.Argument(help=".lic files, folders of them, or - for standard input.")],
    out: Path | None = Options.out,
    weights: Path | None = Options.weights,
    device: str = Options.device,
    threads: int = Options.threads,
    max_pixels: int | None = typer.Option(None, "--max-pixels", min=1, help="Refuse larger pictures."),
    force: bool = Options.force,
    as_json: bool = Options.as_json,
    quiet: bool = Options.quiet,
    verbose: int = Options.verbose,
) -> None:
    """Restore pictures from .lic files.

    They are written as PNG beside the files unless -o says otherwise. The ending
    of the output's name chooses the format: .png, .jpg, .webp, .tif, .ppm ...
    Examples:  licodec decode photo.lic;  licodec decode photo.lic -o photo.tif;
    licodec decode out/ -o restored/;  licodec decode - < a.lic > a.png
    """
    from licodec import container, imaging

    jobs = plan(inputs, out, {".lic"}, lambda p: p.with_suffix(".png"))
    if as_json and any(str(j.target) == "-" for j in jobs):
        raise UsageError("--json and the picture itself cannot both go to standard output; name a file with -o")
    limit = max_pixels or imaging.MAX_PIXELS
    use_threads(threads)

    def work(job: Job) -> dict[str, object]:
        refuse_existing(job, force)
        format_name = "PNG" if str(job.target) == "-" else imaging.format_of(job.target)
        data = read_source(job.source)
        parsed = container.read(data)
        header = parsed.header
        imaging.check_pixels(header.width, header.height, limit)
        from licodec import codec

        picture = codec.for_header(header, weights, device).decode(parsed)
        written = imaging.to_bytes(picture, format_name)
        write(job.target, written, force)
        return {
            "width": header.width,
            "height": header.height,
            "model": header.model,
            "quality": header.quality,
            "bytes": len(data),
            "output_bytes": len(written),
            "line": f"{header.width}x{header.height}  {len(written)} bytes",
        }

    run(jobs, work, "decoding", as_json=as_json, quiet=quiet, verbose=verbose)

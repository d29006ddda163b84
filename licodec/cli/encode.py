"""`licodec encode`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from licodec.cli.common import (
    STREAM,
    Job,
    Options,
    Tiles,
    complete_model,
    left_out,
    plan,
    read_source,
    refuse_existing,
    run,
)
from licodec.cli.common import write_target as write
from licodec.errors import UsageError

if TYPE_CHECKING:
    from licodec.codec import Codec
    from licodec.imaging import Picture


def encode(
    inputs: Annotated[list[Path], typer.Argument(help="Pictures, folders of pictures, or - for standard input.")],
    out: Path | None = Options.out,
    model: str | None = typer.Option(
        None,
        "-m",
        "--model",
        help="See `licodec models`; `lite`, or that of --weights, if left out.",
        autocompletion=complete_model,
    ),
    quality: float | None = typer.Option(None, "-q", "--quality", help="1 (smallest) to 8 (best). [default: 4]"),
    target_bpp: float | None = typer.Option(None, "--target-bpp", help="Best quality of at most so many bits a pixel."),
    target_size: str | None = typer.Option(None, "--target-size", help="Best quality of at most so many bytes: 120k."),
    target_psnr: float | None = typer.Option(None, "--target-psnr", help="Smallest file of at least this PSNR in dB."),
    weights: Path | None = Options.weights,
    offline: bool = Options.offline,
    device: str = Options.device,
    threads: int = Options.threads,
    tile: int | None = typer.Option(None, "--tile", min=0, help="Side of the tiles of big pictures; 0 for no tiles."),
    strip: bool = typer.Option(False, "--strip", help="Drop ICC profile, EXIF and XMP."),
    frame: int | None = typer.Option(None, "--frame", min=0, help="Which frame of an animation; 0 is the first."),
    resume: bool = Options.resume,
    max_pixels: int | None = Options.max_pixels,
    max_side: int | None = Options.max_side,
    max_tile: int | None = Options.max_tile,
    verify: bool = typer.Option(False, "--verify", help="Decode in memory and compare before writing."),
    force: bool = Options.force,
    as_json: bool = Options.as_json,
    quiet: bool = Options.quiet,
    verbose: int = Options.verbose,
) -> None:
    """Compress pictures to .lic files.

    Each file is written beside its picture unless -o names another place.

    Examples:  licodec encode photo.png;  licodec encode -q 6 photos/ -o out/;
    licodec encode photo.jpg --target-size 120k --verify;  cat a.png | licodec encode - > a.lic
    """
    from licodec import imaging
    from licodec import inputs as kinds

    targets = [t for t in (target_bpp, target_size, target_psnr) if t is not None]
    if len(targets) + (quality is not None) > 1:
        raise UsageError("-q, --target-bpp, --target-size and --target-psnr exclude each other")
    size = parse_size(target_size) if target_size is not None else None
    left: Counter[str] = Counter()
    jobs = plan(inputs, out, kinds.suffixes(), lambda p: p.with_suffix(".lic"), left)
    if left and not quiet:
        print(f"licodec: {left_out(left)}", file=sys.stderr)
    if as_json and any(str(j.target) == "-" for j in jobs):
        raise UsageError("--json and the file itself cannot both go to standard output; name a file with -o")
    # a wrong model, quality or device is the call's fault, not an input's: find out first
    from licodec import codec, runtime, search

    runtime.use_threads(threads)
    chosen = codec.for_model(model, quality, weights, device)
    chosen.quality(quality)

    largest = max_tile or codec.MAX_TILE
    target = search.Target(size, target_bpp, target_psnr)

    def work(job: Job, tiles: Tiles) -> dict[str, object]:
        refuse_existing(job, force)
        limits = (max_pixels or imaging.MAX_PIXELS, max_side or imaging.MAX_SIDE)
        source = read_source(job.source) if job.source == STREAM else job.source
        picture = kinds.read(source, limits[0], strip, frame, limits[1])
        found = search.encode(chosen, picture, quality, target, tile, verify=verify, report=tiles, max_tile=largest)
        encoded = found.encoded
        facts = _facts(chosen, picture, found.quality, len(encoded.data))
        if found.psnr is not None:
            facts["psnr"] = round(found.psnr, 4)
            facts["line"] = f"{facts['line']}  {facts['psnr']:.2f} dB"
        if verbose:
            facts["ideal_bits"] = round(encoded.ideal_bits, 1)
            facts["line"] = f"{facts['line']}  payload {encoded.payload_bytes} (ideal {encoded.ideal_bits / 8:.0f})"
        write(job.target, encoded.data, force)
        return facts

    run(jobs, work, "encoding", as_json=as_json, quiet=quiet, verbose=verbose, resume=resume)


def _facts(chosen: Codec, picture: Picture, quality: float, size: int) -> dict[str, object]:
    width, height = picture.size
    bpp = 8 * size / (width * height)
    facts: dict[str, object] = {
        "width": width,
        "height": height,
        "model": chosen.info.name,
        "quality": quality,
        "bytes": size,
        "bpp": round(bpp, 5),
        "line": f"{width}x{height}  q {quality:g}  {size} bytes  {bpp:.3f} bpp",
    }
    if picture.warnings:
        facts["warnings"] = picture.warnings
    return facts


def parse_size(text: str) -> int:
    """`120k`, `1.5M` or `120000` -> bytes (k = 1000). Raises UsageError."""
    factors = {"k": 1000, "m": 1_000_000, "g": 1_000_000_000}
    lowered = text.strip().lower().removesuffix("b")
    factor = factors.get(lowered[-1:], 1)
    try:
        size = int(float(lowered.rstrip("kmg")) * factor)
    except (ValueError, OverflowError):
        raise UsageError(f"--target-size {text!r} is not a size; write 120k, 1.5M or 120000") from None
    if size <= 0:
        raise UsageError(f"--target-size {text!r} must be more than nothing")
    return size

"""`licodec encode`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from licodec.cli.common import FILES, METADATA, Manner, Options, complete_model, run, size_of
from licodec.errors import UsageError

TARGETS = "Targets, in place of -q"
PICTURE = "The picture"


def encode(
    inputs: Annotated[list[str], typer.Argument(help="Pictures, folders of them, URLs, or - for standard input.")],
    out: str | None = Options.out,
    quality: float | None = typer.Option(None, "-q", "--quality", help="1 (smallest) to 10 (best). [default: 5]"),
    model: str | None = typer.Option(
        None,
        "-m",
        "--model",
        help="See `licodec models`; `lite`, or that of --weights, if left out.",
        autocompletion=complete_model,
    ),
    effort: int = typer.Option(
        1,
        "--effort",
        min=1,
        max=9,
        help="1 (fast) to 9 (slow): how long lite's encoder searches for cheaper symbols. At equal SSIMULACRA 2, "
        "3 saves 9 % and takes 0.7 s more for 768x512 pixels (on a core with bf16), 7 saves 12 % and takes 3.5 s. "
        "Loads torch from 2 on.",
    ),
    verify: bool = typer.Option(False, "--verify", help="Decode in memory and compare before writing."),
    force: bool = Options.force,
    target_size: str | None = typer.Option(
        None, "--target-size", rich_help_panel=TARGETS, help="Best quality of at most so many bytes: 120k."
    ),
    target_bpp: float | None = typer.Option(
        None, "--target-bpp", rich_help_panel=TARGETS, help="Best quality of at most so many bits per pixel."
    ),
    target_psnr: float | None = typer.Option(
        None, "--target-psnr", rich_help_panel=TARGETS, help="Smallest file of at least this PSNR in dB."
    ),
    target_ssimulacra2: float | None = typer.Option(
        None, "--target-ssimulacra2", rich_help_panel=TARGETS, help="Smallest file of at least this SSIMULACRA 2: 80."
    ),
    strip: str = typer.Option(
        "",
        "--strip",
        metavar="[KINDS]",
        rich_help_panel=PICTURE,
        help=f"Drop metadata: all of it, or kinds of it ({', '.join(METADATA)}).",
    ),
    frame: int | None = typer.Option(
        None, "--frame", min=0, rich_help_panel=PICTURE, help="Which frame of an animation; 0 is the first."
    ),
    tile: int | None = typer.Option(
        None, "--tile", min=0, rich_help_panel=PICTURE, help="Side of the tiles of big pictures; 0 for no tiles."
    ),
    preserve: bool = Options.preserve,
    delete_source: bool = typer.Option(
        False,
        "--delete-source",
        rich_help_panel=FILES,
        help="Delete each original once its result is written and verified.",
    ),
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
    """Compress pictures to .lic files.

    Each file is written beside its picture unless -o names another place.

    Examples:  licodec encode photo.png;  licodec encode -q 6 photos/ -o out/;
    licodec encode photo.jpg --target-size 120k --verify;  cat a.png | licodec encode - > a.lic
    """
    from licodec import inputs as kinds
    from licodec import search
    from licodec.batch import tasks
    from licodec.batch.jobs import plan

    size = size_of(target_size, "--target-size") if target_size is not None else None
    target = search.Target(size, target_bpp, target_psnr, target_ssimulacra2)
    if len(target.given()) + (quality is not None) > 1:
        raise UsageError("-q, --target-bpp, --target-size, --target-psnr and --target-ssimulacra2 exclude each other")
    todo = plan(inputs, out, kinds.suffixes(), ".lic", again=".lic")
    if as_json and todo.streams():
        raise UsageError("--json and the file itself cannot both go to standard output; name a file with -o")
    limits = tasks.Limits(max_pixels, max_side, max_tile)
    task = tasks.Encode(
        weights, device, threads, limits, force, resume, precision, model, quality, target,
        tile, kinds_of_metadata(strip), frame, verify, bool(verbose), preserve, delete_source, effort,
    )  # fmt: skip
    if delete_source:
        tasks.check_deletion(task, todo)
    # a wrong model, quality or device is the call's fault, not an input's: find out first
    task.prepare()
    run(todo, task, Manner(jobs, timeout, max_memory, report, ray, as_json, quiet, verbose))


def kinds_of_metadata(text: str) -> tuple[str, ...]:
    """`exif,xmp` or `all` -> kinds. Raises UsageError."""
    if text == "all":
        return METADATA
    kinds = tuple(filter(None, text.split(",")))
    if unknown := [kind for kind in kinds if kind not in METADATA]:
        raise UsageError(f"--strip: no kind {unknown[0]!r}; there are {', '.join(METADATA)} and all")
    return kinds

"""`licodec verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from licodec.cli.common import Manner, Options, run


def verify(
    inputs: Annotated[list[str], typer.Argument(help=".lic files, folders of them, URLs, or - for standard input.")],
    fast: bool = typer.Option(False, "--fast", help="Look at the checksums only, decode nothing."),
    report: str | None = Options.report,
    resume: bool = typer.Option(False, "--resume", help="Leave out what --report says was good."),
    force: bool = typer.Option(False, "-f", "--force", help="Overwrite the report."),
    jobs: int | None = Options.jobs,
    ray: str | None = Options.ray,
    timeout: float | None = Options.timeout,
    max_memory: str | None = Options.max_memory,
    max_pixels: int | None = Options.max_pixels,
    max_side: int | None = Options.max_side,
    max_tile: int | None = Options.max_tile,
    weights: Path | None = Options.weights,
    offline: bool = Options.offline,
    device: str = Options.device,
    threads: int = Options.threads,
    as_json: bool = Options.as_json,
    quiet: bool = Options.quiet,
    verbose: int = Options.verbose,
) -> None:
    """Find out whether .lic files are whole.

    Each is decoded to the last tile, and nothing is written; what fails is named
    at the end, and the exit code is 1 (that of its failure for a single file).
    """
    from licodec.batch import tasks
    from licodec.batch.jobs import plan

    todo = plan(inputs, None, {".lic"}, None)
    limits = tasks.Limits(max_pixels, max_side, max_tile)
    task = tasks.Verify(weights, device, threads, limits, force, resume, fast=fast)
    run(todo, task, Manner(jobs, timeout, max_memory, report, ray, as_json, quiet, verbose))

"""`licodec convert-upstream`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from licodec.cli.common import Options, complete_model
from licodec.errors import InputError, LicodecError


def convert_upstream(
    checkpoint: Annotated[Path, typer.Argument(help="The authors' checkpoint: .pth.tar, .pth, .ckpt, .safetensors.")],
    model: str | None = typer.Option(
        None, "-m", "--model", help="Which model it is of; recognised if left out.", autocompletion=complete_model
    ),
    quality: int | None = typer.Option(None, "-q", "--quality", help="Which quality to install it as."),
    out: Path | None = typer.Option(None, "-o", "--output", help="Write this file in place of installing."),
    licence: str | None = typer.Option(None, "--licence", help="Licence to note. [default: the model's]"),
    force: bool = Options.force,
    quiet: bool = Options.quiet,
) -> None:
    """Install an author's checkpoint.

    From then on `licodec encode -m MODEL -q Q` uses it. Nothing in the checkpoint is executed. Examples:
    licodec convert-upstream 0.05checkpoint.pth.tar -q 6;  licodec convert ckpt.pth -m tcm -o tcm.safetensors
    """
    from licodec.upstream.convert import convert
    from licodec.weights import store

    try:
        converted = convert(checkpoint, model, quality)
        target = out or store.place(converted.model.name, converted.quality)
        if target.exists() and not force:
            raise InputError(f"{target} exists; -f overwrites it")
        fingerprint = converted.save(target, licence)
    except LicodecError as error:
        raise type(error)(f"{checkpoint}: {error}") from None
    if not quiet:
        how = "" if converted.quality is None else f" -q {converted.quality}"
        use = f"--weights {out}" if out else f"-m {converted.model.name}{how}"
        print(f"{checkpoint} -> {target}  {converted.model.name}{how}  weights {fingerprint.hex()}", file=sys.stderr)
        print(f"use: licodec encode PICTURE {use}", file=sys.stderr)

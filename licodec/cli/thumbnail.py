"""`licodec thumbnail`."""

from __future__ import annotations

import io
from typing import Annotated

import typer

from licodec.cli.common import Options, read_source, write_target
from licodec.errors import LicodecError


def thumbnail(
    file: Annotated[str, typer.Argument(help="A .lic file, or - for standard input.")],
    size: int = typer.Option(256, "-s", "--size", min=1, max=4096, help="Longest side in pixels."),
    out: str = typer.Option(..., "-o", "--output", help="The PNG to write, over what is there; - for standard output."),
    max_pixels: int | None = Options.max_pixels,
) -> None:
    """Write a small picture of a .lic file, as file managers show it.

    In sRGB, 8 bits. `licodec desktop install` makes file managers call this.
    """
    from licodec import codec, container, imaging
    from licodec.thumbnail import thumbnail as made

    try:
        parsed = container.read(read_source(file))
        imaging.check_pixels(parsed.header.width, parsed.header.height, max_pixels or imaging.MAX_PIXELS)
        image = made(codec.for_header(parsed.header).open(parsed), size)
    except LicodecError as error:
        raise type(error)(f"{file}: {error}") from None
    png = io.BytesIO()
    image.save(png, "PNG")
    write_target(out, png.getvalue(), force=True)

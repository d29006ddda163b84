"""`licodec view`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from licodec.cli.common import Options


def view(
    files: Annotated[list[str], typer.Argument(help=".lic files, and the pictures they were made from.")],
    browser: bool = typer.Option(True, help="Open the page, or only say where it is."),
    port: int = typer.Option(0, "--port", min=0, max=65535, help="Port on this machine; 0 for any that is free."),
    weights: Path | None = Options.weights,
    offline: bool = Options.offline,
    device: str = Options.device,
) -> None:
    """Look at .lic files in the browser.

    Fitted or pixel by pixel, with an original beside it under a slider, what
    `licodec info` says, and the bits of each tile. An original belongs to the
    .lic of its name, or to all if it is the only one. Ctrl-C ends it.

    Examples:  licodec view a.lic;  licodec view a.png a.lic
    """
    import webbrowser

    from licodec.errors import InputError
    from licodec.view.entries import Gallery, pair
    from licodec.view.server import Server

    gallery = Gallery(pair(files), device, weights)
    try:
        server = Server(gallery, port)
    except OSError as error:
        raise InputError(f"port {port} cannot be used ({error.strerror or error})") from None
    with server:
        print(f"licodec: {server.url}  (Ctrl-C ends it)", file=sys.stderr, flush=True)
        if browser:
            webbrowser.open(server.url)
        server.serve_forever()

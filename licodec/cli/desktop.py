"""`licodec desktop`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from licodec.errors import InputError

app = typer.Typer(
    help="Tell your desktop what .lic files are: their type, thumbnails, and a line for file(1).",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("install")
def install() -> None:
    """Write the MIME type, the thumbnailer and the magic line, for this user."""
    from licodec.plugins import desktop

    for path in _tried(desktop.of_user().install):
        print(path)


@app.command("uninstall")
def uninstall() -> None:
    """Remove them again."""
    from licodec.plugins import desktop

    for path in _tried(desktop.of_user().uninstall):
        print(f"removed {path}" if not path.exists() else f"removed from {path}")


def _tried(work: Callable[[], list[Path]]) -> list[Path]:
    try:
        return work()
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror or error}") from None

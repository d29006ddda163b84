"""`licodec info`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from licodec.errors import LicodecError


def info(
    file: Annotated[str, typer.Argument(help="A .lic file, a URL of one, or - for standard input.")],
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Show what a .lic file says of itself.

    All checksums are checked, of a URL those of the parts that are read: its
    beginning only. Nothing is decoded.
    """
    from licodec.batch.ranged import info_of

    try:
        facts = info_of(file)
    except LicodecError as error:
        raise type(error)(f"{file}: {error}") from None
    if as_json:
        print(json.dumps(facts))
        return
    width = max(map(len, facts))
    for key, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} ({v} bytes)" for k, v in value.items()) or "none"
        print(f"{key:<{width}}  {value:.4f}" if isinstance(value, float) else f"{key:<{width}}  {value}")

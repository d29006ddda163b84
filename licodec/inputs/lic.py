"""A .lic as an input: decoded with the model it was made with, for another quality or model."""

from __future__ import annotations

from collections.abc import Callable

from licodec import container
from licodec.errors import InputError
from licodec.imaging import Picture


def read(data: bytes, check: Callable[[int, int], None], frame: int | None) -> Picture:
    """The picture of a .lic. Raises InputError, and what `Codec.decode` raises."""
    from licodec import codec

    if frame:
        raise InputError(f"has 1 frame, no frame {frame}; the first is 0")
    parsed = container.read(data)
    check(parsed.header.width, parsed.header.height)
    return codec.for_header(parsed.header).decode(parsed)

"""The pictures of a benchmark, from files, folders and URLs; those used last stay in memory."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import PurePosixPath

import numpy as np

from licodec import inputs
from licodec.batch.place import Place, naming
from licodec.batch.places import Local, Stream, of
from licodec.errors import UsageError

KEPT_BYTES = 1 << 28  # of pictures that each process keeps, as every codec asks for them again


_kept: OrderedDict[Place, np.ndarray] = OrderedDict()


def pixels(place: Place) -> np.ndarray:
    """A picture, uint8 [H, W, 3]. Raises LicodecError."""
    if place not in _kept:
        _kept[place] = inputs.read(place.source(), name=place.name).eight_bit().rgb
    _kept.move_to_end(place)
    while len(_kept) > 1 and sum(picture.nbytes for picture in _kept.values()) > KEPT_BYTES:
        _kept.popitem(last=False)
    return _kept[place]


def digest(place: Place) -> str:
    """Of a picture's pixels, 16 hex digits. Raises LicodecError."""
    return hashlib.sha256(pixels(place).tobytes()).hexdigest()[:16]


def gather(words: Iterable[str], suffixes: Iterable[str]) -> dict[str, Place]:
    """The pictures that words of the command line name, by what the report calls them.

    In a single folder these are their paths below it. Raises UsageError, InputError.
    """
    places, endings = [of(word) for word in words], frozenset(suffixes)
    found: dict[str, Place] = {}
    for place in places:
        if isinstance(place, Stream):
            raise UsageError("the benchmark reads its pictures more than once, which standard input cannot do")
        with naming(place):
            if not place.is_folder():
                if isinstance(place, Local) and not place.exists():
                    raise UsageError(f"{place}: no such file or folder")
                found[str(place)] = place
                continue
            names = [name for name in place.walk() if PurePosixPath(name).suffix.lower() in endings]
        if not names:
            raise UsageError(f"{place}: no pictures found")
        found |= {name if len(places) == 1 else str(place.child(name)): place.child(name) for name in names}
    return found

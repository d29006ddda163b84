"""What the page shows: .lic files with their facts, their tiles and their originals."""

from __future__ import annotations

import functools
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict

from licodec.errors import LicodecError, UsageError

if TYPE_CHECKING:
    from licodec.api import Info
    from licodec.container import Container
    from licodec.imaging import Picture


@dataclass(frozen=True)
class Viewed:
    """A file and, if there is one, the picture it was made from; one of the two if the other is not given."""

    coded: str | None
    original: str | None

    @property
    def name(self) -> str:
        return Path(self.coded or self.original or "").name


def pair(files: list[str]) -> list[Viewed]:
    """Each .lic with the original of its name, or with the one original there is. Raises UsageError."""
    from licodec.batch.places import of

    coded = [file for file in files if of(file).suffix == ".lic"]
    originals = [file for file in files if file not in coded]
    by_stem = {Path(of(file).name).stem: file for file in originals}
    if len(by_stem) < len(originals):
        raise UsageError("two originals have the same name; show them one after the other")
    entries = []
    for file in coded:
        match = by_stem.get(Path(of(file).name).stem) or (originals[0] if len(originals) == 1 else None)
        entries.append(Viewed(file, match))
    used = {entry.original for entry in entries}
    return entries + [Viewed(None, file) for file in originals if file not in used]


class Tile(TypedDict):
    """Where a tile is, in pixels, and its bits per pixel."""

    left: int
    top: int
    width: int
    height: int
    bpp: float


class Card(TypedDict):
    """What the page is told of an entry; `original` is the name of the original, if there is one."""

    name: str
    width: int
    height: int
    coded: bool
    original: str | None
    info: NotRequired[Info]
    tiles: NotRequired[list[Tile]]


class Gallery:
    """The entries, decoded when they are looked at; the last few stay in memory."""

    def __init__(self, entries: list[Viewed], device: str = "auto", weights: Path | None = None) -> None:
        self.entries, self.device, self.weights = entries, device, weights
        self.worker = ThreadPoolExecutor(1)  # the browser asks for everything at once; one picture is decoded at a time
        self._decoded = functools.lru_cache(maxsize=4)(self._decode)
        self._original = functools.lru_cache(maxsize=4)(self._read)

    def facts(self) -> list[Card]:
        """For the page: of each entry its name, size, what `info` says, and its tiles. Raises LicodecError."""
        return [self._facts(entry) for entry in self.entries]

    def png(self, index: int, original: bool) -> bytes:
        """A picture of 8 bits with its profile. Raises LicodecError."""
        return self.worker.submit(self._png, self.entries[index], original).result()

    def psnr(self, index: int) -> float | None:
        """Of the decoded picture against the original, in dB; None if they are equal. Raises LicodecError."""
        return self.worker.submit(self._psnr, self.entries[index]).result()

    def _png(self, entry: Viewed, original: bool) -> bytes:
        from licodec import output

        picture = self._original(entry.original) if original else self._decoded(entry.coded)
        return output.to_bytes(picture.eight_bit(), "PNG")

    def _psnr(self, entry: Viewed) -> float | None:
        from licodec.search import pixel_psnr

        a, b = self._decoded(entry.coded).eight_bit().rgb, self._original(entry.original).eight_bit().rgb
        if a.shape != b.shape:
            raise UsageError(f"{entry.original} has another size than {entry.coded}; it is not its original")
        value = pixel_psnr(a, b)
        return value if math.isfinite(value) else None

    def _facts(self, entry: Viewed) -> Card:
        if entry.coded is None:
            width, height = self._original(entry.original).size
            return Card(name=entry.name, width=width, height=height, coded=False, original=entry.name)
        from licodec import api

        data, parsed = _parsed(entry.coded)
        return {
            "name": entry.name,
            "width": parsed.header.width,
            "height": parsed.header.height,
            "coded": True,
            "original": entry.original and Path(entry.original).name,
            "info": api.info(data),
            "tiles": _tiles(parsed),
        }

    def _decode(self, file: str) -> Picture:
        from licodec import codec, imaging

        _, parsed = _parsed(file)
        imaging.check_pixels(parsed.header.width, parsed.header.height)
        return codec.for_header(parsed.header, self.weights, self.device).decode(parsed)

    def _read(self, file: str) -> Picture:
        from licodec import inputs
        from licodec.batch.places import of

        place = of(file)
        try:
            return inputs.read(place.source(), name=place.name)
        except LicodecError as error:
            raise type(error)(f"{file}: {error}") from None


def _parsed(file: str) -> tuple[bytes, Container]:
    from licodec import container
    from licodec.batch.places import of

    try:
        data = of(file).read()
        return data, container.read(data)
    except LicodecError as error:
        raise type(error)(f"{file}: {error}") from None


def _tiles(parsed: Container) -> list[Tile]:
    """Where each tile is, in pixels, and its bits per pixel."""
    header = parsed.header
    side = header.tile or max(header.width, header.height)
    across = -(-header.width // side)
    tiles: list[Tile] = []
    for i, payload in enumerate(parsed.tiles):
        left, top = i % across * side, i // across * side
        width, height = min(side, header.width - left), min(side, header.height - top)
        bpp = round(8 * len(payload) / (width * height), 3)
        tiles.append({"left": left, "top": top, "width": width, "height": height, "bpp": bpp})
    return tiles

"""Pictures of every kind that people have, as `imaging.Picture`.

Pillow reads most formats, see `imaging`. HEIF and AVIF of more than 8 bits, JPEG XL, camera raw and
.lic itself have a file each here; the libraries that they need are extras.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from licodec import container, imaging
from licodec.errors import InputError
from licodec.imaging import MAX_PIXELS, MAX_SIDE, Picture

HEAD = 1 << 12  # bytes that tell the kind of a file
METADATA = ("icc", "exif", "xmp", "cicp")


@dataclass(frozen=True)
class Kind:
    """A kind of files that Pillow alone does not read.

    Attributes:
        module: of this package, with `read(data, check, frame)`.
        needs: Python modules that must be installed, by the extra of the same name.
        suffixes: endings of such files, lower case.
    """

    extra: str
    module: str
    needs: tuple[str, ...]
    suffixes: frozenset[str]

    def available(self) -> bool:
        """Whether what it needs is installed."""
        return all(importlib.util.find_spec(name) for name in self.needs)


# fmt: off
RAW_SUFFIXES = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw",
    ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
})
# fmt: on
KINDS = {
    "heif": Kind("heif", "heif", ("pillow_heif",), frozenset({".heic", ".heif", ".hif"})),
    "jxl": Kind("jxl", "jxl", ("pillow_jxl", "imagecodecs"), frozenset({".jxl"})),
    "raw": Kind("raw", "raw", ("rawpy",), RAW_SUFFIXES),
}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_RAW_MAGIC = (b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FOVb", b"\0MRM")


def suffixes() -> set[str]:
    """Endings of the files that `encode` picks out of a folder: those that can be read with what is installed."""
    return imaging.SUFFIXES.union(*(kind.suffixes for kind in KINDS.values() if kind.available()))


def extra_for(suffix: str) -> str | None:
    """The extra that reads files of an ending, if it is not installed; None if there is none or it is."""
    for kind in KINDS.values():
        if suffix in kind.suffixes:
            return None if kind.available() else kind.extra
    return None


def kind_of(head: bytes, suffix: str = "") -> str | None:
    """`heif`, `jxl`, `raw`, `avif` or `lic` by a file's first bytes; None for what Pillow shall look at.

    Most raw files are TIFF with a preview that Pillow would take for the picture:
    there the ending tells, and where it is unknown the tags of DNG and CR2.
    """
    if head.startswith(container.MAGIC):
        return "lic"
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        return "jxl"
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, min(int.from_bytes(head[:4]), 256), 4))}
        if head[8:12] == b"crx ":
            return "raw"
        if brands & {b"avif", b"avis"}:
            return "avif"
        return "heif" if brands & _HEIF_BRANDS else None
    tiff = head[:4] in (b"II*\0", b"MM\0*")
    if head.startswith(_RAW_MAGIC) or (tiff and (suffix in RAW_SUFFIXES or head[8:10] == b"CR" or _is_dng(head))):
        return "raw"
    return None


def _is_dng(head: bytes) -> bool:
    """Whether the first directory of a TIFF has the tag DNGVersion."""
    order: Literal["little", "big"] = "little" if head[:2] == b"II" else "big"
    begin = int.from_bytes(head[4:8], order)
    count = int.from_bytes(head[begin : begin + 2], order)
    tags = (head[begin + 2 + 12 * i : begin + 4 + 12 * i] for i in range(count))
    return any(int.from_bytes(tag, order) == 0xC612 for tag in tags)


def read(
    source: Path | bytes,
    max_pixels: int = MAX_PIXELS,
    strip: bool | Collection[str] = False,
    frame: int | None = None,
    max_side: int = MAX_SIDE,
    name: str = "",
) -> Picture:
    """Read a picture from a file or from the bytes of one.

    Args:
        strip: kinds of metadata to leave out, of `METADATA`; True for all.
        frame: which picture of an animation; without it they are refused.
        name: of the file whose bytes `source` is; its ending tells raw files apart from TIFF.

    Raises:
        InputError: it cannot be read, or is larger than allowed.
        LicodecError: see `licodec.errors`; of a .lic also what decoding raises.
    """
    suffix = Path(name or (source if isinstance(source, Path) else "")).suffix.lower()
    kind = kind_of(_head(source), suffix)
    if kind is None:
        return _without(imaging.read(source, max_pixels, False, frame, max_side), strip)
    if kind in KINDS and not KINDS[kind].available():
        raise InputError(f"a file of the kind {kind}; pip install 'licodec[{KINDS[kind].extra}]' reads it")

    def check(width: int, height: int) -> None:
        imaging.check_pixels(width, height, max_pixels, max_side)

    if kind == "avif":
        from licodec.inputs import avif

        return _without(avif.read(source, max_pixels, frame, max_side), strip)
    module = importlib.import_module(f"licodec.inputs.{kind}")
    data = source if isinstance(source, bytes) else _bytes(source)
    return _without(module.read(data, check, frame), strip)


def _head(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source[:HEAD]
    try:
        with open(source, "rb") as file:
            return file.read(HEAD)
    except FileNotFoundError:
        raise InputError("no such file") from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from None


def _without(picture: Picture, strip: bool | Collection[str]) -> Picture:
    kinds = METADATA if strip is True else strip or ()
    nothing: dict[str, Any] = dict.fromkeys(kinds)
    return replace(picture, **nothing)

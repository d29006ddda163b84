"""Finding the quality that meets a size or a PSNR, on the real file."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from licodec import container
from licodec.errors import InputError, UsageError

if TYPE_CHECKING:
    from licodec.codec import Codec, Encoded, Report
    from licodec.imaging import Picture


@dataclass(frozen=True)
class Target:
    """What a file shall meet in place of a quality; at most one of these.

    Attributes:
        size: bytes at most.
        bpp: bits a pixel at most.
        psnr: dB at least.
    """

    size: int | None = None
    bpp: float | None = None
    psnr: float | None = None

    def given(self) -> list[str]:
        """Names of those that are given."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]


@dataclass(frozen=True)
class Found:
    """A coded picture, the quality it has, and the PSNR of what it decodes to, in dB, if that was asked for."""

    quality: float
    encoded: Encoded
    psnr: float | None = None


def encode(
    codec: Codec,
    picture: Picture,
    quality: float | None = None,
    target: Target = Target(),
    tile: int | None = None,
    *,
    verify: bool = False,
    **options: int | Report,
) -> Found:
    """Code a picture at a quality or by a target.

    Args:
        tile, options: see `Codec.encode`.
        verify: decode the result and measure it.

    Raises:
        UsageError: both a quality and a target, or two targets.
        InputError: the target cannot be met.
        LicodecError: what `Codec.encode` raises, and with `verify` what `Codec.decode` raises.
    """
    if len(target.given()) + (quality is not None) > 1:
        raise UsageError("a quality, a target size, target bits a pixel and a target PSNR exclude each other")
    width, height = picture.size
    if target.psnr is not None:
        used, encoded = at_least(codec, picture, target.psnr, tile)
    elif target.given():
        most = target.size if target.bpp is None else int(target.bpp * width * height / 8)
        used, encoded = at_most(codec, picture, most, tile)
    else:
        used, encoded = codec.quality(quality), codec.encode(picture, quality, tile, **options)
    return Found(used, encoded, psnr(codec, picture, encoded.data) if verify else None)


def _axis(codec: Codec) -> tuple[int, int]:
    """Lowest and highest quality, in hundredths. Raises UsageError for fixed-rate models."""
    if not codec.info.variable_rate:
        raise UsageError(
            f"{codec.info.name} has one rate per weights file; a target needs a variable-rate model (lite)"
        )
    return codec.info.qualities[0] * 100, codec.info.qualities[-1] * 100


def at_most(codec: Codec, picture: Picture, size: int, tile: int | None) -> tuple[float, Encoded]:
    """The best quality whose file has at most `size` bytes. Raises InputError if none has."""
    low, high = _axis(codec)
    best = codec.encode(picture, low / 100, tile)
    if len(best.data) > size:
        raise InputError(f"needs {len(best.data)} bytes at the lowest quality, more than the {size} asked for")
    while low < high:
        middle = (low + high + 1) // 2
        encoded = codec.encode(picture, middle / 100, tile)
        if len(encoded.data) <= size:
            low, best = middle, encoded
        else:
            high = middle - 1
    return low / 100, best


def at_least(codec: Codec, picture: Picture, wanted: float, tile: int | None) -> tuple[float, Encoded]:
    """The lowest quality whose decoded picture has at least this PSNR. Raises InputError if none has."""
    low, high = _axis(codec)
    best = codec.encode(picture, high / 100, tile)
    if (reached := psnr(codec, picture, best.data)) < wanted:
        raise InputError(f"reaches {reached:.2f} dB at the highest quality, less than the {wanted:g} asked for")
    while low < high:
        middle = (low + high) // 2
        encoded = codec.encode(picture, middle / 100, tile)
        if psnr(codec, picture, encoded.data) >= wanted:
            high, best = middle, encoded
        else:
            low = middle + 1
    return high / 100, best


def psnr(codec: Codec, picture: Picture, data: bytes) -> float:
    """PSNR in dB of a file's decoded picture, over all colour samples; infinite if equal."""
    return pixel_psnr(codec.decode(container.read(data)).pixels, picture.pixels)


def pixel_psnr(decoded: np.ndarray, original: np.ndarray) -> float:
    """PSNR in dB of two pictures of the same type, uint8 or uint16, over all samples; infinite if equal."""
    total = 0.0
    for rows in range(0, len(original), 256):  # in strips: pictures may be large
        part = decoded[rows : rows + 256].astype(np.float64) - original[rows : rows + 256]
        total += float((part * part).sum())
    peak = np.iinfo(original.dtype).max
    return 10 * math.log10(peak**2 * original.size / total) if total else math.inf

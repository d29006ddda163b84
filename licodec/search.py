"""Finding the quality that meets a size, a PSNR or a SSIMULACRA 2, on the real file.

Models of variable rate are tried at hundredths of a quality. Of models of one
rate per weights file the installed weights are tried, and those that can be fetched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np

from licodec import container
from licodec.errors import InputError, UsageError

if TYPE_CHECKING:
    from licodec.codec import Codec, Encoded, Progress
    from licodec.imaging import Picture


class How(TypedDict, total=False):
    """Options of `Codec.encode` that the quality does not depend on."""

    report: Progress
    max_tile: int
    effort: int


@dataclass(frozen=True)
class Target:
    """What a file shall meet in place of a quality; at most one of these.

    Attributes:
        size: bytes at most.
        bpp: bits per pixel at most.
        psnr: dB at least.
        ssimulacra2: score at least.
    """

    size: int | None = None
    bpp: float | None = None
    psnr: float | None = None
    ssimulacra2: float | None = None

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
    **options: Unpack[How],
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
        raise UsageError("a quality and targets of size, bits per pixel, PSNR and SSIMULACRA 2 exclude each other")
    width, height = picture.size
    if target.psnr is not None:
        used, encoded = at_least(codec, picture, target.psnr, psnr, "dB", tile, **options)
    elif target.ssimulacra2 is not None:
        used, encoded = at_least(codec, picture, target.ssimulacra2, ssimulacra2, "SSIMULACRA 2", tile, **options)
    elif target.bpp is not None:
        used, encoded = at_most(codec, picture, int(target.bpp * width * height / 8), tile, **options)
    elif target.size is not None:
        used, encoded = at_most(codec, picture, target.size, tile, **options)
    else:
        used, encoded = codec.quality(quality), codec.encode(picture, quality, tile, **options)
    if not verify:
        return Found(used, encoded)
    return Found(used, encoded, psnr(_axis(codec).codec(used) if target.given() else codec, picture, encoded.data))


@dataclass(frozen=True)
class Axis:
    """The qualities that a model can be coded at, ascending, and the codec for each."""

    qualities: Sequence[float]
    codec: Callable[[float], Codec]

    def encode(self, number: int, picture: Picture, tile: int | None, **options: Unpack[How]) -> tuple[float, Encoded]:
        """The picture at the quality of this number, which is given too."""
        quality = self.qualities[number]
        return quality, self.codec(quality).encode(picture, quality, tile, **options)


def _axis(codec: Codec) -> Axis:
    """Where to search. Raises UsageError if the codec's weights are a file of their own and have one rate."""
    info = codec.info
    if info.variable_rate:
        hundredths = range(info.qualities[0] * 100, info.qualities[-1] * 100 + 1)
        return Axis([number / 100 for number in hundredths], lambda quality: codec)
    from licodec import finding
    from licodec.codec import for_model
    from licodec.weights import store

    if codec.path.resolve() not in {path.resolve() for path in store.local(info.name, None)}:
        raise UsageError(
            f"{codec.path} has one rate; a target needs a variable-rate model, or installed weights to choose from"
        )
    return Axis(
        finding.reachable(info), lambda quality: for_model(info.name, quality, None, codec.device, codec.precision)
    )


def at_most(
    codec: Codec, picture: Picture, size: int, tile: int | None, **options: Unpack[How]
) -> tuple[float, Encoded]:
    """The best quality whose file has at most `size` bytes. Raises InputError if none has."""
    axis = _axis(codec)
    low, high = 0, len(axis.qualities)  # below `low` all fit, from `high` on none does
    best, smallest = None, 0
    while low < high:
        middle = (low + high - 1) // 2
        used, encoded = axis.encode(middle, picture, tile, **options)
        if len(encoded.data) <= size:
            low, best = middle + 1, (used, encoded)
        else:
            high, smallest = middle, len(encoded.data)
    if best is None:
        raise InputError(f"needs {smallest} bytes at the lowest quality, more than the {size} asked for")
    return best


def at_least(
    codec: Codec,
    picture: Picture,
    wanted: float,
    measure: Callable[[Codec, Picture, bytes], float],
    unit: str,
    tile: int | None,
    **options: Unpack[How],
) -> tuple[float, Encoded]:
    """The lowest quality whose decoded picture measures at least `wanted`. Raises InputError if none does."""
    axis = _axis(codec)
    low, high = 0, len(axis.qualities)  # below `low` none suffices, from `high` on all do
    best, most = None, 0.0
    while low < high:
        middle = (low + high - 1) // 2
        used, encoded = axis.encode(middle, picture, tile, **options)
        reached = measure(axis.codec(used), picture, encoded.data)
        if reached >= wanted:
            high, best = middle, (used, encoded)
        else:
            low, most = middle + 1, reached
    if best is None:
        raise InputError(f"reaches {most:.2f} {unit} at the highest quality, less than the {wanted:g} asked for")
    return best


def psnr(codec: Codec, picture: Picture, data: bytes) -> float:
    """PSNR in dB of a file's decoded picture, over all colour samples; infinite if equal."""
    return pixel_psnr(codec.decode(container.read(data)).pixels, picture.pixels)


def ssimulacra2(codec: Codec, picture: Picture, data: bytes) -> float:
    """SSIMULACRA 2 of a file's decoded picture, at most 100; of sides of at least 8 pixels. Imports torch."""
    from licodec.ssimulacra2 import LEAST_SIDE, of_pixels

    score = of_pixels(codec.decode(container.read(data)).pixels, picture.pixels)
    if score is None:
        raise InputError(f"is too small for SSIMULACRA 2, which needs {LEAST_SIDE} pixels a side")
    return score


def pixel_psnr(decoded: np.ndarray, original: np.ndarray) -> float:
    """PSNR in dB of two pictures of the same type, uint8 or uint16, over all samples; infinite if equal."""
    total = 0.0
    for rows in range(0, len(original), 256):  # in strips: pictures may be large
        error = decoded[rows : rows + 256].astype(np.float64) - original[rows : rows + 256]
        total += float((error * error).sum())
    peak = np.iinfo(original.dtype).max
    return 10 * math.log10(peak**2 * original.size / total) if total else math.inf

"""What results average to, and the curves through them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from licodec.bench.run import Result

PSNR_MOST = 100.0  # what an equal picture counts as in averages


@dataclass(frozen=True)
class Point:
    """A codec at one setting, averaged over the pictures (arithmetic means, also of the PSNR in dB).

    `estimated_bpp` is what an ideal coder would need; memory is the largest of all pictures, in bytes.
    """

    codec: str
    setting: float
    pictures: int
    bpp: float
    psnr: float
    ms_ssim: float | None
    ssimulacra2: float | None
    lpips: float | None
    estimated_bpp: float | None
    encode_seconds: float
    decode_seconds: float
    encode_memory: int | None
    decode_memory: int | None

    @property
    def ms_ssim_db(self) -> float | None:
        """MS-SSIM as -10 log10(1 - x), in which curves of compression are nearly straight."""
        return None if self.ms_ssim is None else -10 * math.log10(max(1 - self.ms_ssim, 1e-9))


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _mean_of_known(values: Iterable[float | None]) -> float | None:
    """The mean of those that were measured, None if no picture has a value."""
    known = [value for value in values if value is not None]
    return _mean(known) if known else None


def averages(results: list[Result]) -> list[Point]:
    """One point per codec and setting, by codec, then rate."""
    groups: dict[tuple[str, float], list[Result]] = defaultdict(list)
    for result in results:
        groups[result.codec, result.setting].append(result)
    points = [
        Point(
            codec, setting, len(group),
            bpp=_mean(r.bpp for r in group),
            psnr=_mean(min(r.psnr, PSNR_MOST) for r in group),
            ms_ssim=_mean_of_known(r.ms_ssim for r in group),
            ssimulacra2=_mean_of_known(r.ssimulacra2 for r in group),
            lpips=_mean_of_known(r.lpips for r in group),
            estimated_bpp=_mean_of_known(r.estimated_bits and r.estimated_bits / (r.width * r.height) for r in group),
            encode_seconds=_mean(r.encode_seconds for r in group),
            decode_seconds=_mean(r.decode_seconds for r in group),
            encode_memory=max((r.encode_memory for r in group if r.encode_memory is not None), default=None),
            decode_memory=max((r.decode_memory for r in group if r.decode_memory is not None), default=None),
        )
        for (codec, setting), group in groups.items()
    ]  # fmt: skip
    order = list(dict.fromkeys(r.codec for r in results))
    return sorted(points, key=lambda p: (order.index(p.codec), p.bpp))


def curve(points: list[Point], codec: str, value: Callable[[Point], float | None]) -> list[tuple[float, float]]:
    """(bpp, value) of a codec's points that have the value, by rate."""
    return [(p.bpp, v) for p in points if p.codec == codec and (v := value(p)) is not None]


def image_curve(results: list[Result], codec: str, image: str) -> list[tuple[float, float]]:
    """(bpp, PSNR) of a codec on one picture, by rate."""
    return sorted((r.bpp, min(r.psnr, PSNR_MOST)) for r in results if (r.codec, r.image) == (codec, image))

"""Bjontegaard differences: bits at equal quality."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from licodec.bench.points import Point, averages, curve, image_curve
from licodec.bench.run import Result
from licodec.errors import UsageError

LEAST_POINTS = 4
Curve = list[tuple[float, float]]  # (bpp, quality)
Range = tuple[float, float]

# by what a BD-rate can be at equal quality of, in the order of the tables: what people see first
AT_EQUAL: dict[str, tuple[str, Callable[[Point], float | None]]] = {
    "ssimulacra2": ("SSIMULACRA 2", lambda p: p.ssimulacra2),
    "ms_ssim": ("MS-SSIM", lambda p: p.ms_ssim_db),
    "psnr": ("PSNR", lambda p: p.psnr),
}


@dataclass(frozen=True)
class Difference:
    """A codec against an anchor, negative is smaller, in percent (rate) and dB (PSNR).

    `at_equal` has the BD-rates of the averaged curves by the keys of AT_EQUAL
    (MS-SSIM in dB). `psnr_per_image` is the mean over the pictures' own at equal
    PSNR: the literature means one or the other. `bd_psnr` is the PSNR at equal
    rate. None where the curves do not overlap, have fewer than four points or
    something was not measured. With limits all but `bd_psnr` is over that range of qualities.
    """

    codec: str
    anchor: str
    at_equal: dict[str, float | None]
    psnr_per_image: float | None
    bd_psnr: float | None


@dataclass(frozen=True)
class Over:
    """The part of a codec's curve over whose qualities BD-rates are taken: its settings from `low` to `high`."""

    codec: str
    low: float = -math.inf
    high: float = math.inf

    @classmethod
    def parse(cls, text: str) -> Over:
        """`avif@30-85`, or `avif` for all its settings. Raises UsageError."""
        name, separator, settings = text.rpartition("@")
        if not separator:
            return cls(text)
        found = re.fullmatch(r"(\d+\.?\d*)-(\d+\.?\d*)", settings)
        if not found or float(found[1]) >= float(found[2]):
            raise UsageError(f"--over {text!r}: write NAME@LOW-HIGH, as in avif@30-85")
        return cls(name, float(found[1]), float(found[2]))

    def __str__(self) -> str:
        return self.codec if math.isinf(self.low) else f"{self.codec}@{self.low:g}-{self.high:g}"

    def has(self, codec: str, setting: float) -> bool:
        """Whether a codec's setting is in the range."""
        return codec == self.codec and self.low <= setting <= self.high


def _limits(values: list[float | None]) -> Range | None:
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if known else None


def differences(results: list[Result], anchors: list[str], over: Over | None = None) -> list[Difference]:
    """Every codec against each anchor, which must have been measured."""
    points = averages(results)
    codecs = list(dict.fromkeys(p.codec for p in points))
    return [
        Difference(
            codec, anchor,
            {key: _rate(points, codec, anchor, value, over) for key, (_, value) in AT_EQUAL.items()},
            _per_image(results, codec, anchor, over),
            bd_psnr(*(curve(points, name, lambda p: p.psnr) for name in (anchor, codec))),
        )
        for anchor in anchors for codec in codecs if codec != anchor
    ]  # fmt: skip


def _rate(
    points: list[Point], codec: str, anchor: str, value: Callable[[Point], float | None], over: Over | None
) -> float | None:
    limits = _limits([value(p) for p in points if over.has(p.codec, p.setting)]) if over else None
    return bd_rate(curve(points, anchor, value), curve(points, codec, value), limits)


def _per_image(results: list[Result], codec: str, anchor: str, over: Over | None) -> float | None:
    values = []
    for image in sorted({r.image for r in results}):
        own = [r for r in results if r.image == image]
        limits = _limits([r.psnr for r in own if over.has(r.codec, r.setting)]) if over else None
        values.append(bd_rate(image_curve(results, anchor, image), image_curve(results, codec, image), limits))
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def bd_rate(anchor: Curve, test: Curve, limits: Range | None = None) -> float | None:
    """How many percent more bits `test` needs at equal quality: Akima interpolation of log rate over quality.

    Over the qualities that both curves reach, and, if given, within `limits`. None
    if there are none.
    """
    import bjontegaard

    if min(len(anchor), len(test)) < LEAST_POINTS:
        return None
    (rate_a, quality_a), (rate_t, quality_t) = (np.array(c).T for c in (anchor, test))
    low, high = max(quality_a.min(), quality_t.min()), min(quality_a.max(), quality_t.max())
    if limits:
        low, high = max(low, limits[0]), min(high, limits[1])
    if high <= low:
        return None
    try:
        _, of_anchor, of_test = bjontegaard.bd_rate(
            rate_a, quality_a, rate_t, quality_t, "akima", require_matching_points=False, interpolators=True,
            min_overlap=0,
        )  # fmt: skip
    except (AssertionError, ValueError):  # a curve whose quality falls as its rate grows
        return None
    logs = float(of_test.integrate(low, high) - of_anchor.integrate(low, high)) / (high - low)
    return 100 * (10**logs - 1)


def bd_psnr(anchor: Curve, test: Curve) -> float | None:
    """How many dB `test` has more at equal rate, as `bd_rate`."""
    import bjontegaard

    if min(len(anchor), len(test)) < LEAST_POINTS:
        return None
    (rate_a, quality_a), (rate_t, quality_t) = (np.array(c).T for c in (anchor, test))
    overlap = min(rate_a.max(), rate_t.max()) > max(rate_a.min(), rate_t.min())
    if not overlap or min(quality_a.max(), quality_t.max()) <= max(quality_a.min(), quality_t.min()):
        return None
    try:
        return float(
            bjontegaard.bd_psnr(
                rate_a, quality_a, rate_t, quality_t, "akima", require_matching_points=False, min_overlap=0
            )
        )
    except ValueError:  # two settings of the same rate
        return None

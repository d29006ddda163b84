"""What the results say: averages, Bjontegaard differences, tables, files and plots."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from licodec.bench.run import Result, environment

SCHEMA = 1


@dataclass(frozen=True)
class Point:
    """A codec at one setting, averaged over the pictures (arithmetic means, also of the PSNR in dB)."""

    codec: str
    setting: float
    pictures: int
    bpp: float
    psnr: float
    ms_ssim: float | None
    encode_seconds: float
    decode_seconds: float


@dataclass(frozen=True)
class Difference:
    """A codec against the anchor, negative is smaller, in percent (rate) and dB (PSNR).

    The literature means one or the other: `bd_rate` is of the averaged curves,
    `bd_rate_per_image` the mean over the pictures' own. None where the curves do
    not overlap.
    """

    codec: str
    anchor: str
    bd_rate: float | None
    bd_rate_per_image: float | None
    bd_psnr: float | None


def averages(results: list[Result]) -> list[Point]:
    """One point a codec and setting, by codec, then rate."""
    groups: dict[tuple[str, float], list[Result]] = defaultdict(list)
    for result in results:
        groups[result.codec, result.setting].append(result)
    points = []
    for (codec, setting), group in groups.items():
        similar = [r.ms_ssim for r in group if r.ms_ssim is not None]
        points.append(
            Point(
                codec,
                setting,
                len(group),
                float(np.mean([r.bpp for r in group])),
                float(np.mean([min(r.psnr, 100.0) for r in group])),
                float(np.mean(similar)) if similar else None,
                float(np.mean([r.encode_seconds for r in group])),
                float(np.mean([r.decode_seconds for r in group])),
            )
        )
    return sorted(points, key=lambda p: (p.codec, p.bpp))


def differences(results: list[Result], anchor: str) -> list[Difference]:
    """Every codec against the anchor. Empty if the anchor was not measured."""
    points = averages(results)
    codecs = list(dict.fromkeys(p.codec for p in points))
    if anchor not in codecs:
        return []
    curves = {c: [(p.bpp, p.psnr) for p in points if p.codec == c] for c in codecs}
    images = sorted({r.image for r in results})
    out = []
    for codec in codecs:
        if codec == anchor:
            continue
        own = [_bd(_image_curve(results, anchor, i), _image_curve(results, codec, i))[0] for i in images]
        measured = [value for value in own if value is not None]
        rate, quality = _bd(curves[anchor], curves[codec])
        per_image = float(np.mean(measured)) if len(measured) == len(images) else None
        out.append(Difference(codec, anchor, rate, per_image, quality))
    return out


def _image_curve(results: list[Result], codec: str, image: str) -> list[tuple[float, float]]:
    return sorted((r.bpp, r.psnr) for r in results if (r.codec, r.image) == (codec, image))


def _bd(anchor: list[tuple[float, float]], test: list[tuple[float, float]]) -> tuple[float | None, float | None]:
    """BD-rate and BD-PSNR, Akima interpolation; None where the curves do not overlap."""
    import bjontegaard

    (rate_a, psnr_a), (rate_t, psnr_t) = (np.array(c).T for c in (anchor, test))
    if min(len(rate_a), len(rate_t)) < 4 or min(psnr_a.max(), psnr_t.max()) <= max(psnr_a.min(), psnr_t.min()):
        return None, None
    options = {"method": "akima", "require_matching_points": False, "min_overlap": 0}
    values = [
        float(measure(rate_a, psnr_a, rate_t, psnr_t, **options))
        for measure in (bjontegaard.bd_rate, bjontegaard.bd_psnr)
    ]
    return tuple(None if math.isnan(value) else value for value in values)


def write(results: list[Result], anchor: str, folder: Path) -> None:
    """results.json (schema: the dataclasses here and in `run`), results.csv, and plots if matplotlib is there."""
    document = {
        "schema": SCHEMA,
        "environment": environment(),
        "anchor": anchor,
        "averages": [asdict(p) for p in averages(results)],
        "differences": [asdict(d) for d in differences(results, anchor)],
        "results": [asdict(r) for r in results],
    }
    (folder / "results.json").write_text(json.dumps(document, indent=1))
    with open(folder / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Result)])
        writer.writeheader()
        writer.writerows(asdict(r) for r in results)


def plot(results: list[Result], folder: Path) -> None:
    """Rate-distortion curves as rd-psnr.svg and .png, and rd-ms-ssim likewise."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    points = averages(results)
    for name, label in (("psnr", "PSNR, dB"), ("ms-ssim", "MS-SSIM, dB")):
        figure, axes = plt.subplots(figsize=(8, 6), layout="constrained")
        for codec in dict.fromkeys(p.codec for p in points):
            curve = [p for p in points if p.codec == codec]
            if name == "psnr":
                values = [p.psnr for p in curve]
            else:
                values = [-10 * math.log10(max(1 - p.ms_ssim, 1e-9)) if p.ms_ssim else math.nan for p in curve]
            axes.plot([p.bpp for p in curve], values, marker="o", markersize=4, label=codec)
        axes.set(xlabel="bits per pixel", ylabel=label, xlim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
        for ending in ("svg", "png"):
            figure.savefig(folder / f"rd-{name}.{ending}", dpi=120)
        plt.close(figure)

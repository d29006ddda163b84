"""What the results say: averages, Bjontegaard differences, files and plots."""

from __future__ import annotations

import csv
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from licodec.bench.run import Result, environment

SCHEMA = 2
PSNR_MOST = 100.0  # what an equal picture counts as in averages
KODAK = (24, {(768, 512), (512, 768)})  # its pictures and their sizes


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


@dataclass(frozen=True)
class Difference:
    """A codec against the anchor, negative is smaller, in percent (rate) and dB (PSNR).

    The literature means one or the other: `bd_rate` is of the averaged curves,
    `bd_rate_per_image` the mean over the pictures' own, both at equal PSNR. The
    others are of the averaged curves at equal MS-SSIM (in dB) and SSIMULACRA 2.
    None where the curves do not overlap or something was not measured.
    """

    codec: str
    anchor: str
    bd_rate: float | None
    bd_rate_per_image: float | None
    bd_psnr: float | None
    bd_rate_ms_ssim: float | None
    bd_rate_ssimulacra2: float | None


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean, None if no picture has a value."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def averages(results: list[Result]) -> list[Point]:
    """One point a codec and setting, by codec, then rate."""
    groups: dict[tuple[str, float], list[Result]] = defaultdict(list)
    for result in results:
        groups[result.codec, result.setting].append(result)
    points = [
        Point(
            codec, setting, len(group),
            bpp=_mean(r.bpp for r in group),
            psnr=_mean(min(r.psnr, PSNR_MOST) for r in group),
            ms_ssim=_mean(r.ms_ssim for r in group),
            ssimulacra2=_mean(r.ssimulacra2 for r in group),
            lpips=_mean(r.lpips for r in group),
            estimated_bpp=_mean(r.estimated_bits and r.estimated_bits / (r.width * r.height) for r in group),
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


def differences(results: list[Result], anchor: str) -> list[Difference]:
    """Every codec against the anchor. Empty if the anchor was not measured."""
    points = averages(results)
    codecs = list(dict.fromkeys(p.codec for p in points))
    if anchor not in codecs:
        return []
    images = sorted({r.image for r in results})
    out = []
    for codec in codecs:
        if codec == anchor:
            continue
        own = [_bd(image_curve(results, anchor, i), image_curve(results, codec, i))[0] for i in images]
        measured = [value for value in own if value is not None]
        (rate, quality), (ms_ssim, _), (ssimulacra2, _) = (
            _bd(curve(points, anchor, value), curve(points, codec, value))
            for value in (lambda p: p.psnr, lambda p: p.ms_ssim_db, lambda p: p.ssimulacra2)
        )
        per_image = float(np.mean(measured)) if len(measured) == len(images) else None
        out.append(Difference(codec, anchor, rate, per_image, quality, ms_ssim, ssimulacra2))
    return out


def image_curve(results: list[Result], codec: str, image: str) -> list[tuple[float, float]]:
    """(bpp, PSNR) of a codec on one picture, by rate."""
    return sorted((r.bpp, min(r.psnr, PSNR_MOST)) for r in results if (r.codec, r.image) == (codec, image))


def _bd(anchor: list[tuple[float, float]], test: list[tuple[float, float]]) -> tuple[float | None, float | None]:
    """BD-rate and the BD of the quality, Akima interpolation; None where the curves do not overlap."""
    import bjontegaard

    if min(len(anchor), len(test)) < 4:
        return None, None
    (rate_a, quality_a), (rate_t, quality_t) = (np.array(c).T for c in (anchor, test))
    if min(quality_a.max(), quality_t.max()) <= max(quality_a.min(), quality_t.min()):
        return None, None
    options = {"method": "akima", "require_matching_points": False, "min_overlap": 0}
    values = [
        float(measure(rate_a, quality_a, rate_t, quality_t, **options))
        for measure in (bjontegaard.bd_rate, bjontegaard.bd_psnr)
    ]
    return tuple(None if math.isnan(value) else value for value in values)


def document(results: list[Result], anchor: str) -> dict[str, object]:
    """What results.json holds; its schema: the dataclasses here and in `run`."""
    return {
        "schema": SCHEMA,
        "environment": environment(),
        "anchor": anchor,
        "averages": [asdict(p) for p in averages(results)],
        "differences": [asdict(d) for d in differences(results, anchor)],
        "results": [asdict(r) for r in results],
    }


def write(facts: dict[str, object], folder: Path) -> None:
    """results.json and results.csv. An infinite PSNR (equal pictures) is null in JSON."""
    rows = [
        {k: None if isinstance(v, float) and math.isinf(v) else v for k, v in row.items()} for row in facts["results"]
    ]
    text = json.dumps(facts | {"results": rows}, indent=1, allow_nan=False)
    (folder / "results.json").write_text(text)
    with open(folder / "results.csv", "w", newline="") as file:
        names = [f.name for f in fields(Result) if f.name != "metrics"]
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(facts["results"])


def is_kodak(results: list[Result]) -> bool:
    """Whether the pictures look like the Kodak set, for which papers publish their points."""
    images = {(r.image, r.width, r.height) for r in results}
    return len(images) == KODAK[0] and {size[1:] for size in images} <= KODAK[1]


def plot(results: list[Result], folder: Path) -> dict[str, Path]:
    """Rate-distortion curves as rd-NAME.svg and .png; returns the SVG files by their titles.

    On the Kodak set the points that the papers publish are marked: filled for
    measured models, grey for the others.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    points = averages(results)
    published = _published() if is_kodak(results) else {}
    kinds = {
        "psnr": ("PSNR, dB", lambda p: p.psnr),
        "ms-ssim": ("MS-SSIM, dB", lambda p: p.ms_ssim_db),
        "ssimulacra2": ("SSIMULACRA 2", lambda p: p.ssimulacra2),
        "lpips": ("LPIPS", lambda p: p.lpips),
    }
    written = {}
    for name, (label, value) in kinds.items():
        codecs = [c for c in dict.fromkeys(p.codec for p in points) if curve(points, c, value)]
        if not codecs:
            continue
        figure, axes = plt.subplots(figsize=(8, 6), layout="constrained")
        colours = {}
        for codec in codecs:
            rates, values = zip(*curve(points, codec, value), strict=True)
            (line,) = axes.plot(rates, values, marker="o", markersize=4, label=codec)
            colours[codec] = line.get_color()
        limits = axes.get_xlim(), axes.get_ylim()
        key = {"psnr": "psnr", "ms-ssim": "ms_ssim_db"}.get(name)
        _mark_published(axes, published, key, colours)
        axes.set(xlabel="bits per pixel", ylabel=label, xlim=(0, limits[0][1]), ylim=limits[1])
        if name == "lpips":
            axes.invert_yaxis()
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        for ending in ("svg", "png"):
            figure.savefig(folder / f"rd-{name}.{ending}", dpi=120)
        plt.close(figure)
        written[label] = folder / f"rd-{name}.svg"
    return written


def _published() -> dict[str, list[dict[str, float]]]:
    from licodec.weights import manifest

    return {name: points for name, model in manifest.package().models.items() if (points := model.kodak_points())}


def _mark_published(axes, published: dict[str, list[dict[str, float]]], key: str | None, colours: dict) -> None:
    markers = "xs^vD<>P*h8"
    for number, (model, points) in enumerate(published.items()):
        own = [p for p in points if key in p]
        if own:
            axes.plot(
                [p["bpp"] for p in own], [p[key] for p in own], linestyle="none", marker=markers[number % len(markers)],
                markersize=5, color=colours.get(model, "0.6"), label=f"{model}, as published", zorder=1,
            )  # fmt: skip

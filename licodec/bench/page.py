"""index.html: curves, tables, and crops side by side at equal rate, in one file that needs no server."""

from __future__ import annotations

import base64
import contextlib
import io
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from licodec.bench import bd, table
from licodec.bench.codecs import Measured
from licodec.bench.points import PSNR_MOST, Point, image_curve
from licodec.bench.report import Report
from licodec.bench.run import Result
from licodec.errors import LicodecError
from licodec.search import pixel_psnr

CROP = 320  # side of the crops in pixels
Item = TypeVar("Item")


@dataclass(frozen=True)
class Shot:
    """A codec's version of a crop, or the original (then without numbers)."""

    name: str
    data_uri: str
    setting: float | None = None
    bpp: float | None = None
    psnr: float | None = None


@dataclass(frozen=True)
class Comparison:
    """One picture through all codecs at about the same rate.

    `gain` is the first codec's PSNR less the anchor's at that rate, of the measured curves.
    """

    image: str
    place: tuple[int, int]
    gain: float | None
    bpp: float
    shots: list[Shot]


def rank(results: list[Result], first: str, anchor: str) -> list[tuple[str, float, float | None]]:
    """Images with the rate to compare at, and the first codec's gain there, worst first.

    The rate is that of the first codec's lower-middle setting: low enough to see something.
    Without an anchor they are ranked by the PSNR itself.
    """
    ranked = []
    for image in dict.fromkeys(r.image for r in results):
        own = image_curve(results, first, image)
        if not own:
            continue
        rate, psnr = own[(len(own) - 1) // 3]
        other = image_curve(results, anchor, image)
        gain = None
        if len(other) > 1 and anchor != first:
            rates, values = np.array(other).T
            gain = psnr - float(np.interp(np.log(rate), np.log(rates), values))
        ranked.append((image, rate, gain, psnr))
    ranked.sort(key=lambda item: item[3] if item[2] is None else item[2])
    return [item[:3] for item in ranked]


def ends(ranked: list[Item], count: int) -> list[Item]:
    """The `count` worst and best of a ranking: worst, best, second worst, second best ..."""
    order: list[Item] = []
    low, high = 0, len(ranked) - 1
    while low <= high and len(order) < count:
        order.append(ranked[low])
        if high > low and len(order) < count:
            order.append(ranked[high])
        low, high = low + 1, high - 1
    return order


def side_by_side(
    pixels: np.ndarray,
    codecs: list[Measured],
    image: str,
    rate: float,
    gain: float | None,
    rates: list[tuple[str, float, float]],
) -> Comparison:
    """A picture, uint8 [H, W, 3], through all codecs at about one rate, cut out where they err most.

    Args:
        rate: in bits per pixel.
        rates: codec, setting and bits per pixel of what was measured of this picture.
    """
    groups: dict[str, list[Measured]] = {}
    for codec in codecs:
        groups.setdefault(codec.name, []).append(codec)
    versions = {}
    for name, group in groups.items():
        with contextlib.suppress(LicodecError):  # this codec failed on this picture, and the run has said so
            versions[name] = _near(
                group, pixels, rate, {setting: bpp for codec, setting, bpp in rates if codec == name}
            )
    place = _worst_place(pixels, [decoded for _, _, decoded in versions.values()])
    shots = [Shot("original", _data_uri(_cut(pixels, place)))]
    for name, (setting, size, decoded) in versions.items():
        bpp = 8 * size / (pixels.shape[0] * pixels.shape[1])
        psnr = min(pixel_psnr(decoded, pixels), PSNR_MOST)
        shots.append(Shot(name, _data_uri(_cut(decoded, place)), setting, bpp, psnr))
    return Comparison(image, place, gain, rate, shots)


def _near(
    group: list[Measured], pixels: np.ndarray, rate: float, rates: dict[float, float]
) -> tuple[float, int, np.ndarray]:
    """Setting, size and decoded picture of a codec as close to a rate as it gets; `rates` has those of its settings."""
    size = int(rate * pixels.shape[0] * pixels.shape[1] / 8)
    finer = group[0].near(pixels, size)
    if finer is not None:
        setting, data = finer
        return setting, len(data), group[0].decode(data)
    codec = min(group, key=lambda c: abs(rates.get(c.setting, np.inf) - rate))
    data, _ = codec.encode(pixels)
    return codec.setting, len(data), codec.decode(data)


def _worst_place(pixels: np.ndarray, versions: list[np.ndarray]) -> tuple[int, int]:
    """Left and top of the crop with the largest squared error, summed over the codecs."""
    error = np.zeros(pixels.shape[:2])
    for decoded in versions:
        error += ((decoded.astype(np.float32) - pixels) ** 2).sum(2)
    height, width = (min(CROP, side) for side in error.shape)
    total = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    boxes = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = np.unravel_index(boxes.argmax(), boxes.shape)
    return int(left), int(top)


def _cut(pixels: np.ndarray, place: tuple[int, int]) -> np.ndarray:
    left, top = place
    return np.ascontiguousarray(pixels[top : top + CROP, left : left + CROP])


def _data_uri(pixels: np.ndarray) -> str:
    """Lossless, as what is compared must be what was decoded."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "WEBP", lossless=True, quality=60)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode()


def write(path: Path, report: Report, plots: dict[str, Path], comparisons: list[Comparison]) -> None:
    """Fill the template beside this file in."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    images = {
        label: "data:image/svg+xml;base64," + base64.b64encode(file.read_bytes()).decode()
        for label, file in plots.items()
    }
    points = report.averages
    shown = {f.name: any(getattr(p, f.name) is not None for p in points) for f in fields(Point)}
    page = environment.get_template("page.html").render(
        report=report, plots=images, comparisons=comparisons, shown=shown, crop=CROP, head=table.head,
        cells=table.cells, percent=table.percent, at_equal=[k for k in bd.AT_EQUAL if shown[k]],
        titles={k: title for k, (title, _) in bd.AT_EQUAL.items()}, images=len({r.image for r in report.results}),
    )  # fmt: skip
    path.write_text(page, encoding="utf-8")

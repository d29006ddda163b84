"""The report's files and plots; its page is `page`."""

from __future__ import annotations

import csv
import functools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from licodec.bench import bd, table
from licodec.bench.points import Point, averages, curve
from licodec.bench.run import Environment, Result, environment

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.typing import ColorType

SCHEMA = 4
KODAK = (24, {(768, 512), (512, 768)})  # its pictures and their sizes


@dataclass(frozen=True)
class Report:
    """What a run found.

    Attributes:
        models: names of our models' curves.
        anchors: of the curves that BD-rates are against; they must be among the results.
        over: whose qualities BD-rates are taken over; None for all that two curves share.
    """

    results: list[Result]
    models: list[str]
    anchors: list[str]
    over: bd.Over | None = None

    @functools.cached_property
    def averages(self) -> list[Point]:
        return averages(self.results)

    @functools.cached_property
    def differences(self) -> list[bd.Difference]:
        return bd.differences(self.results, self.anchors, self.over)

    @functools.cached_property
    def tables(self) -> list[table.Table]:
        return table.tables(self.averages, self.differences, self.models)

    @functools.cached_property
    def environment(self) -> Environment:
        return environment()

    @property
    def about(self) -> str:
        """What the tables hold, and on which machine, in two sentences."""
        count = len({r.image for r in self.results})
        within = "" if self.over is None else f", within those of {self.over}"
        return (
            f"BD-rates at equal quality over the qualities that both reach{within}, of the curves averaged over "
            f"{count} picture{'' if count == 1 else 's'}: negative is smaller files. Seconds to encode and decode "
            f"a picture: means over the settings, {self._machines}.{self.beside}"
        )

    @property
    def _machines(self) -> str:
        """How many threads of what; results of several runs and of clusters can be of several."""
        threads = sorted({r.threads or self.environment["threads"] for r in self.results})
        names = sorted({r.processor or self.environment["processor"] for r in self.results})
        return f"{' or '.join(map(str, threads))} thread{'' if threads == [1] else 's'} of {', '.join(names)}"

    @property
    def beside(self) -> str:
        """A sentence on measurements that disturbed each other, if there were any."""
        most = max((r.side_by_side for r in self.results), default=1)
        if most == 1:
            return ""
        whole = all(r.side_by_side == most for r in self.results)
        what = "Measured" if whole else "Some of it was measured"
        return f" {what} {most} side by side: the seconds are longer than those of one alone; all else is the same."

    def document(self) -> dict[str, object]:
        """What results.json holds; its schema: the dataclasses of `run`, `points`, `bd` and `table`.

        An infinite PSNR (equal pictures) is null.
        """
        rows = [asdict(r) for r in self.results]
        return {
            "schema": SCHEMA,
            "environment": self.environment,
            "anchors": self.anchors,
            "over": None if self.over is None else str(self.over),
            "tables": [asdict(t) for t in self.tables],
            "averages": [asdict(p) for p in self.averages],
            "differences": [asdict(d) for d in self.differences],
            "results": [{k: None if v == math.inf else v for k, v in row.items()} for row in rows],
        }

    def write(self, folder: Path) -> None:
        """results.json, results.csv, bd-rates.csv and table.md."""
        (folder / "results.json").write_text(json.dumps(self.document(), indent=1, allow_nan=False))
        (folder / "table.md").write_text(table.markdown(self.tables) + f"\n{self.about}\n", encoding="utf-8")
        names = [f.name for f in fields(Result) if f.name != "metrics"]
        _write_csv(folder / "results.csv", names, [asdict(r) for r in self.results])
        rates = [asdict(d) | d.at_equal | self._seconds(d) for d in self.differences]
        _write_csv(folder / "bd-rates.csv", ["codec", "anchor", *bd.AT_EQUAL, *SECONDS], rates)

    def _seconds(self, difference: bd.Difference) -> dict[str, float]:
        both = (table.seconds(self.averages, name) for name in (difference.codec, difference.anchor))
        return dict(zip(SECONDS, (value for pair in both for value in pair), strict=True))


SECONDS = ("encode_seconds", "decode_seconds", "anchor_encode_seconds", "anchor_decode_seconds")


def _write_csv(path: Path, names: list[str], rows: list[dict[str, object]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


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
        if key := {"psnr": "psnr", "ms-ssim": "ms_ssim_db"}.get(name):
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


def _published() -> dict[str, list[Mapping[str, float]]]:
    from licodec.weights import manifest

    return {name: points for name, model in manifest.package().models.items() if (points := model.kodak_points())}


def _mark_published(
    axes: Axes, published: dict[str, list[Mapping[str, float]]], key: str, colours: dict[str, ColorType]
) -> None:
    markers = "xs^vD<>P*h8"
    for number, (model, points) in enumerate(published.items()):
        own = [p for p in points if key in p]
        if own:
            axes.plot(
                [p["bpp"] for p in own], [p[key] for p in own], linestyle="none", marker=markers[number % len(markers)],
                markersize=5, color=colours.get(model, "0.6"), label=f"{model}, as published", zorder=1,
            )  # fmt: skip

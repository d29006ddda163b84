"""The table of `licodec models`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypedDict

from licodec.weights import file, sources
from licodec.weights.store import bundled, installed

if TYPE_CHECKING:
    from licodec.models import ModelInfo


class Listed(TypedDict):
    """A model, as `licodec models --json` prints it.

    weights: bundled, installed, published or unpublished, and which. get: the command that fetches them, if one does.
    paths: of the weights files that are here. licence: of these, else of the authors'.
    """

    model: str
    qualities: str
    variable_rate: bool
    title: str
    paper: str
    source: str
    parameters: int | None
    weights: str
    get: str | None
    paths: list[str]
    licence: str


def listing(models: Iterable[ModelInfo]) -> list[Listed]:
    """Models with their weights, for `licodec models`; imports no torch."""
    return [_model_row(info) for info in models]


def _model_row(info: ModelInfo) -> Listed:
    own, here = bundled(info.name), installed(info.name)
    found = own[:1] + list(here.values())
    summary = file.read_header(found[0]) if found else None
    published = [e.quality for e in sources.offered(info.name, None)]
    if own:
        where = "bundled"
    elif here:
        where = "installed: " + ", ".join("any" if q is None else str(q) for q in here)
    elif published:
        where = "published: " + ", ".join(str(q) for q in sorted({q for q in published if q}))
    else:
        where = "unpublished"
    fetchable = any(e.fetchable for e in sources.entries(info.name))
    choice = "" if info.variable_rate else " -q Q"
    get = f"licodec weights fetch-upstream {info.name}{choice}" if fetchable and not (found or published) else None
    return {
        "model": info.name,
        "qualities": _ranges(info.qualities) + (" and between" if info.variable_rate else ""),
        "variable_rate": info.variable_rate,
        "title": info.title,
        "paper": info.paper,
        "source": info.source,
        "parameters": summary.parameters if summary else info.parameters,
        "weights": where,
        "get": get,
        "paths": [str(path) for path in found],
        "licence": summary.metadata.licence if summary else info.licence,
    }


def _ranges(numbers: tuple[int, ...]) -> str:
    """(1, 2, 3, 11, 12) -> "1-3, 11-12"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)

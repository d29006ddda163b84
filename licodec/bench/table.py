"""The table that says how our models do: bits at equal quality against each rival, and seconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from licodec.bench.bd import AT_EQUAL, Difference
from licodec.bench.points import Point


@dataclass(frozen=True)
class Row:
    """A rival as one of our models sees it, or the model itself (then no BD-rates).

    `at_equal` in percent by the keys of `bd.AT_EQUAL`; `seconds` to encode and to
    decode, mean over pictures and settings.
    """

    codec: str
    at_equal: dict[str, float | None]
    seconds: tuple[float, float]


@dataclass(frozen=True)
class Table:
    """A model against the anchors: `columns` are the keys of `bd.AT_EQUAL` that were measured."""

    model: str
    columns: list[str]
    rows: list[Row]


def seconds(points: list[Point], codec: str) -> tuple[float, float]:
    """To encode and decode a picture, mean over the settings."""
    own = [(p.encode_seconds, p.decode_seconds) for p in points if p.codec == codec]
    encode, decode = np.mean(own, 0).tolist()
    return encode, decode


def tables(points: list[Point], differences: list[Difference], models: list[str]) -> list[Table]:
    """One for each model that there is an anchor for."""
    columns = [key for key, (_, value) in AT_EQUAL.items() if any(value(p) is not None for p in points)]
    out = []
    for model in models:
        rows = [Row(d.anchor, d.at_equal, seconds(points, d.anchor)) for d in differences if d.codec == model]
        if rows:
            out.append(Table(model, columns, [*rows, Row(model, {}, seconds(points, model))]))
    return out


def head(table: Table) -> list[str]:
    """Titles of the columns."""
    return [f"{table.model} against", *(AT_EQUAL[key][0] for key in table.columns), "encode s", "decode s"]


def cells(table: Table, row: Row) -> list[str]:
    """A row as text."""
    own = row.codec == table.model
    rates = ["" if own else percent(row.at_equal[key]) for key in table.columns]
    return [f"{row.codec} itself" if own else row.codec, *rates, *(f"{s:.3f}" for s in row.seconds)]


def percent(value: float | None) -> str:
    """`-12.3 %`, or a dash."""
    return "-" if value is None else f"{value:+.1f} %"


def markdown(made: list[Table]) -> str:
    """The tables as Markdown, README's for one."""
    parts = []
    for table in made:
        titles = head(table)
        lines = [titles, ["---", *["---:"] * (len(titles) - 1)], *(cells(table, row) for row in table.rows)]
        parts.append("".join("| " + " | ".join(line) + " |\n" for line in lines))
    return "\n".join(parts)

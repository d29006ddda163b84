"""`licodec models`."""

from __future__ import annotations

import json

import typer


def models(as_json: bool = typer.Option(False, "--json", help="Print JSON, one list of objects.")) -> None:
    """List the models: qualities, parameters, where their weights are, licence and paper."""
    from licodec.weights import store

    rows = store.listing()
    if as_json:
        print(json.dumps(rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model", "quality", "parameters", "weights", "licence", "what it is"):
        table.add_column(name, justify="right" if name == "parameters" else "left", overflow="fold")
    for row in rows:
        count = f"{row['parameters']:,}" if row["parameters"] else "?"
        about = row["title"] + (f" ({row['paper']})" if row["paper"] else "")
        table.add_row(row["model"], row["qualities"], count, row["weights"], row["licence"], about)
    Console().print(table)

"""`licodec models`."""

from __future__ import annotations

import json

import typer


def models(as_json: bool = typer.Option(False, "--json", help="Print JSON, one list of objects.")) -> None:
    """List the models and their weights.

    For each: qualities, parameters, where its weights are, licence and paper.
    """
    from licodec.models import MODELS
    from licodec.models.listing import listing

    rows = listing(MODELS.values())
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        count = f"{row['parameters']:,} parameters" if row["parameters"] else "size unknown"
        print(f"{row['model']:<24} -q {row['qualities']:<16} {count:<23} {row['weights']:<14} {row['licence']}")
        if row["get"]:
            print(f"    fetched when it is first used, or by: {row['get']}")
        print(f"    {row['title']}" + (f"; {row['paper']}" if row["paper"] else ""))

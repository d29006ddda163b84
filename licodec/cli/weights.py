"""`licodec weights ...`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from licodec.cli.common import Options, complete_model
from licodec.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from licodec.finding import WeightsRow

app = typer.Typer(
    help="Get, check and publish weights.\n\nMODEL[-Q] names a model, or its weights of one quality: tcm, tcm-3.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Target = Annotated[str, typer.Argument(metavar="MODEL[-Q]", help="A model, or one quality of it: tcm-3.")]


def _say(text: str, quiet: bool = False) -> None:
    if not quiet:
        print(text, file=sys.stderr)


@app.command("list")
def list_(
    model: Annotated[str | None, typer.Argument(help="Only this model.", autocompletion=complete_model)] = None,
    as_json: bool = typer.Option(False, "--json", help="Print JSON, one list of objects."),
) -> None:
    """List all weights: bundled, installed, in the Hub's cache, published, or still unpublished."""
    from licodec import finding
    from licodec.models import model_info
    from licodec.weights import sources

    name = model and model_info(model).name
    rows = [row for row in finding.rows() if name in (None, row["model"])]
    if as_json:
        print(json.dumps(rows))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "-q", "status", "where", "authors' checkpoint", box=box.SIMPLE_HEAD)
    for row in rows:
        quality = "" if row["quality"] is None else str(row["quality"])
        table.add_row(row["model"], quality, row["status"], row["where"], _checkpoint(row))
    console = Console(soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else 200)
    console.print(table)
    _say("manifests, in order: " + ", ".join(sources.names()))


def _checkpoint(row: WeightsRow) -> str:
    """What was seen of the authors' file."""
    if "checkpoint_sha256" not in row:
        return ""
    size = f"{row['checkpoint_size']} bytes, " if row["checkpoint_size"] else ""
    return f"{size}sha256 {row['checkpoint_sha256']}"


@app.command()
def pull(
    targets: Annotated[list[str], typer.Argument(metavar="MODEL[-Q]...", help="What to download: tcm, tcm-3.")],
    quiet: bool = Options.quiet,
) -> None:
    """Download weights and check them: published ones into the Hub's cache, else the authors' checkpoint, converted."""
    from licodec import finding
    from licodec.upstream import authors
    from licodec.weights import hub, sources

    for text in targets:
        model, quality = finding.parse_target(text)
        # of the first source that has a quality
        chosen = {e.quality: e for e in reversed(list(sources.offered(model, quality)))}
        for entry in chosen.values():
            _say(f"{entry.label}: {hub.fetch(entry)}", quiet)
        if chosen:
            continue
        if theirs := sources.fetchable(model, quality):
            _say(f"{theirs.label}: {authors.install(theirs).path}", quiet)
            continue
        how = next((e for e in sources.entries(model) if e.fetchable), None)
        hint = f"; `licodec weights fetch-upstream {how.label}` gets the authors' checkpoint" if how else ""
        raise WeightsError(f"no weights of {text} are published{hint}")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A weights file, .safetensors.")],
    force: bool = Options.force,
    quiet: bool = Options.quiet,
) -> None:
    """Check a weights file of licodec's and copy it into the local store."""
    from licodec import finding

    _say(f"{file} -> {finding.import_file(file, force)}", quiet)


@app.command()
def verify(
    target: Annotated[str | None, typer.Argument(metavar="MODEL[-Q]", help="Only these.")] = None,
    quiet: bool = Options.quiet,
) -> None:
    """Check the contents of all weights that are here against their fingerprint or sha256."""
    from licodec import finding

    model, quality = finding.parse_target(target) if target else (None, None)
    report = finding.verify(model, quality)
    for path, problem in report:
        _say(f"{path}: {problem or 'ok'}", quiet and not problem)
    if bad := sum(problem is not None for _, problem in report):
        raise WeightsError(f"{bad} of {len(report)} files are damaged; remove and get them again")
    _say(f"{len(report)} files, all as they should be", quiet)


@app.command()
def path(target: Target) -> None:
    """Print where the weights are that encode would use; downloads nothing."""
    from licodec import finding
    from licodec.weights import store

    model, quality = finding.parse_target(target)
    found = store.local(model, quality)
    if not found:
        raise WeightsError(f"no weights of {target} are here; `licodec weights list {model}` shows how to get them")
    for file in found[:1] if quality is not None else found:
        print(file)


@app.command()
def remove(target: Target, quiet: bool = Options.quiet) -> None:
    """Delete weights from the local store and from the Hub's cache. Bundled ones stay."""
    from licodec import finding
    from licodec.weights import store

    gone = store.remove(*finding.parse_target(target))
    if not gone:
        raise WeightsError(f"no weights of {target} are installed or cached")
    for file, size in gone:
        _say(f"removed {file} ({size} bytes)", quiet)


@app.command("fetch-upstream")
def fetch_upstream(
    model: Annotated[str, typer.Argument(help="See `licodec models`.", autocompletion=complete_model)],
    quality: int | None = typer.Option(None, "-q", "--quality", help="Which of its checkpoints."),
    name: str | None = typer.Option(None, "--file", help="Name of the file, where the authors share a folder."),
    accept_new: bool = typer.Option(
        False, "--accept-new", help="Take a checkpoint that is another than the one fetched first."
    ),
    force: bool = Options.force,
    quiet: bool = Options.quiet,
) -> None:
    """Download the authors' own checkpoint from where the authors put it, convert and install it.

    `licodec encode -m MODEL -q Q` does so by itself. Nothing in the checkpoint is executed. Its entry for a
    manifest, with its size and sha256, is printed: please send it. Example:  licodec weights fetch-upstream tcm -q 3
    """
    from licodec.models import model_info
    from licodec.upstream import authors
    from licodec.weights import drive, manifest, store

    entry = drive.find(model_info(model).name, quality)
    target = store.place(entry.model, entry.quality)
    if target.exists() and not force:
        raise UsageError(f"{target} exists; -f overwrites it")
    made = authors.install(entry, name, True, accept_new)
    _say(f"{made.path}: {entry.label}, weights {made.fingerprint}", quiet)
    print(manifest.dump_entry(made.entry))


@app.command()
def publish(
    targets: Annotated[list[str], typer.Argument(metavar="MODEL[-Q]|FILE...", help="Installed weights, or files.")],
    repo: str = typer.Option(..., "--repo-id", help="Repository on the Hub: me/licodec-weights. Made if need be."),
    licence: str | None = typer.Option(None, "--licence", help="Licence to publish under, if the files name none."),
    report: Path | None = typer.Option(None, "--report", help="results.json of `licodec bench` with these weights."),
    private: bool = typer.Option(False, "--private", help="Make a new repository private."),
    quiet: bool = Options.quiet,
) -> None:
    """Upload converted weights with a model card, and print their manifest entries.

    Others then use them with `licodec weights add-source REPO`. Example:
    licodec weights publish tcm-3 --repo-id me/licodec-weights --report report/results.json
    """
    from licodec import finding
    from licodec.weights import manifest
    from licodec.weights.publish import prepare, publish

    uploads = [prepare(file, licence, report) for file in finding.targets(targets)]
    for entry in publish(uploads, repo, private):
        print(manifest.dump_entry(entry) + "\n")


@app.command("add-source")
def add_source(
    source: Annotated[str, typer.Argument(help="A repository on the Hub, org/name, or a manifest, FILE.toml.")],
    quiet: bool = Options.quiet,
) -> None:
    """Use the weights that another manifest names. Adding a source again brings it up to date.

    Added sources are searched in order, before licodec's own manifest and after LICODEC_WEIGHTS.
    """
    from licodec.weights import sources

    name, count = sources.add(source)
    _say(f"{name}: {count} entries", quiet)


@app.command("remove-source")
def remove_source(source: Annotated[str, typer.Argument(help="Its name, as `list` shows it.")]) -> None:
    """Forget an added source."""
    from licodec.weights import sources

    sources.remove(source)

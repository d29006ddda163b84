"""Putting converted weights on the Hub, with a model card and a manifest.

A repository that was published to is a source: it holds the files, a card, and
a weights.toml that pins each file to the commit it came with
(`licodec weights add-source me/licodec-weights`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from licodec.errors import InputError, UsageError
from licodec.files import sha256
from licodec.weights import file, hub, manifest
from licodec.weights.manifest import Entry, ManifestModel

NO_LICENCE = ("", "unknown", "none given", "see source")


@dataclass(frozen=True)
class Upload:
    """A weights file and its entry, which still lacks repository and commit."""

    path: Path
    entry: Entry


def prepare(path: Path, licence: str | None, report: Path | None) -> Upload:
    """Check a weights file and write its entry.

    Raises:
        UsageError: its licence is unknown.
        WeightsError: it is damaged.
    """
    weights = file.read(path)  # all of it: a damaged file must not be published
    metadata, fingerprint = weights.metadata, weights.fingerprint.hex()
    licence = licence or metadata.licence
    if licence in NO_LICENCE:
        raise UsageError(
            f"{path.name}: nothing says that {metadata.model} may be published (licence: {licence or 'unknown'}); "
            "if you may, say under which with `licence`"
        )
    known = _known(metadata.model, metadata.quality)
    rate_lambda = metadata.notes.get("rate_lambda")
    entry = Entry(
        model=metadata.model,
        status="published",
        quality=metadata.quality,
        rate_lambda=float(rate_lambda) if rate_lambda else (known.rate_lambda if known else None),
        metric=metadata.notes.get("metric") or (known.metric if known else "mse"),
        file=path.name,
        size=path.stat().st_size,
        sha256=sha256(path),
        fingerprint=fingerprint,
        licence=licence,
        checkpoint=metadata.notes.get("source_file"),
        checkpoint_sha256=metadata.notes.get("source_sha256"),
        kodak=known.kodak if known else None,
        measured=_measured(report, fingerprint) if report else None,
    )
    return Upload(path, entry)


def _known(model: str, quality: int | None) -> Entry | None:
    ours = manifest.package().models.get(model)
    return next((e for e in ours.weights if e.quality == quality), None) if ours else None


def _measured(report: Path, fingerprint: str) -> Mapping[str, object] | None:
    """Mean bpp and PSNR of these weights in a results.json of `licodec bench`. Raises InputError."""
    try:
        document = json.loads(report.read_text())
        own = [r for r in document["results"] if r["key"].split()[-1] == fingerprint]
        if not own or len({r["setting"] for r in own}) > 1:  # of variable-rate weights there is no one point
            return None
        bpp, psnr = (round(sum(float(r[key]) for r in own) / len(own), 4) for key in ("bpp", "psnr"))
        return {"set": f"{len(own)} pictures", "bpp": bpp, "psnr": psnr}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{report}: not a results.json of `licodec bench` ({error})") from None


def publish(uploads: list[Upload], repo: str, private: bool = False) -> list[Entry]:
    """Upload files, card and manifest; returns the entries, pinned.

    What an earlier call put there stays, but for files of the same model and quality.
    Raises WeightsError.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    with hub.clear_errors(repo):
        api.create_repo(repo, private=private, exist_ok=True)
        files = [CommitOperationAdd(u.path.name, str(u.path)) for u in uploads]
        commit = api.create_commit(repo, files, commit_message=f"Add {', '.join(u.entry.label for u in uploads)}")
        entries = [replace(u.entry, repo=repo, commit=commit.oid) for u in uploads]
        earlier = hub.read_manifest(repo) if api.file_exists(repo, manifest.NAME) else "schema = 1"
        models = _merged(manifest.parse(earlier, f"{repo}/{manifest.NAME}").models, entries)
        texts = {manifest.NAME: manifest.dump(models), "README.md": card(repo, models)}
        api.create_commit(
            repo,
            [CommitOperationAdd(name, text.encode()) for name, text in texts.items()],
            commit_message="Pin the files in the manifest, describe them in the card",
        )
    return entries


def _merged(models: dict[str, ManifestModel], entries: list[Entry]) -> dict[str, ManifestModel]:
    merged = dict(models)
    for entry in entries:
        ours = manifest.package().models.get(entry.model, ManifestModel(entry.model))
        model = merged.get(entry.model) or replace(ours, weights=())
        others = [e for e in model.weights if e.quality != entry.quality]
        weights = sorted([*others, entry], key=lambda e: e.quality or 0)
        merged[entry.model] = replace(model, weights=tuple(weights))
    return merged


def card(repo: str, models: dict[str, ManifestModel]) -> str:
    """The repository's README.md: paper, licence, provenance, sha256 and rate of each file."""
    licences = sorted({e.licence or m.licence for m in models.values() for e in m.weights})
    head = ["---", f"license: {licences[0].lower() if len(licences) == 1 else 'other'}", "library_name: licodec"]
    lines = [*head, "tags: [image-compression, learned-image-compression]", "---", "", f"# {repo}", ""]
    lines += [
        "Weights for licodec, the image codec, converted from the authors' checkpoints. To use them:",
        "",
        f"    licodec weights add-source {repo}",
    ]
    for model in models.values():
        lines += ["", f"## {model.name}", "", model.paper or "No paper.", ""]
        if model.source:
            lines.append(f"Authors' code: {model.source}")
        for entry in model.weights:
            lines += ["", f"### {entry.file}", ""]
            lines += [f"- {name}: {value}" for name, value in _facts(model, entry) if value]
    return "\n".join(lines) + "\n"


def _facts(model: ManifestModel, entry: Entry) -> list[tuple[str, object]]:
    def point(values: Mapping[str, object] | None) -> str:
        return ", ".join(f"{key} {value}" for key, value in (values or {}).items() if value)

    return [
        ("use", f"`licodec encode PICTURE -m {entry.label}`"),
        ("lambda", entry.rate_lambda),
        ("trained for", entry.metric),
        ("licence", entry.licence or model.licence),
        ("converted from", entry.checkpoint),
        ("sha256 of that file", entry.checkpoint_sha256),
        ("sha256 of this file", entry.sha256),
        ("fingerprint in .lic files", entry.fingerprint),
        ("published by the authors, Kodak", point(entry.kodak)),
        ("measured by licodec bench", point(entry.measured)),
    ]

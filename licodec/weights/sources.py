"""The manifests in use, in order: LICODEC_WEIGHTS, those the user added, the package's own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from licodec.errors import UsageError, WeightsError
from licodec.files import beside
from licodec.weights import paths

if TYPE_CHECKING:
    from licodec.weights.manifest import Entry, Manifest


def _folder() -> Path:
    return paths.home() / "sources"


def _added() -> list[Path]:
    """Copies of the added manifests, in order of addition: 001_org--name.toml."""
    return sorted(_folder().glob("[0-9][0-9][0-9]_*.toml"))


def _name(path: Path) -> str:
    return path.stem[4:].replace("--", "/")


def manifests() -> list[Manifest]:
    """All manifests, in the order they are searched. Raises WeightsError."""
    from licodec.weights import manifest

    given = os.environ.get("LICODEC_WEIGHTS", "")
    found = [manifest.load(Path(path)) for path in given.split(os.pathsep) if path]
    for path in _added():
        found.append(manifest.parse(path.read_text(encoding="utf-8"), f"source {_name(path)} ({path})"))
    return [*found, manifest.package()]


def entries(model: str | None = None) -> Iterator[Entry]:
    """The entries of all manifests, or those of one model, in order."""
    for source in manifests():
        for entry in source.entries():
            if model in (None, entry.model):
                yield entry


def offered(model: str, quality: int | None) -> Iterator[Entry]:
    """The entries that the Hub has of a model, of one quality or, with None, of all."""
    return (e for e in entries(model) if e.status == "published" and quality in (None, e.quality))


def published(model: str, quality: int | None) -> Entry | None:
    """The first entry of a model and exactly this quality that the Hub has."""
    return next((e for e in offered(model, quality) if e.quality == quality), None)


def fetchable(model: str, quality: int | None) -> Entry | None:
    """The first entry of a model and quality whose authors' checkpoint can be downloaded."""
    return next((e for e in entries(model) if e.fetchable and e.quality == quality), None)


def by_fingerprint(fingerprint: str) -> Entry | None:
    """The first published entry of these very weights."""
    return next((e for e in entries() if e.status == "published" and e.fingerprint == fingerprint), None)


def names() -> list[str]:
    """Where the manifests are from, in order."""
    return [source.where for source in manifests()]


def add(spec: str) -> tuple[str, int]:
    """Add a Hub repository (org/name, with a weights.toml) or a manifest file; adding it again updates it.

    Returns its name and the number of its entries.
    Raises UsageError, WeightsError.
    """
    from licodec.weights import manifest

    if spec.endswith(".toml"):
        path = Path(spec)
        name = path.stem
        parsed = manifest.load(path)
        text = path.read_text(encoding="utf-8")
    else:
        from licodec.weights import hub

        if not re.fullmatch(manifest.PATTERNS["repo"], spec, re.ASCII):
            raise UsageError(f"{spec!r} is neither a Hub repository, org/name, nor a manifest, FILE.toml")
        name = spec
        text = hub.read_manifest(spec)
        parsed = manifest.parse(text, f"{spec}/{manifest.NAME}")
    if not re.fullmatch(r"[\w./-]{1,120}", name):
        raise UsageError(f"{name!r} cannot be the name of a source; rename the file")
    known = {_name(path): path for path in _added()}
    last = max((int(path.name[:3]) for path in known.values()), default=0)
    target = known.get(name) or _folder() / f"{last + 1:03d}_{name.replace('/', '--')}.toml"
    with beside(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return name, len(parsed.entries())


def remove(name: str) -> None:
    """Forget an added source. Raises WeightsError if there is none of that name."""
    known = {_name(path): path for path in _added()}
    if name not in known:
        have = f"; there are {', '.join(known)}" if known else "; none was added"
        raise WeightsError(f"no source {name!r}{have}")
    known[name].unlink()

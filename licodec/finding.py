"""Finding the weights of a model: here, on the Hub, or made of the authors' checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from licodec.errors import InputError, UsageError, WeightsError
from licodec.files import replacing
from licodec.models import MODELS, ModelInfo, model_info
from licodec.weights import file, hub, network, sources, store

if TYPE_CHECKING:
    from licodec.container import Header
    from licodec.weights.manifest import Entry


def parse_target(text: str) -> tuple[str, int | None]:
    """`tcm-3` or `tcm` -> ("tcm", 3) or ("tcm", None). Raises UsageError for an unknown model."""
    name, _, quality = text.rpartition("-")
    if text not in MODELS and quality.isdecimal() and name in MODELS:
        return name, int(quality)
    return model_info(text).name, None


def find(info: ModelInfo, quality: float | None) -> Path:
    """The weights file of a model at a quality, downloaded if it must be. Raises UsageError, WeightsError."""
    if info.variable_rate:
        for path in store.bundled(info.name):
            return path
    here = store.installed(info.name)
    if info.variable_rate or (quality is None and None in here):
        quality = None
    elif quality is None and len(here) == 1:
        quality = next(iter(here))
    for installed, path in here.items():
        if installed == quality:
            return path
    known = sorted({*info.qualities, *(e.quality for e in sources.entries(info.name) if e.quality)})
    if quality is None and len(known) == 1:
        quality = known[0]
    if quality is not None and quality not in known:
        raise UsageError(f"{info.name} has no quality {quality:g}; it has {', '.join(map(str, known))}")
    wanted = None if quality is None else int(quality)
    if entry := sources.published(info.name, wanted):
        return hub.fetch(entry)
    from licodec.upstream import authors

    if made := authors.for_call(info.name, wanted):
        return made
    raise WeightsError(_how_to_get(info, wanted, here))


def reachable(info: ModelInfo) -> list[int]:
    """Qualities of a model of fixed rates whose weights are here, or can be fetched; ascending, and so are their rates.

    They are those trained for PSNR, if there are any. Raises WeightsError if there are none at all.
    """
    found = {quality for quality in store.installed(info.name) if quality is not None}
    online = not network.forbidden()
    for entry in sources.entries(info.name):
        published = entry.status == "published"
        if entry.quality and ((online and (published or entry.fetchable)) or (published and hub.peek(entry))):
            found.add(entry.quality)
    if not found:
        raise WeightsError(_how_to_get(info, info.qualities[0], {}))
    metrics = {entry.quality: entry.metric for entry in sources.entries(info.name)}
    return sorted([quality for quality in found if metrics.get(quality, "mse") == "mse"] or found)


def _how_to_get(info: ModelInfo, quality: int | None, here: dict[int | None, Path]) -> str:
    wanted = info.name if quality is None else f"{info.name} at quality {quality}"
    others = ", ".join("without quality" if q is None else f"-q {q}" for q in here)
    have = f" (installed are: {others})" if here else ""
    if quality is None and not info.variable_rate:
        return f"no weights of {wanted} without a quality are installed{have}; say which with `quality`"
    if sources.fetchable(info.name, quality):
        label = info.name if quality is None else f"{info.name} -q {quality}"
        how = f"`licodec weights fetch-upstream {label}` gets the authors' checkpoint"
        if switch := network.forbidden():
            how += f" ({switch} forbids to do it now)"
    else:
        how = f"convert a checkpoint with `licodec convert-upstream CHECKPOINT -m {info.name} -q {quality}`"
    return f"no weights of {wanted} are installed or published{have}; {how}, or pass a file as `weights`"


def find_fingerprint(header: Header) -> Path:
    """The weights that a .lic was made with, downloaded if they must be. Raises WeightsError."""
    wanted = header.fingerprint.hex()
    found = []
    for path in [*store.bundled(header.model), *store.installed(header.model).values()]:
        found.append(file.read_header(path).fingerprint.hex())
        if found[-1] == wanted:
            return path
    if entry := sources.by_fingerprint(wanted):
        return hub.fetch(entry)
    how = "install them, or pass them as `weights`"
    try:
        if made := _from_authors(header):
            found.append(file.read_header(made).fingerprint.hex())
            if found[-1] == wanted:
                return made
    except WeightsError as error:
        how = str(error)
    have = f"but only {', '.join(found)} are installed" if found else "and none are installed"
    raise WeightsError(f"needs weights {wanted} of the model {header.model!r}, {have}; {how}")


def _from_authors(header: Header) -> Path | None:
    """Weights of the model and quality that a .lic names, if none are installed and the authors give them."""
    info = MODELS.get(header.model)
    if info is None or store.bundled(info.name):
        return None
    from licodec.upstream import authors

    quality = None if info.variable_rate else int(header.quality)
    return None if quality in store.installed(info.name) else authors.for_call(info.name, quality)


def import_file(path: Path, force: bool = False) -> Path:
    """Check a weights file and copy it into the local store. Raises InputError, WeightsError."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    metadata = file.read(path).metadata
    target = store.place(model_info(metadata.model).name, metadata.quality)
    with open(path, "rb") as source, replacing(target, force) as copy:
        shutil.copyfileobj(source, copy)
    return target


def verify(model: str | None, quality: int | None) -> list[tuple[Path, str | None]]:
    """Check all weights that are here, or those of one model; each with what is wrong, or None."""
    checks: list[tuple[Path, Callable[[], object]]] = []
    for name in [model] if model else MODELS:
        own = store.bundled(name) + [path for q, path in store.installed(name).items() if quality in (None, q)]
        checks += [(path, partial(file.read, path)) for path in own]
        offered = sources.offered(name, quality)
        checks += [(path, partial(hub.check, path, e)) for e in offered if (path := hub.peek(e))]
    report: list[tuple[Path, str | None]] = []
    for path, check in checks:
        try:
            check()
            report.append((path, None))
        except WeightsError as error:
            report.append((path, str(error)))
    return report


class _Known(TypedDict):
    model: str
    quality: int | None
    status: str
    where: str


class _Checkpoint(TypedDict, total=False):
    checkpoint_size: int | None
    checkpoint_sha256: str


_Trained = TypedDict("_Trained", {"lambda": float | None, "metric": str}, total=False)


class WeightsRow(_Known, _Trained, _Checkpoint):
    """A weights file that is here or could be, as `licodec weights list --json` prints it.

    status: bundled, installed, cached, published or unpublished. where: it is, or how to get it.
    lambda, metric: it was trained with. checkpoint_size, checkpoint_sha256: of the authors' file, once seen.
    """


def rows() -> list[WeightsRow]:
    """Every weights file there is or could be, for `licodec weights list`; imports no torch."""
    out: list[WeightsRow] = []
    for name in MODELS:
        own = store.bundled(name)
        here = store.installed(name)
        out += [WeightsRow(model=name, quality=None, status="bundled", where=str(path)) for path in own]
        for quality, path in here.items():
            row = WeightsRow(model=name, quality=quality, status="installed", where=str(path))
            out.append({**row, **_checkpoint(sources.fetchable(name, quality))})
        seen = set(here)
        for entry in sources.entries(name):
            if entry.status == "bundled" or entry.quality in seen:
                continue
            if entry.status == "published":
                seen.add(entry.quality)
            elif sources.published(name, entry.quality):
                continue
            out.append(_row(entry))
    return out


def _row(entry: Entry) -> WeightsRow:
    if entry.status == "published":
        path = hub.peek(entry)
        status, where = ("cached", str(path)) if path else ("published", f"{entry.pinned.repo}, {entry.size} bytes")
    elif entry.fetchable:
        status, where = "unpublished", f"licodec weights fetch-upstream {entry.label}"
    else:
        status, where = "unpublished", "the authors link no checkpoint"
    known = _Known(model=entry.model, quality=entry.quality, status=status, where=where)
    return {**known, "lambda": entry.rate_lambda, "metric": entry.metric, **_checkpoint(entry)}


def _checkpoint(entry: Entry | None) -> _Checkpoint:
    """Size and sha256 of the authors' file: the manifest's, else those of the first download."""
    from licodec.upstream import authors

    first = entry and authors.record_of(entry)
    if entry and entry.checkpoint_sha256:
        return {"checkpoint_size": entry.checkpoint_size, "checkpoint_sha256": entry.checkpoint_sha256}
    return {"checkpoint_size": first.size, "checkpoint_sha256": first.sha256} if first else {}


def targets(labels: list[str]) -> list[Path]:
    """Weights files named by path or as MODEL[-Q] in the local store. Raises WeightsError."""
    paths: list[Path] = []
    for label in labels:
        if label.endswith(".safetensors"):
            paths.append(Path(label))
            continue
        model, quality = parse_target(label)
        here = store.installed(model)
        chosen = [here[quality]] if quality in here else list(here.values()) if quality is None else []
        if not chosen:
            raise WeightsError(f"{label} is not installed; install it with `licodec convert-upstream` first")
        paths += chosen
    return paths

"""Weights made of the authors' checkpoints: fetched, compared with what was seen first, converted, installed.

Nobody signs these files, so the first download is believed, and its size and
sha256 are written down, one record for each place a checkpoint is fetched from.
Every later download must be the same file (trust on first use). A sha256 in the
manifest, or the one in the name of a file of CompressAI's zoo, comes before that.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from licodec.errors import LicodecError, UsageError, WeightsError
from licodec.files import beside, sha256
from licodec.weights import drive, file, folders, network, paths, sources, store
from licodec.weights.manifest import Entry, licence_of

RECORDS = "checkpoints.json"


@dataclass(frozen=True)
class Record:
    """A checkpoint as it was when it was first fetched from `source`."""

    source: str
    size: int
    sha256: str
    day: str


@dataclass(frozen=True)
class Installed:
    """Installed weights, and the entry with size and sha256 of the checkpoint they were made of."""

    path: Path
    entry: Entry
    fingerprint: str


def records() -> dict[str, Record]:
    """What is known of checkpoints that were fetched, by source. Raises WeightsError if it cannot be read."""
    path = paths.home() / RECORDS
    try:
        return {source: Record(source=source, **facts) for source, facts in json.loads(path.read_text()).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path}: cannot be read ({error}); correct or remove it") from None


def source_of(entry: Entry, name: str | None = None) -> str:
    """Under what a record is kept; without compressai's import, unlike `drive.address`."""
    if entry.zoo:
        return f"compressai:{entry.model}/{entry.metric}/{entry.zoo}"
    known = name or entry.checkpoint or (entry.checkpoint_names[0] if entry.checkpoint_names else "")
    return f"{drive.address(entry)}#{known}" if entry.in_folder else drive.address(entry)


def record_of(entry: Entry) -> Record | None:
    """What was written down of an entry's checkpoint."""
    return records().get(source_of(entry)) if entry.fetchable else None


def install(entry: Entry, name: str | None = None, again: bool = False, accept_new: bool = False) -> Installed:
    """Fetch, check, convert and install the checkpoint of an entry; what another process installed is used.

    Args:
        name: of the file in a shared folder.
        again: also if weights are installed.
        accept_new: take a checkpoint that is another than the one first fetched, and record it in its place.

    Raises UsageError, WeightsError.
    """
    from filelock import FileLock

    target = store.place(entry.model, entry.quality)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f".{target.stem}.lock"))
        lock.acquire()
    except OSError as error:
        raise WeightsError(f"{target.parent} cannot be written ({error.strerror or error}); set LICODEC_HOME") from None
    with lock:
        if target.exists() and not again:
            return Installed(target, entry, file.read_header(target).fingerprint.hex())
        checkpoint = drive.download(entry, paths.home() / "downloads", name, licence_of(entry))
        try:
            return _take(entry, name, checkpoint, accept_new)
        finally:
            checkpoint.unlink(missing_ok=True)


def _take(entry: Entry, name: str | None, checkpoint: Path, accept_new: bool) -> Installed:
    """Check what was downloaded, and install what is in it."""
    source = source_of(entry, name)
    found = Record(source, checkpoint.stat().st_size, sha256(checkpoint), date.today().isoformat())
    _check(entry, found, accept_new)
    try:
        made = _unpack(entry, name, checkpoint) if entry.in_archive else _convert(entry, name, checkpoint)
    except LicodecError as error:
        raise WeightsError(
            f"what {drive.address(entry)} gives as the checkpoint of {entry.label} is not used: {error}"
        ) from None
    _write_down(found, accept_new)  # only what proved to be a checkpoint
    return replace(made, entry=replace(entry, checkpoint_size=found.size, checkpoint_sha256=found.sha256))


def _convert(entry: Entry, name: str | None, checkpoint: Path) -> Installed:
    from licodec.upstream.convert import convert

    target = store.place(entry.model, entry.quality)
    converted = convert(checkpoint, entry.model, entry.quality)
    converted.notes["source_file"] = name or entry.checkpoint or drive.address(entry).rpartition("/")[2]
    return Installed(target, entry, converted.save(target, licence_of(entry)).hex())


def _unpack(entry: Entry, name: str | None, archive: Path) -> Installed:
    """Install an entry's weights from an archive, and those of all others that are in it, lest it be fetched again."""
    with folders.member(archive, entry, name) as member:
        made = _convert(entry, name, member)
    for other in sources.entries(entry.model):
        fits = other.in_archive and drive.address(other) == drive.address(entry)
        if fits and not store.place(other.model, other.quality).exists():
            with contextlib.suppress(UsageError, WeightsError), folders.member(archive, other, None) as member:
                _convert(other, None, member)
    return made


def _check(entry: Entry, found: Record, accept_new: bool) -> None:
    """Compare a checkpoint with the manifest, the hash in its name, and the record. Raises WeightsError."""
    what = f"the checkpoint of {entry.label} has {found.size} bytes and the sha256 {found.sha256}"
    if entry.checkpoint_sha256 not in (None, found.sha256):
        raise WeightsError(f"{what}, the manifest says {entry.checkpoint_sha256}; not used")
    if entry.checkpoint_size not in (None, found.size):
        raise WeightsError(f"{what}, the manifest says {entry.checkpoint_size} bytes; not used")
    address = drive.address(entry)
    named = re.search(r"-([0-9a-f]{8,64})\.pth(\.tar)?$", address)  # torch.hub's convention, which the zoo follows
    if named and not found.sha256.startswith(named[1]):
        raise WeightsError(f"{what}, its name {address.rpartition('/')[2]} promises {named[1]}; not used")
    first = records().get(found.source)
    if first and (first.size, first.sha256) != (found.size, found.sha256) and not accept_new:
        raise WeightsError(
            f"{what}; when it was first fetched, on {first.day}, it had {first.size} and {first.sha256}; not used. "
            f"If the authors say that they replaced it: licodec weights fetch-upstream {entry.label} -f --accept-new"
        )


def _write_down(found: Record, accept_new: bool) -> None:
    from filelock import FileLock

    path = paths.home() / RECORDS
    with FileLock(path.with_name(f".{RECORDS}.lock")):
        known = records()
        if found.source in known and not accept_new:
            return
        known[found.source] = found
        facts = {r.source: {"size": r.size, "sha256": r.sha256, "day": r.day} for r in known.values()}
        with beside(path) as temporary:
            temporary.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


def for_call(model: str, quality: int | None) -> Path | None:
    """The weights that `-m MODEL -q Q` needs, fetched from the authors; None where that is impossible or forbidden."""
    entry = sources.fetchable(model, quality)
    if entry is None or network.forbidden():
        return None
    try:
        return install(entry).path
    except UsageError as error:  # which file of a folder it is, a person has to say
        raise WeightsError(str(error)) from None

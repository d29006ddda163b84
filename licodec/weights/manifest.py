"""The manifest, weights.toml: which weights there are, where they are, and where they come from.

A manifest is a TOML file: `schema = 1`, one table `[models.NAME]` per model and in
it an array of tables `weights`, one per file. `ManifestModel` and `Entry` list the keys.
The package brings one; users add others (see `sources`). A manifest may come
from a stranger, so all of it is checked here, and unknown keys are refused.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from licodec.errors import UsageError, WeightsError

SCHEMA = 1
NAME = "weights.toml"
SIZE_MAX = 64 << 30
_HUB_FIELDS = ("repo", "file", "commit", "size", "sha256", "fingerprint")
_BUNDLED_FIELDS = ("file", "size", "sha256", "fingerprint")

# what a text must look like; keys that are not here may be any single line
PATTERNS = {
    "metric": r"mse|ms-ssim|ssimulacra2",
    "status": r"bundled|published|unpublished",
    "repo": r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*",
    "file": r"(?!.*\.\.)[A-Za-z0-9][\w./+-]*\.safetensors",
    "commit": r"[0-9a-f]{40}",
    "source_commit": r"[0-9a-f]{40}",
    "sha256": r"[0-9a-f]{64}",
    "checkpoint_sha256": r"[0-9a-f]{64}",
    "zoo": r"[0-9]{1,2}|vbr",
    "fingerprint": r"[0-9a-f]{16}",
    "google_drive": r"[\w-]{10,}",
    "google_drive_folder": r"[\w-]{10,}",
    "source": r"https?://\S+|",
    "seafile_folder": r"https?://[^/\s]+/d/[0-9a-f]+/?",
    "url": r"https?://\S+",
}


@dataclass(frozen=True)
class Pinned:
    """A file of the Hub, in the version of one commit."""

    repo: str
    file: str
    commit: str

    def __str__(self) -> str:
        return f"{self.repo}/{self.file}"


@dataclass(frozen=True)
class Entry:
    """One weights file, or the checkpoint it would be made of.

    Attributes:
        quality: which it serves; None for variable-rate weights.
        rate_lambda: `lambda` in the file; what it was trained with, None where the authors do not say.
        repo, file, commit, size, sha256: of the converted file on the Hub, if `status` is "published".
        fingerprint: of its tensors, which .lic files name; 16 hex digits.
        licence: where it differs from the model's.
        checkpoint: the authors' name for their file.
        checkpoint_names: patterns of what it may be called, best first, where the authors share a folder
            and do not say, or one archive of all: the first that exactly one file matches.
        checkpoint_size, checkpoint_sha256: of the authors' file, in bytes.
        google_drive, google_drive_folder, seafile_folder, url: where the authors put it.
        zoo: which weights of its zoo compressai downloads for the model and `metric`: "3", "vbr".
        kodak: published by the authors, {"bpp": ..., "psnr": ...} or {"bpp": ..., "ms_ssim_db": ...}.
        measured: the same by `licodec bench`, and "set".
    """

    model: str
    status: str
    quality: int | None = None
    rate_lambda: float | None = None
    metric: str = "mse"
    repo: str | None = None
    file: str | None = None
    commit: str | None = None
    size: int | None = None
    sha256: str | None = None
    fingerprint: str | None = None
    licence: str | None = None
    checkpoint: str | None = None
    checkpoint_names: tuple[str, ...] = ()
    checkpoint_size: int | None = None
    checkpoint_sha256: str | None = None
    google_drive: str | None = None
    google_drive_folder: str | None = None
    seafile_folder: str | None = None
    url: str | None = None
    zoo: str | None = None
    kodak: Mapping[str, float] | None = None
    measured: Mapping[str, object] | None = None
    note: str | None = None

    @property
    def pinned(self) -> Pinned:
        """Where the Hub has it. Raises ValueError for entries that are not published."""
        if self.repo is None or self.file is None or self.commit is None:
            raise ValueError(f"{self.label} is not on the Hub")
        return Pinned(self.repo, self.file, self.commit)

    @property
    def label(self) -> str:
        """`tcm -q 3`."""
        return self.model if self.quality is None else f"{self.model} -q {self.quality}"

    @property
    def fetchable(self) -> bool:
        """Whether `licodec weights fetch-upstream` can get it."""
        return bool(self.google_drive or self.url or self.zoo or self.in_folder)

    @property
    def in_folder(self) -> bool:
        """Whether the authors share a folder."""
        return bool(self.google_drive_folder or self.seafile_folder)

    @property
    def in_archive(self) -> bool:
        """Whether the authors share one archive of several checkpoints."""
        return bool(self.checkpoint_names) and not self.in_folder


@dataclass(frozen=True)
class ManifestModel:
    """What holds for all weights of a model.

    Attributes:
        source, source_commit: the authors' repository, and the state of it that was read.
        kodak_from: the file there that the entries' `kodak` is from.
        more_kodak: published points that no entry has.
    """

    name: str
    paper: str = ""
    source: str = ""
    source_commit: str | None = None
    licence: str = "unknown"
    kodak_from: str | None = None
    more_kodak: tuple[Mapping[str, float], ...] = ()
    weights: tuple[Entry, ...] = ()

    def kodak_points(self) -> list[Mapping[str, float]]:
        """All points that the authors publish for Kodak, by rate."""
        points = [e.kodak for e in self.weights if e.kodak] + list(self.more_kodak)
        return sorted(points, key=lambda point: point["bpp"])


@dataclass(frozen=True)
class Manifest:
    """A parsed manifest; `where` is for messages."""

    where: str
    models: dict[str, ManifestModel]

    def entries(self) -> list[Entry]:
        """All entries, in the file's order."""
        return [entry for model in self.models.values() for entry in model.weights]


def parse(text: str, where: str) -> Manifest:
    """Read and check a manifest. Raises WeightsError that names the place of what is wrong."""
    import tomllib

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise WeightsError(f"{where}: not a manifest ({error})") from None
    if document.get("schema") != SCHEMA:
        raise WeightsError(f"{where}: not a manifest of schema {SCHEMA}; upgrade licodec, or correct the file")
    try:
        if unknown := set(document) - {"schema", "models"}:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        models = document.get("models", {})
        return Manifest(where, {name: _model(name, _table(table)) for name, table in _table(models).items()})
    except ValueError as error:
        raise WeightsError(f"{where}: {error}; correct the manifest") from None


def _model(name: str, table: dict[str, object]) -> ManifestModel:
    if not re.fullmatch(r"[a-z0-9][a-z0-9+.-]{0,31}", name):
        raise ValueError(f"{name!r} is no model name")
    weights = table.get("weights", [])
    more = table.get("more_kodak", [])
    if not isinstance(weights, list) or not isinstance(more, list):
        raise ValueError(f"models.{name}: weights and more_kodak are arrays")
    known = {f.name for f in fields(ManifestModel)} - {"name", "weights", "more_kodak"}
    values = _texts(table, known | {"weights", "more_kodak"}, f"models.{name}")
    entries = tuple(_entry(name, number, _table(entry)) for number, entry in enumerate(weights, 1))
    qualities = [entry.quality for entry in entries if entry.status != "bundled"]  # of those, old ones stay
    if len(set(qualities)) != len(qualities):
        raise ValueError(f"models.{name}: a quality has two entries")
    points = tuple(_numbers(point, f"models.{name}.more_kodak") for point in more)
    return ManifestModel(name=name, weights=entries, more_kodak=points, **values)


def _entry(model: str, number: int, table: dict[str, object]) -> Entry:
    place = f"models.{model}.weights, entry {number}"
    known = {f.name for f in fields(Entry)} - {"model", "rate_lambda"} | {"lambda"}
    numbers = ("quality", "size", "checkpoint_size", "lambda")
    values: dict[str, Any] = {}
    for key in numbers:
        if key in table:
            value = table[key]
            right = isinstance(value, int | float if key == "lambda" else int) and not isinstance(value, bool)
            if not right or not 0 < float(str(value)) <= SIZE_MAX:
                raise ValueError(f"{place}: {key} = {value!r} is out of range")
            values["rate_lambda" if key == "lambda" else key] = value
    if "kodak" in table:
        values["kodak"] = _numbers(table["kodak"], place)
    if "measured" in table:
        measured = dict(_table(table["measured"]))
        values["measured"] = {"set": str(measured.pop("set", "")), **_numbers(measured, place)}
    if "checkpoint_names" in table:
        values["checkpoint_names"] = _names(table["checkpoint_names"], place)
    skip = {*numbers, "kodak", "measured", "checkpoint_names"}
    values |= _texts({k: v for k, v in table.items() if k not in skip}, known, place)
    if "status" not in values:
        raise ValueError(f"{place}: has no status")
    needed = {"published": _HUB_FIELDS, "bundled": _BUNDLED_FIELDS, "unpublished": ()}[str(values["status"])]
    if missing := [key for key in needed if key not in values]:
        raise ValueError(f"{place}: {values['status']}, but has no {', '.join(missing)}")
    if values["status"] == "unpublished" and (odd := [key for key in _HUB_FIELDS if key in values]):
        raise ValueError(f"{place}: unpublished, but has {', '.join(odd)}")
    return Entry(model=model, **values)


def _table(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r:.60} should be a table")
    return value


def _texts(table: dict[str, object], known: set[str], place: str) -> dict[str, str]:
    """The texts of a table, checked; other types are the caller's to take. Raises ValueError."""
    if unknown := set(table) - known:
        raise ValueError(f"{place}: unknown: {', '.join(sorted(unknown))}")
    texts = {}
    for key, value in table.items():
        if isinstance(value, list) and key in ("weights", "more_kodak"):
            continue
        if not isinstance(value, str) or not value.isprintable():
            raise ValueError(f"{place}: {key} should be a line of text")
        if key in PATTERNS and not re.fullmatch(PATTERNS[key], value, re.ASCII):
            raise ValueError(f"{place}: {key} = {value!r:.80} is not of the right form")
        texts[key] = value
    return texts


def _names(value: object, place: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) and v.isprintable() for v in value):
        raise ValueError(f"{place}: checkpoint_names should be a list of patterns")
    return tuple(value)


def _numbers(value: object, place: str) -> dict[str, float]:
    point: dict[str, float] = {}
    for key, number in _table(value).items():
        if key not in ("bpp", "psnr", "ms_ssim_db") or not isinstance(number, int | float) or not 0 < number < 1000:
            raise ValueError(f"{place}: {key} = {number!r} is no point of a rate-distortion curve")
        point[key] = float(number)
    if "bpp" not in point:
        raise ValueError(f"{place}: a point without bpp")
    return point


def load(path: Path) -> Manifest:
    """Read a manifest file. Raises WeightsError."""
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path}: the manifest cannot be read ({error})") from None


@functools.cache
def package() -> Manifest:
    """The manifest that licodec brings: in the wheel inside the package, in a clone beside it."""
    here = Path(__file__).parents[1]
    inside = here / NAME
    return load(inside if inside.exists() else here.parent / NAME)


def licence_of(entry: Entry) -> str:
    """Of an entry's weights: its own, or that of the model. Raises UsageError for an unknown model."""
    models = package().models
    if not entry.licence and entry.model not in models:
        raise UsageError(f"unknown model {entry.model!r}; known: {', '.join(models)} (see `licodec models`)")
    return entry.licence or models[entry.model].licence


def dump(models: dict[str, ManifestModel]) -> str:
    """A manifest as TOML; `parse` reads it back."""
    lines = [f"schema = {SCHEMA}"]
    for model in models.values():
        lines += ["", f"[models.{_key(model.name)}]"]
        lines += [f"{k} = {_value(v)}" for k in ("paper", "source", "source_commit", "licence", "kodak_from")
                  if (v := getattr(model, k))]  # fmt: skip
        if model.more_kodak:
            lines.append(f"more_kodak = {_value(list(model.more_kodak))}")
        for entry in model.weights:
            lines += ["", dump_entry(entry)]
    return "\n".join(lines) + "\n"


def dump_entry(entry: Entry) -> str:
    """One entry as TOML."""
    lines = [f"[[models.{_key(entry.model)}.weights]]"]
    for field in fields(Entry):
        value = getattr(entry, field.name)
        if field.name != "model" and value not in (None, ()):
            lines.append(f"{'lambda' if field.name == 'rate_lambda' else field.name} = {_value(value)}")
    return "\n".join(lines)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'


def _value(value: object) -> str:
    """A TOML value; texts are lines without control characters, see `_texts`."""
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return repr(value)

"""Where weights are: the package's own, and the local store of converted ones."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from licodec.errors import UsageError, WeightsError
from licodec.weights import file

if TYPE_CHECKING:
    from licodec.container import Header
    from licodec.models import ModelInfo

BUNDLED = Path(__file__).parent / "bundled"


def folder() -> Path:
    """The local store: LICODEC_HOME, else licodec/weights below XDG_DATA_HOME or ~/.local/share."""
    if home := os.environ.get("LICODEC_HOME"):
        return Path(home) / "weights"
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "licodec" / "weights"


def place(model: str, quality: int | None) -> Path:
    """Where converted weights are installed; without a quality they serve calls without one."""
    return folder() / (f"{model}.safetensors" if quality is None else f"{model}-{quality}.safetensors")


def bundled(name: str) -> list[Path]:
    """The package's own weights of a model, newest first.

    They are called NAME-1.safetensors, NAME-2.safetensors and so on. Old ones
    stay in the package, so that the files made with them can be decoded.
    """
    return sorted(BUNDLED.glob(f"{name}-[0-9]*.safetensors"), key=lambda p: -int(p.stem.rpartition("-")[2]))


def installed(name: str) -> dict[int | None, Path]:
    """Weights of a model in the local store, by quality; None for those without one."""
    found: dict[int | None, Path] = {}
    for path in sorted(folder().glob(f"{name}*.safetensors")):
        if match := re.fullmatch(rf"{re.escape(name)}(?:-(\d+))?", path.stem):
            found[int(match[1]) if match[1] else None] = path
    return found


def find(info: ModelInfo, quality: float | None) -> Path:
    """The weights file of a model at a quality. Raises UsageError, WeightsError."""
    if quality is not None and not info.variable_rate and quality not in info.qualities:
        raise UsageError(f"{info.name} has no quality {quality:g}; it has {', '.join(map(str, info.qualities))}")
    if info.variable_rate:
        for path in bundled(info.name):
            return path
    here = installed(info.name)
    if info.variable_rate or (quality is None and None in here):
        quality = None
    elif quality is None and len(here) == 1:
        quality = next(iter(here))
    if quality in here:
        return here[quality]
    wanted = info.name if quality is None else f"{info.name} at quality {quality:g}"
    others = ", ".join("without quality" if q is None else f"-q {q}" for q in here)
    have = f"installed are: {others}; " if here else ""
    raise WeightsError(
        f"no weights of {wanted} are installed; {have}convert the authors' checkpoint with "
        f"`licodec convert-upstream CHECKPOINT -m {info.name} -q Q`, or pass --weights FILE"
    )


def find_fingerprint(header: Header) -> Path:
    """The weights that a .lic was made with. Raises WeightsError if they are not here."""
    wanted = header.fingerprint.hex()
    found = []
    for path in [*bundled(header.model), *installed(header.model).values()]:
        found.append(file.read_header(path).fingerprint.hex())
        if found[-1] == wanted:
            return path
    have = f"but only {', '.join(found)} are installed" if found else "and none are installed"
    raise WeightsError(
        f"needs weights {wanted} of the model {header.model!r}, {have}; install them, or pass them with --weights"
    )


def listing() -> list[dict[str, object]]:
    """Every model with its weights, for `licodec models`; imports no torch."""
    from licodec.models import MODELS

    rows = []
    for info in MODELS.values():
        own, here = bundled(info.name), installed(info.name)
        paths = own[:1] + list(here.values())
        summary = file.read_header(paths[0]) if paths else None
        if own:
            where = "bundled"
        elif here:
            where = "installed: " + ", ".join("any" if q is None else str(q) for q in here)
        else:
            where = "absent"
        low, high = info.qualities[0], info.qualities[-1]
        rows.append(
            {
                "model": info.name,
                "qualities": f"{low}-{high}" + (" and between" if info.variable_rate else ""),
                "variable_rate": info.variable_rate,
                "title": info.title,
                "paper": info.paper,
                "source": info.source,
                "parameters": summary.parameters if summary else info.parameters,
                "weights": where,
                "paths": [str(path) for path in paths],
                "licence": summary.metadata.licence if summary else info.licence,
            }
        )
    return rows

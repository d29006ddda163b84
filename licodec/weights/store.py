"""Where weights are: the package's own, and the local store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from licodec.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from licodec.container import Header
    from licodec.models import ModelInfo

BUNDLED = Path(__file__).parent / "bundled"


def bundled(name: str) -> list[Path]:
    """The package's own weights of a model, newest first.

    They are called NAME-1.safetensors, NAME-2.safetensors and so on. Old ones
    stay in the package, so that the files made with them can be decoded.
    """
    return sorted(BUNDLED.glob(f"{name}-[0-9]*.safetensors"), key=lambda p: -int(p.stem.rpartition("-")[2]))


def find(info: ModelInfo, quality: float | None) -> Path:
    """The weights file of a model at a quality. Raises UsageError, WeightsError."""
    if quality is not None and not info.variable_rate and quality not in info.qualities:
        raise UsageError(f"{info.name} has no quality {quality:g}; it has {', '.join(map(str, info.qualities))}")
    for path in bundled(info.name):
        return path
    raise WeightsError(f"no weights of {info.name} are installed; train some, or pass --weights FILE")


def find_fingerprint(header: Header) -> Path:
    """The weights that a .lic was made with. Raises WeightsError if they are not here."""
    from licodec.weights import file

    wanted = header.fingerprint.hex()
    found = []
    for path in bundled(header.model):
        found.append(file.read(path).fingerprint.hex())
        if found[-1] == wanted:
            return path
    installed = f"but only {', '.join(found)} are installed" if found else "and none are installed"
    raise WeightsError(
        f"needs weights {wanted} of the model {header.model!r}, {installed}; pass the right file with --weights"
    )


def listing() -> list[dict[str, object]]:
    """Every model with its weights, for `licodec models`; imports no torch."""
    from licodec.models import MODELS
    from licodec.weights import file

    rows = []
    for info in MODELS.values():
        path = next(iter(bundled(info.name)), None)
        metadata, parameters = file.read_header(path) if path else (None, None)
        low, high = info.qualities[0], info.qualities[-1]
        rows.append(
            {
                "model": info.name,
                "qualities": f"{low}-{high}" + (" and between" if info.variable_rate else ""),
                "variable_rate": info.variable_rate,
                "title": info.title,
                "paper": info.paper,
                "parameters": parameters,
                "weights": "bundled" if path else "absent",
                "path": str(path) if path else None,
                "licence": metadata.licence if metadata else info.licence,
            }
        )
    return rows

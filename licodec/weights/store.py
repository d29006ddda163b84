"""The weights that are here: the package's own, the local store, the Hub's cache."""

from __future__ import annotations

import re
from pathlib import Path

from licodec.weights import hub, paths, sources


def folder() -> Path:
    """The local store of converted and imported weights."""
    return paths.home() / "weights"


def place(model: str, quality: int | None) -> Path:
    """Where converted weights are installed; without a quality they serve calls without one."""
    return folder() / (f"{model}.safetensors" if quality is None else f"{model}-{quality}.safetensors")


def bundled(name: str) -> list[Path]:
    """The package's own weights of a model, newest first.

    They are called NAME-1.safetensors, NAME-2.safetensors and so on. Old ones
    stay in the package, so that the files made with them can be decoded.
    """
    return sorted(paths.BUNDLED.glob(f"{name}-[0-9]*.safetensors"), key=lambda p: -int(p.stem.rpartition("-")[2]))


def installed(name: str) -> dict[int | None, Path]:
    """Weights of a model in the local store, by quality; None for those without one."""
    found: dict[int | None, Path] = {}
    for path in sorted(folder().glob(f"{name}*.safetensors")):
        if match := re.fullmatch(rf"{re.escape(name)}(?:-(\d+))?", path.stem):
            found[int(match[1]) if match[1] else None] = path
    return found


def local(model: str, quality: int | None) -> list[Path]:
    """Files of a model that are here, of one quality or of all: bundled, installed, in the Hub's cache."""
    found = bundled(model) if quality is None else []
    found += [path for q, path in installed(model).items() if quality in (None, q)]
    return found + [path for e in sources.offered(model, quality) if (path := hub.cached(e))]


def remove(model: str, quality: int | None) -> list[tuple[Path, int]]:
    """Delete weights from the local store and the Hub's cache; each path with the bytes it had."""
    gone = []
    for q, path in installed(model).items():
        if quality in (None, q):
            gone.append((path, path.stat().st_size))
            path.unlink()
    return gone + [(cached, hub.drop(cached)) for e in sources.offered(model, quality) if (cached := hub.peek(e))]

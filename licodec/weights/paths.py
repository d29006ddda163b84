"""Where things are: the package's own weights, and what belongs to the user."""

from __future__ import annotations

import os
from pathlib import Path

BUNDLED = Path(__file__).parent / "bundled"


def home() -> Path:
    """LICODEC_HOME, else licodec below XDG_DATA_HOME or ~/.local/share."""
    if own := os.environ.get("LICODEC_HOME"):
        return Path(own)
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "licodec"


def write_text(path: Path, text: str) -> None:
    """Write a small file of our own beside and rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)

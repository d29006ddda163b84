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

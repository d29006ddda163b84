"""Whether the network may be asked for weights, and what is said when it is. Imports nothing heavy."""

from __future__ import annotations

import os
import sys

OFFLINE = "LICODEC_OFFLINE"
SWITCHES = (OFFLINE, "HF_HUB_OFFLINE")
QUIET = "LICODEC_QUIET_DOWNLOADS"  # for the processes that this one starts


def forbidden() -> str | None:
    """The variable that forbids to ask the network, or None if none does; `--offline` sets the first."""
    for name in SWITCHES:
        if os.environ.get(name, "").lower() in ("1", "on", "yes", "true"):  # as the Hub's client reads its own
            return name
    return None


def forbid(offline: bool = True) -> bool:
    """Ask nothing of the network from now on, if `offline`; returns it, as options' callbacks do."""
    if offline:
        os.environ[OFFLINE] = "1"
    return offline


def quieten(quiet: bool = True) -> bool:
    """Say nothing of downloads from now on, if `quiet`; returns it, as options' callbacks do."""
    if quiet:
        os.environ[QUIET] = "1"
    return quiet


def is_quiet() -> bool:
    """Whether downloads pass without a word."""
    return bool(os.environ.get(QUIET))


def announce(what: str, source: str, size: int | None, licence: str) -> None:
    """One line on standard error: what is fetched, from where, how large, under which licence."""
    if not is_quiet():
        much = "size unknown" if size is None else human(size)
        print(f"fetching {what} from {source} ({much}; licence: {licence})", file=sys.stderr, flush=True)


def human(size: int) -> str:
    """A number of bytes as a person says it: 185.3 MB."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size} bytes"

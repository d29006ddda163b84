"""Files: found below folders, and written so that nothing is ever half there."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import socket
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from licodec.errors import InputError

FORGOTTEN_SECONDS = 24 * 3600.0  # after which nobody is writing to a temporary file any more
_TEMPORARY = re.compile(r"\..+\.([0-9a-f]{8})-(\d+)\.tmp")


def files_below(folder: Path, suffixes: Iterable[str] | None = None) -> list[Path]:
    """All files below a folder that end in one of `suffixes` (lower case; None: any), in order of their paths."""
    return sorted(p for p in folder.rglob("*") if (suffixes is None or p.suffix.lower() in suffixes) and p.is_file())


def sha256(path: Path) -> str:
    """Of a file's contents, read in pieces; 64 hex digits. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def _machine() -> str:
    """Eight digits for where process numbers mean the same: this machine, or this container of it."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:
        numbers = ""
    return f"{zlib.crc32(f'{socket.gethostname()} {numbers}'.encode()):08x}"


def temporary_name(name: str) -> str:
    """What a file is called while this process writes it."""
    return f".{name}.{_machine()}-{os.getpid()}.tmp"


def is_left_behind(name: str) -> bool:
    """Whether a file is a temporary one of a process of this machine that is no more."""
    match = _TEMPORARY.fullmatch(name)
    if match is None or match[1] != _machine() or os.name != "posix":
        return False
    try:
        os.kill(int(match[2]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # somebody else's
        pass
    return False


@functools.cache
def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder, once for each folder.

    One of another machine, whose processes cannot be asked, goes when it has not been written to for a day.
    """
    with contextlib.suppress(OSError):
        for name in filter(_TEMPORARY.fullmatch, os.listdir(folder)):
            path = folder / name
            if is_left_behind(name) or time.time() - path.stat().st_mtime > FORGOTTEN_SECONDS:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A name to write to, in the folder of `path`; at the end, if all went well, it is renamed to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(temporary_name(path.name))
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path, force: bool) -> Iterator[BinaryIO]:
    """A file to write `path` with, see `beside`. Raises InputError."""
    if path.exists() and not force:
        raise InputError(f"{path} exists; -f overwrites it")
    try:
        with beside(path) as temporary, open(temporary, "xb") as file:
            yield file
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error})") from None

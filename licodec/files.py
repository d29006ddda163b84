"""Files: found below folders, and written so that nothing is ever half there."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from licodec.errors import InputError


def files_below(folder: Path, suffixes: Iterable[str] | None = None) -> list[Path]:
    """All files below a folder that end in one of `suffixes` (lower case; None: any), in order of their paths."""
    return sorted(p for p in folder.rglob("*") if (suffixes is None or p.suffix.lower() in suffixes) and p.is_file())


def sha256(path: Path) -> str:
    """Of a file's contents, read in pieces; 64 hex digits. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A name to write to, in the folder of `path`; at the end, if all went well, it is renamed to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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

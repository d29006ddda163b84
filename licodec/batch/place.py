"""Where files are: what `places` (local paths, standard input and output) and `remote` (URLs) have in common.

Files are written whole or not at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from licodec.errors import InputError, UsageError


def stem_of(name: str) -> str:
    """A file's path less all that follows the first dot of its name."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.split('.')[0]}"


@contextlib.contextmanager
def naming(place: Place) -> Iterator[None]:
    """Errors of reading a place say which."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{place}: {error}") from None


@dataclass(frozen=True)
class Place:
    """A file or folder. Methods raise InputError when the place does not work, UsageError when it never can.

    Attributes:
        text: as the user wrote it.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self.text).name

    @property
    def suffix(self) -> str:
        """The name's ending, lower case."""
        return PurePosixPath(self.name).suffix.lower()

    def with_name(self, name: str) -> Place:
        """Beside it, under another name."""
        raise UsageError(f"nothing can be written beside {self.text}; name an output with -o")

    def child(self, relative: str) -> Place:
        """Below a folder; `relative` has `/` between its parts."""
        raise UsageError(f"{self.text} is no folder")

    def is_folder(self) -> bool:
        """Whether it is a folder, or a prefix of an object store."""
        return False

    def exists(self) -> bool:
        """Whether there is a file."""
        return False

    def check_writable(self) -> None:
        """Find out early. Raises UsageError where nothing can ever be written, InputError where nobody answers."""

    def read(self) -> bytes:
        """All bytes of the file."""
        raise NotImplementedError

    def source(self) -> Path | bytes:
        """What `inputs.read` takes: a path where there is one, else the bytes."""
        return self.read()

    def size(self) -> int | None:
        """Bytes of the file, if that is known without reading it."""
        return None

    def walk(self) -> Iterator[str]:
        """The files below a folder, as names relative to it, folder by folder; nothing hidden."""
        raise NotImplementedError

    def writing(self, force: bool, like: Place | None = None) -> contextlib.AbstractContextManager[BinaryIO]:
        """A file to write; it takes its place when all of it is there.

        Args:
            force: over what is there.
            like: a local file whose time stamps and mode it gets.
        """
        raise NotImplementedError

    def write(self, data: bytes, force: bool) -> None:
        """Write a whole file."""
        with self.writing(force) as file:
            file.write(data)

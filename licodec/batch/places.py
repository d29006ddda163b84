"""Where files are: local paths, standard input and output, and URLs (in `remote`). Written whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from licodec.errors import InputError, UsageError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)")


def of(text: str | Path) -> Place:
    """The place that a word of the command line names: `-`, a path, or a URL."""
    text = str(text)
    if text == "-":
        return Stream(text)
    if not _URL.match(text):
        return Local(text)
    if text.startswith("file://"):
        return Local(text.removeprefix("file://"))
    from licodec.batch.remote import Remote

    return Remote(text)


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


class Stream(Place):
    """Standard input and output."""

    def read(self) -> bytes:
        return sys.stdin.buffer.read()

    @contextlib.contextmanager
    def writing(self, force: bool, like: Place | None = None) -> Iterator[BinaryIO]:
        if sys.stdout.isatty():
            raise UsageError("will not write a picture to the terminal; redirect it or name a file with -o")
        whole = io.BytesIO()
        yield whole
        sys.stdout.buffer.write(whole.getbuffer())
        sys.stdout.buffer.flush()


class Local(Place):
    """A path."""

    @property
    def path(self) -> Path:
        return Path(self.text)

    @property
    def name(self) -> str:
        return self.path.name

    def with_name(self, name: str) -> Local:
        return Local(str(self.path.with_name(name)))

    def child(self, relative: str) -> Local:
        return Local(str(self.path / relative))

    def is_folder(self) -> bool:
        return self.path.is_dir()

    def exists(self) -> bool:
        return self.path.exists()

    def source(self) -> Path:
        return self.path

    def size(self) -> int | None:
        try:
            return self.path.stat().st_size
        except OSError:
            return None

    def read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            raise InputError("no such file") from None
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror or error})") from None

    def walk(self) -> Iterator[str]:
        entries = sorted(os.scandir(self.path), key=lambda entry: entry.name)
        entries = [e for e in entries if not e.name.startswith(".")]
        folders = [e.name for e in entries if e.is_dir() and not e.is_symlink()]  # a link could lead back up
        yield from (e.name for e in entries if e.is_file())
        for folder in folders:
            yield from (f"{folder}/{name}" for name in self.child(folder).walk())

    @contextlib.contextmanager
    def writing(self, force: bool, like: Place | None = None) -> Iterator[BinaryIO]:
        from licodec.files import beside

        if self.path.exists() and not force:
            raise InputError(f"{self.path} exists; -f overwrites it")
        try:
            with beside(self.path) as temporary:
                with open(temporary, "xb") as file:
                    yield file
                if isinstance(like, Local):
                    stat = like.path.stat()
                    os.utime(temporary, ns=(stat.st_atime_ns, stat.st_mtime_ns))
                    os.chmod(temporary, stat.st_mode & 0o777)
        except OSError as error:
            raise InputError(f"{self.path} cannot be written ({error.strerror or error})") from None

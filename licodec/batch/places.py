"""Local paths, standard input and output; and which kind of place a word names."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from licodec.batch.place import Place
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
        from licodec.files import beside, sweep

        if self.path.exists() and not force:
            raise InputError(f"{self.path} exists; -f overwrites it")
        sweep(self.path.parent)
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

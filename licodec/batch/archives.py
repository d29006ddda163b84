"""Members of zip and tar files, wherever these are; of tar files also compressed ones.

fsspec makes a new file system of an archive for each URL, which reads a tar file
from its beginning to its end each time. Those of here can be kept.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterator
from typing import IO, Any

from licodec.batch.place import stem_of
from licodec.errors import InputError

ARCHIVES = ("zip", "tar")
_MAGIC = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\0": "xz"}
_ENDINGS = {".zip": "zip", ".tar": "tar", ".tgz": "tar", ".tbz2": "tar", ".txz": "tar"}


def kind_of(name: str) -> str | None:
    """The archive that a file's name says it is: `zip` or `tar`."""
    name = name.lower()
    for ending in (".gz", ".bz2", ".xz"):
        if name.endswith(f".tar{ending}"):
            return "tar"
    return _ENDINGS.get(name[name.rfind(".") :]) if "." in name else None


def opened(kind: str, file: IO[bytes], place: str) -> Any:
    """fsspec's file system of an archive of one of ARCHIVES; `place` is what an error calls it. Raises InputError."""
    from fsspec.implementations.zip import ZipFileSystem

    try:
        return ZipFileSystem(file) if kind == "zip" else _tar(file)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"{place} is not a {kind} file that can be read ({error})") from None


def _tar(file: IO[bytes]) -> Any:
    from fsspec.implementations.tar import TarFileSystem

    class Tar(TarFileSystem):
        """With members called ./a.png, as `tar cf x.tar .` makes them, by their names."""

        index: dict[str, Any]

        def _index(self) -> None:
            super()._index()
            self.index = {
                name: (info | {"name": name}, *rest)
                for info, *rest in self.index.values()
                if (name := info["name"].removeprefix("./")) != "."
            }

    head = file.read(8)
    file.seek(0)
    compression = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    return Tar(file, compression=compression)


def names(fs: Any, root: str) -> Iterator[str]:
    """The files below a folder of an archive, relative to it, as they lie in it.

    That is the order in which a compressed tar file can be read from its
    beginning to its end. Those that differ in their endings alone come together.
    """
    root = root.strip("/")
    below = f"{root}/" if root else ""
    groups: dict[str, list[str]] = {}
    fs.info(root)  # reads what there is
    for name, info in fs.dir_cache.items():
        if info["type"] == "file" and name.startswith(below):
            groups.setdefault(stem_of(name), []).append(name[len(below) :])
    for group in groups.values():
        yield from group

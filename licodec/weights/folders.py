"""Checkpoints among others: in a folder that the authors share, or in one archive of all.

Google Drive's folders are listed by gdown, those of Seafile (NJU Box) by its web API.
Which file it is, an entry of the manifest says by patterns; else a person has to.
"""

from __future__ import annotations

import contextlib
import shutil
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import quote, urlsplit

from licodec.errors import UsageError, WeightsError
from licodec.weights.manifest import Entry

TIMEOUT = 30.0  # seconds
MOST = 1000  # files of a folder
DEEPEST = 4  # folders within folders
LARGEST = 8 << 30  # bytes of a file in an archive


def listed(entry: Entry, verify: bool | str) -> dict[str, dict[str, str]]:
    """What a shared folder holds: paths in it, each with what gdown downloads it by. Lets gdown's errors through."""
    if entry.seafile_folder:
        return dict(_seafile(entry.seafile_folder, verify))
    import gdown

    found = gdown.download_folder(
        id=entry.google_drive_folder, skip_download=True, quiet=True, use_cookies=False, timeout=TIMEOUT, verify=verify
    )
    return {Path(file.path).as_posix(): {"id": file.id} for file in found if not isinstance(file, str)}


def _seafile(folder: str, verify: bool | str) -> Iterator[tuple[str, dict[str, str]]]:
    """The files of a Seafile share, https://HOST/d/TOKEN. Raises WeightsError for an answer that is no listing."""
    import requests

    folder = folder.rstrip("/")
    parts, token = urlsplit(folder), folder.rpartition("/")[2]
    open_folders, count = [("/", 0)], 0
    while open_folders:
        path, depth = open_folders.pop()
        url = f"{parts.scheme}://{parts.netloc}/api/v2.1/share-links/{token}/dirents/?path={quote(path)}"
        answer = requests.get(url, timeout=TIMEOUT, verify=verify)
        answer.raise_for_status()
        try:
            entries = [(bool(e["is_dir"]), str(e["folder_path" if e["is_dir"] else "file_path"]))
                       for e in answer.json()["dirent_list"]]  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"{folder} does not answer as a Seafile share does ({error})") from None
        for is_folder, inner in entries:
            count += 1
            if count > MOST:
                raise WeightsError(f"{folder} holds more than {MOST} files")
            if is_folder and depth < DEEPEST:
                open_folders.append((inner, depth + 1))
            elif not is_folder:
                yield inner.lstrip("/"), {"url": f"{folder}/files/?p={quote(inner, safe='')}&dl=1"}


def choose(paths: Iterable[str], entry: Entry, name: str | None, where: str) -> str:
    """The path of an entry's checkpoint: the first pattern that exactly one path or file name matches decides.

    Args:
        name: given by a person, in place of the manifest's patterns.
        where: what holds the paths, for messages.

    Raises:
        UsageError: none does; it names the files.
    """
    paths = sorted(paths)
    patterns = [name] if name else [entry.checkpoint] if entry.checkpoint else list(entry.checkpoint_names)
    for pattern in patterns:
        fitting = [p for p in paths if fnmatchcase(p, pattern) or fnmatchcase(PurePosixPath(p).name, pattern)]
        if len(fitting) == 1:
            return fitting[0]
    short = Counter(PurePosixPath(p).name for p in paths)
    names = [PurePosixPath(p).name if short[PurePosixPath(p).name] == 1 else p for p in paths]
    missing = f"{' or '.join(patterns)} is not in it" if patterns else "which one it is, is not known"
    raise UsageError(
        f"the authors share {where}, and {missing}; name the file to `licodec weights fetch-upstream {entry.label}` "
        f"with --file: {', '.join(sorted(names))}"
    )


@contextlib.contextmanager
def member(archive: Path, entry: Entry, name: str | None) -> Iterator[Path]:
    """A file of a zip or tar archive, beside it, for as long as it is needed.

    Raises:
        UsageError: which file it is, is not known.
        WeightsError: this is no such archive, or it is damaged.
    """
    target = archive.with_name(f"{archive.name}.member")
    try:
        _extract(archive, entry, name, target)
        yield target
    finally:
        target.unlink(missing_ok=True)


def _extract(archive: Path, entry: Entry, name: str | None, target: Path) -> None:
    try:
        with contextlib.ExitStack() as stack:
            chosen, size, stream = _open_member(archive, entry, name, stack)
            if size > LARGEST:
                raise WeightsError(f"{chosen} in the archive has more than {LARGEST >> 30} GiB")
            with open(target, "wb") as file:
                shutil.copyfileobj(stream, file, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, tarfile.TarError, EOFError, NotImplementedError, RuntimeError) as error:
        raise WeightsError(f"the archive of the checkpoints is damaged, or of another kind ({error})") from None


def _open_member(
    archive: Path, entry: Entry, name: str | None, stack: contextlib.ExitStack
) -> tuple[str, int, IO[bytes]]:
    """Name, size and contents of the entry's file."""
    if zipfile.is_zipfile(archive):
        packed = stack.enter_context(zipfile.ZipFile(archive))
        sizes = {info.filename: info.file_size for info in packed.infolist() if not info.is_dir()}
        chosen = choose(sizes, entry, name, "an archive")
        return chosen, sizes[chosen], stack.enter_context(packed.open(chosen))
    if tarfile.is_tarfile(archive):
        rolled = stack.enter_context(tarfile.TarFile.open(archive))
        files = {info.name: info for info in rolled if info.isfile()}
        chosen = choose(files, entry, name, "an archive")
        stream = rolled.extractfile(files[chosen])
        assert stream is not None  # it is a file
        return chosen, files[chosen].size, stack.enter_context(stream)
    raise WeightsError("the authors' archive of checkpoints is neither zip nor tar; unpack it by hand")

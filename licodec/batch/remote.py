"""URLs by fsspec: object stores, http(s), members of zip and tar files, and whatever else it has a file system for."""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from licodec.batch import archives
from licodec.batch.place import Place
from licodec.errors import InputError, LicodecError, UsageError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Result = TypeVar("Result")
CONNECT_SECONDS = 10.0
SILENT_SECONDS = 60.0  # a server that says nothing for so long hangs
TRIES = 6  # of a request that the server could not answer now
ARCHIVES_KEPT = 4
ARCHIVE_BLOCK = 1 << 20  # bytes read ahead; the list of a tar file's members lies all over it
LONGEST = 300  # letters of what a server says
PAUSE = 0.5  # seconds before the second try; twice as long before each next one
# there one put is whole or not there at all; elsewhere a file is written beside and renamed
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "hf", "memory"}
_ONLY_READ = {"http", "https", "zip", "tar", "libarchive", "github", "data"}


class Remote(Place):
    """A URL. With `::` chains: `zip://a.png::s3://bucket/all.zip`; names are those of the first part."""

    @property
    def _parts(self) -> tuple[str, str, str]:
        """`scheme://`, the path, and all that follows it: a query or a chain."""
        match = re.fullmatch(r"([A-Za-z][\w+.-]*://)?([^?]*?)((\?.*|::.*)?)", self.text)
        return (match[1] or "", match[2], match[3]) if match else ("", self.text, "")

    @property
    def protocols(self) -> list[str]:
        return re.findall(r"(?:^|::)([A-Za-z][\w+.-]*)(?=://|::)", self.text)

    @property
    def name(self) -> str:
        return PurePosixPath(self._parts[1]).name

    def with_name(self, name: str) -> Place:
        if self.protocols[0] in _ONLY_READ:
            return super().with_name(name)
        scheme, path, rest = self._parts
        return Remote(f"{scheme}{path.rpartition('/')[0]}/{name}{rest}")

    def child(self, relative: str) -> Remote:
        scheme, path, rest = self._parts
        return Remote(f"{scheme}{path.rstrip('/')}/{relative}{rest}" if path else f"{scheme}{relative}{rest}")

    def is_folder(self) -> bool:
        if self._parts[1].endswith("/") or not self._parts[1]:
            return True
        if self.protocols[0] in ("http", "https"):
            return False
        return self._ask(lambda fs, path: fs.isdir(path))

    def exists(self) -> bool:
        try:
            self._ask(lambda fs, path: fs.info(path))
        except NotThere:
            return False
        return True

    def read(self) -> bytes:
        return self._ask(lambda fs, path: fs.cat_file(path))

    def size(self) -> int | None:
        return self._ask(lambda fs, path: fs.size(path))

    def part(self, begin: int, end: int) -> bytes:
        """Some of its bytes, by a range request where the server knows them."""
        return self._ask(lambda fs, path: fs.cat_file(path, begin, end))

    def walk(self) -> Iterator[str]:
        fs, root = _tried(self._open)
        if self.protocols[0] in archives.ARCHIVES:
            names = archives.names(fs, root)
        else:
            names = _s3_names(fs, root) if self.protocols == ["s3"] else _walked(fs, root)
        while True:
            name = _tried(lambda: next(names, None), tries=1)  # what they are made of is asked for again where it is
            if name is None:
                return
            hidden = (part.startswith(".") and part != ".." for part in name.split("/"))
            if not any(hidden):
                yield name

    def check_writable(self) -> None:
        self._check_kind()
        if self.protocols[0] in OBJECT_STORES:
            try:
                self._ask(lambda fs, path: fs.isdir(path))
            except Denied as error:
                if "Access Denied" not in str(error):  # who may not list may write all the same
                    raise

    def _check_kind(self) -> None:
        if self.protocols[0] in _ONLY_READ:
            raise UsageError(f"{self.text} cannot be written to; name a file or an object store with -o")

    @contextlib.contextmanager
    def writing(self, force: bool, like: Place | None = None) -> Iterator[BinaryIO]:
        self._check_kind()
        if not force and self.exists():
            raise InputError(f"{self.text} exists; -f overwrites it")
        whole = io.BytesIO()
        yield whole
        self._ask(lambda fs, path: _put(fs, path, whole.getvalue(), self.protocols[0]))

    def _open(self) -> tuple[AbstractFileSystem, str]:
        _, path, rest = self._parts
        if self.protocols[0] in archives.ARCHIVES and rest.startswith("::"):
            return _archive(self.protocols[0], rest.removeprefix("::"), tuple(self.protocols[1:])), path.strip("/")
        return _file_system(self.text, tuple(self.protocols))

    def _ask(self, question: Callable[[AbstractFileSystem, str], Result]) -> Result:
        return _tried(lambda: question(*self._open()))


class Denied(InputError):
    """The server does not let us."""


class NotThere(InputError):
    """The server says that there is no such file."""


@functools.lru_cache(maxsize=ARCHIVES_KEPT)
def _archive(kind: str, place: str, protocols: tuple[str, ...]) -> AbstractFileSystem:
    """Of an archive at a path or URL. Raises InputError, and what fsspec does."""
    fs, path = _file_system(place, protocols)
    return archives.opened(kind, fs.open(path, "rb", block_size=ARCHIVE_BLOCK), place)


def _file_system(url: str, protocols: tuple[str, ...]) -> tuple[AbstractFileSystem, str]:
    """fsspec keeps the file systems it made, by their options. Raises UsageError."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise UsageError("URLs need one more package: pip install 'licodec[cloud]'") from None
    try:
        fs, path = url_to_fs(url, **{name: _options(name) for name in protocols if _options(name)})
        if "s3" in fs.protocol:
            fs.retries = 1
        return fs, path
    except ImportError as error:
        raise UsageError(f"{url}: {error} (pip install 'licodec[cloud]' brings S3 and HTTP)") from None
    except ValueError as error:
        raise UsageError(f"{url}: {error}") from None
    except Exception as error:
        raise _as_ours(error) from None


def _options(protocol: str) -> dict[str, Any]:
    """What makes a file system end that would wait for ever, and keep no listings."""
    if protocol in ("s3", "s3a"):
        waits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": SILENT_SECONDS}
        # a request is made twice at once, and again by `_tried`; s3fs would make it five times as often
        return {"config_kwargs": {**waits, "retries": {"max_attempts": 1}}, "use_listings_cache": False}
    if protocol in ("az", "abfs", "abfss"):
        waits = {"connection_timeout": CONNECT_SECONDS, "read_timeout": SILENT_SECONDS}
        return {**waits, "use_listings_cache": False}
    if protocol in ("http", "https", "gs", "gcs"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
        if protocol in ("gs", "gcs"):
            logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it prints what it raises, with a traceback
            return {"requests_timeout": timeout, "use_listings_cache": False}
        return {"client_kwargs": {"timeout": timeout}}
    return {}


def _tried(question: Callable[[], Result], tries: int = TRIES) -> Result:
    """An answer, asked for again where the server says that it has none now. Raises InputError."""
    for attempt in range(tries):
        try:
            return question()
        except LicodecError:
            raise
        except Exception as raised:  # fsspec's file systems raise whatever their clients do
            error = _cause(raised)
            if attempt + 1 == tries or not _may_pass(error):
                raise _as_ours(error) from None
        time.sleep(PAUSE * 2**attempt)
    raise AssertionError


def _cause(error: Exception) -> Exception:
    """fsspec says of HTTP that there is no such file whatever happened; what did is behind it."""
    behind = error.__cause__
    of_http = isinstance(behind, TimeoutError) or type(behind).__module__.startswith("aiohttp")
    if not isinstance(error, FileNotFoundError) or not isinstance(behind, Exception) or not of_http:
        return error
    return error if _status(behind) in (404, 410) else behind


def _may_pass(error: Exception) -> bool:
    """Whether the same request may be answered later: server errors and lost connections, but no silence."""
    if isinstance(error, TimeoutError):
        return False
    if isinstance(error, OSError) and error.errno == errno.EBUSY:  # s3fs's word for 503
        return True
    status = _status(error)
    if status is not None:
        return status >= 500 or status == 429
    text = f"{type(error).__name__} {error}"
    return any(sign in text for sign in ("SlowDown", "503", "ServiceUnavailable", "Disconnected", "ConnectionReset"))


def _as_ours(error: Exception) -> LicodecError:
    status = _status(error)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return NotThere("no such file")
    if isinstance(error, TimeoutError):
        return InputError(f"cannot be reached (the server was silent for {SILENT_SECONDS:g} s)")
    message = " ".join(str(error).split()).split(" RequestId:")[0][:LONGEST] or type(error).__name__
    if isinstance(error, PermissionError) or status in (401, 403):
        return Denied(f"access is denied ({message}); check the credentials")
    if "Timeout" in type(error).__name__:
        return InputError(f"cannot be reached ({message})")
    return InputError(f"cannot be read or written ({message})")


def _status(error: Exception) -> int | None:
    """HTTP's, where the error of a client has it."""
    found = (getattr(error, name, None) for name in ("status", "status_code", "code"))
    return next((status for status in found if isinstance(status, int)), None)


def _s3_names(fs: Any, root: str) -> Iterator[str]:
    """Page by page: s3fs's own `find` keeps everything before it gives the first."""
    bucket, _, prefix = root.partition("/")
    prefix = prefix.rstrip("/") + "/" if prefix else ""
    more: dict[str, str] = {}
    while True:
        page = _tried(functools.partial(fs.call_s3, "list_objects_v2", Bucket=bucket, Prefix=prefix, **more))
        for entry in page.get("Contents", ()):
            name = entry["Key"][len(prefix) :]
            if name and not name.endswith("/"):  # consoles make empty objects that stand for folders
                yield name
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _walked(fs: Any, root: str) -> Iterator[str]:
    """Folder by folder, files first; of a web server what its pages link to."""
    top = root if "http" in fs.protocol else root.rstrip("/")

    def below(folder: str) -> Iterator[str]:
        entries = _tried(lambda: fs.ls(folder, detail=True))
        entries = sorted((entry["name"].rstrip("/"), entry["type"]) for entry in entries)
        inner = [(name, kind) for name, kind in entries if len(name) > len(folder.rstrip("/"))]
        yield from (name[len(top.rstrip("/")) :].strip("/") for name, kind in inner if kind != "directory")
        for name, kind in inner:
            if kind == "directory":
                yield from below(name + "/" if top != root.rstrip("/") else name)

    yield from below(top)


def _put(fs: Any, path: str, data: bytes, protocol: str) -> None:
    if protocol in OBJECT_STORES:
        fs.pipe_file(path, data)
        return
    from licodec.files import temporary_name

    folder, _, name = path.rpartition("/")
    fs.makedirs(folder, exist_ok=True)
    _sweep(fs, folder)
    beside = f"{folder}/{temporary_name(name)}"
    try:
        fs.pipe_file(beside, data)
        fs.mv(beside, path)
    except BaseException:
        with contextlib.suppress(Exception):
            fs.rm_file(beside)
        raise


_swept: set[tuple[int, str]] = set()


def _sweep(fs: Any, folder: str) -> None:
    """Remove what killed processes of this machine left in a folder, once for each folder."""
    from licodec.files import is_left_behind

    if (id(fs), folder) in _swept:
        return
    _swept.add((id(fs), folder))
    with contextlib.suppress(Exception):  # what cannot be tidied up is no reason to fail
        for place in fs.ls(folder, detail=False):
            if is_left_behind(place.rpartition("/")[2]):
                fs.rm_file(place)

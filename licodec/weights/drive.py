"""The transport of the authors' own checkpoints: Google Drive, buckets, and plain web servers.

gdown does the transfer: confirmation pages, retries, resumption. Here its ways
to fail become one line each, and a page that comes in place of a file is noticed.
"""

from __future__ import annotations

import contextlib
import html
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licodec.errors import LicodecError, UsageError, WeightsError
from licodec.weights import folders, network, sources, zoo
from licodec.weights.manifest import Entry

if TYPE_CHECKING:
    from tqdm import tqdm

CHECKPOINT_MAX = 8 << 30  # bytes; the largest released one has 1.5 GB
TIMEOUT = 30.0  # seconds without an answer
PATIENCE = 120.0  # seconds without a byte of the file, whatever else is answered
RETRIES = 2
PAGE_MAX = 1 << 20  # bytes; a larger file is no page


def find(model: str, quality: int | None) -> Entry:
    """The entry whose checkpoint is to be fetched. Raises UsageError, WeightsError."""
    known = [e for e in sources.entries(model) if e.fetchable]
    if quality is None and len({e.quality for e in known}) == 1:
        quality = known[0].quality
    for entry in known:
        if entry.quality == quality:
            return entry
    have = ", ".join(sorted({str(e.quality) for e in known if e.quality}, key=int)) or "none"
    if quality is None:
        raise UsageError(f"say which `quality` of {model}; checkpoints are known for: {have}")
    raise WeightsError(f"no checkpoint of {model} at quality {quality} is known to be public; known qualities: {have}")


def address(entry: Entry) -> str:
    """Where a browser finds the checkpoint. Imports compressai for those of its zoo."""
    if entry.google_drive:
        return f"https://drive.google.com/file/d/{entry.google_drive}"
    if entry.google_drive_folder:
        return f"https://drive.google.com/drive/folders/{entry.google_drive_folder}"
    if entry.seafile_folder:
        return entry.seafile_folder
    if entry.zoo:
        return zoo.url(entry.model, entry.metric, entry.zoo)
    return str(entry.url)


def download(entry: Entry, folder: Path, name: str | None = None, licence: str = "unknown") -> Path:
    """Download the authors' checkpoint into a folder; a file left half-way is resumed.

    Args:
        name: of the file, where the authors share a folder and the manifest does not know which file it is.
        licence: for the line that tells of the download.

    Raises:
        UsageError: a name is needed.
        WeightsError: the download failed, or is not allowed.
    """
    if switch := network.forbidden():
        raise WeightsError(f"the checkpoint of {entry.label} is not here, and {switch} forbids to fetch it")
    source = address(entry)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{entry.model}-{entry.quality or 'all'}.ckpt"
    with _clear_errors(entry, source):
        if entry.google_drive_folder or entry.seafile_folder:
            found = folders.listed(entry, _certificates())
            where = found[folders.choose(found, entry, name, "a folder")]
        else:
            where = {"id": entry.google_drive} if entry.google_drive else {"url": source}
        transfer = _Transfer(f"the authors' checkpoint of {entry.label}", source, licence)
        transfer.run(where, target)
        if (page := _page(target)) and (confirmed := _confirmation(page)):
            target.unlink()
            transfer.run({"url": confirmed}, target)
            page = _page(target)
        if page:
            target.unlink()
            raise WeightsError(f"in place of the checkpoint of {entry.label} came a page: {_says(page)}; "
                               f"{by_hand(entry, source)}")  # fmt: skip
    return target


def by_hand(entry: Entry, source: str) -> str:
    """How a user gets the checkpoint later, or with a browser."""
    return (
        f"try again later with `licodec weights fetch-upstream {entry.label}`, or get {source} with a browser "
        f"and `licodec convert-upstream FILE -m {entry.label}`"
    )


class _Patience:
    """What gdown asks again and again whether to give up, as it would a `threading.Event`.

    It shall when no byte came for a long time: pages can lead in circles.
    """

    def __init__(self) -> None:
        self.heard = time.monotonic()

    def renew(self) -> None:
        """A byte came, or a new attempt begins."""
        self.heard = time.monotonic()

    def is_set(self) -> bool:
        return time.monotonic() - self.heard > PATIENCE

    def wait(self, seconds: float) -> bool:
        time.sleep(seconds)
        return self.is_set()


class _Transfer:
    """One download by gdown: the line that announces it, a bar on a terminal, and limits."""

    def __init__(self, what: str, source: str, licence: str) -> None:
        self.what, self.source, self.licence = what, source, licence
        self.done = 0
        self.bar: tqdm | None = None
        self.patience = _Patience()

    def run(self, where: dict[str, str], target: Path) -> None:
        """Transfer to a file. A half-way file that the server cannot go on from is thrown away."""
        import gdown

        call: dict[str, Any] = {
            **where, "output": str(target), "quiet": True, "resume": True, "use_cookies": False, "timeout": TIMEOUT,
            "retries": RETRIES, "progress": self.progress, "cancel": self.patience, "verify": _certificates(),
        }  # fmt: skip
        partial = _partial(target)
        target.unlink(missing_ok=True)
        self.patience.renew()
        try:
            gdown.download(**call)
        except gdown.exceptions.DownloadError as error:
            if not partial or not re.search("byte range|multiple temporary", str(error)):
                raise
            for path in _partial(target):
                path.unlink()
            gdown.download(**call)
        finally:
            if self.bar is not None:
                self.bar.close()
                self.bar = None
        if not target.exists():
            raise OSError("nothing was delivered")

    def progress(self, done: int, total: int | None) -> None:
        """Called by gdown after each piece; the first one tells the size."""
        if max(done, total or 0) > CHECKPOINT_MAX:
            raise WeightsError(f"{self.what} has more than {CHECKPOINT_MAX >> 30} GiB; not fetched")
        if not self.done:
            network.announce(self.what, self.source, total, self.licence)
            self.bar = _bar(total)
        if self.bar is not None:
            self.bar.update(done - self.done)
        self.done = done
        self.patience.renew()


def _bar(total: int | None) -> tqdm:
    """A bar of bytes on a terminal, as the Hub's client shows."""
    from tqdm import tqdm

    disable = True if network.is_quiet() else None  # None: not on a terminal
    return tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=disable)


def _certificates() -> bool | str:
    """What proves a server's identity; requests reads REQUESTS_CA_BUNDLE by itself, not OpenSSL's variable."""
    return True if os.environ.get("REQUESTS_CA_BUNDLE") else os.environ.get("SSL_CERT_FILE") or True


def _partial(target: Path) -> list[Path]:
    """What gdown left of earlier attempts."""
    return list(target.parent.glob(f"{target.name}*.part"))


@contextlib.contextmanager
def _clear_errors(entry: Entry, source: str) -> Iterator[None]:
    """Whatever gdown lets through, as one line with what to do."""
    import gdown

    what = f"the checkpoint of {entry.label}"
    try:
        yield
    except LicodecError:
        raise
    except gdown.exceptions.DownloadCancelled:
        raise WeightsError(f"{what}: no data came for {PATIENCE:.0f} seconds; {by_hand(entry, source)}") from None
    except gdown.exceptions.FileURLRetrievalError as error:
        text = " ".join(str(error).split())
        found = re.search(r"Failed to retrieve file url: (.*?) You may still be able", text)
        reason = found[1] if found else text
        raise WeightsError(f"Google Drive does not give {what}: {_plain(reason)}; {by_hand(entry, source)}") from None
    except Exception as error:  # lost connections, refused ones, full disks
        text = _reason(error)
        if short := re.search(r"received (\d+) bytes but the server announced (\d+)", text):
            reason = f"cut short after {short[1]} of {short[2]} bytes, which are kept: the next try goes on from there"
        else:
            reason = _plain(text)[:300] or type(error).__name__
        raise WeightsError(f"{what} cannot be downloaded ({reason}); {by_hand(entry, source)}") from error


def _reason(error: BaseException) -> str:
    """What went wrong, without what the layers of the transport wrap around it."""
    cause = error.__cause__ or error
    inner = cause.args[0] if cause.args else None  # requests wraps urllib3's errors, which know their reason
    reason = getattr(inner, "reason", None)
    if isinstance(reason, Exception):
        return " ".join(re.sub(r"^\w+\([^)]*\): ", "", str(reason)).split())
    return " ".join(str(error).split())


def _page(path: Path) -> str | None:
    """The text of a file that is a web page, else None."""
    if path.stat().st_size > PAGE_MAX:
        return None
    data = path.read_bytes()
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return data.decode(errors="replace") if start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")) else None


def _confirmation(page: str) -> str | None:
    """Where Drive's page "cannot scan this file for viruses" leads, if it is that page."""
    from gdown.download import get_url_from_gdrive_confirmation

    if 'id="download-form"' not in page:
        return None
    url = get_url_from_gdrive_confirmation(page.replace("\n", " "))
    return url if url.startswith(("https://", "http://")) else None


def _says(page: str) -> str:
    """What a page is about: Drive's reason, or its title."""
    for pattern in (r'class="uc-error-subcaption">(.*?)</p>', r"<title>(.*?)</title>", r"<message>(.*?)</message>"):
        if found := re.search(pattern, page, re.IGNORECASE | re.DOTALL):
            return _plain(found[1])[:200]
    return "without a title"


def _plain(text: str) -> str:
    """Text without tags, entities and line ends; it comes from outside."""
    text = html.unescape(re.sub(r"<[^>]*>", "", text))
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())

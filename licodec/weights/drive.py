"""The authors' own checkpoints, from where the authors put them. Needs the extra `licodec[upstream]`."""

from __future__ import annotations

from pathlib import Path

from licodec.errors import UsageError, WeightsError
from licodec.files import sha256
from licodec.weights import sources
from licodec.weights.manifest import Entry

CHECKPOINT_MAX = 8 << 30  # bytes; the largest released one has 1.5 GB
TIMEOUT = 30.0  # seconds without an answer


def find(model: str, quality: int | None) -> Entry:
    """The entry whose checkpoint is to be fetched. Raises UsageError, WeightsError."""
    known = [e for e in sources.entries(model) if e.fetchable]
    if quality is None and len({e.quality for e in known}) == 1:
        quality = known[0].quality
    for entry in known:
        if entry.quality == quality:
            return entry
    have = ", ".join(sorted({str(e.quality) for e in known}, key=int)) or "none"
    if quality is None:
        raise UsageError(f"say which quality of {model} with -q; checkpoints are known for: {have}")
    raise WeightsError(f"no checkpoint of {model} at quality {quality} is known to be public; known qualities: {have}")


def download(entry: Entry, folder: Path, name: str | None = None, quiet: bool = False) -> Path:
    """Download the authors' checkpoint into a folder; a file left half-way is resumed.

    Args:
        name: of the file, where the authors share a folder and the manifest does not know which file it is.

    Raises:
        UsageError: the extra is missing, or a name is needed.
        WeightsError: the download failed, or is not the file the manifest knows.
    """
    try:
        import gdown
    except ImportError:
        raise UsageError("this needs gdown: pip install 'licodec[upstream]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{entry.model}-{entry.quality}.ckpt"

    def progress(done: int, total: int | None) -> None:
        if max(done, total or 0) > CHECKPOINT_MAX:
            raise WeightsError(f"the checkpoint of {entry.label} has more than {CHECKPOINT_MAX >> 30} GiB; not fetched")

    try:
        where = {"url": entry.url} if entry.url else {"id": entry.google_drive or _in_folder(entry, name)}
        gdown.download(
            **where, output=str(target), quiet=quiet, resume=True, use_cookies=False, timeout=TIMEOUT, retries=2,
            progress=progress if quiet else None,
        )  # fmt: skip
    except (UsageError, WeightsError):
        raise
    except Exception as error:  # gdown lets the errors of its transport through
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise WeightsError(
            f"the checkpoint of {entry.label} cannot be downloaded ({reason}); {by_hand(entry)}"
        ) from error
    if not target.exists():
        raise WeightsError(f"the checkpoint of {entry.label} was not delivered; {by_hand(entry)}")
    if entry.checkpoint_sha256:
        digest = sha256(target)
        if digest != entry.checkpoint_sha256:
            target.unlink()
            raise WeightsError(
                f"the checkpoint of {entry.label} has the sha256 {digest}, the manifest says {entry.checkpoint_sha256}"
            )
    return target


def by_hand(entry: Entry) -> str:
    """How a user gets the checkpoint with a browser."""
    if entry.google_drive:
        url = f"https://drive.google.com/file/d/{entry.google_drive}"
    elif entry.google_drive_folder:
        url = f"https://drive.google.com/drive/folders/{entry.google_drive_folder}"
    else:
        url = str(entry.url)
    return f"or get {url} with a browser and `licodec convert-upstream FILE -m {entry.model} -q {entry.quality}`"


def _in_folder(entry: Entry, name: str | None) -> str:
    """The Google Drive id of a file in a shared folder. Raises UsageError if it is not there or not known."""
    import gdown

    wanted = name or entry.checkpoint
    listed = gdown.download_folder(id=entry.google_drive_folder, skip_download=True, quiet=True, use_cookies=False)
    files = {Path(file.path).name: file.id for file in listed}
    if wanted in files:
        return files[wanted]
    missing = f"{wanted} is not in the authors' folder" if wanted else f"which file {entry.label} is, is not known"
    raise UsageError(f"{missing}; choose with --file: {', '.join(sorted(files))}")

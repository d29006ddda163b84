"""Converted weights from the Hugging Face Hub.

The Hub's client does the transport: its cache (HF_HOME, HF_HUB_CACHE), its
endpoint and token (HF_ENDPOINT, HF_TOKEN), offline mode, locks between
processes, resumption and progress. It checks sizes only. Here a file is pinned
to a full commit, its sha256 is compared with the manifest's once, and a marker
remembers that, until the file changes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from licodec.errors import LicodecError, WeightsError
from licodec.files import beside, sha256
from licodec.weights import network, paths

if TYPE_CHECKING:
    from licodec.weights.manifest import Entry

MANIFEST_MAX = 4 << 20  # bytes


def peek(entry: Entry) -> Path | None:
    """Where the Hub's cache has the file of a published entry, unchecked; asks no network."""
    from huggingface_hub import try_to_load_from_cache

    wanted = entry.pinned
    path = try_to_load_from_cache(wanted.repo, wanted.file, revision=wanted.commit)
    return Path(path) if isinstance(path, str) else None


def cached(entry: Entry) -> Path | None:
    """The checked file of a published entry if the Hub's cache has it; asks no network. Raises WeightsError."""
    path = peek(entry)
    return path and _verified(path, entry)


def fetch(entry: Entry) -> Path:
    """The file of a published entry, downloaded unless the Hub's cache has it.

    Raises WeightsError: it cannot be had, or is not what the manifest says. Such a file is not kept.
    """
    if path := cached(entry):
        return path
    wanted = entry.pinned
    what = f"{wanted} at {wanted.commit[:12]}"
    if switch := network.forbidden():
        raise WeightsError(f"{what}: not in the cache, and {switch} forbids to download it")
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    with clear_errors(what):
        offered = get_hf_file_metadata(hf_hub_url(wanted.repo, wanted.file, revision=wanted.commit))
        if offered.size != entry.size:
            raise WeightsError(
                f"{wanted}: the Hub offers {offered.size} bytes, the manifest says {entry.size}; not downloaded"
            )
        _announce(entry)
        fetched = hf_hub_download(wanted.repo, wanted.file, revision=wanted.commit)
    return _verified(Path(fetched), entry)


def _announce(entry: Entry) -> None:
    from licodec.weights.manifest import licence_of

    if network.is_quiet():
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    network.announce(entry.label, f"the Hub, {entry.pinned}", entry.size, licence_of(entry))


def drop(path: Path) -> int:
    """Remove a file from the Hub's cache; returns the bytes freed."""
    blob = path.resolve()
    size = blob.stat().st_size if blob.exists() else 0
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)
    return size


def read_manifest(repo: str) -> str:
    """The text of a repository's weights.toml, as it is now. Raises WeightsError."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    from licodec.weights import manifest

    if switch := network.forbidden():
        raise WeightsError(f"{repo}/{manifest.NAME}: {switch} forbids to ask for it")
    with clear_errors(f"{repo}/{manifest.NAME}"):
        size = get_hf_file_metadata(hf_hub_url(repo, manifest.NAME)).size
        if size is None or size > MANIFEST_MAX:
            raise WeightsError(f"{repo}/{manifest.NAME}: {size} bytes are too many for a manifest")
        path = hf_hub_download(repo, manifest.NAME)
        return Path(path).read_text(encoding="utf-8")


def check(path: Path, entry: Entry) -> None:
    """Compare size and sha256 with the manifest's. Raises WeightsError."""
    size = path.stat().st_size
    if size != entry.size:
        raise WeightsError(f"{path}: has {size} bytes, the manifest says {entry.size}")
    digest = sha256(path)
    if digest != entry.sha256:
        raise WeightsError(f"{path}: its sha256 is {digest}, the manifest says {entry.sha256}")


def _verified(path: Path, entry: Entry) -> Path:
    """The path, once its contents are known to be the manifest's; a wrong file is removed."""
    stat = path.stat()
    facts = {"path": str(path.resolve()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    marker = paths.home() / "verified" / f"{entry.sha256}.json"
    with contextlib.suppress(OSError, ValueError):
        if json.loads(marker.read_text()) == facts:
            return path
    try:
        check(path, entry)
    except WeightsError as error:
        drop(path)
        raise WeightsError(f"{error}; it was removed from the cache, not used") from None
    # a home that cannot be written costs a check every time, no more
    with contextlib.suppress(OSError), beside(marker) as temporary:
        temporary.write_text(json.dumps(facts))
    return path


@contextlib.contextmanager
def clear_errors(what: str) -> Iterator[None]:
    """Whatever the Hub's client raises, as one line with what to do."""
    from huggingface_hub import errors

    try:
        yield
    except LicodecError:
        raise
    except errors.GatedRepoError:
        raise WeightsError(f"{what}: access must be asked for on the Hub's page of the repository") from None
    except errors.OfflineModeIsEnabled:
        raise WeightsError(f"{what}: not in the cache, and HF_HUB_OFFLINE forbids to download it") from None
    except errors.HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else 0
        if code in (401, 403):
            raise WeightsError(
                f"{what}: the Hub refuses access ({code}); log in with `hf auth login` or set HF_TOKEN"
            ) from None
        if code == 404:
            raise WeightsError(f"{what}: not on the Hub (404); correct or update the manifest") from None
        raise WeightsError(f"{what}: the Hub answers with an error ({code}); try again later") from None
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:  # timeouts, lost connections, full disks: the client lets its transport's errors through
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(f"{what}: the transfer failed ({type(error).__name__}: {reason}); try again") from error

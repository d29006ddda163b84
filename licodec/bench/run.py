"""Measuring: every picture with every codec; results are kept as they come."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from licodec.batch.facts import Facts
from licodec.batch.jobs import Job
from licodec.batch.place import Place
from licodec.bench.codecs import Measured
from licodec.bench.memory import PeakMemory, keep
from licodec.bench.metrics import METRICS
from licodec.bench.pictures import digest
from licodec.errors import LicodecError, UsageError
from licodec.search import pixel_psnr

if TYPE_CHECKING:
    from licodec.batch.run import Doing
    from licodec.bench.folder import Kept


@dataclass(frozen=True)
class Result:
    """One picture through one codec at one setting.

    Attributes:
        key: of picture, codec, setting and identity; a result with the same key is not measured again.
        bytes: of the real file; bpp from it.
        psnr: in dB over all RGB samples of the 8-bit pictures; infinite if they are equal.
        encode_seconds, decode_seconds: medians of the repetitions.
        ms_ssim, ssimulacra2, lpips: None if not asked for, or the picture is too small.
        estimated_bits: what an ideal coder would need with the model's probabilities; None of rivals.
        encode_memory, decode_memory: peaks in bytes, beyond what was loaded before; see `PeakMemory`.
        metrics: those that were asked for.
        side_by_side: how many processes measured at the same time; beyond 1 the seconds are longer than they need be.
        threads, processor: of the process that measured; None of results from before they were noted.
    """

    key: str
    image: str
    codec: str
    setting: float
    width: int
    height: int
    bytes: int
    bpp: float
    psnr: float
    encode_seconds: float
    decode_seconds: float
    ms_ssim: float | None = None
    ssimulacra2: float | None = None
    lpips: float | None = None
    estimated_bits: float | None = None
    encode_memory: int | None = None
    decode_memory: int | None = None
    metrics: tuple[str, ...] = ()
    side_by_side: int = 1
    threads: int | None = None
    processor: str | None = None


@dataclass(frozen=True)
class Trial(Job):
    """One picture to measure with one codec.

    Attributes:
        index: the codec's.
        name: the picture's.
        key: of the result.
    """

    index: int = 0
    name: str = ""
    key: str = ""


@dataclass(kw_only=True)
class Measurement(Facts):
    """What came of a `Trial`."""

    result: Result


def key_of(digest: str, codec: Measured) -> str:
    """What tells a result from all others."""
    return f"{digest} {codec.name} {codec.setting:g} {codec.identity}"


def measure(
    pixels: np.ndarray,
    name: str,
    key: str,
    codec: Measured,
    repeat: int,
    metrics: list[str],
    cuda: bool = False,
    return_memory: Callable[[], None] = keep,
) -> Result:
    """Encode, decode and compare; `cuda` and `return_memory` are of `PeakMemory`."""
    times: tuple[list[float], list[float]] = ([], [])
    peaks: tuple[list[int | None], list[int | None]] = ([], [])
    for _ in range(repeat):
        with PeakMemory(cuda, return_memory) as encoding:
            began = time.perf_counter()
            data, bits = codec.encode(pixels)
            times[0].append(time.perf_counter() - began)
        with PeakMemory(cuda, return_memory) as decoding:
            began = time.perf_counter()
            decoded = codec.decode(data)
            times[1].append(time.perf_counter() - began)
        for peak, memory in zip(peaks, (encoding, decoding), strict=True):
            peak.append(memory.bytes if codec.in_process else None)
    height, width = pixels.shape[:2]
    if decoded.shape != pixels.shape:
        raise UsageError(f"{codec.name} gives a picture of another size, {decoded.shape[1]}x{decoded.shape[0]}")
    scores = {metric: METRICS[metric](decoded, pixels) for metric in metrics}
    return Result(
        key=key, image=name, codec=codec.name, setting=codec.setting, width=width, height=height, bytes=len(data),
        bpp=8 * len(data) / (width * height), psnr=pixel_psnr(decoded, pixels),
        encode_seconds=statistics.median(times[0]), decode_seconds=statistics.median(times[1]),
        estimated_bits=bits, encode_memory=max(peaks[0], key=lambda b: b or 0),
        decode_memory=max(peaks[1], key=lambda b: b or 0), metrics=tuple(metrics),
        ms_ssim=scores.get("ms-ssim"), ssimulacra2=scores.get("ssimulacra2"), lpips=scores.get("lpips"),
    )  # fmt: skip


def run(
    pictures: dict[str, Place],
    codecs: Sequence[Measured],
    kept: Kept,
    metrics: list[str],
    do: Doing,
    report: Callable[[Result], None],
    complain: Callable[[str, str], None],
) -> list[Result]:
    """Measure what has not been measured yet; gives all results that belong to this call, by codec.

    A picture that cannot be read or coded is reported to `complain`, once, and left out.

    Args:
        pictures: by their names.
        do: does jobs of `tasks.Measure`.
        report: told each result as it comes.

    Raises:
        UsageError: something that no other picture would change.
    """
    bad: set[str] = set()
    found: dict[tuple[int, str], Result] = {}

    def spoil(name: str, error: LicodecError) -> None:
        if isinstance(error, UsageError):
            raise error
        if name not in bad:
            bad.add(name)
            complain(name, " ".join(str(error).split()))

    def take(index: int, name: str, result: Result) -> None:
        found[index, name] = replace(result, image=name)  # it may have been renamed since
        report(found[index, name])

    def jobs() -> Iterator[Job]:
        digests: dict[str, str] = {}
        for index, codec in enumerate(codecs):
            for name, place in pictures.items():
                if name in bad:
                    continue
                try:
                    if name not in digests:
                        digests[name] = digest(place)
                except LicodecError as error:
                    spoil(name, error)
                    continue
                key = key_of(digests[name], codec)
                known = kept.results.get(key)
                if known is not None and set(metrics) <= set(known.metrics):
                    take(index, name, known)
                else:
                    yield Trial(place, index=index, name=name, key=key)

    with contextlib.closing(do(jobs())) as outcomes:
        for outcome in outcomes:
            trial = outcome.job
            assert isinstance(trial, Trial)
            if outcome.error is not None:
                spoil(trial.name, outcome.error)
            elif outcome.facts is not None:
                assert isinstance(outcome.facts, Measurement)
                kept.add(outcome.facts.result)
                take(trial.index, trial.name, outcome.facts.result)
    order = {name: i for i, name in enumerate(pictures)}
    return [found[place] for place in sorted(found, key=lambda place: (place[0], order[place[1]]))]


class Environment(TypedDict):
    """The machine and the versions that the times depend on.

    commit: of a licodec that runs from its repository. threads: of the CPU, for one process. cpus: of the machine.
    """

    licodec: str
    commit: str | None
    torch: str
    pillow: str
    threads: int
    python: str
    machine: str
    system: str
    processor: str
    cpus: int | None
    gpu: str | None


def environment() -> Environment:
    """Those of this process."""
    import PIL
    import torch

    from licodec import __version__, runtime

    return {
        "licodec": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "threads": runtime.threads() or os.cpu_count() or 1,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _commit() -> str | None:
    """The commit of a licodec that runs from its repository, with + if files were changed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        calls = (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        head, changed = (
            subprocess.run(["git", "-C", root, *call], capture_output=True, text=True, timeout=20, check=True).stdout
            for call in calls
        )
        return head.strip() + ("+" if changed.strip() else "")
    return None


@functools.cache
def processor() -> str:
    """The name of this machine's."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()

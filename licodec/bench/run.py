"""Measuring: every picture with every codec; results are kept as they come."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np

from licodec import inputs
from licodec.bench.codecs import Measured
from licodec.bench.memory import PeakMemory
from licodec.bench.metrics import METRICS
from licodec.errors import LicodecError, UsageError
from licodec.search import pixel_psnr

RESULTS = "results.jsonl"


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


def measure(
    pixels: np.ndarray, name: str, key: str, codec: Measured, repeat: int, metrics: list[str], cuda: bool = False
) -> Result:
    """Encode, decode and compare."""
    times: tuple[list[float], list[float]] = ([], [])
    peaks: tuple[list[int | None], list[int | None]] = ([], [])
    for _ in range(repeat):
        with PeakMemory(cuda) as encoding:
            began = time.perf_counter()
            data, bits = codec.encode(pixels)
            times[0].append(time.perf_counter() - began)
        with PeakMemory(cuda) as decoding:
            began = time.perf_counter()
            decoded = codec.decode(data)
            times[1].append(time.perf_counter() - began)
        for peak, memory in zip(peaks, (encoding, decoding), strict=True):
            peak.append(memory.bytes if codec.in_process else None)
    height, width = pixels.shape[:2]
    if decoded.shape != pixels.shape:
        raise UsageError(f"{codec.name} gives a picture of another size, {decoded.shape[1]}x{decoded.shape[0]}")
    return Result(
        key=key, image=name, codec=codec.name, setting=codec.setting, width=width, height=height, bytes=len(data),
        bpp=8 * len(data) / (width * height), psnr=pixel_psnr(decoded, pixels),
        encode_seconds=statistics.median(times[0]), decode_seconds=statistics.median(times[1]),
        estimated_bits=bits, encode_memory=max(peaks[0], key=lambda b: b or 0),
        decode_memory=max(peaks[1], key=lambda b: b or 0), metrics=tuple(metrics),
        **{metric.replace("-", "_"): METRICS[metric](decoded, pixels) for metric in metrics},
    )  # fmt: skip


def load_results(folder: Path) -> dict[str, Result]:
    """What an earlier run measured, by key. A half line at the end, left by a kill, is ignored."""
    results = {}
    with contextlib.suppress(FileNotFoundError), open(folder / RESULTS) as file:
        for line in file:
            try:
                row = json.loads(line)
                result = Result(**(row | {"metrics": tuple(row.get("metrics", ()))}))
            except (ValueError, TypeError, AttributeError):
                continue
            results[result.key] = result
    return results


class Pictures:
    """Pictures of a folder, one in memory at a time."""

    def __init__(self, paths: list[Path], root: Path | None = None) -> None:
        self.paths, self.root = paths, root
        self.digests: dict[Path, str] = {}
        self.loaded: tuple[Path, np.ndarray] | None = None

    def pixels(self, path: Path) -> np.ndarray:
        """uint8 [H, W, 3]. Raises LicodecError."""
        if self.loaded is None or self.loaded[0] != path:
            self.loaded = (path, inputs.read(path).eight_bit().rgb)
        return self.loaded[1]

    def digest(self, path: Path) -> str:
        """Of the pixels, read once."""
        if path not in self.digests:
            self.digests[path] = hashlib.sha256(self.pixels(path).tobytes()).hexdigest()[:16]
        return self.digests[path]

    def name(self, path: Path) -> str:
        """Its place below the folder."""
        return path.relative_to(self.root).as_posix() if self.root else path.name


def run(
    pictures: Pictures,
    codecs: Iterable[Measured],
    folder: Path,
    repeat: int,
    metrics: list[str],
    report: Callable[[Result], None],
    complain: Callable[[Path, str], None],
    cuda: bool = False,
) -> Iterator[Result]:
    """Measure what has not been measured yet; yields all results that belong to this call.

    A picture that cannot be read or coded is reported to `complain` and left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = load_results(folder)
    bad: set[Path] = set()
    with open(folder / RESULTS, "a+b") as file:
        _end_line(file)
        for codec in codecs:
            warm = False
            for path in pictures.paths:
                if path in bad:
                    continue
                try:
                    key = f"{pictures.digest(path)} {codec.name} {codec.setting:g} {codec.identity}"
                    if key not in known or not set(metrics) <= set(known[key].metrics):
                        pixels = pictures.pixels(path)
                        if not warm:
                            codec.decode(codec.encode(pixels)[0])  # the first call of a codec is slower
                        warm = True
                        known[key] = measure(pixels, pictures.name(path), key, codec, repeat, metrics, cuda)
                        file.write(json.dumps(asdict(known[key])).encode() + b"\n")
                        file.flush()
                    result = replace(known[key], image=pictures.name(path))  # it may have been renamed since
                    report(result)
                    yield result
                except UsageError:
                    raise
                except LicodecError as error:
                    bad.add(path)
                    complain(path, str(error))


def _end_line(file: BinaryIO) -> None:
    """Close a line that a kill left half written, so that the next one is not lost with it."""
    if file.tell():
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def environment() -> dict[str, object]:
    """The machine and the versions that the times depend on."""
    import PIL
    import torch

    from licodec import __version__, runtime

    return {
        "licodec": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "threads": runtime.threads() or os.cpu_count(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "processor": _processor(),
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


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()

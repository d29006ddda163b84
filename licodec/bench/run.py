"""Measuring: every picture with every codec; results are kept as they come."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from licodec import imaging
from licodec.bench.codecs import Measured
from licodec.errors import LicodecError
from licodec.search import pixel_psnr

RESULTS = "results.jsonl"


@dataclass(frozen=True)
class Result:
    """One picture through one codec at one setting.

    Attributes:
        key: of picture, codec, setting and identity; a result with the same key is not measured again.
        bytes: of the real file; bpp from it.
        psnr: in dB over all RGB samples of the 8-bit pictures; infinite if they are equal.
        ms_ssim: None if a side is under 161 pixels.
        encode_seconds, decode_seconds: medians of the repetitions.
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
    ms_ssim: float | None
    encode_seconds: float
    decode_seconds: float


def ms_ssim(a: np.ndarray, b: np.ndarray) -> float | None:
    """MS-SSIM of two uint8 RGB pictures (Wang et al. 2003, five scales), None if they are too small."""
    if min(a.shape[:2]) < 161:
        return None
    import torch
    from pytorch_msssim import ms_ssim as measure

    x, y = (torch.from_numpy(p.transpose(2, 0, 1)[None].astype(np.float32)) for p in (a, b))
    return float(measure(x, y, data_range=255.0))


def measure(pixels: np.ndarray, name: str, key: str, codec: Measured, repeat: int) -> Result:
    """Encode, decode and compare."""
    encode_times, decode_times = [], []
    for _ in range(repeat):
        began = time.perf_counter()
        data = codec.encode(pixels)
        middle = time.perf_counter()
        decoded = codec.decode(data)
        encode_times.append(middle - began)
        decode_times.append(time.perf_counter() - middle)
    height, width = pixels.shape[:2]
    return Result(
        key, name, codec.name, codec.setting, width, height, len(data), 8 * len(data) / (width * height),
        pixel_psnr(decoded, pixels), ms_ssim(decoded, pixels),
        statistics.median(encode_times), statistics.median(decode_times),
    )  # fmt: skip


def load_results(folder: Path) -> dict[str, Result]:
    """What an earlier run measured, by key. A half line at the end, left by a kill, is ignored."""
    results = {}
    with contextlib.suppress(FileNotFoundError), open(folder / RESULTS) as file:
        for line in file:
            try:
                result = Result(**json.loads(line))
            except (ValueError, TypeError):
                continue
            results[result.key] = result
    return results


def run(
    pictures: list[Path],
    codecs: Iterable[Measured],
    folder: Path,
    repeat: int,
    report: Callable[[Result], None],
    complain: Callable[[Path, str], None],
) -> Iterator[Result]:
    """Measure what has not been measured yet; yields all results that belong to this call.

    A picture that cannot be read or coded is reported to `complain` and left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = load_results(folder)
    bad: set[Path] = set()
    loaded: dict[Path, tuple[np.ndarray, str]] = {}
    with open(folder / RESULTS, "a+b") as file:
        _end_line(file)
        for codec in codecs:
            warm = False
            for path in pictures:
                if path in bad:
                    continue
                try:
                    if path not in loaded:
                        loaded[path] = _load(path)
                    pixels, digest = loaded[path]
                    key = f"{digest} {codec.name} {codec.setting:g} {codec.identity}"
                    if key not in known:
                        if not warm and repeat > 1:
                            codec.decode(codec.encode(pixels))  # the first call of a codec is slower
                        warm = True
                        known[key] = measure(pixels, path.name, key, codec, repeat)
                        file.write(json.dumps(asdict(known[key])).encode() + b"\n")
                        file.flush()
                    report(known[key])
                    yield known[key]
                except LicodecError as error:
                    bad.add(path)
                    complain(path, str(error))


def _end_line(file: BinaryIO) -> None:
    """Close a line that a kill left half written, so that the next one is not lost with it."""
    if file.tell():
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def _load(path: Path) -> tuple[np.ndarray, str]:
    pixels = imaging.read(path).rgb
    return pixels, hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


def environment() -> dict[str, object]:
    """The machine and the versions that the times depend on."""
    import torch

    from licodec import __version__

    return {
        "licodec": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()

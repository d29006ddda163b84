"""Matrix products on the CPU by the library that is the fastest there.

torch multiplies by MKL and, given packed weights, by oneDNN; numpy by OpenBLAS.
Which is the fastest depends on the processor: MKL uses AVX-512 only on Intel's.
In float64, in GFLOP/s a core, MKL and OpenBLAS have 54 and 39 on a Cascade Lake
Xeon, 45 and 85 on an AMD EPYC with AVX-512; in float32 MKL and oneDNN have 88
and 79 on an EPYC with AVX2, and oneDNN 2.2 times as much as MKL on the other.
Their results differ by the rounding of the last bit, as those of any two machines do.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from licodec.layers.parallel import alone, each, pieces, threads

TRIAL = (4, 96, 256)  # products as the slices' heads have them
ROUNDS = 6  # of a trial


def coding(x: Tensor) -> bool:
    """Whether the ways for inference on the CPU are open to x."""
    return torch.is_inference_mode_enabled() and x.device.type == "cpu"


def quickest(candidates: dict[str, Callable[[], object]]) -> str:
    """The fastest of some functions that do the same, by running them a few times in one thread.

    They take turns, and each counts with its best time: what slows the machine for a
    moment, as other programs do, decides nothing.
    """

    def time_of(candidate: Callable[[], object]) -> float:
        start = time.perf_counter()
        candidate()
        return time.perf_counter() - start

    @torch.inference_mode()
    def trial() -> dict[str, float]:
        times = [{name: time_of(candidate) for name, candidate in candidates.items()} for _ in range(1 + ROUNDS)]
        return {name: min(taken[name] for taken in times[1:]) for name in candidates}  # the first one warms up

    best = alone(trial)
    return min(best, key=lambda name: best[name])


def openblas(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a @ b as numpy computes it."""
    return torch.from_numpy(np.matmul(a.numpy(), b.numpy(), out=None if out is None else out.numpy()))


@functools.cache
def _fastest(dtype: torch.dtype) -> Callable[..., Tensor]:
    """The faster of the two libraries for a batch of products, by a trial of some 30 ms."""
    batch, rows, inner = TRIAL
    a, b = torch.ones(batch, rows, inner, dtype=dtype), torch.ones(batch, inner, inner, dtype=dtype)
    libraries = {"mkl": torch.matmul, "openblas": openblas}
    return libraries[quickest({name: functools.partial(way, a, b) for name, way in libraries.items()})]


def matmul(a: Tensor, b: Tensor, plus: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """a @ b, two or three dimensions, float32 or float64.

    Args:
        plus: is added; it may be overwritten, and is in inference.
        out: for inference without `plus`: where the result goes.
    """
    if not torch.is_inference_mode_enabled():
        return a @ b if plus is None else a @ b + plus
    multiply = _fastest(a.dtype) if a.device.type == "cpu" else torch.matmul
    if a.ndim == 2 or threads() == 1:
        return _multiply(multiply, a, b, plus, out)
    if plus is None and out is None:
        out = a.new_empty(*a.shape[:2], b.shape[2])

    def part(batch: slice) -> None:
        _multiply(multiply, a[batch], b[batch], *(t if t is None else t[batch] for t in (plus, out)))

    each(part, pieces(len(a), len(a)))
    return out if plus is None else plus


def _multiply(multiply: Callable[..., Tensor], a: Tensor, b: Tensor, plus: Tensor | None, out: Tensor | None) -> Tensor:
    if plus is None:
        return multiply(a, b) if out is None else multiply(a, b, out=out)
    if multiply is torch.matmul:
        return plus.baddbmm_(a, b) if a.ndim == 3 else plus.addmm_(a, b)
    return plus.add_(multiply(a, b))

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

TRIAL = (4, 96, 256)  # products as the slices' heads have them


def quickest(candidates: dict[str, Callable[[], object]]) -> str:
    """The fastest of some functions that do the same, by running each a few times."""
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(6):
        for name, candidate in candidates.items():
            start = time.perf_counter()
            candidate()
            taken[name].append(time.perf_counter() - start)
    return min(taken, key=lambda name: min(taken[name]))  # the least is what other programs disturb least


def openblas(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a @ b as numpy computes it."""
    return torch.from_numpy(np.matmul(a.numpy(), b.numpy(), out=None if out is None else out.numpy()))


@functools.cache
def _fastest(dtype: torch.dtype) -> Callable[..., Tensor]:
    """The faster of the two libraries for a batch of products, by a trial of some 15 ms."""
    batch, rows, inner = TRIAL
    a, b = torch.ones(batch, rows, inner, dtype=dtype), torch.ones(batch, inner, inner, dtype=dtype)
    libraries = {"mkl": torch.matmul, "openblas": openblas}
    return libraries[quickest({name: functools.partial(multiply, a, b) for name, multiply in libraries.items()})]


def matmul(a: Tensor, b: Tensor, plus: Tensor | None = None, out: Tensor | None = None) -> Tensor:
    """a @ b, two or three dimensions, float32 or float64.

    Args:
        plus: is added; it may be overwritten, and is in inference.
        out: for inference without `plus`: where the result goes.
    """
    if not torch.is_inference_mode_enabled():
        return a @ b if plus is None else a @ b + plus
    multiply = _fastest(a.dtype) if a.device.type == "cpu" else torch.matmul
    if plus is None:
        return multiply(a, b) if out is None else multiply(a, b, out=out)
    if multiply is torch.matmul:
        return plus.baddbmm_(a, b) if a.ndim == 3 else plus.addmm_(a, b)
    return plus.add_(multiply(a, b))

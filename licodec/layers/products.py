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
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

TRIAL = (2, 96, 256)  # products as the slices' heads have them


def coding(x: Tensor) -> bool:
    """Whether the ways for inference on the CPU are open to x."""
    return torch.is_inference_mode_enabled() and x.device.type == "cpu"


def quickest(candidates: dict[str, Callable[[], object]], margin: float = 1.0) -> str:
    """The fastest of some functions that do the same, by running each a few times.

    The first is taken unless another is more than `margin` times as fast.
    """
    taken = {}
    for name, candidate in candidates.items():
        times = []
        for _ in range(8):  # one after another: what one leaves behind, such as waiting threads, is its own
            start = time.perf_counter()
            candidate()
            times.append(time.perf_counter() - start)
        taken[name] = statistics.median(times[1:]) * (margin if taken else 1)
    return min(taken, key=lambda name: taken[name])


def openblas(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a @ b as numpy computes it."""
    return torch.from_numpy(np.matmul(a.numpy(), b.numpy(), out=None if out is None else out.numpy()))


@functools.cache
def _fastest(dtype: torch.dtype) -> Callable[..., Tensor]:
    """The faster of the two libraries for a batch of products, by a trial of some 10 ms.

    Each library's threads go on waiting for work after an operation, and two on two cores keep
    those of the other from theirs: coding with TCM took up to twice as long with OpenBLAS as
    with MKL, which has torch's own threads. So it is tried among operations of torch's.
    """
    batch, rows, inner = TRIAL
    a, b = torch.ones(batch, rows, inner, dtype=dtype), torch.ones(batch, inner, inner, dtype=dtype)
    between = torch.ones(1 << 17)

    def among_others(multiply: Callable[..., Tensor]) -> None:
        for _ in range(8):
            between.add_(1)
        multiply(a, b)

    libraries = {"mkl": torch.matmul, "openblas": openblas}
    candidates = {name: functools.partial(among_others, multiply) for name, multiply in libraries.items()}
    return libraries[quickest(candidates, margin=1.0 if torch.get_num_threads() == 1 else 1.3)]


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

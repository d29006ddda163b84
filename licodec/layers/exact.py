"""Matrix products in float64, for what the decoder must reproduce.

torch multiplies by MKL, numpy by OpenBLAS, and which is the faster depends on
the processor: MKL uses AVX-512 only on Intel's (54 GFLOP/s a core against
OpenBLAS's 39 on a Cascade Lake Xeon, 45 against 85 on an AMD EPYC). Their
results differ by some 1e-16, as those of any two machines do.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

TRIAL = (12, 96, 256)  # a product as the slices' heads have them, of 0.15 GFLOP


def _openblas(a: Tensor, b: Tensor) -> Tensor:
    return torch.from_numpy(np.matmul(a.numpy(), b.numpy()))


@functools.cache
def _fastest() -> Callable[[Tensor, Tensor], Tensor]:
    """The faster of the two libraries on this machine, by a trial of some 50 ms."""
    batch, rows, inner = TRIAL
    a, b = torch.ones(batch, rows, inner, dtype=torch.float64), torch.ones(batch, inner, inner, dtype=torch.float64)
    times: dict[Callable[[Tensor, Tensor], Tensor], list[float]] = {torch.matmul: [], _openblas: []}
    for _ in range(5):
        for multiply, taken in times.items():
            start = time.perf_counter()
            multiply(a, b)
            taken.append(time.perf_counter() - start)
    return min(times, key=lambda multiply: min(times[multiply]))  # the least is what other programs disturb least


def matmul(a: Tensor, b: Tensor, plus: Tensor | None = None) -> Tensor:
    """a @ b, two or three dimensions, float64. `plus` is added; it may be overwritten."""
    inference = torch.is_inference_mode_enabled()
    multiply = _fastest() if inference and a.device.type == "cpu" else torch.matmul
    if plus is None:
        return multiply(a, b)
    if inference and multiply is torch.matmul:
        return plus.baddbmm_(a, b) if a.ndim == 3 else plus.addmm_(a, b)
    return multiply(a, b).add_(plus)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., in] and weight [out, in] -> [..., out]."""
    y = matmul(x.reshape(-1, x.shape[-1]), weight.T)
    if bias is not None:
        y += bias
    return y.view(*x.shape[:-1], -1)

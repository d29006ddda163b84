"""Matrix products in float64, for what the decoder must reproduce.

On the CPU numpy's OpenBLAS multiplies: the MKL that torch asks uses AVX2 only on
AMD processors with AVX-512, and OpenBLAS is nearly twice as fast there (85
against 45 GFLOP/s a core), unless OPENBLAS_CORETYPE holds it back.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, two or three dimensions, float64."""
    if a.device.type != "cpu" or not torch.is_inference_mode_enabled():
        return torch.matmul(a, b)
    return torch.from_numpy(np.matmul(a.numpy(), b.numpy()))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., in] and weight [out, in] -> [..., out]."""
    y = matmul(x.reshape(-1, x.shape[-1]), weight.T)
    if bias is not None:
        y += bias
    return y.view(*x.shape[:-1], -1)

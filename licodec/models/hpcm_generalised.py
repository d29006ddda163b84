"""The generalised Gaussian of exponent 1.5, with which HPCM codes y and z.

Its density is proportional to exp(-|x / scale|^1.5): heavier tails than the
Gaussian's (exponent 2), lighter than the Laplacian's (1).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from licodec.entropy.tables import Tables
from licodec.layers.bound import lower_bound

EXPONENT = 1.5
SCALE_MIN, SCALE_MAX, LEVELS = 0.12, 64.0, 60
LIKELIHOOD_MIN = 1e-9
REACH = 5.42691097558631  # scales from the centre within which all but 1e-6 of the mass lies


def scales() -> np.ndarray:
    """The table's scales, float32 [60], a constant ratio apart."""
    return np.exp(np.linspace(math.log(SCALE_MIN), math.log(SCALE_MAX), LEVELS)).astype(np.float32)


def _upper_tail(x: Tensor) -> Tensor:
    """Mass above x >= 0, of scale 1."""
    return 0.5 * torch.special.gammaincc(torch.full_like(x, 1 / EXPONENT), x**EXPONENT)


class _Cumulative(torch.autograd.Function):
    """Mass below x, of scale 1; torch has no gradient that is finite at 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        tail = _upper_tail(x.abs())
        return torch.where(x > 0, 1 - tail, tail)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        density = torch.exp(-(x.abs() ** EXPONENT)) * EXPONENT / (2 * math.gamma(1 / EXPONENT))
        return gradient * density


def bits(value: Tensor, mean: Tensor | float, scale: Tensor) -> Tensor:
    """-log2 of the mass on [value - 0.5, value + 0.5]; at most 29.9. Shapes broadcast."""
    scale = lower_bound(scale.float(), SCALE_MIN)
    distance = (value.float() - mean).abs()  # by symmetry: the sum of tails, which does not cancel
    mass = _Cumulative.apply((0.5 - distance) / scale) - _Cumulative.apply((-0.5 - distance) / scale)
    return -torch.log2(lower_bound(mass, LIKELIHOOD_MIN))


def tables(of: np.ndarray) -> Tables:
    """Rows for zero-mean variables of the given scales, integrated over unit intervals."""
    minima, masses = [], []
    for scale in np.maximum(of.astype(np.float64), SCALE_MIN):
        half = math.ceil(scale * REACH)
        edges = torch.arange(half + 2, dtype=torch.float64) - 0.5
        tail = _upper_tail(edges.clamp(min=0) / scale).numpy()
        tail[0] = 1 - _upper_tail(torch.tensor([0.5 / scale], dtype=torch.float64)).item()
        side = tail[:-1] - tail[1:]  # mass of 0, 1, ..., half
        masses.append(np.concatenate([side[:0:-1], side, [2 * tail[-1]]]))
        minima.append(-half)
    return Tables.from_masses(np.array(minima), masses)

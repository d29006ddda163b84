"""Activations that take no new memory in inference, where it costs more than the function.

They change what they are given: use them on what a layer has just made.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.layers.parallel import each, threads

CACHED = 1 << 16  # values at a time


def _in_parts(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function that changes what it is given, element by element."""
    if x.dtype != torch.float64 and threads() == 1:
        return function(x)
    dense = x.permute(0, 2, 3, 1) if x.ndim == 4 and not x.is_contiguous() else x  # channels_last
    each(function, dense.view(-1).split(CACHED) if dense.is_contiguous() else [dense])
    return x


def gelu(x: Tensor) -> Tensor:
    """GELU with erf, not its approximation."""
    if torch.is_grad_enabled():
        return F.gelu(x)
    return _in_parts(_exact_gelu if x.dtype == torch.float64 else torch.ops.aten.gelu_, x)


def _exact_gelu(x: Tensor) -> Tensor:
    """torch's for float64 takes a third longer than its parts do on what the cache holds."""
    return x.mul_((x * 0.5**0.5).erf_().add_(1).mul_(0.5))


def relu(x: Tensor) -> Tensor:
    """ReLU."""
    return F.relu(x) if torch.is_grad_enabled() else _in_parts(F.relu_, x)


def leaky_relu(x: Tensor) -> Tensor:
    """LeakyReLU with a slope of 0.01."""
    return F.leaky_relu(x) if torch.is_grad_enabled() else _in_parts(F.leaky_relu_, x)


class GELU(nn.GELU):
    """torch's, by `gelu`."""

    def forward(self, x: Tensor) -> Tensor:
        return gelu(x)


class ReLU(nn.ReLU):
    """torch's, by `relu`."""

    def forward(self, x: Tensor) -> Tensor:
        return relu(x)

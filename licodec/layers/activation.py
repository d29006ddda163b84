"""Activations that take no new memory in inference, where it costs more than the function.

They change what they are given: use them on what a layer has just made.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.layers.parallel import each, pieces, threads

CACHED = 1 << 16  # values at a time


def in_parts(function: Callable[..., object], x: Tensor, *others: Tensor) -> Tensor:
    """x, changed by function(x, *others), which goes element by element; all are of one shape."""
    if x.dtype != torch.float64 and threads() == 1:
        function(x, *others)
        return x
    maps = x, *others
    if x.ndim == 4 and not x.is_contiguous():  # channels_last
        maps = tuple(t.permute(0, 2, 3, 1) for t in maps)
    if all(t.is_contiguous() for t in maps):
        parts = [t.view(-1).split(CACHED) for t in maps]
    elif x.ndim == 4:  # some channels of a map, say
        rows = pieces(maps[0].shape[1], CACHED // maps[0][0, 0].numel())
        parts = [[t[:, some] for some in rows] for t in maps]
    else:
        parts = [[t] for t in maps]
    each(lambda part: function(*part), zip(*parts, strict=True))
    return x


def gelu(x: Tensor) -> Tensor:
    """GELU with erf, not its approximation."""
    if torch.is_grad_enabled():
        return F.gelu(x)
    return in_parts(_exact_gelu if x.dtype == torch.float64 else torch.ops.aten.gelu_, x)


def _exact_gelu(x: Tensor) -> Tensor:
    """torch's for float64 takes a third longer than its parts do on what the cache holds."""
    return x.mul_((x * 0.5**0.5).erf_().add_(1).mul_(0.5))


def relu(x: Tensor) -> Tensor:
    """ReLU."""
    return F.relu(x) if torch.is_grad_enabled() else in_parts(F.relu_, x)


def leaky_relu(x: Tensor, plus: Tensor | None = None) -> Tensor:
    """LeakyReLU with a slope of 0.01; `plus` is added to the result."""
    if torch.is_grad_enabled():
        return F.leaky_relu(x) if plus is None else F.leaky_relu(x) + plus
    return in_parts(F.leaky_relu_, x) if plus is None else in_parts(lambda x, y: F.leaky_relu_(x).add_(y), x, plus)


def add(x: Tensor, y: Tensor) -> Tensor:
    """x + y."""
    return x + y if torch.is_grad_enabled() else in_parts(Tensor.add_, x, y)


class GELU(nn.GELU):
    """torch's, by `gelu`."""

    def forward(self, x: Tensor) -> Tensor:
        return gelu(x)


class ReLU(nn.ReLU):
    """torch's, by `relu`."""

    def forward(self, x: Tensor) -> Tensor:
        return relu(x)

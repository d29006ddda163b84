"""Activations that take no new memory in inference, where it costs more than the function.

They change what they are given: use them on what a layer has just made.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def gelu(x: Tensor) -> Tensor:
    """GELU with erf, not its approximation."""
    return F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)


def relu(x: Tensor) -> Tensor:
    """ReLU."""
    return F.relu(x, inplace=not torch.is_grad_enabled())


def leaky_relu(x: Tensor) -> Tensor:
    """LeakyReLU with a slope of 0.01."""
    return F.leaky_relu(x, inplace=not torch.is_grad_enabled())


class GELU(nn.GELU):
    """torch's, by `gelu`."""

    def forward(self, x: Tensor) -> Tensor:
        return gelu(x)


class ReLU(nn.ReLU):
    """torch's, by `relu`."""

    def forward(self, x: Tensor) -> Tensor:
        return relu(x)

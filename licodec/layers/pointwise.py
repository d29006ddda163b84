"""Pointwise convolutions and the depthwise residual block that `lite` is made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.layers.conv import depthwise3x3


class Pointwise(nn.Module):
    """A 1x1 convolution, [B, in, H, W] -> [B, out, H, W].

    The weight is kept as a matrix [out, in], so that optimisers for matrices
    (Muon) see it as one.
    """

    def __init__(self, in_channels: int, out_channels: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.normal_(self.weight, std=gain * in_channels**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)


class ResidualBlock(nn.Module):
    """x + p2(LeakyReLU(p1(depthwise3x3(x)))), expansion 2; shape is kept."""

    def __init__(self, channels: int, expansion: int = 2) -> None:
        super().__init__()
        self.depthwise = depthwise3x3(channels)
        self.expand = Pointwise(channels, expansion * channels, gain=1.4)
        self.reduce = Pointwise(expansion * channels, channels, gain=0.1)
        with torch.no_grad():  # near the identity, so that the first steps see sharp features
            self.depthwise.weight.mul_(0.5)
            self.depthwise.weight[:, 0, 1, 1] += 1.0
            self.depthwise.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.reduce(F.leaky_relu(self.expand(self.depthwise(x)), 0.1))

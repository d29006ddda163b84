"""Pointwise convolutions and the depthwise residual block that `lite` is made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def exact_pointwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 1x1 convolution in float64: contiguous [B, C, H, W] and [O, C] -> [B, O, H, W]."""
    out = torch.matmul(weight, x.flatten(2)) + bias[:, None]
    return out.view(x.shape[0], -1, *x.shape[2:])


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
        if x.dtype == torch.float64:  # torch has no fast float64 convolution, but a fast dgemm
            return exact_pointwise(x, self.weight, self.bias)
        return F.conv2d(x, self.weight[:, :, None, None], self.bias)


class Depthwise(nn.Conv2d):
    """A 3x3 convolution of each channel with zeros around, [B, C, H, W] -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float64:
            return super().forward(x)
        height, width = x.shape[2:]  # nine shifted products: torch would run one convolution a channel
        x = F.pad(x, (1, 1, 1, 1))
        out = self.bias[:, None, None].expand(*x.shape[:2], height, width).clone()
        for row in range(3):
            for column in range(3):
                tap = self.weight[:, 0, row, column, None, None]
                out.addcmul_(x[:, :, row : row + height, column : column + width], tap)
        return out


class ResidualBlock(nn.Module):
    """x + p2(LeakyReLU(p1(depthwise3x3(x)))), expansion 2; shape is kept."""

    def __init__(self, channels: int, expansion: int = 2) -> None:
        super().__init__()
        self.depthwise = Depthwise(channels)
        self.expand = Pointwise(channels, expansion * channels, gain=1.4)
        self.reduce = Pointwise(expansion * channels, channels, gain=0.1)
        with torch.no_grad():  # near the identity, so that the first steps see sharp features
            self.depthwise.weight.mul_(0.5)
            self.depthwise.weight[:, 0, 1, 1] += 1.0
            self.depthwise.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.leaky_relu(self.expand(self.depthwise(x)), 0.1)
        return x + self.reduce(hidden)

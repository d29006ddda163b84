"""Pointwise convolutions and the depthwise residual block that `lite` is made of."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.layers.conv import Conv
from licodec.layers.linear import linear
from licodec.layers.parallel import each, pieces, positionwise_nchw, rows_between
from licodec.layers.products import coding

CACHED = 1 << 15  # float64 values that stay in a core's second-level cache, beside as many inputs


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
        if coding(x) or x.dtype == torch.float64:  # torch has no fast float64 convolution
            return self.at(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.conv2d(x, self.weight[:, :, None, None], self.bias)

    def at(self, x: Tensor) -> Tensor:
        """The same of [B, H, W, in]."""
        return linear(self, x, self.weight, self.bias)


class Depthwise(Conv):
    """A 3x3 convolution of each channel with zeros around, [B, C, H, W] -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor, rows_given: bool = False) -> Tensor:
        """`rows_given`: x already has the row above and the row below, and loses them."""
        if x.dtype != torch.float64 or torch.is_grad_enabled():
            if not rows_given:
                return super().forward(x)
            return F.conv2d(x, self.weight, self.bias, padding=(0, 1), groups=self.groups)
        return self._exact(x, 0 if rows_given else 1)

    def at(self, x: Tensor, rows_given: bool = False) -> Tensor:
        """The same of [B, H, W, C]."""
        return self(x.permute(0, 3, 1, 2), rows_given).permute(0, 2, 3, 1)

    def _exact(self, x: Tensor, above: int) -> Tensor:
        """Nine shifted products, some rows at a time so that they stay in the cache; torch would be far slower."""
        x = x.permute(0, 2, 3, 1)
        given, width, channels = x.shape[1:]
        height = given - 2 + 2 * above
        taps = self.weight[:, 0].permute(1, 2, 0).contiguous()
        out = x.new_empty(len(x), height, width, channels)

        def strip(rows: slice) -> None:
            seen = rows_between(x, rows.start - above, rows.stop - above + 2, 1, 1)
            result, count = self.bias, rows.stop - rows.start
            for row, column in itertools.product(range(3), repeat=2):
                part = seen[:, row : row + count, column : column + width]
                result = torch.addcmul(result, part, taps[row, column], out=out[:, rows])

        each(strip, pieces(height, CACHED // (width * channels)))
        return out.permute(0, 3, 1, 2)


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
        local = self.depthwise(x)
        if not coding(x):
            return x + self.reduce(F.leaky_relu(self.expand(local), 0.1))

        def block(x: Tensor, local: Tensor) -> Tensor:
            return self.reduce.at(F.leaky_relu_(self.expand.at(local), 0.1)).add_(x)

        return positionwise_nchw(block, x, local)

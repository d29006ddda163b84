"""Convolutions, GDN and the residual blocks of the published models.

The blocks are those of Cheng et al. (CVPR 2020) as CompressAI names their parts,
so that checkpoints fit; they are here because importing CompressAI takes longer
than coding a picture. Maps are [B, C, H, W], in the channels_last format when coding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.layers.bound import lower_bound


def conv(in_channels: int, out_channels: int, kernel: int = 5, stride: int = 2) -> nn.Conv2d:
    """A convolution that keeps the size but for its stride."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """`conv` with a 3x3 kernel."""
    return conv(in_channels, out_channels, 3, stride)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """`conv` with a 1x1 kernel."""
    return conv(in_channels, out_channels, 1, stride)


def depthwise3x3(channels: int) -> nn.Conv2d:
    """A 3x3 convolution of each channel."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels)


def deconv(in_channels: int, out_channels: int, kernel: int = 5, stride: int = 2) -> nn.ConvTranspose2d:
    """The transposed convolution that multiplies the size by its stride."""
    return nn.ConvTranspose2d(in_channels, out_channels, kernel, stride, kernel // 2, stride - 1)


def subpel_conv3x3(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 3x3 convolution and a pixel shuffle, which doubles the size (Shi et al., CVPR 2016)."""
    return nn.Sequential(conv3x3(in_channels, 4 * out_channels), nn.PixelShuffle(2))


def chain(layers: Iterable[nn.Module], activation: type[nn.Module] = nn.GELU) -> nn.Sequential:
    """Layers one after another, with activations between them."""
    return nn.Sequential(*[module for layer in layers for module in (layer, activation())][:-1])


def hyper_analysis(widths: list[int]) -> nn.Sequential:
    """From y at 1/16 to z at 1/64 as in WACNN and STF: five 3x3 convolutions, the third and fifth strided."""
    pairs = zip(itertools.pairwise(widths), (1, 1, 2, 1, 2), strict=True)
    return chain(conv3x3(before, after, stride) for (before, after), stride in pairs)


def hyper_synthesis(widths: list[int]) -> nn.Sequential:
    """The way back: the second and fourth double the size; the means and the scales have one each."""
    return chain((subpel_conv3x3 if i % 2 else conv3x3)(*pair) for i, pair in enumerate(itertools.pairwise(widths)))


def head(widths: list[int], activation: type[nn.Module] = nn.GELU) -> nn.Sequential:
    """3x3 convolutions of the given widths with activations between them."""
    return chain((conv3x3(*pair) for pair in itertools.pairwise(widths)), activation)


class GDN(nn.Module):
    """Generalised divisive normalisation (Balle et al., ICLR 2016), or its inverse.

    beta and gamma are kept as square roots, bounded below, as all checkpoints have them.
    """

    PEDESTAL = 2.0**-36
    BETA_MIN = 1e-6

    def __init__(self, channels: int, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.beta = nn.Parameter((torch.ones(channels) + self.PEDESTAL).sqrt())
        self.gamma = nn.Parameter((0.1 * torch.eye(channels) + self.PEDESTAL).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        beta = lower_bound(self.beta, (self.BETA_MIN + self.PEDESTAL) ** 0.5) ** 2 - self.PEDESTAL
        gamma = lower_bound(self.gamma, self.PEDESTAL**0.5) ** 2 - self.PEDESTAL
        norm = F.linear(x.permute(0, 2, 3, 1).square(), gamma, beta).permute(0, 3, 1, 2)
        return x * (norm.sqrt() if self.inverse else norm.rsqrt())


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each with an activation, and a skip."""

    def __init__(self, in_channels: int, out_channels: int, activation: type[nn.Module] = nn.LeakyReLU) -> None:
        super().__init__()
        self.activation = activation()
        self.conv1 = conv3x3(in_channels, out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.skip = conv1x1(in_channels, out_channels) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.conv2(self.activation(self.conv1(x)))) + self.skip(x)


class ResidualBlockWithStride(nn.Module):
    """Halves the size; GDN after the second convolution."""

    def __init__(self, in_channels: int, out_channels: int, activation: type[nn.Module] = nn.LeakyReLU) -> None:
        super().__init__()
        self.activation = activation()
        self.conv1 = conv3x3(in_channels, out_channels, 2)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.gdn = GDN(out_channels)
        self.skip = conv1x1(in_channels, out_channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.gdn(self.conv2(self.activation(self.conv1(x)))) + self.skip(x)


class ResidualBlockUpsample(nn.Module):
    """Doubles the size; inverse GDN after the second convolution."""

    def __init__(self, in_channels: int, out_channels: int, activation: type[nn.Module] = nn.LeakyReLU) -> None:
        super().__init__()
        self.activation = activation()
        self.subpel_conv = subpel_conv3x3(in_channels, out_channels)
        self.conv = conv3x3(out_channels, out_channels)
        self.igdn = GDN(out_channels, inverse=True)
        self.upsample = subpel_conv3x3(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.igdn(self.conv(self.activation(self.subpel_conv(x)))) + self.upsample(x)


class ResidualUnit(nn.Module):
    """1x1, 3x3, 1x1 at half the width, activated after the sum too."""

    def __init__(self, channels: int, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        half = channels // 2
        self.conv = chain([conv1x1(channels, half), conv3x3(half, half), conv1x1(half, channels)], activation)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.conv(x) + x)


class AttentionBlock(nn.Module):
    """x + a(x) * sigmoid(b(...)): the simplified attention of Cheng et al. (CVPR 2020).

    `before` is put in front of the gate's branch b: window attention, in the models here.
    """

    def __init__(self, channels: int, before: nn.Module, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.before = before
        units = [ResidualUnit(channels, activation) for _ in range(6)]
        self.conv_a = nn.Sequential(*units[:3])
        self.conv_b = nn.Sequential(*units[3:], conv1x1(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_a(x) * torch.sigmoid(self.conv_b(self.before(x)))

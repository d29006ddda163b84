"""InvCompress: an invertible network as both transforms (Xie, Cheng, Chen, ACM MM 2021, arXiv 2108.03690).

The entropy model is that of Cheng et al. (CVPR 2020) with one Gaussian, as CompressAI has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.layers.conv import AttentionBlock, conv, conv1x1, conv3x3
from licodec.models.autoregressive import ChengAnchor, ChengAnchorConfig

KERNELS = (5, 5, 3, 3)  # of the couplings, at 1/2, 1/4, 1/8 and 1/16
ENHANCED = 0.2  # share of the feature enhancement that is added to the picture


@dataclass(frozen=True)
class InvCompressConfig(ChengAnchorConfig):
    """N channels of y and of the hyper networks: 128 for the lower, 192 for the higher qualities; a divisor of 768.

    `couplings` at each size of the invertible network; `features` and `growth` are channels in the enhancement.
    """

    N: int = 192
    couplings: int = 3
    features: int = 64
    growth: int = 32


def begin_as_nothing(convs: list[nn.Conv2d]) -> None:
    """Initialise convolutions that follow one another: small weights, but zeros in the last one; no biases."""
    for layer in convs:
        nn.init.xavier_normal_(layer.weight)
        layer.weight.data.mul_(0 if layer is convs[-1] else 0.1)
        nn.init.zeros_(layer.get_parameter("bias"))


class DenseBlock(nn.Module):
    """Five 3x3 convolutions, each of which sees the input and what all before it made."""

    def __init__(self, in_channels: int, out_channels: int, growth: int) -> None:
        super().__init__()
        widths = [growth] * 4 + [out_channels]
        convs = [conv3x3(in_channels + growth * i, width) for i, width in enumerate(widths)]
        begin_as_nothing(convs)
        self.convs = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.convs[:-1]:
            x = torch.cat([x, F.leaky_relu(layer(x), 0.2)], 1)
        return self.convs[-1](x)


class Enhancement(nn.Module):
    """Adds features that an invertible network cannot make, at the picture's size (section 3.3)."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            DenseBlock(3, features, growth), conv1x1(features, features), conv3x3(features, features),
            conv1x1(features, features), DenseBlock(features, 3, growth),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) * ENHANCED


class Squeeze(nn.Module):
    """2x2 positions to channels, position by position."""

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(x, 2).unflatten(1, (-1, 4)).transpose(1, 2).flatten(1, 2)

    def inverse(self, x: Tensor) -> Tensor:
        """The way back."""
        return F.pixel_shuffle(x.unflatten(1, (4, -1)).transpose(1, 2).flatten(1, 2), 2)


class Mixing(nn.Module):
    """An invertible 1x1 convolution (Kingma & Dhariwal, NeurIPS 2018), inverted in float64."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels))
        nn.init.orthogonal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight[:, :, None, None])

    def inverse(self, x: Tensor) -> Tensor:
        """The way back."""
        return F.conv2d(x, torch.linalg.inv(self.weight.double()).to(x.dtype)[:, :, None, None])


def bottleneck(in_channels: int, out_channels: int, kernel: int) -> nn.Sequential:
    """What a coupling computes from one part of the channels for the other; zero at first."""
    layers = [
        conv(in_channels, out_channels, kernel, 1),
        conv1x1(out_channels, out_channels),
        conv(out_channels, out_channels, kernel, 1),
    ]
    begin_as_nothing(layers)
    return nn.Sequential(layers[0], nn.LeakyReLU(0.2), layers[1], nn.LeakyReLU(0.2), layers[2])


class Coupling(nn.Module):
    """A quarter of the channels and the rest scale and shift each other in turn (equations 1 and 2)."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        few, many = channels // 4, channels - channels // 4
        self.sizes = few, many
        self.G1, self.H1 = bottleneck(few, many, kernel), bottleneck(few, many, kernel)
        self.G2, self.H2 = bottleneck(many, few, kernel), bottleneck(many, few, kernel)

    def forward(self, x: Tensor) -> Tensor:
        few, many = x.split(self.sizes, 1)
        few = few * gain(self.G2(many)) + self.H2(many)
        many = many * gain(self.G1(few)) + self.H1(few)
        return torch.cat([few, many], 1)

    def inverse(self, x: Tensor) -> Tensor:
        """The way back."""
        few, many = x.split(self.sizes, 1)
        many = (many - self.H1(few)) / gain(self.G1(few))
        few = (few - self.H2(many)) / gain(self.G2(many))
        return torch.cat([few, many], 1)


def gain(x: Tensor) -> Tensor:
    """Between 1/e and e."""
    return torch.exp(torch.sigmoid(x) * 2 - 1)


class InvertibleNetwork(nn.Module):
    """From a picture to N channels at 1/16 and back (figure 3): the 768 channels there are averaged to N."""

    def __init__(self, channels: int, couplings: int) -> None:
        super().__init__()
        self.channels, self.copies = channels, 3 * 4 ** len(KERNELS) // channels
        self.operations = nn.ModuleList()
        for i, kernel in enumerate(KERNELS, 1):
            width = 3 * 4**i
            self.operations.extend([Squeeze(), Mixing(width), *(Coupling(width, kernel) for _ in range(couplings))])

    def forward(self, x: Tensor) -> Tensor:
        for operation in self.operations:
            x = operation(x)
        return x.unflatten(1, (self.copies, self.channels)).mean(1)

    def inverse(self, y: Tensor) -> Tensor:
        """The way back, from as many copies as were averaged."""
        x = y.repeat(1, self.copies, 1, 1)
        for operation in reversed(self.operations):
            assert isinstance(operation, Squeeze | Mixing | Coupling)
            x = operation.inverse(x)
        return x


class InvCompress(ChengAnchor):
    """The model as published; coded diagonal by diagonal."""

    name = "invcompress"
    overlap = 256
    config: InvCompressConfig

    def __init__(self, config: InvCompressConfig | None = None) -> None:
        super().__init__(config or InvCompressConfig())

    def add_transforms(self, n: int) -> None:
        config = self.config
        self.invertible = InvertibleNetwork(n, config.couplings)
        self.enhance_a, self.enhance_s = (Enhancement(config.features, config.growth) for _ in range(2))
        self.attention_a, self.attention_s = (AttentionBlock(n, nn.Identity()) for _ in range(2))

    def analyse(self, x: Tensor, quality: Tensor) -> Tensor:
        return self.attention_a(self.invertible(self.enhance_a(x)))

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        return self.enhance_s(self.invertible.inverse(self.attention_s(y_hat)))

"""CCA: causal context adjustment (Han et al., NeurIPS 2024).

The auxiliary entropy model that adjusts the context in training takes no part
in coding; it is left out of converted weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from licodec.layers.conv import conv, conv3x3, deconv
from licodec.layers.dictionary import Bottleneck
from licodec.layers.pointwise import Depthwise
from licodec.models.slices import SliceModel


@dataclass(frozen=True)
class CCAConfig:
    """Widths of the transforms, slices that grow, width and depth of the NAF transforms.

    `depth` is the NAF blocks a stage of g_a and g_s have.
    """

    dims: tuple[int, ...] = (192, 224, 256)
    depth: int = 4
    slice_sizes: tuple[int, ...] = (8, 28, 56, 92, 136)
    naf_dim: int = 224
    naf_depth: int = 4


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of [B, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def gate(x: Tensor) -> Tensor:
    """One half of the channels times the other (SimpleGate of NAFNet)."""
    first, second = x.chunk(2, 1)
    return first * second


class NAFBlock(nn.Module):
    """The block of NAFNet (Chen et al., ECCV 2022). Its channel attention pools the whole map."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(dim), ChannelNorm(dim)
        self.dwconv = nn.Sequential(nn.Conv2d(dim, 2 * dim, 1), Depthwise(2 * dim))
        self.sca = nn.Conv2d(dim, dim, 1)
        self.conv1 = nn.Conv2d(dim, dim, 1)
        self.expand = nn.Conv2d(dim, 2 * dim, 1)
        self.reduce = nn.Conv2d(dim, dim, 1)
        self.beta, self.gamma = (nn.Parameter(torch.zeros(1, dim, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        out = gate(self.dwconv(self.norm1(x)))
        out = out * self.sca(out.mean((2, 3), keepdim=True))
        x = x + self.conv1(out) * self.beta
        return x + self.reduce(gate(self.expand(self.norm2(x)))) * self.gamma


class NAFTransform(nn.Module):
    """NAF blocks with a skip, between two 1x1 convolutions; channels are kept."""

    def __init__(self, channels: int, inner: int, depth: int) -> None:
        super().__init__()
        self.in_conv = nn.Conv2d(channels, inner, 1)
        self.blocks = nn.Sequential(*(NAFBlock(inner) for _ in range(depth)))
        self.out_conv = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.in_conv(x)
        return self.out_conv(x + self.blocks(x))


class CCA(SliceModel):
    """The model as published; all slices before a slice are seen."""

    name = "cca"
    stride = 128
    overlap = 256
    exact = (*SliceModel.exact, "mean_naf", "scale_naf")

    def __init__(self, config: CCAConfig | None = None) -> None:
        config = config or CCAConfig()
        super().__init__(list(config.slice_sizes), 192)
        self.config = config
        m, dims = self.latent_channels, list(config.dims)
        self.g_a, self.g_s = nn.Sequential(), nn.Sequential()
        for before, after in zip([3, *dims], dims, strict=False):
            self.g_a.append(conv(before, after))
            self.g_a.append(nn.Sequential(*_bottlenecks(after), *_naf(after, config.depth)))
        self.g_a.append(conv(dims[-1], m))
        for before, after in zip([m, *dims[::-1]], dims[::-1], strict=False):
            self.g_s.append(deconv(before, after))
            self.g_s.append(nn.Sequential(*_naf(after, config.depth), *_bottlenecks(after)))
        self.g_s.append(deconv(dims[0], 3))
        top = dims[-1]
        self.h_a = nn.Sequential(conv3x3(m, top), nn.GELU(), conv(top, top), nn.GELU(), conv(top, 192))
        self.h_mean_s, self.h_scale_s = (
            nn.Sequential(deconv(192, top), nn.GELU(), deconv(top, top), nn.GELU(), deconv(top, m, 3, 1))
            for _ in range(2)
        )
        self.mean_naf, self.scale_naf = (
            nn.ModuleList(
                NAFTransform(m + self.support_channels(k), config.naf_dim, config.naf_depth) for k in range(self.steps)
            )
            for _ in range(2)
        )
        self.add_heads(m, (224, 128))

    def supports(self, step: int, means: Tensor, scales: Tensor, earlier: list[Tensor]) -> tuple[Tensor, Tensor]:
        mean, scale = super().supports(step, means, scales, earlier)
        return self.mean_naf[step](mean), self.scale_naf[step](scale)


def _bottlenecks(dim: int) -> list[nn.Module]:
    return [Bottleneck(dim) for _ in range(3)]


def _naf(dim: int, depth: int) -> list[nn.Module]:
    return [NAFBlock(dim) for _ in range(depth)]

"""TinyLIC: neighbourhood attention between the convolutions, multistage context (Lu & Ma, arXiv 2204.11448)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from licodec.layers.conv import conv, conv3x3, deconv
from licodec.models.multistage import MultistageModel
from licodec.models.tinylic_attention import NeighbourhoodAttention

HEADS = (8, 12, 16, 20)  # of the groups at 1/2, 1/4, 1/8 and 1/16
HYPER_DEPTH, HYPER_HEADS = 2, 12
KERNEL, HYPER_KERNEL = 7, 3  # positions per side that attention sees
SLICES = 4


@dataclass(frozen=True)
class TinyLICConfig:
    """N, 3N/2, 2N channels at 1/2, 1/4, 1/8, M in y, 3N/2 in z; blocks at each of the four sizes of g_a."""

    N: int = 128
    M: int = 320
    depths: tuple[int, ...] = (2, 2, 6, 2)


class NeighbourhoodBlock(nn.Module):
    """Attention and an MLP that doubles the width, each after a LayerNorm and with a skip; [B, H, W, C]."""

    def __init__(self, dim: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = NeighbourhoodAttention(dim, heads, kernel)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class NeighbourhoodGroup(nn.Module):
    """Blocks one after another with a skip around all of them (RNAB, figure 3); [B, C, H, W]."""

    def __init__(self, dim: int, depth: int, heads: int, kernel: int = KERNEL) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(NeighbourhoodBlock(dim, heads, kernel) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        out = x.permute(0, 2, 3, 1)
        for block in self.blocks:
            out = block(out)
        return out.permute(0, 3, 1, 2) + x


def slice_sizes(m: int) -> list[int]:
    """Channels of the slices, few in the first ones: steps of a cosine (equation 8), 24, 69, 104, 123 of 320."""
    left = [math.ceil(math.cos(t / SLICES * math.pi / 2) * m) for t in range(SLICES)] + [0]
    return [before - after for before, after in itertools.pairwise(left)]


class TinyLIC(MultistageModel):
    """The model as published."""

    name = "tinylic"
    overlap = 256

    def __init__(self, config: TinyLICConfig | None = None) -> None:
        config = config or TinyLICConfig()
        n, m = config.N, config.M
        widths, hyper = [n, 3 * n // 2, 2 * n, m], 3 * n // 2
        super().__init__(slice_sizes(m), hyper)
        self.config = config
        g_a: list[nn.Module] = []
        g_s: list[nn.Module] = []
        for i, (before, after) in enumerate(zip([3, *widths[:-1]], widths, strict=True)):
            kernel = 3 if i else 5
            g_a += [conv(before, after, kernel), NeighbourhoodGroup(after, config.depths[i], HEADS[i])]
            g_s = [NeighbourhoodGroup(after, config.depths[i], HEADS[i]), deconv(after, before, kernel), *g_s]
        self.g_a, self.g_s = nn.Sequential(*g_a), nn.Sequential(*g_s)
        self.h_a = nn.Sequential(
            conv3x3(m, hyper, 2), self._hyper_group(hyper), conv3x3(hyper, hyper, 2), self._hyper_group(hyper)
        )
        self.h_s = nn.Sequential(
            self._hyper_group(hyper), deconv(hyper, hyper, 3), self._hyper_group(hyper), deconv(hyper, 2 * m, 3)
        )
        self.channel_context = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(2 * m + self.support_channels(k), size, 5, padding=2), nn.GELU(),
                nn.Conv2d(size, size, 5, padding=2), nn.GELU(),
                nn.Conv2d(size, 2 * size, 3, padding=1),
            )
            for k, size in enumerate(self.slice_sizes)
        )  # fmt: skip
        self.add_context(m, any_odd)

    @staticmethod
    def _hyper_group(dim: int) -> NeighbourhoodGroup:
        return NeighbourhoodGroup(dim, HYPER_DEPTH, HYPER_HEADS, HYPER_KERNEL)


def any_odd(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """What the third masked convolution sees: all phases but its own."""
    return (row % 2 == 1) | (column % 2 == 1)

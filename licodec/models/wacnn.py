"""WACNN: convolutions with window attention (Zou, Song, Zhang, CVPR 2022, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from licodec.layers.conv import GDN, AttentionBlock, conv, deconv, hyper_analysis, hyper_synthesis
from licodec.layers.window import WindowAttention
from licodec.models.slices import SliceModel


@dataclass(frozen=True)
class WACNNConfig:
    """The paper's sizes.

    Attributes:
        N: channels of the transforms.
        M: channels of y.
        slices: channel slices of y.
    """

    N: int = 192
    M: int = 320
    slices: int = 10


class WindowResidual(nn.Module):
    """x + window attention of x, [B, C, H, W]; shifted by half a window, whatever the paper's figure says."""

    def __init__(self, dim: int, window: int, heads: int = 8) -> None:
        super().__init__()
        self.attn = WindowAttention(dim, heads, window, window // 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attn(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def window_block(dim: int, window: int) -> AttentionBlock:
    """The paper's window attention block, figure 4."""
    return AttentionBlock(dim, WindowResidual(dim, window), nn.GELU)


class WACNN(SliceModel):
    """The model as published: N = 192, M = 320, ten slices, of which the first five are seen."""

    name = "wacnn"
    overlap = 256
    max_support = 5
    HEAD = (224, 176, 128, 64)

    def __init__(self, config: WACNNConfig | None = None) -> None:
        config = config or WACNNConfig()
        n, m = config.N, config.M
        super().__init__([m // config.slices] * config.slices, 192)
        self.config = config
        self.g_a = nn.Sequential(
            conv(3, n),
            GDN(n),
            conv(n, n),
            GDN(n),
            window_block(n, 8),
            conv(n, n),
            GDN(n),
            conv(n, m),
            window_block(m, 4),
        )
        self.g_s = nn.Sequential(
            window_block(m, 4),
            deconv(m, n),
            GDN(n, inverse=True),
            deconv(n, n),
            GDN(n, inverse=True),
            window_block(n, 8),
            deconv(n, n),
            GDN(n, inverse=True),
            deconv(n, 3),
        )
        self.h_a = hyper_analysis([m, 320, 288, 256, 224, 192])
        self.h_mean_s, self.h_scale_s = (hyper_synthesis([192, 192, 224, 256, 288, m]) for _ in range(2))
        self.add_heads(m, self.HEAD)

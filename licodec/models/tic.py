"""TIC: Swin blocks between the convolutions, a causal attention as context (Lu et al., DCC 2022, arXiv 2111.06707).

As in the authors' code, which departs from the paper: no activations after convolutions, and the context masks the
positions that are not yet known rather than the attention to them. The decoding is ours: theirs stops with an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.layers.conv import conv, conv3x3, deconv
from licodec.layers.window import MLP, SwinBlock, relative_index
from licodec.models.autoregressive import REACH, SEEN, JointAutoregressive, entropy_parameters
from licodec.models.slices import SliceModel

HEADS = (4, 8, 16)  # at 1/2, 1/4 and 1/8
HYPER_DEPTH, HYPER_HEADS = 2, 16
WINDOW, HYPER_WINDOW = 8, 4
SIDE = 2 * REACH + 1  # of the square around a position that the context looks at
CONTEXT_HEADS = 16


@dataclass(frozen=True)
class TICConfig:
    """Channels of the transforms and of z (N), and of y (M): 128, 192 or 192, 320; blocks at 1/2, 1/4 and 1/8."""

    N: int = 128
    M: int = 192
    depths: tuple[int, ...] = (2, 4, 6)


class SwinGroup(nn.Module):
    """Swin blocks, every second one shifted, with a skip around all of them (RSTB); [B, C, H, W]."""

    def __init__(self, dim: int, depth: int, heads: int, window: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(SwinBlock(dim, heads, window, window // 2 * (i % 2)) for i in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        out = x.permute(0, 2, 3, 1)
        for block in self.blocks:
            out = block(out)
        return out.permute(0, 3, 1, 2) + x


class CausalAttention(nn.Module):
    """Self-attention among the 5x5 positions around one that is to be coded (CAM, figure 2).

    The position itself and those after it are zero, but take part: after the LayerNorm they are its bias.
    """

    index: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.bias_table = nn.Parameter(torch.empty((2 * SIDE - 1) ** 2, CONTEXT_HEADS))
        nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLP(channels, 4 * channels)
        self.proj = nn.Linear(channels, 2 * channels)
        self.register_buffer("index", relative_index(SIDE), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        seen = F.unfold(x, SIDE, padding=REACH).unflatten(1, (x.shape[1], -1))[:, :, :SEEN]
        return self.at_positions(seen.permute(0, 3, 2, 1)).unflatten(3, x.shape[2:])[:, :, 0]

    def at_positions(self, seen: Tensor) -> Tensor:
        tokens = F.pad(seen, (0, 0, 0, SIDE**2 - SEEN))
        q, k, v = self.qkv(self.norm1(tokens)).unflatten(3, (3, CONTEXT_HEADS, -1)).transpose(2, 4).unbind(3)
        bias = self.bias_table[self.index].permute(2, 0, 1)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        summed = (attended.transpose(2, 3).flatten(3) + tokens).sum(2)
        return self.proj(summed + self.mlp(self.norm2(summed))).transpose(1, 2)[:, :, None]


class TIC(JointAutoregressive):
    """The model as published; coded diagonal by diagonal."""

    name = "tic"
    stride = 128  # windows of 4 at 1/32 want this
    overlap = 256

    def __init__(self, config: TICConfig | None = None) -> None:
        config = config or TICConfig()
        n, m = config.N, config.M
        SliceModel.__init__(self, [m], n)
        self.config = config
        groups = [SwinGroup(n, depth, heads, WINDOW) for depth, heads in zip(config.depths, HEADS, strict=True)]
        self.g_a = nn.Sequential(
            conv(3, n), groups[0], conv3x3(n, n, 2), groups[1], conv3x3(n, n, 2), groups[2], conv3x3(n, m, 2)
        )
        groups = [SwinGroup(n, depth, heads, WINDOW) for depth, heads in zip(config.depths, HEADS, strict=True)]
        self.g_s = nn.Sequential(
            deconv(m, n, 3), groups[2], deconv(n, n, 3), groups[1], deconv(n, n, 3), groups[0], deconv(n, 3)
        )
        hyper = [SwinGroup(n, HYPER_DEPTH, HYPER_HEADS, HYPER_WINDOW) for _ in range(4)]
        self.h_a = nn.Sequential(conv3x3(m, n), hyper[0], conv3x3(n, n, 2), hyper[1], conv3x3(n, n, 2))
        self.h_s = nn.Sequential(deconv(n, n, 3), hyper[2], deconv(n, n, 3), hyper[3], conv3x3(n, 2 * m))
        self.context_prediction = CausalAttention(m)
        self.entropy_parameters = entropy_parameters(m, nn.GELU)

"""What DCAE and SAAF share: bottleneck blocks, gated blocks, and attention to a learned dictionary.

Sources: Lu et al., "Learned Image Compression with Dictionary-based Entropy
Model", CVPR 2025, sections 3.2 and 3.3; the convolutional GLU is that of
TransNeXt (Shi, CVPR 2024).
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.layers.conv import conv, conv1x1, conv3x3, deconv, depthwise3x3

DICTIONARY_HEADS = 20
HEAD_DIM = 32


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 at half the width, with ReLU between and a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = conv1x1(channels, half)
        self.conv2 = conv3x3(half, half)
        self.conv3 = conv1x1(half, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))


def _three_bottlenecks(channels: int) -> dict[str, nn.Module]:
    return {f"res{i}": Bottleneck(channels) for i in (1, 2, 3)}


def bottlenecks_down(in_channels: int, out_channels: int) -> nn.Sequential:
    """A strided 5x5 convolution, then three bottlenecks."""
    return nn.Sequential(OrderedDict(conv=conv(in_channels, out_channels), **_three_bottlenecks(out_channels)))


def bottlenecks_up(in_channels: int, out_channels: int) -> nn.Sequential:
    """Three bottlenecks, then a 5x5 transposed convolution."""
    return nn.Sequential(OrderedDict(**_three_bottlenecks(in_channels), conv=deconv(in_channels, out_channels)))


class ConvGLU(nn.Module):
    """A gated MLP whose gate sees its 3x3 neighbourhood; [B, H, W, C]."""

    def __init__(self, dim: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = dim * expansion // 2
        self.fc1 = nn.Linear(dim, 2 * hidden)
        self.depthwise = depthwise3x3(hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.fc1(x).chunk(2, -1)
        gate = self.depthwise(gate.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.fc2(F.gelu(gate) * value)


class GatedBlock(nn.Module):
    """Attention and a ConvGLU, each after a LayerNorm, with skips of learned scale; [B, H, W, C]."""

    def __init__(self, dim: int, attention: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = attention
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = ConvGLU(dim)
        self.scale1, self.scale2 = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.addcmul(self.attn(self.norm1(x)), self.scale1, x)
        return torch.addcmul(self.mlp(self.norm2(x)), self.scale2, x)


class GatedStage(nn.Module):
    """Gated blocks, a 3x3 convolution, and a skip around all; [B, C, H, W]."""

    def __init__(self, dim: int, attentions: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(GatedBlock(dim, attention) for attention in attentions))
        self.conv = conv3x3(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.layers(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


class DenseAggregation(nn.Module):
    """Multi-scale features: three depthwise stages, densely joined, weighted by a spatial mask; [B, C, H, W]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.enter = conv1x1(dim, dim)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.GELU(), conv1x1(dim, dim), nn.GELU(), depthwise3x3(dim), nn.GELU(), conv1x1(dim, dim))
            for _ in range(3)
        )
        self.join = conv1x1(4 * dim, dim)
        self.mask = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [self.enter(x)]
        for stage in self.stages:
            outputs.append(stage(outputs[-1]))
        x = self.join(torch.cat(outputs, 1))
        statistics = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.mask(statistics))


class DictionaryAttention(nn.Module):
    """Cross attention from the support of a slice to the dictionary; [B, C, H, W] -> [B, out, H, W].

    The logits' scale is learned, one per head, in place of 1 / sqrt(d). Values are
    the normalised dictionary itself.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        dim = DICTIONARY_HEADS * HEAD_DIM
        self.scale = nn.Parameter(torch.ones(DICTIONARY_HEADS, 1, 1))
        self.enter = nn.Linear(in_channels, dim)
        self.norm_scale = nn.LayerNorm(dim)
        self.aggregation = DenseAggregation(dim)
        self.norm_query = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim)
        self.norm_dictionary = nn.LayerNorm(dim)
        self.key = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = ConvGLU(dim)
        self.leave = nn.Linear(dim, out_channels)
        self.scale1, self.scale2, self.scale3 = (nn.Parameter(torch.ones(dim)) for _ in range(3))

    def forward(self, x: Tensor, dictionary: Tensor) -> Tensor:
        x = self.enter(x.permute(0, 2, 3, 1))
        local = self.aggregation(self.norm_scale(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = self.scale1 * x + local
        x = self.scale2 * x + self.proj(self._look_up(self.query(self.norm_query(x)), dictionary))
        x = self.scale3 * x + self.mlp(self.norm_mlp(x))
        return self.leave(x).permute(0, 3, 1, 2)

    def _look_up(self, query: Tensor, dictionary: Tensor) -> Tensor:
        """What each position finds in the dictionary [words, dim]; [B, H, W, dim] -> the same."""
        words = self.norm_dictionary(dictionary)
        q = self._heads(query.flatten(1, 2)) * self.scale
        k, v = (self._heads(x[None]).expand(len(q), -1, -1, -1) for x in (self.key(words), words))
        found = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return found.transpose(1, 2).reshape(query.shape)

    @staticmethod
    def _heads(x: Tensor) -> Tensor:
        """[B, n, heads * d] -> [B, heads, n, d]."""
        return x.view(*x.shape[:2], DICTIONARY_HEADS, HEAD_DIM).transpose(1, 2)

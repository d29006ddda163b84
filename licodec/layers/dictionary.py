"""What DCAE and SAAF share: bottleneck blocks, gated blocks, and attention to a learned dictionary.

Sources: Lu et al., "Learned Image Compression with Dictionary-based Entropy
Model", CVPR 2025, sections 3.2 and 3.3; the convolutional GLU is that of
TransNeXt (Shi, CVPR 2024).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.layers.activation import GELU, gelu, relu
from licodec.layers.conv import Conv1x1, conv, conv3x3, deconv, pointwise
from licodec.layers.linear import Linear, linear
from licodec.layers.pointwise import Depthwise
from licodec.layers.window import STRIP, in_strips

DICTIONARY_HEADS = 20
HEAD_DIM = 32


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 at half the width, with ReLU between and a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = Conv1x1(channels, half)
        self.conv2 = conv3x3(half, half)
        self.conv3 = Conv1x1(half, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(relu(self.conv2(self.conv1(x, "relu")))).add_(x)


class BottleneckDown(nn.Module):
    """A strided 5x5 convolution, then three bottlenecks."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv(in_channels, out_channels)
        self.res1, self.res2, self.res3 = (Bottleneck(out_channels) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.res3(self.res2(self.res1(self.conv(x))))


class BottleneckUp(nn.Module):
    """Three bottlenecks, then a 5x5 transposed convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.res1, self.res2, self.res3 = (Bottleneck(in_channels) for _ in range(3))
        self.conv = deconv(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.res3(self.res2(self.res1(x))))


class ConvGLU(nn.Module):
    """A gated MLP whose gate sees its 3x3 neighbourhood; [B, H, W, C]."""

    def __init__(self, dim: int, expansion: int = 4) -> None:
        super().__init__()
        hidden = dim * expansion // 2
        self.fc1 = Linear(dim, 2 * hidden)
        self.depthwise = Depthwise(hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """What the last linear map takes, [B, H, W, hidden]."""
        return self._gated(x, self.depthwise(self._gate(x).permute(0, 3, 1, 2)))

    def _gate(self, x: Tensor) -> Tensor:
        hidden = self.fc2.in_features
        return linear(self, x, self.fc1.weight[:hidden], self.fc1.bias[:hidden], part="gate")

    def _gated(self, x: Tensor, gate: Tensor) -> Tensor:
        """`gate` is [B, hidden, H, W], x [B, H, W, C]."""
        hidden = self.fc2.in_features
        value = linear(self, x, self.fc1.weight[hidden:], self.fc1.bias[hidden:], part="value")
        return value.mul_(gelu(gate.permute(0, 2, 3, 1)))

    def strips(self, x: Tensor, norm: nn.Module) -> Iterator[tuple[slice, Tensor]]:
        """Some rows of `self(norm(x))` at a time, so that what lies between the layers stays in the cache."""
        height, rows = x.shape[1], max(1, STRIP // x.shape[2])
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            first, last = max(0, top - 1), min(height, bottom + 1)
            normed = norm(x[:, first:last])
            gate = self._gate(normed)
            beyond = (first - top + 1, bottom + 1 - last)  # rows above and below the map
            if any(beyond):
                gate = F.pad(gate, (0, 0, 0, 0, *beyond))
            gate = self.depthwise(gate.permute(0, 3, 1, 2), rows_given=True)
            yield slice(top, bottom), self.fc2(self._gated(normed[:, top - first : bottom - first], gate))


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
        x = self._attended(x)
        if torch.is_grad_enabled():
            return torch.addcmul(self.mlp(self.norm2(x)), self.scale2, x)
        out = torch.empty_like(x)
        for rows, part in self.mlp.strips(x, self.norm2):
            torch.addcmul(part, self.scale2, x[:, rows], out=out[:, rows])
        return out

    def _attended(self, x: Tensor) -> Tensor:
        attn = self.attn
        if torch.is_grad_enabled() or x.shape[1] % attn.window or x.shape[2] % attn.window:
            return torch.addcmul(attn(self.norm1(x)), self.scale1, x)

        def block(strip: Tensor, last: bool) -> Tensor:
            return torch.addcmul(attn.within_windows(self.norm1(strip), last), self.scale1, strip)

        return in_strips(x, attn.window, attn.shift, block)


class GatedStage(nn.Module):
    """Gated blocks, a 3x3 convolution, and a skip around all; [B, C, H, W]."""

    def __init__(self, dim: int, attentions: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(GatedBlock(dim, attention) for attention in attentions)
        self.conv = conv3x3(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        out = x.permute(0, 2, 3, 1)
        for layer in self.layers:
            out = layer(out)
        return self.conv(out.permute(0, 3, 1, 2)).add_(x)


class DenseAggregation(nn.Module):
    """Multi-scale features: three depthwise stages, densely joined, weighted by a spatial mask."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.enter = Conv1x1(dim, dim)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.GELU(), Conv1x1(dim, dim), GELU(), Depthwise(dim), GELU(), Conv1x1(dim, dim))
            for _ in range(3)
        )
        self.join = Conv1x1(4 * dim, dim)
        self.mask = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        for name in ("folded", "folded_bias"):
            self.register_buffer(name, None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [self.enter(x)]
        for stage in self.stages[:-1]:
            outputs.append(stage(outputs[-1]))
        *before, last = self.stages[-1]
        hidden = outputs[-1]
        for layer in before:
            hidden = layer(hidden)
        if self.folded is None:
            x = self.join(torch.cat([*outputs, last(hidden)], 1))
        else:
            x = pointwise(self, torch.cat([*outputs, hidden], 1), self.folded, self.folded_bias)
        statistics = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.mask(statistics))

    def freeze(self) -> None:
        """Join without the last stage's last map: nothing lies between the two."""
        last = self.stages[-1][-1]
        dim = last.out_channels
        weight, inner = self.join.weight[:, :, 0, 0], last.weight[:, :, 0, 0]
        self.folded = torch.cat([weight[:, :-dim], weight[:, -dim:] @ inner], 1)
        self.folded_bias = self.join.bias + weight[:, -dim:] @ last.bias


class DictionaryAttention(nn.Module):
    """Cross attention from the support of a slice to the dictionary; [B, C, H, W] -> [B, out, H, W].

    The logits' scale is learned, one a head, in place of 1 / sqrt(d). Values are
    the normalised dictionary itself.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        dim = DICTIONARY_HEADS * HEAD_DIM
        self.scale = nn.Parameter(torch.ones(DICTIONARY_HEADS, 1, 1))
        self.enter = Linear(in_channels, dim)
        self.norm_scale = nn.LayerNorm(dim)
        self.aggregation = DenseAggregation(dim)
        self.norm_query = nn.LayerNorm(dim)
        self.query = Linear(dim, dim)
        self.norm_dictionary = nn.LayerNorm(dim)
        self.key = Linear(dim, dim)
        self.proj = Linear(dim, dim)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = ConvGLU(dim)
        self.leave = Linear(dim, out_channels)
        self.scale1, self.scale2, self.scale3 = (nn.Parameter(torch.ones(dim)) for _ in range(3))
        for name in ("leave_hidden", "leave_found", "leave_bias"):
            self.register_buffer(name, None, persistent=False)

    def forward(self, x: Tensor, dictionary: Tensor) -> Tensor:
        x = self.enter(x.permute(0, 2, 3, 1))
        local = self.aggregation(self.norm_scale(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = torch.addcmul(local, self.scale1, x)
        b, h, w, dim = x.shape
        words = self.norm_dictionary(dictionary)
        query = self._heads(self.query(self.norm_query(x)).reshape(b, h * w, dim)) * self.scale
        key, value = self._heads(self.key(words)[None]), self._heads(words[None])
        found = F.scaled_dot_product_attention(query, key.expand(b, -1, -1, -1), value.expand(b, -1, -1, -1), scale=1.0)
        found = torch.addcmul(self.proj(found.transpose(1, 2).reshape(b, h, w, dim)), self.scale2, x)
        normed = self.norm_mlp(found)
        if self.leave_hidden is None:
            return self.leave(torch.addcmul(self.mlp(normed), self.scale3, found)).permute(0, 3, 1, 2)
        out = linear(self, self.mlp.hidden(normed), self.leave_hidden, self.leave_bias)
        return out.add_(linear(self, found, self.leave_found, None)).permute(0, 3, 1, 2)

    def freeze(self) -> None:
        """Leave without the MLP's last map, as only a sum lies between the two."""
        weight, inner = self.leave.weight, self.mlp.fc2
        self.leave_hidden, self.leave_found = weight @ inner.weight, weight * self.scale3
        self.leave_bias = self.leave.bias + weight @ inner.bias

    @staticmethod
    def _heads(x: Tensor) -> Tensor:
        """[B, n, heads * d] -> [B, heads, n, d]."""
        return x.view(*x.shape[:2], DICTIONARY_HEADS, HEAD_DIM).transpose(1, 2)

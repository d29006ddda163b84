"""What DCAE and SAAF share: bottleneck blocks, gated blocks, and attention to a learned dictionary.

Sources: Lu et al., "Learned Image Compression with Dictionary-based Entropy
Model", CVPR 2025, sections 3.2 and 3.3; the convolutional GLU is that of
TransNeXt (Shi, CVPR 2024).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.layers.activation import GELU, add, gelu
from licodec.layers.conv import Conv, Conv1x1, conv, conv3x3, deconv
from licodec.layers.linear import Linear, linear
from licodec.layers.parallel import STRIP, each, pieces, positionwise
from licodec.layers.pointwise import Depthwise
from licodec.layers.window import by_windows

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
        return self.conv3.finish(self.conv2(self.conv1(x, "relu")), x, before="relu")


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
        return self.fc2(self.gated(x, self.depthwise.at(self.before_gate(x))))

    def before_gate(self, x: Tensor) -> Tensor:
        """[B, H, W, dim] -> [B, H, W, hidden], position by position."""
        hidden = self.fc2.in_features
        return linear(self, x, self.fc1.weight[:hidden], self.fc1.bias[:hidden], part="gate")

    def gated(self, x: Tensor, gate: Tensor) -> Tensor:
        """x [B, H, W, dim] mapped and gated, position by position."""
        hidden = self.fc2.in_features
        value = linear(self, x, self.fc1.weight[hidden:], self.fc1.bias[hidden:], part="value")
        return value.mul_(gelu(gate))

    def part(self, x: Tensor, norm: nn.Module, rows: slice) -> Tensor:
        """Some rows of `self(norm(x))`."""
        height, top, bottom = x.shape[1], rows.start, rows.stop
        first, last = max(0, top - 1), min(height, bottom + 1)
        normed = norm(x[:, first:last])
        gate = self.before_gate(normed)
        beyond = (first - top + 1, bottom + 1 - last)  # rows above and below the map
        if any(beyond):
            gate = F.pad(gate, (0, 0, 0, 0, *beyond))
        gate = self.depthwise.at(gate, rows_given=True)
        return self.fc2(self.gated(normed[:, top - first : bottom - first], gate))


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
        x = by_windows(self.attn, x, lambda x, attend: torch.addcmul(attend(self.norm1(x)), self.scale1, x))
        if torch.is_grad_enabled():
            return torch.addcmul(self.mlp(self.norm2(x)), self.scale2, x)
        out = torch.empty_like(x)

        def strip(rows: slice) -> None:  # what lies between the layers stays in the cache
            torch.addcmul(self.mlp.part(x, self.norm2, rows), self.scale2, x[:, rows], out=out[:, rows])

        each(strip, pieces(x.shape[1], STRIP // x.shape[2]))
        return out


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
        return add(self.conv(out.permute(0, 3, 1, 2)), x)


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
        self.mask = Conv(2, 1, 7, padding=3, bias=False)
        for name in ("folded", "folded_bias"):
            self.register_buffer(name, None, persistent=False)

    def begin(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What `forward` takes, from [B, H, W, C], position by position: the first features, and those widened."""
        first = self.enter.at(x)
        return first, self._widened(0, first)

    def forward(self, first: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The joined features [B, H, W, C], and their weights [B, H, W, 1]."""
        outputs = [first]
        for step, stage in enumerate(self.stages):
            if step:
                output, hidden = positionwise(functools.partial(self._between, step), hidden)
                outputs.append(output)
            hidden = stage[3].at(hidden)
        x, statistics = positionwise(self._joined, *outputs, hidden)
        return x, torch.sigmoid(self.mask(statistics.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)

    def _widened(self, step: int, x: Tensor) -> Tensor:
        """What a stage's depthwise convolution takes, from the output before; that is left as it is."""
        return gelu(self.stages[step][1].at(gelu(x.clone())))

    def _between(self, step: int, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The output of the stage before, and what this one's depthwise convolution takes."""
        output = self.stages[step - 1][5].at(gelu(hidden))
        return output, self._widened(step, output)

    def _joined(self, *maps: Tensor) -> tuple[Tensor, Tensor]:
        """The stages' outputs joined, the last one's from before its last map; and the mean and maximum of channels."""
        *outputs, hidden = maps
        last = gelu(hidden)
        if self.folded is None:
            x = self.join.at(torch.cat([*outputs, self.stages[-1][5].at(last)], 3))
        else:
            x = linear(self, torch.cat([*outputs, last], 3), self.folded, self.folded_bias)
        return x, torch.cat([x.mean(3, keepdim=True), x.amax(3, keepdim=True)], 3)

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
        words = self.norm_dictionary(dictionary)
        key, value = self._heads(self.key(words)[None]), self._heads(words[None])
        x, *features = positionwise(self._entered, x.permute(0, 2, 3, 1))
        local, weights = self.aggregation(*features)
        found, normed, gate = positionwise(lambda *maps: self._found(*maps, key, value), x, local, weights)
        return positionwise(self._left, found, normed, self.mlp.depthwise.at(gate)).permute(0, 3, 1, 2)

    def _entered(self, x: Tensor) -> tuple[Tensor, ...]:
        """x mapped, and what the aggregation begins with."""
        x = self.enter(x)
        return x, *self.aggregation.begin(self.norm_scale(x))

    def _found(self, x: Tensor, local: Tensor, weights: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """What each position finds in the dictionary, with a skip; the MLP's input; what its gate is made of."""
        x = torch.addcmul(local * weights, self.scale1, x)
        b, h, w, dim = x.shape
        query = self._heads(self.query(self.norm_query(x)).reshape(b, h * w, dim)) * self.scale
        key, value = (words.expand(b, -1, -1, -1) for words in (key, value))
        found = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        found = torch.addcmul(self.proj(found.transpose(1, 2).reshape(b, h, w, dim)), self.scale2, x)
        normed = self.norm_mlp(found)
        return found, normed, self.mlp.before_gate(normed)

    def _left(self, found: Tensor, normed: Tensor, gate: Tensor) -> Tensor:
        """The MLP after its gate, a skip, and the last map."""
        hidden = self.mlp.gated(normed, gate)
        if self.leave_hidden is None:
            return self.leave(torch.addcmul(self.mlp.fc2(hidden), self.scale3, found))
        out = linear(self, hidden, self.leave_hidden, self.leave_bias)
        return out.add_(linear(self, found, self.leave_found, None))

    def freeze(self) -> None:
        """Leave without the MLP's last map, as only a sum lies between the two."""
        weight, inner = self.leave.weight, self.mlp.fc2
        self.leave_hidden, self.leave_found = weight @ inner.weight, weight * self.scale3
        self.leave_bias = self.leave.bias + weight @ inner.bias

    @staticmethod
    def _heads(x: Tensor) -> Tensor:
        """[B, n, heads * d] -> [B, heads, n, d]."""
        return x.view(*x.shape[:2], DICTIONARY_HEADS, HEAD_DIM).transpose(1, 2)

"""Graph feature aggregation of GLIC (Chen et al., CVPR 2026, section 3.2): attention to chosen neighbours.

A map is cut into windows of 8x8 nodes, each with 256 samples that may be their
neighbours: the 16x16 around the window, or, for windows spread over the whole
map, 16x16 samples spread as well. Which samples a node is joined to depends on
the features: it gets more of them where the picture is busier.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW, SAMPLES = 8, 16  # sides of a window, and of what it samples
MEAN_NEIGHBOURS = 64
FLATTENING = 1.5  # budgets' spread around their mean is divided by this
BISECTIONS = 5  # of the threshold of a node's similarities
NO_SIGHT = -100.0
SCALE_MAX = 4.6052  # of the logarithm of a head's scale: log(100)
AT_ONCE = 256  # windows whose attention is in memory


def nodes(x: Tensor, spread: bool) -> Tensor:
    """The windows of a map: [B, H, W, C] -> [windows, 64, C]; H and W are multiples of 8."""
    b, h, w, c = x.shape
    if spread:
        x = x.reshape(b, WINDOW, h // WINDOW, WINDOW, w // WINDOW, c).permute(0, 2, 4, 1, 3, 5)
    else:
        x = x.reshape(b, h // WINDOW, WINDOW, w // WINDOW, WINDOW, c).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, WINDOW**2, c)


def from_nodes(x: Tensor, like: Tensor, spread: bool) -> Tensor:
    """The inverse of `nodes`, of the size of the map `like`."""
    b, h, w, _ = like.shape
    x = x.view(b, h // WINDOW, w // WINDOW, WINDOW, WINDOW, -1)
    return x.permute((0, 3, 1, 4, 2, 5) if spread else (0, 1, 3, 2, 4, 5)).reshape(b, h, w, -1)


def samples(x: Tensor, spread: bool) -> Tensor:
    """What each window samples: [B, H, W, C] -> [windows, 256, C], zeros outside; multiples of 16 if `spread`."""
    b, h, w, c = x.shape
    if spread:
        x = x.reshape(b, SAMPLES, h // SAMPLES, SAMPLES, w // SAMPLES, c).permute(0, 2, 4, 1, 3, 5)
        repeats = SAMPLES // WINDOW  # windows that see the same
        return x.repeat(1, repeats, repeats, 1, 1, 1).view(-1, SAMPLES**2, c)
    margin = (SAMPLES - WINDOW) // 2
    around = F.pad(x, (0, 0, margin, margin, margin, margin)).unfold(1, SAMPLES, WINDOW).unfold(2, SAMPLES, WINDOW)
    return around.permute(0, 1, 2, 4, 5, 3).reshape(-1, SAMPLES**2, c)


def complexity(x: Tensor) -> Tensor:
    """How busy a map is: [B, H, W, C] -> [B, H, W, 1], Sobel's gradients, blurred, over all channels."""

    def filtered(x: Tensor, dim: int, kernel: tuple[float, ...]) -> Tensor:
        """Along the rows (dimension 1) or the columns (2), the border repeated."""
        side = x.shape[dim]
        padded = torch.cat([x.narrow(dim, 0, 1), x, x.narrow(dim, side - 1, 1)], dim)
        taps = [padded.narrow(dim, i, side) * weight for i, weight in enumerate(kernel) if weight]
        return functools.reduce(torch.add, taps)

    slope, smooth = (0.25, 0.0, -0.25), (1.0, 2.0, 1.0)
    across, down = filtered(filtered(x, 2, slope), 1, smooth), filtered(filtered(x, 2, smooth), 1, slope)
    gradient = (across.square() + down.square() + 1e-9).sqrt()
    side = math.exp(-0.5 / 0.8**2)
    blur = (side / (1 + 2 * side), 1 / (1 + 2 * side), side / (1 + 2 * side))
    return filtered(filtered(gradient, 2, blur), 1, blur).square().mean(3, keepdim=True).sqrt()


def neighbours(x: Tensor, busy: Tensor, spread: bool) -> Tensor:
    """Which samples each node is joined to, by their features and how `complexity` varies: bool [windows, 64, 256]."""
    mean = busy.mean((1, 2), keepdim=True)
    share = nodes(mean + (busy - mean) / FLATTENING, spread)
    budget = share / share.sum(1, keepdim=True) * (WINDOW**2 * MEAN_NEIGHBOURS)
    budget = budget.clamp(1, SAMPLES**2)
    unit = F.normalize(x, dim=3)
    similarity = nodes(unit, spread) @ samples(unit, spread).transpose(1, 2)
    low = similarity.amin(2, keepdim=True)
    high = torch.ones_like(low)
    threshold = similarity.mean(2, keepdim=True)
    for _ in range(BISECTIONS):
        many = (similarity > threshold).sum(2, keepdim=True) > budget
        low, high = torch.where(many, threshold, low), torch.where(many, high, threshold)
        threshold = (low + high) / 2
    return similarity > threshold


class PositionBias(nn.Module):
    """A small network of the offset between a node and a sample: [heads, 64, 256]."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False))

    def forward(self) -> Tensor:
        first = next(self.mlp.parameters())
        offset = torch.arange(1 - SAMPLES, WINDOW, dtype=torch.float32, device=first.device) / (WINDOW - 1) * 8
        offset = (torch.sign(offset) * torch.log2(offset.abs() + 1) / math.log2(8)).to(first.dtype)
        table = self.mlp(torch.cartesian_prod(offset, offset))
        return 16 * torch.sigmoid(table[self._rows(first.device)]).permute(2, 0, 1)

    @staticmethod
    def _rows(device: torch.device) -> Tensor:
        """Row of the table for each pair, as the authors count: rows below 0 are from the end."""
        node, sample = torch.arange(WINDOW, device=device), torch.arange(SAMPLES, device=device)
        offset = sample - node[:, None] + WINDOW - SAMPLES + 1
        rows = offset[:, None, :, None] * (WINDOW + SAMPLES - 1) + offset[None, :, None, :]
        return rows.reshape(WINDOW**2, SAMPLES**2)


class GraphAttention(nn.Module):
    """Cosine attention of the nodes to the samples they are joined to."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.bias = PositionBias(heads)
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10)))

    def forward(self, x: Tensor, graph: Tensor, spread: bool) -> Tensor:
        """Map [B, H, W, C] -> the same."""
        key, value = self.key_value(x).chunk(2, -1)
        query, key = (F.normalize(t.unflatten(-1, (self.heads, -1)), dim=-1).flatten(-2) for t in (self.query(x), key))
        scale, seen = self.logit_scale.clamp(max=SCALE_MAX).exp(), self.bias()
        unseen = seen + NO_SIGHT * scale

        def attend(*parts: Tensor) -> Tensor:
            q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in parts[:3])
            bias = torch.where(parts[3][:, None], seen, unseen)
            return F.scaled_dot_product_attention(q * scale, k, v, bias, scale=1.0).transpose(1, 2).flatten(2)

        windows = nodes(query, spread), samples(key, spread), samples(value, spread), graph
        attended = torch.cat([attend(*some) for some in zip(*(t.split(AT_ONCE) for t in windows), strict=True)])
        return from_nodes(self.proj(attended), x, spread)


class GatedConvolution(nn.Module):
    """1x1, depthwise 3x3, one half gating the other, 1x1; [B, C, H, W]."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(dim, 2 * hidden, 1, bias=False)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.leave = nn.Conv2d(hidden, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.depthwise(self.enter(x)).chunk(2, 1)
        return self.leave(F.gelu(a) * b)


class GraphLayer(nn.Module):
    """Graph attention and a gated convolution, each after a norm and with a skip; [B, H, W, C]."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = GraphAttention(dim, heads)
        self.mlp = GatedConvolution(dim, hidden)

    def forward(self, x: Tensor, graph: Tensor, spread: bool) -> Tensor:
        x = x + self.attention(self.norm1(x), graph, spread)
        return x + self.mlp(self.norm2(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class GraphAggregation(nn.Module):
    """Layers on local and on spread windows in turn, on the graphs of the first one's input; [B, C, H, W]."""

    def __init__(self, dim: int, hidden: int, heads: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(GraphLayer(dim, heads, hidden) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1).contiguous()
        with torch.no_grad():
            busy = complexity(x)
            graphs = [neighbours(x, busy, spread) for spread in (False, True)]
        for i, layer in enumerate(self.layers):
            x = layer(x, graphs[i % 2], bool(i % 2))
        return x.permute(0, 3, 1, 2)

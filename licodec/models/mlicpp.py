"""MLIC++: linear-complexity multi-reference entropy model (Jiang et al., ICML 2023 workshop; ACM TOMM 2025).

y is coded in slices, and each slice in the two halves of a checkerboard, anchors
(row + column odd) first. What a half is predicted from is gathered from four
contexts: slices before (channel), the slice before as a guide for where in the
picture to look (global intra), all slices before (global inter), and the
anchors around (local).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.layers.checkerboard import keep, squeeze, unsqueeze
from licodec.layers.conv import (
    ResidualBlock,
    ResidualBlockUpsample,
    ResidualBlockWithStride,
    chain,
    conv,
    conv1x1,
    conv3x3,
    depthwise3x3,
    head,
    hyper_analysis,
    hyper_synthesis,
    subpel_conv3x3,
)
from licodec.layers.window import relative_index
from licodec.models.slices import SliceModel

ANCHOR, REST = 1, 0  # parities of row + column
WINDOW = 5  # of the local context
windows_around = nn.Unfold(WINDOW, padding=WINDOW // 2)  # [B, C, H, W] -> [B, C * 25, H * W]
HEADS = 2  # of the local and the global intra context
INTER_HEAD = 32  # channels per head of the global inter context
NO_SIGHT = -100.0  # added to the logits of what is not to be seen


@dataclass(frozen=True)
class MLICPlusPlusConfig:
    """N channels in the transforms and in z, M in y.

    `edition` is the year of the authors' code that the weights were trained with: in
    2024 they made the latent residual prediction narrower and the first block of g_s wider.
    """

    N: int = 192
    M: int = 320
    slices: int = 10
    edition: int = 2024


class LocalContext(nn.Module):
    """Attention within the 5x5 window around each position, whose outcome is summed up by a 5x5 kernel (section 3.3).

    Each of the 25 positions attends to the anchors among them; a position that is no
    anchor itself sees all 25, zeros in the place of what is not known yet.
    """

    index: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bias_table = nn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, HEADS))
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(2 * dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.fusion = nn.Conv2d(dim, 2 * dim, WINDOW)
        self.proj = nn.Linear(2 * dim, 2 * dim)
        self.mlp = nn.Sequential(nn.Linear(2 * dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, 2 * dim))
        self.register_buffer("index", relative_index(WINDOW), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Anchors [B, C, H, W], zeros elsewhere -> [B, 2C, H, W]."""
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm1(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        windows = windows_around(qkv).view(b, 3, c // HEADS, HEADS, WINDOW**2, h * w)
        q, k, v = windows.permute(1, 0, 5, 3, 4, 2).unbind(0)  # each [B, H*W, heads, 25, C/heads]
        bias = self.bias_table[self.index].permute(2, 0, 1)
        anchors = windows_around(unsqueeze(x.new_ones(1, 1, h, w // 2), ANCHOR)).view(WINDOW**2, h * w).T
        unseen = 1 - anchors[:, :, None] * anchors[:, None, :]
        attended = F.scaled_dot_product_attention(q, k, v, bias + NO_SIGHT * unseen[:, None])
        attended = attended.permute(0, 1, 2, 4, 3).reshape(b * h * w, c, WINDOW, WINDOW)
        x = self.proj(self.fusion(attended).view(b, h * w, 2 * c))
        x = x + self.mlp(self.norm2(x))
        return x.transpose(1, 2).reshape(b, 2 * c, h, w)


def linear_attention(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Attention that never makes the matrix of all pairs (section 3.4): maps [B, C, H, W], all of one size."""
    q, k, v = (x.reshape(x.shape[0], heads, -1, x.shape[2] * x.shape[3]) for x in (queries, keys, values))
    context = k.softmax(3) @ v.transpose(2, 3)
    return (context.transpose(2, 3) @ q.softmax(2)).view_as(values)


def pointwise_depthwise(dim: int) -> nn.Sequential:
    """A 1x1 convolution, then a 3x3 one channel by channel."""
    return nn.Sequential(conv1x1(dim, dim), depthwise3x3(dim))


class GlobalContext(nn.Module):
    """Common to the two global contexts: queries, keys, values, and what follows the attention."""

    def __init__(self, dim: int, middle: int, hidden: int, out: int) -> None:
        super().__init__()
        self.queries, self.keys, self.values = (pointwise_depthwise(dim) for _ in range(3))
        self.reprojection = conv(dim, middle, 5, 1)
        self.mlp = nn.Sequential(
            conv1x1(middle, hidden), nn.GELU(), depthwise3x3(hidden), nn.GELU(), conv1x1(hidden, out)
        )
        self.skip: nn.Module = nn.Identity()

    def gather(self, attended: Tensor) -> Tensor:
        attended = self.reprojection(attended)
        return self.skip(attended) + self.mlp(attended)


class InterContext(GlobalContext):
    """All slices before attend to themselves: [B, dim, H, W] -> [B, out, H, W]."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__(dim, out * 3 // 2, out * 2, out)
        self.heads = max(1, dim // INTER_HEAD)
        self.skip = conv1x1(out * 3 // 2, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.gather(linear_attention(self.queries(x), self.keys(x), self.values(x), self.heads))


class IntraContext(GlobalContext):
    """Where the slice before is alike, this one may be: it gives queries and keys, this slice's anchors the values."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 2 * dim, 4 * dim, 2 * dim)

    def forward(self, before: Tensor, anchors: Tensor) -> Tensor:
        """Two maps [B, C, H, W] -> [B, 2C, H, W]."""
        queries = squeeze(self.queries(keep(before, REST)), REST)
        keys = squeeze(self.keys(keep(before, ANCHOR)), ANCHOR)
        values = squeeze(self.values(anchors), ANCHOR)
        return self.gather(unsqueeze(linear_attention(queries, keys, values, HEADS), REST))


def lrp_widths(seen: int, width: int, edition: int) -> list[int]:
    """Channels from the input to the output of a latent residual prediction."""
    if edition > 2023:
        return [seen, 224, 128, width]
    drop = seen - width
    return [seen, seen - drop // 4, seen - drop // 2, seen - drop * 3 // 4, width]


def parameter_network(seen: int, out: int) -> nn.Sequential:
    """1x1 convolutions with GELU between."""
    return chain(conv1x1(*pair) for pair in itertools.pairwise([seen, 320, 256, 128, out]))


class SliceNetworks(nn.Module):
    """The networks of slice k, whose `width` channels are seen beside the k slices before and h_s's 2M channels."""

    def __init__(self, k: int, width: int, m: int, edition: int) -> None:
        super().__init__()
        self.local = LocalContext(width)
        if k:
            self.channel = head([k * width, 192, 128, 4 * width])
            self.inter = InterContext(k * width, 2 * width)
            self.intra = IntraContext(width)
        shared = 2 * m + (6 * width if k else 0)
        self.anchor_parameters = parameter_network(shared, 2 * width)
        self.rest_parameters = parameter_network(shared + (4 if k else 2) * width, 2 * width)
        self.anchor_lrp, self.rest_lrp = (head(lrp_widths(m + (k + 1) * width, width, edition)) for _ in range(2))


class MultiReferenceContext:
    """The state of a walk: step 2k codes the anchors of slice k, step 2k + 1 the rest."""

    def __init__(self, networks: Sequence[Any], hyper: Tensor) -> None:
        self.networks, self.hyper = networks, hyper
        self.means = hyper.chunk(2, 1)[1]
        self.slices: list[Tensor] = []
        self.anchors = hyper[:, :0]  # of the slice that is being coded
        self.shared: list[Tensor] = []  # the contexts that both halves of the slice see

    def params(self, step: int) -> tuple[Tensor, Tensor]:
        k, rest = divmod(step, 2)
        networks = self.networks[k]
        if not rest:
            before = torch.cat(self.slices, 1) if k else None
            self.shared = [networks.inter(before), networks.channel(before)] if k else []
            seen, predict = self.shared, networks.anchor_parameters
        else:
            own = [networks.local(self.anchors)]
            own += [networks.intra(self.slices[-1], self.anchors)] if k else []
            seen, predict = [*own, *self.shared], networks.rest_parameters
        scale, mean = predict(squeeze(torch.cat([*seen, self.hyper], 1), REST if rest else ANCHOR)).chunk(2, 1)
        return mean, scale

    def push(self, step: int, part: Tensor) -> None:
        k, rest = divmod(step, 2)
        if rest:
            known, parity, predict = self.anchors + unsqueeze(part, REST), REST, self.networks[k].rest_lrp
        else:
            known, parity, predict = unsqueeze(part, ANCHOR), ANCHOR, self.networks[k].anchor_lrp
        residual = 0.5 * torch.tanh(predict(torch.cat([self.means, *self.slices, known], 1)))
        self.anchors = known + keep(residual, parity)
        if rest:
            self.slices.append(self.anchors)

    def y_hat(self) -> Tensor:
        return torch.cat(self.slices, 1)


class MLICPlusPlus(SliceModel):
    """The model as published."""

    name = "mlicpp"
    overlap = 128
    overlap_is_all = True  # of g_s: 104 pixels
    exact = ("z_prior", "h_s", "slices")

    def __init__(self, config: MLICPlusPlusConfig | None = None) -> None:
        config = config or MLICPlusPlusConfig()
        n, m, width = config.N, config.M, config.M // config.slices
        super().__init__([width] * config.slices, n)
        self.config, self.steps = config, 2 * config.slices
        first = n if config.edition <= 2023 else m
        self.g_a, self.g_s = nn.Sequential(), nn.Sequential(ResidualBlock(m, first, nn.GELU))
        for before, after in ((3, first), (n, n), (n, n)):
            self.g_a.extend([ResidualBlockWithStride(before, n, nn.GELU), ResidualBlock(n, n, nn.GELU)])
            self.g_s.extend([ResidualBlockUpsample(after, n, nn.GELU), ResidualBlock(n, n, nn.GELU)])
        self.g_a.append(conv3x3(n, m, 2))
        self.g_s.append(subpel_conv3x3(n, 3))
        self.h_a = hyper_analysis([m, n, n, n, n, n])
        self.h_s = hyper_synthesis([n, m, m, m * 3 // 2, m * 3 // 2, 2 * m])
        self.slices = nn.ModuleList(SliceNetworks(k, width, m, config.edition) for k in range(config.slices))

    def split(self, y: Tensor) -> list[Tensor]:
        return [squeeze(part, parity) for part in y.split(self.slice_sizes, 1) for parity in (ANCHOR, REST)]

    def context(self, z_hat: Tensor, quality: Tensor) -> MultiReferenceContext:
        return MultiReferenceContext(list(self.slices), self.h_s(z_hat))

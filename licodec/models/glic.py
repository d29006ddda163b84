"""GLIC: adaptive learned image compression with graph neural networks (Chen et al., CVPR 2026).

The entropy model is ELIC's (He et al., CVPR 2022): uneven groups of channels, each
in the two halves of a checkerboard, anchors (row + column even) first.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.layers.checkerboard import squeeze, unsqueeze
from licodec.layers.conv import conv, conv1x1, conv3x3, subpel_conv3x3
from licodec.layers.wavelet import WaveletDown, WaveletUp, orthogonality_loss, side_branch
from licodec.models.glic_graph import GraphAggregation
from licodec.models.slices import SliceModel

ANCHOR, REST = 0, 1  # parities of row + column
JOINTS = (1, 3, 5, 6)  # layers of g_a and g_s after which the wavelet branch is added
ORTHOGONALITY_WEIGHT = 0.1  # the default of the authors' training script


@dataclass(frozen=True)
class GLICConfig:
    """N channels in z and in h_s's two halves; `groups` of channels make up y.

    `dims` are the widths of the transforms, whose graph attention has `heads` in each of `depth` layers.
    """

    N: int = 192
    dims: tuple[int, ...] = (128, 192, 192)
    heads: int = 8
    depth: int = 5
    groups: tuple[int, ...] = (16, 16, 32, 64, 192)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of [B, C, H, W]."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GatedNetwork(nn.Module):
    """1x1 to twice the hidden width, one half gating the other, 1x1 back; after a norm and with a skip."""

    def __init__(self, dim: int, factor: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(dim)
        self.enter = nn.Conv2d(dim, 2 * factor * dim, 1, bias=False)
        self.leave = nn.Conv2d(factor * dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.enter(self.norm(x)).chunk(2, 1)
        return x + self.leave(F.gelu(a) * b)


class DepthwiseGatedBlock(nn.Module):
    """1x1, depthwise 5x5, 1x1 with a skip, then the gated network."""

    def __init__(self, dim: int, out: int, factor: int = 4) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv1x1(dim, dim), conv1x1(dim, out)
        self.depthwise = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.skip = conv1x1(dim, out) if dim != out else nn.Identity()
        self.gated = GatedNetwork(out, factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.gated(self.conv2(self.depthwise(F.leaky_relu(self.conv1(x)))) + self.skip(x))


class ParameterBlock(nn.Module):
    """1x1, then the gated network; position by position."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.conv = conv1x1(dim, out)
        self.gated = GatedNetwork(out, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.gated(self.conv(x))


def ramp(block: type[nn.Module], first: int, last: int, least: int) -> nn.Sequential:
    """Three blocks whose widths go evenly from `first` to `last`, but not below `least` between."""
    between = [max(least, int(first + (last - first) * i / 3)) for i in (1, 2)]
    return nn.Sequential(*(block(a, b) for a, b in itertools.pairwise([first, *between, last])))


class SpaceChannelContext:
    """The state of a walk: step 2k codes the anchors of group k, step 2k + 1 the rest."""

    def __init__(self, model: GLIC, hyper: Tensor) -> None:
        self.model, self.hyper = model, hyper
        self.groups: list[Tensor] = []
        self.anchors = hyper[:, :0]  # of the group that is being coded
        self.shared: list[Tensor] = []  # what both halves of the group see

    def params(self, step: int) -> tuple[Tensor, Tensor]:
        k, rest = divmod(step, 2)
        if rest:
            spatial, parity = self.model.spatial_context[k](self.anchors), REST
        else:
            before = [self.model.channel_context[k - 1](torch.cat(self.groups, 1))] if k else []
            self.shared, parity = [*before, self.hyper], ANCHOR
            spatial = torch.zeros_like(self.hyper[:, :1]).expand(-1, 2 * self.model.slice_sizes[k], -1, -1)
        seen = squeeze(torch.cat([spatial, *self.shared], 1), parity)
        scale, mean = self.model.parameter_networks[k](seen).chunk(2, 1)
        return mean, scale

    def push(self, step: int, part: Tensor) -> None:
        if step % 2:
            self.groups.append(self.anchors + unsqueeze(part, REST))
        else:
            self.anchors = unsqueeze(part, ANCHOR)

    def y_hat(self) -> Tensor:
        return torch.cat(self.groups, 1)


class GLIC(SliceModel):
    """The model as published. Windows spread over the whole map need sides that are multiples of 128.

    Which nodes are joined hangs on the last bits of float32: pixels differ a little between
    machines, as the authors' do. No scale depends on it, so decoders stay in step.
    """

    name = "glic"
    stride = 128
    g_a: nn.Sequential
    g_s: nn.Sequential
    padding = "replicate"
    overlap = 256
    exact = ("z_prior", "h_s", "channel_context", "spatial_context", "parameter_networks")

    def __init__(self, config: GLICConfig | None = None) -> None:
        config = config or GLICConfig()
        n, groups, (a, b, c) = config.N, config.groups, config.dims
        super().__init__(list(groups), n)
        m = self.latent_channels
        self.config, self.steps = config, 2 * len(groups)
        graph = functools.partial(GraphAggregation, heads=config.heads, depth=config.depth)
        self.g_a = nn.Sequential(
            conv3x3(3, a, 2), nn.Sequential(*(DepthwiseGatedBlock(a, a) for _ in range(3))),
            conv3x3(a, b, 2), graph(b, 4 * b),
            conv3x3(b, c, 2), graph(c, 2 * c),
            conv3x3(c, m, 2),
        )  # fmt: skip
        self.g_s = nn.Sequential(
            subpel_conv3x3(m, c), graph(c, 2 * c),
            subpel_conv3x3(c, b), graph(b, 4 * b),
            subpel_conv3x3(b, a), nn.Sequential(*(DepthwiseGatedBlock(a, a) for _ in range(3))),
            subpel_conv3x3(a, 3),
        )  # fmt: skip
        pairs = list(itertools.pairwise([3, a, b, c, m]))
        self.AuxT_enc = nn.ModuleList(WaveletDown(before, after) for before, after in pairs)
        self.AuxT_dec = nn.ModuleList(WaveletUp(after, before) for before, after in reversed(pairs))

        def two() -> list[nn.Module]:
            return [DepthwiseGatedBlock(n, n, 2), DepthwiseGatedBlock(n, n, 2)]

        self.h_a = nn.Sequential(conv3x3(m, n), *two(), conv3x3(n, n, 2), *two(), conv3x3(n, n, 2))
        self.h_s = nn.Sequential(subpel_conv3x3(n, n), *two(), subpel_conv3x3(n, n), *two(), conv3x3(n, 2 * n))
        self.channel_context = nn.ModuleList(
            ramp(DepthwiseGatedBlock, sum(groups[:k]), 2 * size, n) for k, size in enumerate(groups) if k
        )
        self.spatial_context = nn.ModuleList(conv(size, 2 * size, 5, 1) for size in groups)
        self.parameter_networks = nn.ModuleList(
            ramp(ParameterBlock, 2 * size * (2 if k else 1) + 2 * n, 2 * size, 2 * n) for k, size in enumerate(groups)
        )

    def analyse(self, x: Tensor, quality: Tensor) -> Tensor:
        return side_branch(x, self.g_a, self.AuxT_enc, JOINTS)

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        return side_branch(y_hat, self.g_s, self.AuxT_dec, JOINTS)

    def split(self, y: Tensor) -> list[Tensor]:
        return [squeeze(part, parity) for part in y.split(self.slice_sizes, 1) for parity in (ANCHOR, REST)]

    def context(self, z_hat: Tensor, quality: Tensor) -> SpaceChannelContext:
        return SpaceChannelContext(self, self.h_s(z_hat))

    def extra_loss(self, y: Tensor, z_hat: Tensor, y_bits: Tensor) -> Tensor:
        return ORTHOGONALITY_WEIGHT * orthogonality_loss(self)

"""CCA: causal context adjustment (Han et al., NeurIPS 2024).

The auxiliary entropy model that adjusts the context in training takes no part
in coding; it is left out of weights files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from licodec.layers.conv import conv, conv1x1, conv3x3, deconv, depthwise3x3, head
from licodec.layers.dictionary import Bottleneck
from licodec.layers.factorized import FactorizedPrior
from licodec.models.base import gaussian_bits, noisy, ste_round
from licodec.models.slices import SliceModel

DISTORTION_WEIGHT = 0.05


@dataclass(frozen=True)
class CCAConfig:
    """The paper's sizes.

    Attributes:
        dims: channels of the stages of g_a; g_s mirrors them.
        depth: NAF blocks in each stage of g_a and g_s.
        slice_sizes: channels of the slices of y, which grow; M is their sum.
        naf_dim, naf_depth: channels and blocks of the NAF transforms of the entropy model.
    """

    dims: tuple[int, ...] = (192, 224, 256)
    depth: int = 4
    slice_sizes: tuple[int, ...] = (8, 28, 56, 92, 136)
    naf_dim: int = 224
    naf_depth: int = 4


def gate(x: Tensor) -> Tensor:
    """One half of the channels times the other (SimpleGate of NAFNet); [B, 2 * C, H, W] -> [B, C, H, W]."""
    first, second = x.chunk(2, 1)
    return first * second


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Normalisation over the channels of [B, C, H, W]."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NAFBlock(nn.Module):
    """The block of NAFNet (Chen et al., ECCV 2022). Its channel attention pools the whole map."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.dwconv = nn.Sequential(conv1x1(dim, 2 * dim), depthwise3x3(2 * dim))
        self.sca = conv1x1(dim, dim)
        self.conv1 = conv1x1(dim, dim)
        self.expand = conv1x1(dim, 2 * dim)
        self.reduce = conv1x1(dim, dim)
        self.beta, self.gamma = (nn.Parameter(torch.zeros(1, dim, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        out = gate(self.dwconv(layer_norm(self.norm1, x)))
        out = out * self.sca(out.mean((2, 3), keepdim=True))
        x = x + self.conv1(out) * self.beta
        return x + self.reduce(gate(self.expand(layer_norm(self.norm2, x)))) * self.gamma


class NAFTransform(nn.Module):
    """NAF blocks with a skip, between two 1x1 convolutions; channels are kept."""

    def __init__(self, channels: int, inner: int, depth: int) -> None:
        super().__init__()
        self.in_conv = conv1x1(channels, inner)
        self.blocks = nn.Sequential(*(NAFBlock(inner) for _ in range(depth)))
        self.out_conv = conv1x1(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.in_conv(x)
        return self.out_conv(x + self.blocks(x))


class Auxiliary(nn.Module):
    """A copy of the entropy model that lacks the slice just before, and a prior that lacks all.

    The main model is trained to save bits against the copy: then each slice
    carries what helps the next one most (section 3.2 of the paper).
    """

    def __init__(self, slice_sizes: list[int], naf_dim: int, naf_depth: int) -> None:
        super().__init__()
        self.slice_sizes, m = slice_sizes, sum(slice_sizes)
        seen = [m + sum(slice_sizes[: max(0, k - 1)]) for k in range(len(slice_sizes))]
        self.mean_naf, self.scale_naf = (
            nn.ModuleList(NAFTransform(c, naf_dim, naf_depth) for c in seen) for _ in range(2)
        )
        self.mean_heads, self.scale_heads = (
            nn.ModuleList(head([c, 224, 128, size]) for c, size in zip(seen, slice_sizes, strict=True))
            for _ in range(2)
        )
        self.lrp_heads = nn.ModuleList(
            head([c + size, 224, 128, size]) for c, size in list(zip(seen, slice_sizes, strict=True))[:-2]
        )
        self.y_prior = FactorizedPrior(m)

    def forward(self, y: Tensor, means: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
        """Bits of y [B, M, H, W] under the copy and under the prior, element by element."""
        decoded: list[Tensor] = []
        bits = []
        for k, part in enumerate(y.split(self.slice_sizes, 1)):
            earlier = decoded[: max(0, k - 1)]
            mean_support = self.mean_naf[k](torch.cat([means, *earlier], 1))
            mean = self.mean_heads[k](mean_support)
            scale = self.scale_heads[k](self.scale_naf[k](torch.cat([scales, *earlier], 1)))
            hard = ste_round(part - mean) + mean
            bits.append(gaussian_bits(noisy(part) if self.training else hard, mean, scale))
            if k < len(self.lrp_heads):
                decoded.append(hard + 0.5 * torch.tanh(self.lrp_heads[k](torch.cat([mean_support, hard], 1))))
        medians = self.y_prior.medians()
        soft = noisy(y) if self.training else (y - medians).round() + medians
        return torch.cat(bits, 1), self.y_prior.bits(soft)


class CCA(SliceModel):
    """The model as published; all slices before a slice are seen."""

    name = "cca"
    stride = 128
    overlap = 256
    exact = (*SliceModel.exact, "mean_naf", "scale_naf")
    training_only = ("auxiliary",)
    config: CCAConfig

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
        mean_support, scale_support = super().supports(step, means, scales, earlier)
        return self.mean_naf[step](mean_support), self.scale_naf[step](scale_support)

    def add_training_parts(self) -> None:
        self.auxiliary = Auxiliary(self.slice_sizes, self.config.naf_dim, self.config.naf_depth)

    def loss_weights(self, rate_lambda: float) -> tuple[float, float]:
        return rate_lambda, DISTORTION_WEIGHT  # the paper's lambda weighs the rate

    def extra_loss(self, y: Tensor, z_hat: Tensor, y_bits: Tensor) -> Tensor:
        """The causal context adjustment term and the prior's term (equations 9 and 11), per pixel."""
        bits, prior_bits = self.auxiliary(y, *self.hyper_synthesise(z_hat))
        pixels = y.shape[0] * y.shape[2] * y.shape[3] * self.latent_stride**2
        saved = y_bits.sum() - bits.sum()
        return (saved + (torch.exp2(-bits) * prior_bits).sum()) / pixels

    def aux_loss(self) -> Tensor:
        loss = super().aux_loss()
        return loss + self.auxiliary.y_prior.aux_loss() if hasattr(self, "auxiliary") else loss


def _bottlenecks(dim: int) -> list[nn.Module]:
    return [Bottleneck(dim) for _ in range(3)]


def _naf(dim: int, depth: int) -> list[nn.Module]:
    return [NAFBlock(dim) for _ in range(depth)]

"""Transformer-based transform coding (Zhu, Yang, Cohen, ICLR 2022): four models.

Transforms of convolutions (Conv-) or Swin stages (SwinT-), with a mean-scale
hyperprior (-Hyperprior) or channel slices after it (-ChARM). As in the TBTC
implementation, whose released weights are the ones there are.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from licodec.layers.conv import GDN, conv, conv3x3, deconv, head
from licodec.layers.window import PatchMerging, PatchSplitting, SwinStage
from licodec.models.slices import SliceModel

SLICE = 32
HEADS = 4  # in every stage, whatever its width, while the logits' scale is that of 32 channels per head
HEAD_SCALE = 32**-0.5


@dataclass(frozen=True)
class ConvHyperpriorConfig:
    """The paper's sizes.

    Attributes:
        M: channels of y and of the transforms.
        Z: channels of z.
    """

    M: int = 320
    Z: int = 192


@dataclass(frozen=True)
class SwinTHyperpriorConfig:
    """The paper's sizes.

    Attributes:
        dims, depths: C_i and d_i, channels and Swin blocks of the stages of g_a; g_s mirrors them.
        hyper_dims, hyper_depths: those of h_a; h_s mirrors them.
    """

    dims: tuple[int, ...] = (128, 192, 256, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    hyper_dims: tuple[int, ...] = (192, 192)
    hyper_depths: tuple[int, ...] = (5, 1)


ConvChARMConfig = ConvHyperpriorConfig
SwinTChARMConfig = SwinTHyperpriorConfig


class Hyperprior(SliceModel):
    """Common to the two without slices: h_s gives scales, then means, of all of y at once."""

    exact: tuple[str, ...] = ("z_prior", "h_s")
    h_s: nn.Module

    def hyper_synthesise(self, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        scales, means = self.h_s(z_hat).chunk(2, 1)
        return means, scales


class ChARM(Hyperprior):
    """Adds the slices: a head sees its own part of h_s's output and all slices before it; no LRP."""

    exact = ("z_prior", "h_s", "mean_heads", "scale_heads")

    def add_charm(self) -> None:
        """Make the heads of all slices; their widths go from input to output in three steps."""
        for step, size in enumerate(self.slice_sizes):
            seen = size + self.support_channels(step)
            widths = [(i * (size - seen)) // 3 + seen for i in range(4)]  # rounded down: 64, 53, 42, 32
            self.mean_heads.append(head(widths, nn.ReLU))
            self.scale_heads.append(head(widths, nn.ReLU))

    def supports(self, step: int, means: Tensor, scales: Tensor, earlier: list[Tensor]) -> tuple[Tensor, Tensor]:
        return super().supports(step, self.split(means)[step], self.split(scales)[step], earlier)


def conv_transforms(model: Hyperprior, m: int, z: int) -> None:
    """The transforms of the two Conv- models."""
    model.g_a = nn.Sequential(conv(3, m), GDN(m), conv(m, m), GDN(m), conv(m, m), GDN(m), conv(m, m))
    model.g_s = nn.Sequential(
        deconv(m, m), GDN(m, inverse=True), deconv(m, m), GDN(m, inverse=True), deconv(m, m), GDN(m, inverse=True),
        deconv(m, 3),
    )  # fmt: skip
    model.h_a = nn.Sequential(conv3x3(m, z), nn.ReLU(), conv(z, z), nn.ReLU(), conv(z, z))
    model.h_s = nn.Sequential(deconv(z, z), nn.ReLU(), deconv(z, z), nn.ReLU(), conv3x3(z, 2 * m))


class ConvHyperprior(Hyperprior):
    """Conv-Hyperprior."""

    name = "conv-hyperprior"
    overlap = 128

    def __init__(self, config: ConvHyperpriorConfig | None = None) -> None:
        config = config or ConvHyperpriorConfig()
        super().__init__([config.M], config.Z)
        self.config = config
        conv_transforms(self, config.M, config.Z)


class ConvChARM(ChARM):
    """Conv-ChARM."""

    name = "conv-charm"
    overlap = 128

    def __init__(self, config: ConvChARMConfig | None = None) -> None:
        config = config or ConvChARMConfig()
        super().__init__([SLICE] * (config.M // SLICE), config.Z)
        self.config = config
        conv_transforms(self, config.M, config.Z)
        self.add_charm()


class SwinTransform(nn.Module):
    """Swin stages over [B, C, H, W] maps, after a strided convolution if `embed` is given."""

    def __init__(self, stages: list[SwinStage], embed: nn.Module | None = None) -> None:
        super().__init__()
        self.embed = embed if embed is not None else nn.Identity()
        self.layers = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).permute(0, 2, 3, 1)
        for layer in self.layers:
            x = layer(x)
        return x.permute(0, 3, 1, 2)


def swin_down(channels: int, dims: tuple[int, ...], depths: tuple[int, ...], window: int) -> SwinTransform:
    """Halve once by a 2x2 convolution, then once between every two stages."""
    stages = [
        SwinStage(dim, depth, HEADS, window, PatchMerging(dim, after) if after else None, HEAD_SCALE)
        for dim, depth, after in zip(dims, depths, (*dims[1:], 0), strict=True)
    ]
    return SwinTransform(stages, nn.Conv2d(channels, dims[0], 2, 2))


def swin_up(dims: tuple[int, ...], depths: tuple[int, ...], window: int, channels: int) -> SwinTransform:
    """The mirror of `swin_down`: every stage doubles, the last one to `channels`."""
    stages = [
        SwinStage(dim, depth, HEADS, window, PatchSplitting(dim, after), HEAD_SCALE)
        for dim, depth, after in zip(dims, depths, (*dims[1:], channels), strict=True)
    ]
    return SwinTransform(stages)


def swin_transforms(model: Hyperprior, config: SwinTHyperpriorConfig) -> None:
    """The transforms of the two SwinT- models: windows of 8, of 4 in the hyper networks."""
    m = config.dims[-1]
    model.g_a = swin_down(3, config.dims, config.depths, 8)
    model.g_s = swin_up(config.dims[::-1], config.depths[::-1], 8, 3)
    model.h_a = swin_down(m, config.hyper_dims, config.hyper_depths, 4)
    model.h_s = swin_up(config.hyper_dims[::-1], config.hyper_depths[::-1], 4, 2 * m)


class SwinTHyperprior(Hyperprior):
    """SwinT-Hyperprior."""

    name = "swint-hyperprior"
    stride = 256  # windows of 8 at 1/16 and of 4 at 1/64 want this, else maps are padded within
    overlap = 256

    def __init__(self, config: SwinTHyperpriorConfig | None = None) -> None:
        config = config or SwinTHyperpriorConfig()
        super().__init__([config.dims[-1]], config.hyper_dims[-1])
        self.config = config
        swin_transforms(self, config)


class SwinTChARM(ChARM):
    """SwinT-ChARM."""

    name = "swint-charm"
    stride = 256
    overlap = 256

    def __init__(self, config: SwinTChARMConfig | None = None) -> None:
        config = config or SwinTChARMConfig()
        super().__init__([SLICE] * (config.dims[-1] // SLICE), config.hyper_dims[-1])
        self.config = config
        swin_transforms(self, config)
        self.add_charm()

"""STF: the symmetrical transformer of Zou, Song, Zhang (CVPR 2022, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from licodec.layers.conv import conv3x3, hyper_analysis, hyper_synthesis
from licodec.layers.window import PatchMerging, PatchSplitting, SwinStage
from licodec.models.slices import SliceModel

HEAD_DIM = 16
WINDOW = 4


@dataclass(frozen=True)
class STFConfig:
    """The paper's sizes.

    Attributes:
        embed: C, channels after the patch embedding; they double from stage to stage, to M in y.
        depths: Swin blocks in each stage of g_a; g_s mirrors them.
        slices: channel slices of y.
    """

    embed: int = 48
    depths: tuple[int, ...] = (2, 2, 6, 2)
    slices: int = 12


class STF(SliceModel):
    """The model as published; twelve slices, of which the first half are seen. y has no final norm."""

    name = "stf"
    overlap = 256
    HEAD = (224, 176, 128, 64)

    def __init__(self, config: STFConfig | None = None) -> None:
        config = config or STFConfig()
        stages = len(config.depths)
        dims = [config.embed * 2**i for i in range(stages)]
        m = dims[-1]
        super().__init__([m // config.slices] * config.slices, 4 * config.embed)
        self.config = config
        self.max_support = config.slices // 2
        self.patch_embed = nn.Conv2d(3, config.embed, 2, 2)
        self.patch_norm = nn.LayerNorm(config.embed)
        self.layers = nn.ModuleList(
            SwinStage(dim, depth, dim // HEAD_DIM, WINDOW, PatchMerging(dim, 2 * dim) if dim < m else None)
            for dim, depth in zip(dims, config.depths, strict=True)
        )
        self.syn_layers = nn.ModuleList(
            SwinStage(dim, depth, dim // HEAD_DIM, WINDOW, PatchSplitting(dim, dim // 2) if dim > dims[0] else None)
            for dim, depth in zip(dims[::-1], config.depths[::-1], strict=True)
        )
        e = config.embed
        self.end_conv = nn.Sequential(nn.Conv2d(e, 4 * e, 5, padding=2), nn.PixelShuffle(2), conv3x3(e, 3))
        self.h_a = hyper_analysis([m, 384, 336, 288, 240, 4 * e])
        self.h_mean_s, self.h_scale_s = (hyper_synthesis([4 * e, 240, 288, 336, 384, m]) for _ in range(2))
        self.add_heads(m, self.HEAD)

    def analyse(self, x: Tensor, quality: Tensor) -> Tensor:
        x = self.patch_norm(self.patch_embed(x).permute(0, 2, 3, 1))
        for layer in self.layers:
            x = layer(x)
        return x.permute(0, 3, 1, 2)

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        x = y_hat.permute(0, 2, 3, 1)
        for layer in self.syn_layers:
            x = layer(x)
        return self.end_conv(x.permute(0, 3, 1, 2))

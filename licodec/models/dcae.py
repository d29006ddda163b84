"""DCAE: a dictionary-based cross-attention entropy model (Lu et al., CVPR 2025)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from licodec.layers.conv import conv, deconv
from licodec.layers.dictionary import DictionaryAttention, GatedStage, bottlenecks_down, bottlenecks_up
from licodec.layers.window import WindowAttention
from licodec.models.slices import SliceModel

HEAD_DIMS = (8, 16, 32, 32, 16, 8)  # of the stages of g_a and g_s
HYPER_HEAD_DIM = 32


@dataclass(frozen=True)
class DCAEConfig:
    """The paper's sizes.

    Attributes:
        N: channels of the hyper networks.
        M: channels of y.
        dims, depths: channels and blocks of the stages of g_a; g_s mirrors them.
        slices: channel slices of y.
        words: N_d, entries of the dictionary.
    """

    N: int = 192
    M: int = 320
    dims: tuple[int, ...] = (96, 144, 256)
    depths: tuple[int, ...] = (1, 2, 12)
    slices: int = 5
    words: int = 128


class DictionaryModel(SliceModel):
    """DCAE's structure, of which SAAF exchanges the attention and to which it adds a side branch."""

    stride = 128
    overlap = 256
    exact = ("z_prior", "h_z_s1", "h_z_s2", "dt", "dictionary_attention", "mean_heads", "scale_heads", "lrp_heads")
    g_a: nn.Sequential
    g_s: nn.Sequential

    def __init__(self, config: DCAEConfig) -> None:
        n, m, dims = config.N, config.M, config.dims
        super().__init__([m // config.slices] * config.slices, 192)
        self.config = config
        down = [self.stage(d, k, h, 8) for d, k, h in zip(dims, config.depths, HEAD_DIMS[:3], strict=True)]
        up = [self.stage(d, k, h, 8) for d, k, h in zip(dims[::-1], config.depths[::-1], HEAD_DIMS[3:], strict=True)]
        self.g_a = nn.Sequential(
            bottlenecks_down(3, dims[0]),
            down[0],
            bottlenecks_down(dims[0], dims[1]),
            down[1],
            bottlenecks_down(dims[1], dims[2]),
            down[2],
            conv(dims[2], m),
        )
        self.g_s = nn.Sequential(
            deconv(m, dims[2]),
            up[0],
            bottlenecks_up(dims[2], dims[1]),
            up[1],
            bottlenecks_up(dims[1], dims[0]),
            up[2],
            bottlenecks_up(dims[0], 3),
        )
        self.h_a = nn.Sequential(bottlenecks_down(m, n), self.stage(n, 1, HYPER_HEAD_DIM, 4), conv(n, 192, 3))
        self.h_z_s1, self.h_z_s2 = (
            nn.Sequential(deconv(192, n, 3), self.stage(n, 1, HYPER_HEAD_DIM, 4), bottlenecks_up(n, m))
            for _ in range(2)
        )
        self.dt = nn.Parameter(torch.randn(config.words, 640))
        self.dictionary_attention = nn.ModuleList(
            DictionaryAttention(2 * m + self.support_channels(k), m) for k in range(self.steps)
        )
        self.add_heads(3 * m, (224, 128))

    @classmethod
    def stage(cls, dim: int, depth: int, head_dim: int, window: int) -> GatedStage:
        """Gated blocks with this model's attention."""
        raise NotImplementedError

    def hyper_synthesise(self, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        return self.h_z_s2(z_hat), self.h_z_s1(z_hat)

    def supports(self, step: int, means: Tensor, scales: Tensor, earlier: list[Tensor]) -> tuple[Tensor, Tensor]:
        query = torch.cat([scales, means, *earlier], 1)
        support = torch.cat([query, self.dictionary_attention[step](query, self.dt)], 1)
        return support, support


class DCAE(DictionaryModel):
    """The model as published; five slices, all of which are seen."""

    name = "dcae"

    def __init__(self, config: DCAEConfig | None = None) -> None:
        super().__init__(config or DCAEConfig())

    @classmethod
    def stage(cls, dim: int, depth: int, head_dim: int, window: int) -> GatedStage:
        heads = dim // head_dim
        return GatedStage(
            dim,
            [WindowAttention(dim, heads, window, i % 2 * window // 2, mask_value=float("-inf")) for i in range(depth)],
        )

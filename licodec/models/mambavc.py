"""MambaVC: selective scans between the convolutions, TCM's entropy model (Qin et al., arXiv 2405.15413)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from licodec.layers.conv import conv, conv3x3, deconv
from licodec.models.mambavc_scan import SelectiveScan2d
from licodec.models.slices import SliceModel
from licodec.models.tcm import SlimAttention

HYPER_CHANNELS = 192


@dataclass(frozen=True)
class MambaVCConfig:
    """N is half the width of all networks, M the channels of y.

    `depths` are the blocks at 1/2, 1/4 and 1/8 of g_a and those in h_a; `up_depths` those of g_s at 1/8, 1/4, 1/2.
    """

    N: int = 128
    M: int = 320
    slices: int = 5
    depths: tuple[int, ...] = (2, 2, 9, 2)
    up_depths: tuple[int, ...] = (9, 2, 2)


class ScanBlock(nn.Module):
    """The visual state space block (figure 3): x + scan(LayerNorm(x)); [B, C, H, W]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.scan = SelectiveScan2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scan(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


def blocks(dim: int, depth: int) -> list[nn.Module]:
    """Blocks one after another."""
    return [ScanBlock(dim) for _ in range(depth)]


class MambaVC(SliceModel):
    """The model as published; five slices, all of which are seen, with TCM's attention before the heads.

    A scan runs over the whole map, so everything depends on all of a tile, and a tile's time grows with its area only.
    """

    name = "mambavc"
    stride = 128
    overlap = 128
    tile = 512
    exact = (*SliceModel.exact, "mean_attention", "scale_attention")

    def __init__(self, config: MambaVCConfig | None = None) -> None:
        config = config or MambaVCConfig()
        dim, m = 2 * config.N, config.M
        super().__init__([m // config.slices] * config.slices, HYPER_CHANNELS)
        self.config = config
        half, quarter, eighth, hyper = config.depths
        self.g_a = nn.Sequential(
            conv(3, dim), *blocks(dim, half), conv3x3(dim, dim, 2), *blocks(dim, quarter), conv3x3(dim, dim, 2),
            *blocks(dim, eighth), conv3x3(dim, m, 2),
        )  # fmt: skip
        eighth, quarter, half = config.up_depths
        self.g_s = nn.Sequential(
            deconv(m, dim, 3), *blocks(dim, eighth), deconv(dim, dim, 3), *blocks(dim, quarter), deconv(dim, dim, 3),
            *blocks(dim, half), deconv(dim, 3),
        )  # fmt: skip
        self.h_a = nn.Sequential(conv3x3(m, dim, 2), *blocks(dim, hyper), conv3x3(dim, HYPER_CHANNELS, 2))
        self.h_mean_s, self.h_scale_s = (
            nn.Sequential(deconv(HYPER_CHANNELS, dim, 3), *blocks(dim, hyper), deconv(dim, m, 3)) for _ in range(2)
        )
        self.mean_attention, self.scale_attention = (
            nn.ModuleList(SlimAttention(m + self.support_channels(k)) for k in range(self.steps)) for _ in range(2)
        )
        self.add_heads(m, (224, 128))

    def supports(self, step: int, means: Tensor, scales: Tensor, earlier: list[Tensor]) -> tuple[Tensor, Tensor]:
        mean_support, scale_support = super().supports(step, means, scales, earlier)
        return self.mean_attention[step](mean_support), self.scale_attention[step](scale_support)

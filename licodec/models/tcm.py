"""TCM: parallel transformer and CNN mixture blocks (Liu, Sun, Katto, CVPR 2023).

With `auxt` the transforms get the wavelet side branch of AuxT (Li et al., ICLR 2025).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from licodec.layers.conv import (
    AttentionBlock,
    ResidualBlock,
    ResidualBlockUpsample,
    ResidualBlockWithStride,
    conv1x1,
    conv3x3,
    subpel_conv3x3,
)
from licodec.layers.wavelet import WaveletDown, WaveletUp, orthogonality_loss, side_branch
from licodec.layers.window import SwinBlock
from licodec.models.slices import SliceModel

HEAD_DIMS = (8, 16, 32, 32, 16, 8)  # of the transformer halves in the six stages of g_a and g_s
NO_SIGHT = float("-inf")
ORTHOGONALITY_WEIGHT = 0.1  # the default of the authors' training script
JOINTS_ENC, JOINTS_DEC = (0, 3, 6, 9), (2, 5, 8, 9)  # layers after which AuxT's branch is added


@dataclass(frozen=True)
class TCMConfig:
    """The paper's sizes.

    Attributes:
        N: channels of each half of a mixture block, half the width of the transforms: 64, 96 or 128.
        M: channels of y.
        slices: channel slices of y.
    """

    N: int = 128
    M: int = 320
    slices: int = 5


class MixtureBlock(nn.Module):
    """The TCM block (figure 3): one half of the channels convolves, the other attends in windows."""

    def __init__(self, n: int, head_dim: int, window: int, shifted: bool) -> None:
        super().__init__()
        self.trans_block = SwinBlock(n, n // head_dim, window, window // 2 if shifted else 0, mask_value=NO_SIGHT)
        self.conv1_1 = conv1x1(2 * n, 2 * n)
        self.conv1_2 = conv1x1(2 * n, 2 * n)
        self.conv_block = ResidualBlock(n, n)

    def forward(self, x: Tensor) -> Tensor:
        local, distant = self.conv1_1(x).chunk(2, 1)
        local = self.conv_block(local) + local  # a second identity: conv_block has its own
        distant = self.trans_block(distant.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x + self.conv1_2(torch.cat([local, distant], 1))


def mixture_pair(n: int, head_dim: int, window: int = 8) -> list[nn.Module]:
    """Two TCM blocks, the second shifted."""
    return [MixtureBlock(n, head_dim, window, shifted) for shifted in (False, True)]


class SwinPair(nn.Module):
    """A plain and a shifted Swin block, [B, C, H, W]."""

    def __init__(self, dim: int, head_dim: int, window: int) -> None:
        super().__init__()
        self.block_1 = SwinBlock(dim, dim // head_dim, window, 0, mask_value=NO_SIGHT)
        self.block_2 = SwinBlock(dim, dim // head_dim, window, window // 2, mask_value=NO_SIGHT)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.block_1(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class SlimAttention(nn.Module):
    """SWAtten (figure 6): gated attention between two 1x1 convolutions, in front of a slice's heads."""

    def __init__(self, channels: int, inner: int = 128) -> None:
        super().__init__()
        self.in_conv = conv1x1(channels, inner)
        self.attention = AttentionBlock(inner, SwinPair(inner, 16, 8))
        self.out_conv = conv1x1(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_conv(self.attention(self.in_conv(x)))


class TCM(SliceModel):
    """The model as published; five slices, all of which are seen."""

    name = "tcm"
    stride = 128
    overlap = 256
    exact = (*SliceModel.exact, "mean_attention", "scale_attention")
    g_a: nn.Sequential
    g_s: nn.Sequential

    def __init__(self, config: TCMConfig | None = None) -> None:
        config = config or TCMConfig()
        n, m = config.N, config.M
        super().__init__([m // config.slices] * config.slices, 192)
        self.config = config
        self.g_a = nn.Sequential(
            ResidualBlockWithStride(3, 2 * n),
            *mixture_pair(n, HEAD_DIMS[0]),
            ResidualBlockWithStride(2 * n, 2 * n),
            *mixture_pair(n, HEAD_DIMS[1]),
            ResidualBlockWithStride(2 * n, 2 * n),
            *mixture_pair(n, HEAD_DIMS[2]),
            conv3x3(2 * n, m, 2),
        )
        self.g_s = nn.Sequential(
            ResidualBlockUpsample(m, 2 * n),
            *mixture_pair(n, HEAD_DIMS[3]),
            ResidualBlockUpsample(2 * n, 2 * n),
            *mixture_pair(n, HEAD_DIMS[4]),
            ResidualBlockUpsample(2 * n, 2 * n),
            *mixture_pair(n, HEAD_DIMS[5]),
            subpel_conv3x3(2 * n, 3),
        )
        self.h_a = nn.Sequential(ResidualBlockWithStride(m, 2 * n), *mixture_pair(n, 32, 4), conv3x3(2 * n, 192, 2))
        self.h_mean_s = self._hyper_synthesis(n, m)
        self.h_scale_s = self._hyper_synthesis(n, m)
        self.mean_attention = nn.ModuleList(SlimAttention(m + self.support_channels(k)) for k in range(self.steps))
        self.scale_attention = nn.ModuleList(SlimAttention(m + self.support_channels(k)) for k in range(self.steps))
        self.add_heads(m, (224, 128))

    @staticmethod
    def _hyper_synthesis(n: int, m: int) -> nn.Sequential:
        return nn.Sequential(ResidualBlockUpsample(192, 2 * n), *mixture_pair(n, 32, 4), subpel_conv3x3(2 * n, m))

    def supports(self, step: int, means: Tensor, scales: Tensor, earlier: list[Tensor]) -> tuple[Tensor, Tensor]:
        mean_support, scale_support = super().supports(step, means, scales, earlier)
        return self.mean_attention[step](mean_support), self.scale_attention[step](scale_support)


@dataclass(frozen=True)
class TCMAuxTConfig(TCMConfig):
    """As TCM's; published with N = 64."""

    N: int = 64


class TCMAuxT(TCM):
    """TCM with AuxT's wavelet branch beside g_a and g_s."""

    name = "tcm-auxt"
    stride = 256

    def __init__(self, config: TCMAuxTConfig | None = None) -> None:
        config = config or TCMAuxTConfig()
        super().__init__(config)
        widths = [3, 2 * config.N, 2 * config.N, 2 * config.N, config.M]
        pairs = list(itertools.pairwise(widths))
        self.AuxT_enc = nn.ModuleList(WaveletDown(a, b) for a, b in pairs)
        self.AuxT_dec = nn.ModuleList(WaveletUp(b, a) for a, b in reversed(pairs))

    def analyse(self, x: Tensor, quality: Tensor) -> Tensor:
        return side_branch(x, self.g_a, self.AuxT_enc, JOINTS_ENC)

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        return side_branch(y_hat, self.g_s, self.AuxT_dec, JOINTS_DEC)

    def extra_loss(self, y: Tensor, z_hat: Tensor, y_bits: Tensor) -> Tensor:
        return ORTHOGONALITY_WEIGHT * orthogonality_loss(self)

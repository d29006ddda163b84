"""ShiftLIC: shifts and 1x1 convolutions in place of larger kernels (Bao et al., IEEE TCSVT 2025, arXiv 2503.23052).

Three sizes. Small and middle have a zero-mean hyperprior; middle adds the channel-spatial attention; large adds to
that means and TinyLIC's context.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.models.multistage import MultistageModel
from licodec.models.slices import SliceModel

LEVELS = 4  # resolutions at which the attention looks at a quarter of the channels each
SHUFFLE = 8  # groups of its channel shuffles
SLICES = 4  # of the large model


@dataclass(frozen=True)
class ShiftLICSmallConfig:
    """Channels at 1/2, 1/4 and 1/8, of the hyper networks and z (N), and of y (M)."""

    widths: tuple[int, ...] = (128, 192, 256)
    N: int = 192
    M: int = 320


ShiftLICMiddleConfig = ShiftLICSmallConfig
ShiftLICLargeConfig = ShiftLICSmallConfig


def shifted(x: Tensor) -> Tensor:
    """Each quarter of the channels moved by one position: down, up, right, left; zeros come in (section III-B)."""
    moves = (0, 0, 1, -1), (0, 0, -1, 1), (1, -1, 0, 0), (-1, 1, 0, 0)
    return torch.cat([F.pad(part, move) for part, move in zip(x.chunk(4, 1), moves, strict=True)], 1)


class ShiftBlock(nn.Module):
    """1x1, ReLU, shift, 1x1, and a skip (figure 4)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, in_channels, 1)
        self.conv2 = nn.Conv2d(in_channels, out_channels, 1)
        for conv in (self.conv1, self.conv2):
            nn.init.kaiming_normal_(conv.weight)
            conv.weight.data.mul_(0.1)  # a block begins near its skip
            nn.init.zeros_(conv.get_parameter("bias"))
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.conv2(shifted(F.relu(self.conv1(x))))


class RecursiveAttention(nn.Module):
    """Gates a map by itself seen at four resolutions, joined one after another (CRA, section III-C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        part = channels // LEVELS
        self.mfr = nn.ModuleList(nn.Conv2d(part, part, 3, padding=1, groups=part) for _ in range(LEVELS))
        self.fusion = nn.ModuleList(nn.Conv2d(n * part, n * part, 1) for n in range(2, LEVELS + 1))

    def forward(self, x: Tensor) -> Tensor:
        joined = x[:, :0]
        for level, part in enumerate(x.chunk(LEVELS, 1)):
            seen = self.mfr[level](F.max_pool2d(part, 2**level))
            joined = torch.cat([joined, F.interpolate(seen, size=x.shape[2:], mode="nearest")], 1)
            if level:
                joined = self.fusion[level - 1](F.channel_shuffle(joined, SHUFFLE))
        return x + F.gelu(joined) * x


class CheapAttention(nn.Module):
    """Recursive attention, then a shift block that widens and a 1x1 back (figure 5)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = RecursiveAttention(channels)
        self.spatial = nn.Sequential(
            ShiftBlock(channels, 2 * channels), nn.GELU(), nn.Conv2d(2 * channels, channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.channel(x)
        return x + self.spatial(x)


def down(in_channels: int, out_channels: int) -> list[nn.Module]:
    """Halve the size."""
    return [nn.PixelUnshuffle(2), nn.Conv2d(4 * in_channels, out_channels, 1)]


def up(in_channels: int, out_channels: int) -> list[nn.Module]:
    """Double the size."""
    return [nn.Conv2d(in_channels, 4 * out_channels, 1), nn.PixelShuffle(2)]


def stage(channels: int, attends: bool, reverse: bool = False) -> list[nn.Module]:
    """Three shift blocks, and the attention on the side of the smaller resolution."""
    blocks: list[nn.Module] = [ShiftBlock(channels, channels) for _ in range(3)]
    attention: list[nn.Module] = [CheapAttention(channels)] if attends else []
    return attention + blocks if reverse else blocks + attention


def transforms(model: SliceModel, config: ShiftLICSmallConfig, attends: bool, hyper_out: int) -> None:
    """Make g_a, g_s, h_a and h_s; h_s gives `hyper_out` channels."""
    widths, n = [3, *config.widths, config.M], config.N
    g_a, g_s = [], []
    for i in range(4):
        g_a += down(widths[i], widths[i + 1])
        g_a += stage(widths[i + 1], attends and i > 0) if i < 3 else []
    for i in reversed(range(4)):
        g_s += up(widths[i + 1], widths[i])
        g_s += stage(widths[i], attends and i > 1, reverse=True) if i > 0 else []
    model.g_a, model.g_s = nn.Sequential(*g_a), nn.Sequential(*g_s)
    activation = nn.LeakyReLU
    model.h_a = nn.Sequential(
        ShiftBlock(config.M, n), activation(), ShiftBlock(n, n), activation(), *down(n, n), activation(),
        ShiftBlock(n, n), activation(), *down(n, n),
    )  # fmt: skip
    model.h_s = nn.Sequential(
        ShiftBlock(n, n), activation(), *up(n, n), activation(), ShiftBlock(n, n), activation(), *up(n, n),
        activation(), ShiftBlock(n, hyper_out),
    )  # fmt: skip


class ShiftLICSmall(SliceModel):
    """A scale hyperprior: zero means, all of y at once."""

    name = "shiftlic-small"
    overlap = 64  # shifts reach 42 pixels
    overlap_is_all = True
    exact = ("z_prior", "h_s")
    attends = False
    h_s: nn.Module

    def __init__(self, config: ShiftLICSmallConfig | None = None) -> None:
        config = config or ShiftLICSmallConfig()
        super().__init__([config.M], config.N)
        self.config = config
        transforms(self, config, self.attends, config.M)

    def hyper_analyse(self, y: Tensor, quality: Tensor) -> Tensor:
        return self.h_a(y.abs())

    def hyper_synthesise(self, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        scales = self.h_s(z_hat)
        return torch.zeros_like(scales), scales


class ShiftLICMiddle(ShiftLICSmall):
    """With the attention in g_a and g_s."""

    name = "shiftlic-middle"
    overlap = 256  # with the attention's lowest resolution, 244
    attends = True


class ShiftLICLarge(MultistageModel):
    """With means, and TinyLIC's context: four equal slices, shift blocks in place of its channel context's kernels."""

    name = "shiftlic-large"
    overlap = 256
    overlap_is_all = True

    def __init__(self, config: ShiftLICLargeConfig | None = None) -> None:
        config = config or ShiftLICLargeConfig()
        size = config.M // SLICES
        super().__init__([size] * SLICES, config.N)
        self.config = config
        transforms(self, config, True, 2 * config.M)
        self.channel_context = nn.ModuleList(
            nn.Sequential(
                ShiftBlock(2 * config.M + k * size, size), ShiftBlock(size, size), nn.GELU(),
                ShiftBlock(size, size), ShiftBlock(size, size), nn.GELU(),
                ShiftBlock(size, 2 * size),
            )
            for k in range(SLICES)
        )  # fmt: skip
        self.add_context(config.M, all_but_one)


def all_but_one(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """What the third masked convolution sees: those not yet decoded are zero, and of the others one is left out."""
    return (row != 1) | (column != 1)

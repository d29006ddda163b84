"""HPCM: hierarchical progressive context modelling (Li et al., ICCV 2025).

y is coded at three scales, coarse to fine, in 2, 3 and 6 steps (section 3.2;
which positions when: hpcm_schedule.py). One map of 2M channels, the progressive
context (section 3.3), carries from step to step what has been learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.entropy.tables import Tables
from licodec.layers.conv import conv1x1, conv3x3, depthwise3x3
from licodec.layers.window import from_windows, to_windows
from licodec.models import hpcm_generalised as generalised
from licodec.models.base import TransformModel
from licodec.models.hpcm_schedule import (
    STEPS,
    TO_COARSE,
    TO_MIDDLE,
    fine_hyper,
    fold,
    middle_hyper,
    pick,
    spread,
    unfold,
)

HEADS = 32  # of the attention to the progressive context


@dataclass(frozen=True)
class HPCMConfig:
    """Sizes; HPCM-Large has deeper stages.

    `dims` and `depths` are of g_a's stages, which g_s mirrors; M channels in y, Z in z.
    The networks that read the context have as many blocks before and after their gain as
    `shared_depths` (coarse and middle scale) and `fine_depths` say. `windows` are the sides
    of the attention windows at the three scales; HPCM-Phi has none: there the networks'
    output is itself the progressive context.
    """

    M: int = 320
    Z: int = 256
    dims: tuple[int, ...] = (96, 192, 384)
    depths: tuple[int, ...] = (2, 2, 4)
    shared_depths: tuple[int, ...] = (2, 1)
    fine_depths: tuple[int, ...] = (3, 2)
    windows: tuple[int, ...] = (4, 8, 8)


class PartialBlock(nn.Module):
    """A 3x3 convolution of the first quarter of the channels, then an inverted bottleneck; with a skip."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.quarter = dim // 4
        self.conv = conv3x3(self.quarter, self.quarter)
        self.expand, self.reduce = conv1x1(dim, 4 * dim), conv1x1(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        first, rest = x[:, : self.quarter], x[:, self.quarter :]
        return x + self.reduce(F.leaky_relu(self.expand(torch.cat([self.conv(first), rest], 1))))


class DepthwiseBlock(nn.Module):
    """A depthwise 3x3 convolution, then an inverted bottleneck; with a skip."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = depthwise3x3(dim)
        self.expand, self.reduce = conv1x1(dim, 2 * dim), conv1x1(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.reduce(F.leaky_relu(self.expand(self.conv(x))))


def stage(dim: int, depth: int) -> list[nn.Module]:
    return [PartialBlock(dim) for _ in range(depth)]


class ParameterNetwork(nn.Module):
    """From the adapted context and y_hat so far, 3M channels, to scales and means, 2M; each step has its own gain."""

    def __init__(self, m: int, depths: Sequence[int]) -> None:
        super().__init__()
        before, after = depths
        self.before = nn.Sequential(*(DepthwiseBlock(3 * m) for _ in range(before)))
        self.after = nn.Sequential(*(DepthwiseBlock(3 * m) for _ in range(after)), conv1x1(3 * m, 2 * m))

    def forward(self, x: Tensor, gain: Tensor) -> Tensor:
        return self.after(self.before(x) * gain)


class ContextFusion(nn.Module):
    """The next progressive context: the step's output attends, in windows, to the context it was made from."""

    def __init__(self, dim: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.query, self.key, self.value, self.out = (conv1x1(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, progress: Tensor) -> Tensor:
        maps = self.query(x), self.key(progress), self.value(progress)
        windows = [to_windows(t.permute(0, 2, 3, 1), self.window) for t in maps]
        b, rows, columns, n, dim = windows[0].shape
        q, k, v = (t.reshape(-1, n, HEADS, dim // HEADS).transpose(1, 2) for t in windows)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, rows, columns, n, dim)
        return from_windows(attended, self.window).permute(0, 3, 1, 2) + self.out(x)


class ProgressiveContext:
    """The state of a walk. Maps of 2M channels hold scales, then means; `_halves` treats the two alike."""

    def __init__(self, model: HPCM, z_hat: Tensor) -> None:
        self.model, self.scale = model, 0
        self.hyper = model.h_s(z_hat)
        self.progress = self._halves(self.hyper, lambda x: pick(pick(x, TO_MIDDLE), TO_COARSE))
        self.known = torch.zeros_like(self.progress.chunk(2, 1)[0])  # y_hat so far, of this scale

    @staticmethod
    def _halves(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.cat([function(half) for half in x.chunk(2, 1)], 1)

    def params(self, step: int) -> tuple[Tensor, Tensor]:
        params = self.progress  # of the first step
        if step:
            if STEPS[step][0] > self.scale:
                self._refine()
            seen = self.model.adaptors[step - 1](torch.cat([self.progress, self.known], 1))
            network = self.model.fine_network if self.scale == 2 else self.model.shared_network
            params = network(seen, self.model.gains[step - 1])
            self.progress = self.model.fusions[self.scale](params, self.progress) if self.model.fusions else params
        scale, mean = (fold(half, step) for half in params.chunk(2, 1))
        return mean, scale

    def _refine(self) -> None:
        """Go on to the next finer scale."""
        offsets, added = ((TO_COARSE, middle_hyper), (TO_MIDDLE, fine_hyper))[self.scale]
        coarser = self._halves(self.progress, lambda x: spread(x, offsets))
        self.progress = self.model.refinements[self.scale](coarser + self._halves(self.hyper, added))
        self.known = spread(self.known, offsets)
        self.scale += 1

    def push(self, step: int, part: Tensor) -> None:
        self.known = self.known + unfold(part, step)

    def y_hat(self) -> Tensor:
        return self.known


class HPCM(TransformModel):
    """The model as published; y and z are coded with generalised Gaussians, z's scales are learned."""

    name = "hpcm"
    stride = 256
    overlap = 256
    overlap_is_all = True  # of g_s: 47 pixels, 79 in HPCM-Large
    steps = len(STEPS)
    exact = ("means_hyper", "scales_hyper", "h_s", "adaptors", "gains", "shared_network", "fine_network",
             "fusions", "refinements")  # fmt: skip

    def __init__(self, config: HPCMConfig | None = None) -> None:
        config = config or HPCMConfig()
        super().__init__()
        self.config = config
        m, z = self.latent_channels, self.hyper_channels = config.M, config.Z
        (a, b, c), (i, j, k) = config.dims, config.depths
        self.g_a = nn.Sequential(
            nn.Conv2d(3, a, 4, 2, 1), *stage(a, i), nn.Conv2d(a, b, 2, 2), *stage(b, j),
            nn.Conv2d(b, c, 2, 2), *stage(c, k), nn.Conv2d(c, m, 2, 2),
        )  # fmt: skip
        self.g_s = nn.Sequential(
            nn.ConvTranspose2d(m, c, 2, 2), *stage(c, k), nn.ConvTranspose2d(c, b, 2, 2), *stage(b, j),
            nn.ConvTranspose2d(b, a, 2, 2), *stage(a, i), nn.ConvTranspose2d(a, 3, 4, 2, 1),
        )  # fmt: skip
        self.h_a = nn.Sequential(*stage(m, 1), nn.Conv2d(m, z, 2, 2), *stage(z, 3), nn.Conv2d(z, z, 2, 2))
        self.h_s = nn.Sequential(
            nn.ConvTranspose2d(z, z, 2, 2), *stage(z, 3), nn.ConvTranspose2d(z, 2 * m, 2, 2), *stage(2 * m, 1)
        )
        self.means_hyper = nn.Parameter(torch.zeros(1, z, 1, 1))
        self.scales_hyper = nn.Parameter(torch.ones(1, z, 1, 1))
        self.adaptors = nn.ModuleList(conv1x1(3 * m, 3 * m) for _ in range(1, self.steps))
        self.gains = nn.ParameterList(torch.ones(1, 3 * m, 1, 1) for _ in range(1, self.steps))
        self.shared_network = ParameterNetwork(m, config.shared_depths)
        self.fine_network = ParameterNetwork(m, config.fine_depths)
        self.fusions = nn.ModuleList(ContextFusion(2 * m, window) for window in config.windows)
        self.refinements = nn.ModuleList(conv1x1(2 * m, 2 * m) for _ in range(2))

    def split(self, y: Tensor) -> list[Tensor]:
        middle = pick(y, TO_MIDDLE)
        scales = pick(middle, TO_COARSE), middle, y
        return [fold(scales[scale], step) for step, (scale, _) in enumerate(STEPS)]

    def context(self, z_hat: Tensor, quality: Tensor) -> ProgressiveContext:
        return ProgressiveContext(self, z_hat)

    def z_offset(self, quality: Tensor) -> Tensor:
        return self.means_hyper

    def z_rows(self, quality: Tensor, thresholds: Tensor) -> Tensor:
        return torch.arange(self.hyper_channels)

    def z_bits(self, z: Tensor, quality: Tensor) -> Tensor:
        return generalised.bits(z, self.means_hyper, self.scales_hyper)

    def y_bits(self, y: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        return generalised.bits(y, mean, scale)

    def thresholds(self) -> np.ndarray:
        return generalised.scales()[:-1]

    def z_tables(self) -> dict[str, Tables]:
        z_scales = self.scales_hyper.detach().flatten().double().cpu().numpy()
        return {"y": generalised.tables(generalised.scales()), "z": generalised.tables(z_scales)}

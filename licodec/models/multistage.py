"""The multistage context of TinyLIC, which ShiftLIC's large model took over (Lu & Ma, arXiv 2204.11448, section III-C).

Four channel slices. In the first three, positions are coded in phases of a 2x2 grid: one phase at a time in the
first slice, a checkerboard in the second, the opposite checkerboard in the third. A position's scale and mean come
from the hyper synthesis, from the slices before, and from the decoded positions around it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.layers.conv import chain, conv1x1
from licodec.models.slices import SliceModel

Phases = tuple[tuple[int, int], ...]  # (row, column) within each 2x2 square of positions

Seen = Callable[[np.ndarray, np.ndarray], np.ndarray]  # rows and columns of a kernel -> where it is not masked


class Step(NamedTuple):
    """A coding step: some phases of a slice; `around` is the masked convolution for what is known of the slice."""

    slice: int
    phases: Phases
    around: int | None


ALL: Phases = ((0, 0), (0, 1), (1, 0), (1, 1))
STEPS = (
    Step(0, ((0, 0),), None),
    Step(0, ((1, 1),), 0),
    Step(0, ((0, 1),), 1),
    Step(0, ((1, 0),), 2),
    Step(1, ((0, 1), (1, 0)), None),
    Step(1, ((0, 0), (1, 1)), 3),
    Step(2, ((0, 0), (1, 1)), None),
    Step(2, ((0, 1), (1, 0)), 4),
    Step(3, ALL, None),
)


def phases_of(x: Tensor) -> dict[tuple[int, int], Tensor]:
    """[B, C, H, W] -> a map [B, C, H/2, W/2] of each phase."""
    return {(row, column): x[:, :, row::2, column::2] for row, column in ALL}


def interleaved(parts: dict[tuple[int, int], Tensor]) -> Tensor:
    """The inverse of `phases_of`; phases that are not there are zero."""
    nothing = torch.zeros_like(next(iter(parts.values())))
    return F.pixel_shuffle(torch.stack([parts.get(phase, nothing) for phase in ALL], 2).flatten(1, 2), 2)


def picked(x: Tensor, phases: Phases) -> Tensor:
    """Some phases of a map, one below the other: [B, C, n * H/2, W/2]; all of them are the map itself."""
    if phases == ALL:
        return x
    of = phases_of(x)
    return torch.cat([of[phase] for phase in phases], 2)


class PhaseMaskedConv(nn.Conv2d):
    """A convolution that sees some of the positions around it, in training too."""

    mask: Tensor

    def __init__(self, channels: int, side: int, sees: Seen) -> None:
        super().__init__(channels, 2 * channels, side, padding=side // 2)
        self.register_buffer("mask", torch.from_numpy(sees(*np.indices((side, side)))), persistent=False)

    def at_phases(self, x: Tensor, phases: Phases) -> Tensor:
        """The result at some phases, as `picked` lays them."""
        reach = self.kernel_size[0] // 2
        x, weight = F.pad(x, (reach, reach, reach, reach)), self.weight * self.mask
        return torch.cat([F.conv2d(x[:, :, row:, column:], weight, self.bias, 2) for row, column in phases], 2)


class MultistageContext:
    """The walk's state: the hyper synthesis, the slices so far, the phases so far of the slice that is coded."""

    def __init__(self, model: MultistageModel, z_hat: Tensor) -> None:
        self.model = model
        self.hyper = model.h_s(z_hat)
        self.slices: list[Tensor] = []
        self.phases: dict[tuple[int, int], Tensor] = {}
        self.channels = self.hyper  # the channel context of the slice, once there is one

    def params(self, step: int) -> tuple[Tensor, Tensor]:
        model, (k, phases, around) = self.model, STEPS[step]
        if not self.phases:
            self.channels = model.channel_context[k](torch.cat([self.hyper, *self.slices], 1))
        hyper, channels = picked(self.hyper, phases), picked(self.channels, phases)
        supports = [hyper, channels]
        if phases != ALL:  # then with a spatial context, of zeros where nothing of the slice is known
            spatial = torch.zeros_like(channels)
            if around is not None:
                masked = model.spatial_context[around]
                assert isinstance(masked, PhaseMaskedConv)
                spatial = masked.at_phases(interleaved(self.phases), phases)
            supports = [hyper, spatial, channels]
        scale, mean = model.entropy_parameters[k](torch.cat(supports, 1)).chunk(2, 1)
        return mean, scale

    def push(self, step: int, part: Tensor) -> None:
        phases = STEPS[step].phases
        if phases == ALL:
            self.slices.append(part)
            return
        self.phases |= zip(phases, part.chunk(len(phases), 2), strict=True)
        if len(self.phases) == len(ALL):
            self.slices.append(interleaved(self.phases))
            self.phases = {}

    def y_hat(self) -> Tensor:
        return torch.cat(self.slices, 1)


class MultistageModel(SliceModel):
    """Base of the models with this context.

    Modules that a model sets: `h_s`, which gives 2M channels; `channel_context` and `entropy_parameters`, one of each
    per slice, which give scales and means; `spatial_context`, five masked convolutions; g_a, g_s, h_a.
    """

    exact: tuple[str, ...] = ("z_prior", "h_s", "channel_context", "spatial_context", "entropy_parameters")
    h_s: nn.Module
    channel_context: nn.ModuleList
    spatial_context: nn.ModuleList
    entropy_parameters: nn.ModuleList

    def __init__(self, slice_sizes: list[int], hyper_channels: int) -> None:
        super().__init__(slice_sizes, hyper_channels)
        self.steps = len(STEPS)

    def split(self, y: Tensor) -> list[Tensor]:
        slices = y.split(self.slice_sizes, 1)
        return [picked(slices[step.slice], step.phases) for step in STEPS]

    def context(self, z_hat: Tensor, quality: Tensor) -> MultistageContext:
        return MultistageContext(self, z_hat)

    def add_context(self, m: int, third: Seen) -> None:
        """Make the masked convolutions, of which papers differ in the third, and the nets that join the supports."""
        first, second, last, _ = self.slice_sizes
        self.spatial_context = nn.ModuleList(
            [
                PhaseMaskedConv(first, 3, corners),
                PhaseMaskedConv(first, 5, checkerboard),
                PhaseMaskedConv(first, 5, third),
                PhaseMaskedConv(second, 5, checkerboard),
                PhaseMaskedConv(last, 5, checkerboard),
            ]
        )
        self.entropy_parameters = nn.ModuleList(
            parameter_net([2 * m + 4 * size, size * 10 // 3, size * 8 // 3, 2 * size]) for size in (first, second, last)
        )
        size = self.slice_sizes[3]  # which has no spatial context
        self.entropy_parameters.append(parameter_net([2 * m + 2 * size, 2 * size, 2 * size, 2 * size]))


def corners(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """The four positions of 3x3 that are diagonal neighbours."""
    return (row % 2 == 0) & (column % 2 == 0)


def checkerboard(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """Those of 5x5 at odd distance."""
    return (row + column) % 2 == 1


def parameter_net(widths: list[int]) -> nn.Sequential:
    """1x1 convolutions with GELU between them."""
    return chain(conv1x1(*pair) for pair in itertools.pairwise(widths))

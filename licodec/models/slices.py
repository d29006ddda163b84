"""Channel slices: what nine of the published models share (Minnen & Singh, ICIP 2020).

The channels of y are cut into slices. Slice k's mean and scale come from the
outputs of the hyper synthesis and from the slices before it. A latent residual
prediction (LRP), 0.5 tanh of a network, then corrects the decoded slice. One
slice without heads is the plain hyperprior.

A model sets the modules named in `SliceModel` and, where its supports are not
plain concatenations, overrides `supports`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from licodec.entropy.tables import Tables
from licodec.layers.activation import GELU
from licodec.layers.conv import head
from licodec.layers.factorized import FactorizedPrior
from licodec.layers.parallel import together
from licodec.layers.winograd import Joined, Shared, side_by_side
from licodec.models.base import CompressionModel

Supports = tuple[list[Shared], list[Shared]]


def through(networks: tuple[nn.Module, nn.Module], supports: Supports) -> Supports:
    """What a network for the mean and one for the scale make of the supports, each in its own precision."""

    def run(network: nn.Module, support: list[Shared]) -> list[Shared]:
        return [Shared(network(side_by_side(support).to(next(network.parameters()).dtype)))]

    mean, scale = together(*map(functools.partial, (run, run), networks, supports))
    return mean, scale


class SliceContext:
    """The walk's state: the hyper outputs and the slices so far.

    What the heads read is `Shared`: the same hyper outputs and slices enter many of them.
    """

    def __init__(self, model: SliceModel, z_hat: Tensor) -> None:
        self.model = model
        self.means, self.scales = (Shared(hyper) for hyper in model.hyper_synthesise(z_hat))
        self.pushed: list[Shared] = []  # each slice, uncorrected
        self.slices: list[Shared] = []  # the corrected ones
        self.earlier: list[Shared] = []  # those that the step sees, joined
        self.known: list[tuple[Tensor, Tensor]] = []  # means and scales of the first steps
        self.mean_supports: list[list[Shared]] = []

    def params(self, step: int) -> tuple[Tensor, Tensor]:
        if step == len(self.known):
            self._find_params(step)
        return self.known[step]

    def _find_params(self, step: int) -> None:
        """Means and scales of a step; of all that are left, once they see no further slices."""
        model = self.model
        if step and (model.max_support is None or step <= model.max_support):
            self.earlier = [Joined(self._corrected(step))]
        steps = range(step, model.steps if step == model.max_support else step + 1)
        supports = [model.supports(k, self.means, self.scales, self.earlier) for k in steps]
        self.mean_supports += [mean for mean, _ in supports]
        if not model.mean_heads:
            self.known += [tuple(map(side_by_side, pair)) for pair in supports]
            return
        calls = [functools.partial(model.scale_heads[k], scale) for k, (_, scale) in zip(steps, supports, strict=True)]
        calls += [functools.partial(model.mean_heads[k], mean) for k, (mean, _) in zip(steps, supports, strict=True)]
        results = together(*calls)
        self.known += zip(results[len(steps) :], results[: len(steps)], strict=True)

    def push(self, step: int, part: Tensor) -> None:
        self.pushed.append(Shared(part))

    def y_hat(self) -> Tensor:
        return side_by_side(self._corrected(len(self.pushed)))

    def _corrected(self, count: int) -> list[Shared]:
        """The first slices after latent residual prediction, which waits until somebody asks: encoders need few."""
        self.slices += together(*(functools.partial(self._correct, step) for step in range(len(self.slices), count)))
        return self.slices[:count]

    def _correct(self, step: int) -> Shared:
        part, heads = self.pushed[step], self.model.lrp_heads
        if not heads:
            return part
        return Shared(part.map + 0.5 * torch.tanh(heads[step]([*self.mean_supports[step], part])))


class SliceModel(CompressionModel):
    """Base of the models with a learned z prior and channel slices.

    Attributes that models set beside those of `CompressionModel`:
        slice_sizes: channels of each slice.
        max_support: how many slices, the first ones, later slices see; None for all.
        mean_heads, scale_heads, lrp_heads: a network a slice, or empty.
        mean_side: names of the lists whose networks give a slice's y_hat, but not its scale.
        g_a, g_s, h_a: the transforms.
        h_mean_s, h_scale_s: the hyper syntheses (or override `hyper_synthesise`).
    """

    slice_sizes: list[int]
    max_support: int | None = None
    stride = 64
    mean_side: tuple[str, ...] = ("mean_heads", "lrp_heads")
    exact = ("z_prior", "h_mean_s", "h_scale_s", "mean_heads", "scale_heads", "lrp_heads")

    def __init__(self, slice_sizes: list[int], hyper_channels: int) -> None:
        super().__init__()
        self.slice_sizes, self.steps = slice_sizes, len(slice_sizes)
        self.latent_channels, self.hyper_channels = sum(slice_sizes), hyper_channels
        self.z_prior = FactorizedPrior(hyper_channels)
        self.mean_heads: nn.ModuleList = nn.ModuleList()
        self.scale_heads: nn.ModuleList = nn.ModuleList()
        self.lrp_heads: nn.ModuleList = nn.ModuleList()

    def analyse(self, x: Tensor, quality: Tensor) -> Tensor:
        return self.g_a(x)

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        return self.g_s(y_hat)

    def hyper_analyse(self, y: Tensor, quality: Tensor) -> Tensor:
        return self.h_a(y)

    def hyper_synthesise(self, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        """What the hyper synthesis gives for the means and for the scales, each [B, M, H/16, W/16]."""
        means, scales = together(lambda: self.h_mean_s(z_hat), lambda: self.h_scale_s(z_hat))
        return means, scales

    def supports(self, step: int, means: Shared, scales: Shared, earlier: list[Shared]) -> Supports:
        """Inputs of the mean and the scale head of a slice: maps side by side."""
        return [means, *earlier], [scales, *earlier]

    def split(self, y: Tensor) -> list[Tensor]:
        return list(y.split(self.slice_sizes, 1))

    def context(self, z_hat: Tensor, quality: Tensor) -> SliceContext:
        return SliceContext(self, z_hat)

    def z_offset(self, quality: Tensor) -> Tensor:
        return self.z_prior.medians()

    def z_rows(self, quality: Tensor, thresholds: Tensor) -> Tensor:
        return torch.arange(self.hyper_channels)

    def z_bits(self, z: Tensor, quality: Tensor) -> Tensor:
        return self.z_prior.bits(z)

    def z_tables(self) -> dict[str, Tables]:
        return {"z": self.z_prior.tables()}

    def aux_loss(self) -> Tensor:
        return self.z_prior.aux_loss()

    def inexact(self) -> Iterator[nn.Module]:
        """What gives the slices that no later slice sees: pixels depend on it, but no scale."""
        seen = min(self.steps - 1, self.steps if self.max_support is None else self.max_support)
        for networks in (getattr(self, name) for name in self.mean_side):
            yield from networks[seen:]

    def add_heads(self, m: int, widths: Sequence[int], activation: type[nn.Module] = GELU) -> None:
        """Make the networks of all slices: 3x3 convolutions of these widths, for mean, scale and LRP.

        `m` is the channels that a slice sees beside earlier slices. The LRP also sees its own slice.
        """
        for step, size in enumerate(self.slice_sizes):
            seen = m + self.support_channels(step)
            self.mean_heads.append(head([seen, *widths, size], activation))
            self.scale_heads.append(head([seen, *widths, size], activation))
            self.lrp_heads.append(head([seen + size, *widths, size], activation))

    def support_channels(self, step: int) -> int:
        """Channels of the slices that the heads of a slice see."""
        return sum(self.slice_sizes[:step][: self.max_support])

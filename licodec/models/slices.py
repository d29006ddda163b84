"""Channel slices: what nine of the published models share (Minnen & Singh, ICIP 2020).

The channels of y are cut into slices. Slice k's mean and scale come from the
outputs of the hyper synthesis and from the slices before it. A latent residual
prediction (LRP), 0.5 tanh of a network, then corrects the decoded slice. One
slice without heads is the plain hyperprior.

A model sets the modules named in `SliceModel` and, where its supports are not
plain concatenations, overrides `supports`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from licodec.entropy.tables import Tables
from licodec.layers.conv import head
from licodec.layers.factorized import FactorizedPrior
from licodec.models.base import Context, TransformModel


class SliceContext:
    """The state of a walk over the slices: the hyper outputs, and the slices decoded so far."""

    def __init__(self, model: SliceModel, z_hat: Tensor) -> None:
        self.model = model
        self.means, self.scales = model.hyper_synthesise(z_hat)
        self.mean_supports: list[Tensor] = []
        self.parts: list[Tensor] = []  # symbols + mean of each slice
        self.slices: list[Tensor] = []  # the same after latent residual prediction

    def params(self, step: int) -> tuple[Tensor, Tensor]:
        model = self.model
        earlier = self._corrected(step if model.max_support is None else min(step, model.max_support))
        mean_support, scale_support = model.supports(step, self.means, self.scales, earlier)
        self.mean_supports.append(mean_support)
        if not model.mean_heads:
            return mean_support, scale_support
        return model.mean_heads[step](mean_support), model.scale_heads[step](scale_support)

    def push(self, step: int, part: Tensor) -> None:
        self.parts.append(part)

    def y_hat(self) -> Tensor:
        return torch.cat(self._corrected(len(self.parts)), 1)

    def _corrected(self, count: int) -> list[Tensor]:
        """The first slices after latent residual prediction; an encoder never asks for the last ones."""
        for step in range(len(self.slices), count):
            part = self.parts[step]
            if self.model.lrp_heads:
                support = torch.cat([self.mean_supports[step], part], 1)
                part = part + 0.5 * torch.tanh(self.model.lrp_heads[step](support))
            self.slices.append(part)
        return self.slices[:count]


class LearnedPriorModel(TransformModel):
    """Base of the models whose z has a learned density, `z_prior`, with one table row per channel."""

    z_prior: FactorizedPrior

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


class SliceModel(LearnedPriorModel):
    """Base of the models with a learned z prior and channel slices.

    Attributes that models set beside those of `TransformModel`:
        slice_sizes: channels of each slice.
        max_support: how many slices, the first ones, later slices see; None for all.
        mean_heads, scale_heads, lrp_heads: lists with one network per slice, or empty.
        h_mean_s, h_scale_s: the hyper syntheses (or override `hyper_synthesise`).
    """

    h_mean_s: nn.Module
    h_scale_s: nn.Module
    slice_sizes: list[int]
    max_support: int | None = None
    stride = 64
    exact: tuple[str, ...] = ("z_prior", "h_mean_s", "h_scale_s", "mean_heads", "scale_heads", "lrp_heads")

    def __init__(self, slice_sizes: list[int], hyper_channels: int) -> None:
        super().__init__()
        self.slice_sizes, self.steps = slice_sizes, len(slice_sizes)
        self.latent_channels, self.hyper_channels = sum(slice_sizes), hyper_channels
        self.z_prior = FactorizedPrior(hyper_channels)
        self.mean_heads: nn.ModuleList = nn.ModuleList()
        self.scale_heads: nn.ModuleList = nn.ModuleList()
        self.lrp_heads: nn.ModuleList = nn.ModuleList()

    def hyper_synthesise(self, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        """What the hyper synthesis gives for the means and for the scales, each [B, M, H/16, W/16]."""
        return self.h_mean_s(z_hat), self.h_scale_s(z_hat)

    def supports(self, step: int, means: Tensor, scales: Tensor, earlier: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Inputs of the mean and the scale head of a slice; `earlier` are the decoded slices it sees."""
        return torch.cat([means, *earlier], 1), torch.cat([scales, *earlier], 1)

    def split(self, y: Tensor) -> list[Tensor]:
        return list(y.split(self.slice_sizes, 1))

    def context(self, z_hat: Tensor, quality: Tensor) -> Context:
        return SliceContext(self, z_hat)

    def add_heads(self, m: int, widths: Sequence[int], activation: type[nn.Module] = nn.GELU) -> None:
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

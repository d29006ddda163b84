"""The learned density of z: the factorised prior of Balle et al. (ICLR 2018), appendix 6.1."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.entropy.tables import LONGEST_ROW, Tables
from licodec.layers.bound import lower_bound

FILTERS = (1, 3, 3, 3, 3, 1)
INIT_SCALE = 10.0
TAIL_MASS = 1e-9


class FactorizedPrior(nn.Module):
    """One density per channel, the derivative of a small monotone network's sigmoid.

    `quantiles` [C, 1, 3] hold the points below which a tail, a half and all but
    a tail of the mass lie; the middle one is the offset of z.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        scale = INIT_SCALE ** (1 / (len(FILTERS) - 1))
        pairs = list(itertools.pairwise(FILTERS))
        self.matrices = nn.ParameterList(
            torch.full((channels, after, before), float(np.log(np.expm1(1 / scale / after)))) for before, after in pairs
        )
        self.biases = nn.ParameterList(torch.rand(channels, after, 1) - 0.5 for _, after in pairs)
        self.factors = nn.ParameterList(torch.zeros(channels, after, 1) for _, after in pairs[:-1])
        self.quantiles = nn.Parameter(torch.tensor([-INIT_SCALE, 0.0, INIT_SCALE]).expand(channels, 1, 3).clone())

    def logits(self, values: Tensor, frozen: bool = False) -> Tensor:
        """Logits of the cumulative function at values [C, 1, n]; `frozen` stops the density's gradient."""
        lists = (self.matrices, self.biases, self.factors)
        matrices, biases, factors = ([p.detach() if frozen else p for p in parameters] for parameters in lists)
        for matrix, bias, factor in itertools.zip_longest(matrices, biases, factors):
            values = F.softplus(matrix) @ values + bias
            if factor is not None:
                values = values + factor.tanh() * values.tanh()
        return values

    def medians(self) -> Tensor:
        """[1, C, 1, 1]."""
        return self.quantiles[:, 0, 1].detach().reshape(1, -1, 1, 1)

    def bits(self, z: Tensor, step: Tensor | float = 1.0) -> Tensor:
        """-log2 of the mass around each value of z [B, C, H, W], within half a step, [B, 1, 1, 1], of it."""
        values = z.transpose(0, 1).reshape(self.channels, 1, -1).float()
        half = 0.5 * step
        if isinstance(half, Tensor):
            half = half.expand_as(z).transpose(0, 1).reshape(values.shape).float()
        mass = _mass(self.logits(values - half), self.logits(values + half))
        bits = -torch.log2(lower_bound(mass, 1e-9))
        return bits.view(self.channels, z.shape[0], *z.shape[2:]).transpose(0, 1)

    def aux_loss(self) -> Tensor:
        """Distance of the quantiles from where their mass says they should be."""
        edge = float(np.log(2 / TAIL_MASS - 1))
        target = self.quantiles.new_tensor([-edge, 0.0, edge])
        return (self.logits(self.quantiles, frozen=True) - target).abs().sum()

    @torch.no_grad()
    def tables(self, step: float = 1.0) -> Tables:
        """Integer tables of (z - median) / step, in float64. Raises ValueError if the quantiles make none.

        The range of a channel's row is what its quantiles span, as in CompressAI.
        """
        prior = FactorizedPrior(self.channels)
        prior.load_state_dict(self.state_dict())
        prior.double()
        low, median, high = prior.quantiles[:, 0].T
        below, above = (((median - low) / step).ceil().clamp(min=0), ((high - median) / step).ceil().clamp(min=0))
        if not bool(((below + above) < LONGEST_ROW - 2).all()):  # also false for NaN
            raise ValueError("the quantiles of the z prior span no usable range")
        lengths = (below + above + 1).long()
        places = torch.arange(int(lengths.max()), dtype=torch.float64) - below[:, None]
        values = (places * step + median[:, None])[:, None]
        lower, upper = (prior.logits(values + side * step)[:, 0] for side in (-0.5, 0.5))
        mass, masses = _mass(lower, upper), []
        for channel, length in enumerate(lengths.tolist()):
            tail = torch.sigmoid(lower[channel, :1]) + torch.sigmoid(-upper[channel, length - 1 : length])
            row = torch.cat([mass[channel, :length], tail])
            if not bool(row.isfinite().all()) or float(row.sum()) <= 0:
                raise ValueError("the density of z is not finite")
            masses.append(row.numpy())
        return Tables.from_masses(-below.numpy().astype(np.int64), masses)


def _mass(lower: Tensor, upper: Tensor) -> Tensor:
    """sigmoid(upper) - sigmoid(lower), on the side of zero where it does not cancel."""
    sign = -torch.sign(lower + upper).detach()
    return (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()

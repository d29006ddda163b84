"""Variable rate by a gain, and offsets that reconstruct better (Kamisli, Racape, Choi, DCC 2024, arXiv 2402.18930).

The three hyperprior models again, each with one set of weights for all rates. y is multiplied by a gain before it is
rounded and divided by it afterwards; a small network moves what was rounded towards zero, by an amount that depends
on its scale and the gain (section 3). The eight gains of the training are the qualities 1 to 8; between them the gain
is interpolated on a logarithmic scale. As in CompressAI, whose zoo has weights of all three.

Here `analyse` gives y times the gain, and means and scales are multiplied by it, so that symbols are, as in all
models, round(y - mean).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from licodec.entropy.tables import Tables
from licodec.layers.bound import lower_bound
from licodec.models.autoregressive import DiagonalContext, JointAutoregressive, JointAutoregressiveConfig
from licodec.models.base import SCALE_MIN, Context, Estimate, estimate
from licodec.models.hyperprior import MeanScaleHyperprior, ScaleHyperprior
from licodec.models.slices import SliceModel

GAINS = (0.1, 0.13944, 0.19293, 0.26874, 0.37268, 0.51801, 0.71957, 1.0)
LAMBDAS = (0.0018, 0.0035, 0.0067, 0.013, 0.025, 0.0483, 0.0932, 0.18)
WIDTH = 12  # of the network that gives the offsets
Z_WIDTH = 10  # of the one that gives the step of z
Z_STEP_MIN = 0.5


@dataclass(frozen=True)
class VariableScaleHyperpriorConfig(JointAutoregressiveConfig):
    """Channels of the transforms and of z (N), and of y (M); how many rates are trained."""

    N: int = 192
    M: int = 320
    levels: int = len(GAINS)


VariableMeanScaleConfig = VariableScaleHyperpriorConfig
VariableJointConfig = VariableScaleHyperpriorConfig


def rising(count: int) -> Tensor:
    """Gains from 0.1 to 1 in equal ratios."""
    return torch.logspace(-1, 0, count) if count != len(GAINS) else torch.tensor(GAINS)


class VariableRate(SliceModel):
    """What the three have in common: the gain, and the offsets."""

    variable_rate = True

    def add_gains(self, levels: int) -> None:
        """Make the gains and the network of the offsets."""
        self.gains = nn.Parameter(rising(levels))
        self.offset_net = nn.Sequential(
            nn.Linear(2, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1)
        )

    def level(self, quality: Tensor) -> Tensor:
        """Quality 1 is the first gain: 0 to levels - 1, fractions between."""
        return (quality.double() - 1).clamp(0, len(self.gains) - 1)

    def gain(self, quality: Tensor) -> Tensor:
        """[B, 1, 1, 1], float64; exactly one of the gains at a whole quality."""
        level, gains = self.level(quality), self.gains.abs().double()
        low = gains[level.floor().long()]
        return (low * (gains[level.ceil().long()] / low) ** (level - level.floor())).view(-1, 1, 1, 1)

    def reconstruct(self, part: Tensor, mean: Tensor, scale: Tensor, gain: Tensor) -> Tensor:
        """y_hat without the gain, from symbols + mean, all of the scaled y."""
        symbols = part - mean
        bounded = torch.stack([lower_bound(scale, SCALE_MIN), gain.to(scale).expand_as(scale)], -1)
        offset = self.offset_net(bounded)[..., 0]
        size = symbols.abs()
        offset = torch.where(size < 0.5, 0, offset)  # what was rounded to zero stays there
        return (symbols.sign() * (size - offset) + mean) / gain.to(mean)

    def analyse(self, x: Tensor, quality: Tensor) -> Tensor:
        y = super().analyse(x, quality)
        return y * self.gain(quality).to(y)

    def rate_lambda(self, quality: Tensor) -> Tensor:
        """Interpolated as the gain is."""
        lambdas = torch.tensor(LAMBDAS, device=quality.device).log()
        places = self.level(quality) * (len(LAMBDAS) - 1) / max(1, len(self.gains) - 1)
        low = places.floor().long()
        return torch.lerp(lambdas[low], lambdas[places.ceil().long()], (places - low).float()).exp()


class GainContext:
    """The walk's state of the two that code all of y in one step."""

    def __init__(self, model: VariableScaleHyperprior, z_hat: Tensor, gain: Tensor) -> None:
        mean, scale = model.hyper_synthesise(z_hat)
        self.model, self.gain = model, gain.to(mean)
        self.mean, self.scale = mean * self.gain, scale * self.gain
        self.part = mean

    def params(self, step: int) -> tuple[Tensor, Tensor]:
        return self.mean, self.scale

    def push(self, step: int, part: Tensor) -> None:
        self.part = part

    def y_hat(self) -> Tensor:
        return self.model.reconstruct(self.part, self.mean, self.scale, self.gain)


class VariableScaleHyperprior(VariableRate, ScaleHyperprior):
    """bmshj2018-hyperprior-vbr. The step of z varies too; between two trained rates it is that of the nearer one."""

    name = "bmshj2018-hyperprior-vbr"
    exact = ("z_prior", "h_s", "gains", "offset_net", "z_step_net")

    def __init__(self, config: VariableScaleHyperpriorConfig | None = None) -> None:
        config = config or VariableScaleHyperpriorConfig()
        super().__init__(config)
        self.add_gains(config.levels)
        self.z_step_net = nn.Sequential(
            nn.Linear(1, Z_WIDTH), nn.ReLU(), nn.Linear(Z_WIDTH, Z_WIDTH), nn.ReLU(), nn.Linear(Z_WIDTH, 1),
            nn.Softplus(),
        )  # fmt: skip

    def z_step(self, quality: Tensor) -> Tensor:
        """By what z is divided before rounding, [B, 1, 1, 1]."""
        gain = self.gains.abs()[self.level(quality).round().long()]
        return lower_bound(self.z_step_net(1 / gain[:, None]), Z_STEP_MIN).view(-1, 1, 1, 1)

    def hyper_analyse(self, y: Tensor, quality: Tensor) -> Tensor:
        z = super().hyper_analyse(y / self.gain(quality).to(y), quality)
        return z / self.z_step(quality).to(z)

    def context(self, z_hat: Tensor, quality: Tensor) -> Context:
        return GainContext(self, z_hat * self.z_step(quality).to(z_hat), self.gain(quality))

    def z_offset(self, quality: Tensor) -> Tensor:
        step = self.z_step(quality)
        return self.z_prior.medians().to(step) / step

    def z_rows(self, quality: Tensor, thresholds: Tensor) -> Tensor:
        """The tables of each trained rate, one after another."""
        level = self.level(quality).round().long()[:1]
        return level * self.hyper_channels + torch.arange(self.hyper_channels, device=quality.device)

    def z_bits(self, z: Tensor, quality: Tensor) -> Tensor:
        step = self.z_step(quality)
        return self.z_prior.bits(z * step, step)

    @torch.no_grad()
    def z_tables(self) -> dict[str, Tables]:
        quality = 1.0 + torch.arange(len(self.gains))
        tables = [self.z_prior.tables(float(step)) for step in self.z_step(quality).flatten()]
        parts = [np.concatenate([getattr(t, key) for t in tables]) for key in ("minima", "lengths", "frequencies")]
        return {"z": Tables(*parts)}


class VariableMeanScale(VariableScaleHyperprior, MeanScaleHyperprior):
    """mbt2018-mean-vbr."""

    name = "mbt2018-mean-vbr"


class VariableDiagonalContext(DiagonalContext):
    """The walk's state of the autoregressive one, whose context sees what is reconstructed, without the gain."""

    model: VariableJoint

    def __init__(self, model: VariableJoint, z_hat: Tensor, gain: Tensor) -> None:
        super().__init__(model, z_hat)
        self.gain = gain.to(z_hat)
        self.mean = self.scale = z_hat

    def around(self) -> Tensor:
        return super().around() + self.model.rate_context(self.gain)

    def params(self, step: int) -> tuple[Tensor, Tensor]:
        mean, scale = super().params(step)
        self.mean, self.scale = mean * self.gain, scale * self.gain
        return self.mean, self.scale

    def push(self, step: int, part: Tensor) -> None:
        super().push(step, self.model.reconstruct(part, self.mean, self.scale, self.gain))


class VariableJoint(VariableRate, JointAutoregressive):
    """mbt2018-vbr. z has one step for all rates; the context model is told the rate."""

    name = "mbt2018-vbr"
    exact = (*JointAutoregressive.exact, "gains", "offset_net", "scale_to_context")

    def __init__(self, config: VariableJointConfig | None = None) -> None:
        config = config or VariableJointConfig()
        super().__init__(config)
        self.add_gains(config.levels)
        self.scale_to_context = nn.Linear(1, 2 * config.M)

    def rate_context(self, gain: Tensor) -> Tensor:
        """What is added to the masked convolution's result: gain [B, 1, 1, 1] -> [B, 2M, 1, 1]."""
        return self.scale_to_context(gain[:, :, 0, 0])[:, :, None, None]

    def hyper_analyse(self, y: Tensor, quality: Tensor) -> Tensor:
        return super().hyper_analyse(y / self.gain(quality).to(y), quality)

    def context(self, z_hat: Tensor, quality: Tensor) -> Context:
        return VariableDiagonalContext(self, z_hat, self.gain(quality))

    def forward(self, x: Tensor, quality: Tensor) -> Estimate:
        """By the walk: each position's context needs the offsets of those before."""
        return estimate(self, x, quality)

"""Joint autoregressive and hierarchical priors (Minnen, Balle, Toderici, NeurIPS 2018, arXiv 1809.02736), and the two
models of Cheng et al. (CVPR 2020, arXiv 2001.01568) that stand on them: residual blocks in place of GDN layers, and
attention. As in CompressAI, whose zoo has weights of all three; the Gaussian mixtures of Cheng et al. are not in it.

A position of y is coded with what a masked 5x5 convolution sees of the positions before it, in the order of rows.
What a position needs is there as soon as each row is three positions behind the one above, so all positions of such
a diagonal are coded at once: the same numbers as position by position, in W + 3 (H - 1) steps in place of W H.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.layers.conv import (
    AttentionBlock,
    ResidualBlock,
    ResidualBlockUpsample,
    ResidualBlockWithStride,
    chain,
    conv1x1,
    conv3x3,
    subpel_conv3x3,
)
from licodec.models.base import Context, Estimate, estimate, gaussian_bits, noisy, ste_round
from licodec.models.hyperprior import MeanScaleHyperprior, ScaleHyperpriorConfig
from licodec.models.slices import SliceModel

REACH = 2  # positions that the 5x5 kernel sees to each side
SEEN = 12  # of its 25, in the order of rows: those before the centre
DELAY = REACH + 1  # a row may come so close to the end of what is known of the row above


@dataclass(frozen=True)
class JointAutoregressiveConfig(ScaleHyperpriorConfig):
    """Channels of the transforms and of z (N), and of y (M); the zoo has 192, 192 and 192, 320."""

    N: int = 192
    M: int = 192


@dataclass(frozen=True)
class ChengAnchorConfig:
    """Channels of everything; the zoo has 128 and 192."""

    N: int = 128


ChengAttentionConfig = ChengAnchorConfig


def diagonal(step: int, height: int, width: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Rows and columns of the positions that a step codes, int64 [n] each."""
    rows = torch.arange(max(0, -((width - 1 - step) // DELAY)), min(height - 1, step // DELAY) + 1, device=device)
    return rows, step - DELAY * rows


class DiagonalContext:
    """The walk's state: the hyper synthesis, and y_hat so far with a border of zeros."""

    def __init__(self, model: JointAutoregressive, z_hat: Tensor) -> None:
        self.model = model
        self.hyper = model.h_s(z_hat)
        batch, _, self.height, self.width = self.hyper.shape
        stride = self.width + 2 * REACH
        self.flat = self.hyper.new_zeros(batch, (self.height + REACH) * stride, model.latent_channels)
        square = [row * stride + column for row in range(-REACH, 1) for column in range(-REACH, REACH + 1)]
        self.neighbours = torch.tensor(square[:SEEN], device=z_hat.device)
        self.places = torch.empty(0, dtype=torch.long)  # of the step's positions in `flat`

    def params(self, step: int) -> tuple[Tensor, Tensor]:
        rows, columns = diagonal(step, self.height, self.width, self.flat.device)
        self.places = (rows + REACH) * (self.width + 2 * REACH) + columns + REACH
        hyper = self.hyper[:, :, rows, columns][:, :, None]
        return self.model.entropy_params(hyper, self.around())

    def around(self) -> Tensor:
        """What the masked convolution sees at the step's positions: [B, 2M, 1, n]."""
        return self.model.context_prediction.at_positions(self.flat[:, self.places[:, None] + self.neighbours])

    def push(self, step: int, part: Tensor) -> None:
        values = part[:, :, 0].transpose(1, 2)
        if torch.is_grad_enabled():  # then earlier steps still need what they saw
            self.flat = self.flat.index_copy(1, self.places, values)
        else:
            self.flat[:, self.places] = values

    def y_hat(self) -> Tensor:
        shape = -1, self.height + REACH, self.width + 2 * REACH, self.model.latent_channels
        return self.flat.view(shape)[:, REACH:, REACH:-REACH].permute(0, 3, 1, 2)


class CausalContext(Protocol):
    """A network that sees the 12 positions before each, of the 5x5 around it."""

    def __call__(self, x: Tensor) -> Tensor:
        """All positions at once, in training: [B, M, H, W] -> [B, 2M, H, W]."""

    def at_positions(self, seen: Tensor) -> Tensor:
        """Some positions, by what each of them sees: [B, n, 12, M] -> [B, 2M, 1, n]."""


class CausalConv(nn.Conv2d):
    """A 5x5 convolution that sees the positions before its centre only."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels, 2 * REACH + 1, padding=REACH)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones_like(self.weight).flatten(2)
        mask[:, :, SEEN:] = 0
        return F.conv2d(x, self.weight * mask.view_as(self.weight), self.bias, padding=REACH)

    def at_positions(self, seen: Tensor) -> Tensor:
        weight = self.weight.flatten(2)[:, :, :SEEN].transpose(1, 2).flatten(1)
        return F.linear(seen.flatten(2), weight, self.bias).transpose(1, 2)[:, :, None]


def entropy_parameters(m: int, activation: type[nn.Module]) -> nn.Sequential:
    """Joins the hyper synthesis and the context, 4M channels, to scales and means, 2M; position by position."""
    return chain((conv1x1(*pair) for pair in itertools.pairwise([4 * m, 10 * m // 3, 8 * m // 3, 2 * m])), activation)


class JointAutoregressive(MeanScaleHyperprior):
    """mbt2018."""

    name = "mbt2018"
    row_delay = DELAY
    exact: tuple[str, ...] = ("z_prior", "h_s", "context_prediction", "entropy_parameters")
    context_prediction: CausalContext

    def __init__(self, config: JointAutoregressiveConfig | None = None) -> None:
        config = config or JointAutoregressiveConfig()
        super().__init__(config)
        self.add_context(config.M)

    def add_context(self, m: int) -> None:
        """Make the context model and the network that joins it with the hyper synthesis (figure 1)."""
        self.context_prediction = CausalConv(m, 2 * m)
        self.entropy_parameters = entropy_parameters(m, nn.LeakyReLU)

    def entropy_params(self, hyper: Tensor, around: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and scale from the hyper synthesis and the context, maps [B, 2M, h, w] both."""
        scale, mean = self.entropy_parameters(torch.cat([hyper, around], 1)).chunk(2, 1)
        return mean, scale

    def split(self, y: Tensor) -> list[Tensor]:
        """The diagonals of y, [B, M, 1, n] each."""
        height, width = y.shape[2:]
        steps = range(width + DELAY * (height - 1))
        return [y[:, :, rows, columns][:, :, None] for rows, columns in (diagonal(s, height, width) for s in steps)]

    def context(self, z_hat: Tensor, quality: Tensor) -> Context:
        return DiagonalContext(self, z_hat)

    def forward(self, x: Tensor, quality: Tensor) -> Estimate:
        """In training the context sees noise in place of rounding, all positions at once (section 3)."""
        if not self.training:
            return estimate(self, x, quality)
        y = self.analyse(x, quality)
        z = self.hyper_analyse(y, quality)
        offset = self.z_offset(quality)
        z_hat = ste_round(z - offset) + offset
        y_noisy = noisy(y)
        mean, scale = self.entropy_params(self.h_s(z_hat), self.context_prediction(y_noisy))
        bits = self.z_bits(noisy(z), quality).flatten(1).sum(1) + gaussian_bits(y_noisy, mean, scale).flatten(1).sum(1)
        return Estimate(self.synthesise(y_noisy, quality), bits)


def hyper_networks(model: JointAutoregressive, n: int) -> None:
    """h_a and h_s of Cheng et al.: 3x3 convolutions, sub-pixel ones upwards."""
    wide, act = n * 3 // 2, nn.LeakyReLU
    model.h_a = nn.Sequential(
        conv3x3(n, n), act(), conv3x3(n, n), act(), conv3x3(n, n, 2), act(), conv3x3(n, n), act(), conv3x3(n, n, 2)
    )
    model.h_s = nn.Sequential(
        conv3x3(n, n), act(), subpel_conv3x3(n, n), act(), conv3x3(n, wide), act(), subpel_conv3x3(wide, wide), act(),
        conv3x3(wide, 2 * n),
    )  # fmt: skip


class ChengAnchor(JointAutoregressive):
    """cheng2020-anchor."""

    name = "cheng2020-anchor"
    overlap = 128  # g_s sees 104 pixels far

    def __init__(self, config: ChengAnchorConfig | None = None) -> None:
        config = config or ChengAnchorConfig()
        n = config.N
        SliceModel.__init__(self, [n], n)
        self.config = config
        self.add_transforms(n)
        hyper_networks(self, n)
        self.add_context(n)

    def add_transforms(self, n: int) -> None:
        """Make g_a and g_s."""
        self.g_a = nn.Sequential(
            ResidualBlockWithStride(3, n), ResidualBlock(n, n), ResidualBlockWithStride(n, n), ResidualBlock(n, n),
            ResidualBlockWithStride(n, n), ResidualBlock(n, n), conv3x3(n, n, 2),
        )  # fmt: skip
        self.g_s = nn.Sequential(
            ResidualBlock(n, n), ResidualBlockUpsample(n, n), ResidualBlock(n, n), ResidualBlockUpsample(n, n),
            ResidualBlock(n, n), ResidualBlockUpsample(n, n), ResidualBlock(n, n), subpel_conv3x3(n, 3),
        )  # fmt: skip


class ChengAttention(ChengAnchor):
    """cheng2020-attn: with two attention modules in each transform."""

    name = "cheng2020-attn"
    overlap = 192  # the attention of g_s sees 60 pixels more

    def add_transforms(self, n: int) -> None:
        def attention() -> AttentionBlock:
            return AttentionBlock(n, nn.Identity())

        self.g_a = nn.Sequential(
            ResidualBlockWithStride(3, n), ResidualBlock(n, n), ResidualBlockWithStride(n, n), attention(),
            ResidualBlock(n, n), ResidualBlockWithStride(n, n), ResidualBlock(n, n), conv3x3(n, n, 2), attention(),
        )  # fmt: skip
        self.g_s = nn.Sequential(
            attention(), ResidualBlock(n, n), ResidualBlockUpsample(n, n), ResidualBlock(n, n),
            ResidualBlockUpsample(n, n), attention(), ResidualBlock(n, n), ResidualBlockUpsample(n, n),
            ResidualBlock(n, n), subpel_conv3x3(n, 3),
        )  # fmt: skip

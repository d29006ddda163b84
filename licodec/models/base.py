"""What every model has: two transforms, a hyperprior, and coding steps walked one after another.

A model turns a picture x into a latent y = g_a(x) and a hyper latent z = h_a(y).
z is coded first; a *context* made from z_hat then gives, step by step, the mean
and the scale with which the next part of y is coded, and is told the part once
it is known. Channel slices (Minnen & Singh, ICIP 2020) and masked steps
(checkerboard, quadtree) are both such steps, and one step is a plain hyperprior.

`walk` is the only loop over the steps. Encoder, decoder and the training
forward differ in the `code` function they hand to it, and in nothing else.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from licodec.entropy.tables import SCALES
from licodec.layers.bound import lower_bound
from licodec.layers.exact import make_exact
from licodec.tiling import coding_steps

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from licodec.entropy.tables import Tables

SCALE_MIN = 0.11  # lower bound of a Gaussian's scale, as in Balle et al. 2018 and all successors
LIKELIHOOD_MIN = 1e-9
LUMA = (0.299, 0.587, 0.114)  # of R, G and B, BT.601
COLOUR_WEIGHT = 0.55


class Context(Protocol):
    """The state of one walk over the coding steps of a latent."""

    def params(self, step: int) -> tuple[Tensor, Tensor]:
        """Mean and scale of the part that `step` codes, both shaped as that part."""

    def push(self, step: int, part: Tensor) -> None:
        """Take the decoded part (symbols + mean) of `step`."""

    def y_hat(self) -> Tensor:
        """The whole latent [B, M, H/s, W/s], after the last push. Encoders do not ask."""


class CodingModel(nn.Module, ABC):
    """What encoding and decoding need of a model.

    Class attributes without a default, which every model sets:
        name: under which the registry has it.
        stride: a picture's sides are padded to a multiple of this.
        overlap: pixels around a tile that g_a and g_s see, a multiple of `latent_stride`.

    Attributes that `__init__` sets:
        latent_channels, hyper_channels: channels of y and of z.
        steps: number of coding steps of y.
        config: the dataclass it was made from.

    Class attributes with a default:
        padding: "centred-zeros" as the authors' evaluation scripts do, or "replicate" (right and bottom).
        overlap_is_all: nothing beyond the overlap can change what g_s gives.
        tile: default side of the tiles of big pictures, a multiple of `stride`.
        latent_stride, hyper_stride: pixels per position of y and of z, along a side.
        row_delay: y is coded diagonal by diagonal, on which each row is so many positions behind the
            row above it; 0: in `steps` steps.
        exact: names of the submodules and parameters whose results the decoder must
            reproduce; `prepare` makes them float64.
        variable_rate: one set of weights serves all qualities.
        storage: type of the parameters in weights files.
    `quality` is a tensor [B] in the range of the model's qualities for variable-rate models;
    others ignore it.
    """

    name: str
    stride: int
    overlap: int
    latent_channels: int
    hyper_channels: int
    steps: int
    config: DataclassInstance
    padding: str = "centred-zeros"
    overlap_is_all: bool = False
    tile: int = 1024
    latent_stride: int = 16
    hyper_stride: int = 64
    row_delay: int = 0
    exact: tuple[str, ...] = ()
    variable_rate: bool = False
    storage: torch.dtype = torch.float32

    @abstractmethod
    def analyse(self, x: Tensor, quality: Tensor) -> Tensor:
        """g_a: picture [B, 3, H, W] in [0, 1] -> y [B, M, H/16, W/16]."""

    @abstractmethod
    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        """g_s: y_hat [B, M, H/16, W/16] -> picture [B, 3, H, W], not clamped."""

    @abstractmethod
    def hyper_analyse(self, y: Tensor, quality: Tensor) -> Tensor:
        """h_a: y -> z [B, C, H/64, W/64]."""

    @abstractmethod
    def split(self, y: Tensor) -> list[Tensor]:
        """The parts of y that the steps code, in order."""

    @abstractmethod
    def context(self, z_hat: Tensor, quality: Tensor) -> Context:
        """A fresh context from the decoded hyper latent; its first act is h_s."""

    @abstractmethod
    def z_offset(self, quality: Tensor) -> Tensor:
        """What is subtracted from z before rounding: [B or 1, C, 1, 1]."""

    @abstractmethod
    def z_rows(self, quality: Tensor, thresholds: Tensor) -> Tensor:
        """Row of the z table that codes each channel of z: int64 [C]."""

    def quantise(self, residual: Tensor, scale: Tensor) -> Tensor:
        """The integers the encoder sends for y - mean. Decoders do not depend on it."""
        return residual.round()

    def thresholds(self) -> np.ndarray:
        """Float32, [63] for the Gaussians, to freeze into weights: a scale's row is the number of thresholds below it.

        The published models take the next larger scale of the table.
        """
        return SCALES[:-1]

    def z_tables(self) -> dict[str, Tables]:
        """Tables to freeze into weights beside those of y: {"z": ...}, or none if z uses y's.

        "y" among them takes the place of the Gaussians.
        """
        return {}

    @classmethod
    def for_coding(cls, config: Any) -> Self:
        """From its configuration, a model to load the state of a weights file; as a rule that is the model itself."""
        return cls(config)

    def coding_state(self) -> dict[str, Tensor]:
        """The tensors of a weights file, floats in the type `storage`."""
        return {k: v.to(self.storage) if v.is_floating_point() else v for k, v in self.state_dict().items()}

    def load_coding_state(self, state: dict[str, Tensor]) -> None:
        """Go on training from a weights file. Raises RuntimeError if it does not fit."""
        self.load_state_dict(state)

    def prepare(self) -> Self:
        """Make the model ready to code: eval mode, `exact` parts in float64.

        The transforms run in float32. What the decoder must reproduce runs in
        float64, so that kernels, thread counts and instruction sets, which
        change the last bits, cannot change an integer in practice.
        """
        self.eval().requires_grad_(False)
        for name in self.exact:
            part = getattr(self, name)
            if isinstance(part, nn.Parameter):
                part.data = part.data.double()
            else:
                setattr(self, name, make_exact(part))
        return self

    def check_contract(self) -> None:
        """Raise TypeError if an attribute that this class documents is missing or cannot be right."""
        wrong = [
            name
            for name, kind in {"name": str, "stride": int, "overlap": int, "steps": int}.items()
            if not isinstance(getattr(self, name, None), kind)
        ]
        wrong += [name for name in ("latent_channels", "hyper_channels", "config") if not hasattr(self, name)]
        wrong += [f"exact: {name}" for name in self.exact if not hasattr(self, name)]
        sizes = ((self.overlap, self.latent_stride), (self.tile, self.stride), (self.stride, self.hyper_stride))
        if not wrong and any(size % unit for size, unit in sizes):
            wrong = ["overlap must be a multiple of latent_stride, tile of stride, stride of hyper_stride"]
        if wrong:
            raise TypeError(f"{type(self).__name__} does not keep the contract of models: {', '.join(wrong)}")


class CompressionModel(CodingModel):
    """Base of all models: adds what training needs.

    Class attribute `training_only`: submodules that coding does without, which
    weights files leave out; `add_training_parts` makes them.
    """

    training_only: tuple[str, ...] = ()

    def coding_state(self) -> dict[str, Tensor]:
        state = super().coding_state()
        return {k: v for k, v in state.items() if k.split(".")[0] not in self.training_only}

    @abstractmethod
    def z_bits(self, z: Tensor, quality: Tensor) -> Tensor:
        """-log2 likelihood of (noisy) z, [B, C, H, W]."""

    def y_bits(self, y: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        """-log2 likelihood of a (noisy) part of y under the density it is coded with."""
        return gaussian_bits(y, mean, scale)

    def forward(self, x: Tensor, quality: Tensor) -> Estimate:
        """The training forward, see `estimate`."""
        return estimate(self, x, quality)

    def add_training_parts(self) -> None:
        """Make the modules named in `training_only`."""

    def init_from_pictures(self, patches: Tensor) -> None:
        """Start from statistics of training patches [K, 3, 16, 16] in [0, 1], if the model does."""

    def rate_lambda(self, quality: Tensor) -> Tensor | None:
        """Weight of the squared error at each quality, [B], of variable-rate models."""
        return None

    def rate_mu(self, quality: Tensor) -> Tensor | None:
        """Weight of 100 - SSIMULACRA 2 at each quality, [B], of models that are trained for it."""
        return None

    def loss_weights(self, rate_lambda: float) -> tuple[float, float]:
        """Weights of rate and distortion for the lambda of the paper."""
        return 1.0, rate_lambda

    def extra_loss(self, y: Tensor, z_hat: Tensor, y_bits: Tensor) -> Tensor | None:
        """The paper's term beside rate and distortion, a scalar, in training mode only.

        `y_bits` [B] are the estimated bits of y of each picture.
        """
        return None

    def aux_loss(self) -> Tensor | None:
        """Loss of the quantiles of a learned z prior; they get no gradient from elsewhere."""
        return None


class TransformModel(CompressionModel):
    """Base of the models whose transforms are networks that do not depend on the quality.

    Attributes that models set: g_a, g_s, h_a.
    """

    g_a: nn.Module
    g_s: nn.Module
    h_a: nn.Module

    def analyse(self, x: Tensor, quality: Tensor) -> Tensor:
        return self.g_a(x)

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        return self.g_s(y_hat)

    def hyper_analyse(self, y: Tensor, quality: Tensor) -> Tensor:
        return self.h_a(y)


def walk(
    model: CodingModel,
    z_hat: Tensor,
    quality: Tensor,
    code: Callable[[int, Tensor, Tensor], Tensor],
) -> Context:
    """Run all coding steps and return the context, which then gives y_hat.

    `code(step, mean, scale)` returns the part, symbols + mean, of the step.
    """
    context = model.context(z_hat, quality)
    height, width = (side * model.hyper_stride // model.latent_stride for side in z_hat.shape[-2:])
    for step in range(coding_steps(model.steps, model.row_delay, height, width)):
        mean, scale = context.params(step)
        context.push(step, code(step, mean, scale))
    return context


def gaussian_bits(value: Tensor, mean: Tensor | float, scale: Tensor) -> Tensor:
    """-log2 of the mass of N(mean, scale^2) on [value - 0.5, value + 0.5].

    Shapes broadcast; the result is non-negative and at most 29.9 (a floor of
    1e-9 on the likelihood keeps gradients finite).
    """
    scale = lower_bound(scale.float(), SCALE_MIN)
    distance = (value.float() - mean).abs()
    upper = torch.erfc((distance - 0.5) / (scale * math.sqrt(2)))
    lower = torch.erfc((distance + 0.5) / (scale * math.sqrt(2)))
    return -torch.log2(lower_bound(0.5 * (upper - lower), LIKELIHOOD_MIN))


def squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """255^2 MSE of each picture, [B], from values in [0, 1]."""
    return 255**2 * (x_hat - x).square().flatten(1).mean(1)


def luma_weighted_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """The same, [B], where errors of colour count 0.55 times: eyes see them less. Grey ones count in full."""
    error = x_hat - x
    luma = torch.einsum("bchw,c->bhw", error, error.new_tensor(LUMA)).square().flatten(1).mean(1)
    return COLOUR_WEIGHT * squared_error(x_hat, x) + (1 - COLOUR_WEIGHT) * 255**2 * luma


def ste_round(x: Tensor) -> Tensor:
    """round(x) with the gradient of x."""
    return x + (x.round() - x).detach()


def noisy(x: Tensor) -> Tensor:
    """x plus uniform noise in [-0.5, 0.5), the differentiable stand-in for rounding."""
    return x + torch.rand_like(x) - 0.5


@dataclass
class Estimate:
    """What a training forward gives."""

    x_hat: Tensor  # [B, 3, H, W]
    bits: Tensor  # [B]: estimated bits of y and z of each picture
    extra: Tensor | None = None  # see `CompressionModel.extra_loss`


def estimate(model: CompressionModel, x: Tensor, quality: Tensor) -> Estimate:
    """The training forward: noise for the rate, straight-through rounding for the picture.

    In eval mode rounded values take the place of the noisy ones, so the bits
    are those of the integers that would be coded.
    """
    soft = noisy if model.training else None
    y = model.analyse(x, quality)
    z = model.hyper_analyse(y, quality)
    offset = model.z_offset(quality)
    z_hat = ste_round(z - offset) + offset
    z_bits = model.z_bits(soft(z) if soft else z_hat, quality).flatten(1).sum(1)
    bits = []
    parts = model.split(y)

    def code(step: int, mean: Tensor, scale: Tensor) -> Tensor:
        hard = ste_round(parts[step] - mean) + mean
        part = model.y_bits(soft(parts[step]) if soft else hard, mean, scale)
        bits.append(part.flatten(1).sum(1))
        return hard

    y_hat = walk(model, z_hat, quality, code).y_hat()
    y_bits = torch.stack(bits).sum(0) if bits else torch.zeros_like(z_bits)
    extra = model.extra_loss(y, z_hat, y_bits) if model.training else None
    return Estimate(model.synthesise(y_hat, quality), z_bits + y_bits, extra)

"""The encoder's search for cheaper symbols; decoders know nothing of it.

Rounding y - mean to the nearest integer is the best choice for a symbol alone, hardly ever for a
picture. Each round gives some symbols another candidate, puts them half way between the two, and
asks one backward pass of the synthesis what each step would cost in distortion, the one that the
model was trained for. A symbol changes where that cost and the difference in bits promise a gain.
All candidates of a round are judged at once, so that a round costs one pass whatever the number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from licodec.models.base import gaussian_bits, luma_weighted_error
from licodec.models.lite import Lite
from licodec.runtime.torch import TorchModel, has_bf16, memory_guard
from licodec.ssimulacra2 import Reference
from licodec.weights.file import Weights

MSE_SHARE = 0.4  # of the distortion, as in training
OVERWEIGHT = 1.1  # of the distortion: the rate of what follows through the context is left out
LEAST_GAIN = 0.3  # bits
WITHIN = 0.3  # of its integer, the value of a symbol that was changed


@dataclass(frozen=True)
class Round:
    """Which symbols get a candidate.

    Attributes:
        one_in: of those below, chosen at random, one in so many.
        near: of the symbols that are not zero, those whose value lies this close to the rounding boundary.
        beyond: of the zeros, those whose value's magnitude is larger.
    """

    one_in: int
    near: float
    beyond: float


def schedule(count: int) -> list[Round]:
    """The first rounds choose what is nearly undecided; later ones ever fewer of ever more."""
    one_in = [1, 2, 2, *[4] * 4, *[8] * 2, *[16] * 24]
    near = [0.1, *[0.15] * 2, *[0.3] * 4]
    beyond = [*[0.45] * 3, *[0.42] * 4]

    def chosen(values: Sequence[float], i: int, later: float) -> float:
        return values[i] if i < len(values) else later

    return [Round(int(chosen(one_in, i, 32)), chosen(near, i, 1.0), chosen(beyond, i, 0.38)) for i in range(count)]


def candidates(symbols: Tensor, residual: Tensor, chosen: Round, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """The other integer of each symbol, and where (bool) it is a candidate.

    `residual` is y - mean before any search. The other integer is the next one towards zero; for
    zeros, and where the value lies well beyond the symbol, the next one away from it.
    """
    size, magnitude = residual.abs(), symbols.abs()
    outwards = (magnitude == 0) | (size >= magnitude + 0.3)
    other = symbols + torch.where(outwards, 1.0, -1.0) * torch.where(symbols == 0, residual, symbols).sign()
    boundary = torch.where(outwards, magnitude + 0.5, magnitude - 0.5)
    undecided = torch.where(symbols == 0, size > chosen.beyond, (size - boundary).abs() < chosen.near)
    if chosen.one_in > 1:
        drawn = torch.rand(symbols.shape, generator=random, device="cpu").to(symbols.device)
        undecided &= drawn < 1 / chosen.one_in
    return other, undecided


class _Walk:
    """The symbols that a latent would be coded with, and what they were predicted by."""

    def __init__(self, model: Lite, parts: list[Tensor], z_hat: Tensor, quality: Tensor) -> None:
        context = model.context(z_hat, quality)
        self.symbols, self.means, self.scales = [], [], []
        for step, part in enumerate(parts):
            mean, scale = context.params(step)
            symbols = (part - mean).round()
            context.push(step, symbols + mean)
            self.symbols.append(symbols)
            self.means.append(mean)
            self.scales.append(scale)


class Searcher:
    """`lite` in torch, with the gradients that the search needs."""

    def __init__(self, module: Lite, device: torch.device) -> None:
        self.module, self.device = module, device
        self.autocast = has_bf16(device)

    @classmethod
    def load(cls, weights: Weights, device: str) -> Searcher:
        """From a weights file. Raises UsageError, WeightsError, OutOfMemoryError."""
        model = TorchModel.load(weights, device)
        assert isinstance(model.module, Lite)
        return cls(model.module, model.device)

    @memory_guard()
    def search(
        self,
        window: np.ndarray,
        inner: tuple[slice, slice],
        quality: float,
        rounds: int,
        report: Callable[[], None] = lambda: None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The latent to code for a tile, float32 [1, M, h, w], and the one that z is computed from.

        Args:
            window: what the transforms see of the tile, float32 [1, 3, H, W] in [0, 1].
            inner: rows and columns of the latent that the tile codes.
            rounds, report: see `refine`.
        """
        x = torch.from_numpy(window).to(self.device, memory_format=torch.channels_last)
        q = torch.tensor([quality], device=self.device)
        with torch.no_grad():
            y = self.module.analyse(x, q)
        found = refine(self.module, x, y, inner, q, rounds, report, self.autocast)
        return found.cpu().contiguous().numpy(), y[(..., *inner)].cpu().contiguous().numpy()


def refine(
    model: Lite,
    x: Tensor,
    y: Tensor,
    inner: tuple[slice, slice],
    quality: Tensor,
    rounds: int,
    report: Callable[[], None] = lambda: None,
    autocast: bool = False,
) -> Tensor:
    """A latent near y whose plain coding is cheaper at equal quality.

    Args:
        x: what the transforms see of a tile, [1, 3, H, W] in [0, 1].
        y: its latent [1, M, H/16, W/16].
        inner: rows and columns of y that the tile codes; the others stay.
        quality: [1].
        rounds: each takes about three times as long as a synthesis, and the metric.
        report: told after each round.
        autocast: synthesise in bf16.

    Returns y of the inner part, [1, M, h, w].
    """
    original = y[(..., *inner)]
    rows, columns = (slice(s.start * model.latent_stride, s.stop * model.latent_stride) for s in inner)
    target = x[..., rows, columns]
    reference = Reference(target)
    z_hat = model.hyper_analyse(original, quality).round()
    weight = model.rate_lambda(quality) * MSE_SHARE, model.rate_mu(quality) * (1 - MSE_SHARE)

    def slope(latent: Tensor) -> Tensor:
        """What a step of each entry costs, in bits."""
        latent = latent.clone().requires_grad_()
        whole = y.clone()
        whole[(..., *inner)] = latent
        with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
            x_hat = model.synthesise(whole, quality)
        x_hat = x_hat[..., rows, columns].float()
        cost = weight[0] * luma_weighted_error(x_hat, target) + weight[1] * (100 - reference.score(x_hat))
        cost = OVERWEIGHT * cost.sum() * target.shape[-1] * target.shape[-2]
        return torch.autograd.grad(cost, latent)[0]

    random = torch.Generator().manual_seed(0)  # the same file from the same picture
    originals = model.split(original)
    targets = list(originals)
    for chosen in schedule(rounds):
        with torch.no_grad():
            walk = _Walk(model, targets, z_hat, quality)
            residuals = [part - mean for part, mean in zip(originals, walk.means, strict=True)]
            pairs = [candidates(s, r, chosen, random) for s, r in zip(walk.symbols, residuals, strict=True)]
            between = [
                torch.where(where, (s + o) / 2, s) + m
                for s, m, (o, where) in zip(walk.symbols, walk.means, pairs, strict=True)
            ]
        with torch.enable_grad():
            slopes = model.split(slope(model.join(between)))
        with torch.no_grad():
            for i, (s, m, scale, (o, where), g) in enumerate(
                zip(walk.symbols, walk.means, walk.scales, pairs, slopes, strict=True)
            ):
                gain = g * (o - s) + gaussian_bits(o, 0.0, scale) - gaussian_bits(s, 0.0, scale)
                # as near to the original as a value can be that still rounds to o when means move a little;
                # what does not change keeps its value, and is rounded anew behind means that moved
                wanted = torch.maximum(torch.minimum(originals[i], o + m + WITHIN), o + m - WITHIN)
                targets[i] = torch.where(where & (gain < -LEAST_GAIN), wanted, targets[i])
        report()
    return model.join(targets)

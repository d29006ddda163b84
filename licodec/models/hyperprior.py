"""The first learned priors: factorised (Balle et al., ICLR 2018), scale hyperprior (the same paper, arXiv 1802.01436),
and mean-scale hyperprior (Minnen, Balle, Toderici, NeurIPS 2018, arXiv 1809.02736, without its context model).

As in CompressAI, whose zoo has weights of all three: convolutions of 5x5 and GDN in the transforms.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from licodec.layers.conv import GDN, conv, conv3x3, deconv
from licodec.layers.factorized import FactorizedPrior
from licodec.models.slices import LearnedPriorModel, SliceModel


@dataclass(frozen=True)
class ScaleHyperpriorConfig:
    """Channels of the transforms and of z (N), and of y (M); the zoo has 128, 192 and 192, 320."""

    N: int = 128
    M: int = 192


FactorizedConfig = ScaleHyperpriorConfig
MeanScaleHyperpriorConfig = ScaleHyperpriorConfig


def analysis(n: int, m: int) -> nn.Sequential:
    """g_a: four strided convolutions with GDN between them (figure 4 of Balle et al. 2018)."""
    return nn.Sequential(conv(3, n), GDN(n), conv(n, n), GDN(n), conv(n, n), GDN(n), conv(n, m))


def synthesis(n: int, m: int) -> nn.Sequential:
    """g_s, the mirror of g_a."""
    return nn.Sequential(
        deconv(m, n), GDN(n, inverse=True), deconv(n, n), GDN(n, inverse=True), deconv(n, n), GDN(n, inverse=True),
        deconv(n, 3),
    )  # fmt: skip


def strided_hyper_analysis(n: int, m: int, activation: type[nn.Module]) -> nn.Sequential:
    """h_a: from y at 1/16 to z at 1/64."""
    return nn.Sequential(conv3x3(m, n), activation(), conv(n, n), activation(), conv(n, n))


class NoContext:
    """Nothing is left to code: y_hat is what the factorised prior coded."""

    def __init__(self, y_hat: Tensor) -> None:
        self.decoded = y_hat

    def params(self, step: int) -> tuple[Tensor, Tensor]:
        raise IndexError("a factorised prior has no coding steps")

    def push(self, step: int, part: Tensor) -> None:
        raise IndexError("a factorised prior has no coding steps")

    def y_hat(self) -> Tensor:
        return self.decoded


class Factorized(LearnedPriorModel):
    """All of y is coded by a learned density per channel: y itself is here what z is in other models."""

    name = "bmshj2018-factorized"
    stride = 64  # as CompressAI's evaluation pads; 16 would do
    hyper_stride = 16
    overlap = 64  # four 5x5 kernels see 30 pixels far
    overlap_is_all = True
    steps = 0
    exact = ("z_prior",)

    def __init__(self, config: FactorizedConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FactorizedConfig()
        self.latent_channels = self.hyper_channels = config.M
        self.g_a, self.g_s = analysis(config.N, config.M), synthesis(config.N, config.M)
        self.h_a = nn.Identity()
        self.z_prior = FactorizedPrior(config.M)

    def split(self, y: Tensor) -> list[Tensor]:
        return []

    def context(self, z_hat: Tensor, quality: Tensor) -> NoContext:
        return NoContext(z_hat)


class ScaleHyperprior(SliceModel):
    """z tells the scale of each value of y; the means are zero, and h_a sees |y|."""

    name = "bmshj2018-hyperprior"
    overlap = 64
    overlap_is_all = True
    exact: tuple[str, ...] = ("z_prior", "h_s")

    def __init__(self, config: ScaleHyperpriorConfig | None = None) -> None:
        config = config or ScaleHyperpriorConfig()
        n, m = config.N, config.M
        super().__init__([m], n)
        self.config = config
        self.g_a, self.g_s = analysis(n, m), synthesis(n, m)
        self.add_hyper_networks(n, m)

    def add_hyper_networks(self, n: int, m: int) -> None:
        """Make h_a and h_s."""
        self.h_a = strided_hyper_analysis(n, m, nn.ReLU)
        self.h_s = nn.Sequential(deconv(n, n), nn.ReLU(), deconv(n, n), nn.ReLU(), conv3x3(n, m), nn.ReLU())

    def hyper_analyse(self, y: Tensor, quality: Tensor) -> Tensor:
        return self.h_a(y.abs())

    def hyper_synthesise(self, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        scales = self.h_s(z_hat)
        return torch.zeros_like(scales), scales


class MeanScaleHyperprior(ScaleHyperprior):
    """z tells the means too."""

    name = "mbt2018-mean"

    def add_hyper_networks(self, n: int, m: int) -> None:
        self.h_a = strided_hyper_analysis(n, m, nn.LeakyReLU)
        self.h_s = nn.Sequential(
            deconv(n, m), nn.LeakyReLU(), deconv(m, m * 3 // 2), nn.LeakyReLU(), conv3x3(m * 3 // 2, 2 * m)
        )

    def hyper_analyse(self, y: Tensor, quality: Tensor) -> Tensor:
        return self.h_a(y)

    def hyper_synthesise(self, z_hat: Tensor) -> tuple[Tensor, Tensor]:
        scales, means = self.h_s(z_hat).chunk(2, 1)
        return means, scales

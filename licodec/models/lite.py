"""`lite`: the bundled default, a small variable-rate model of our own.

A picture is cut into 8x8 patches, which a matrix turns into N channels at 1/8
resolution; depthwise residual blocks refine them; 2x2 of them are merged into M
channels at 1/16. Both matrices start as the Karhunen-Loeve transform of the
training pictures (see `init_from_pictures`), so that training starts from a
block transform codec rather than from noise. The decoder mirrors this. The
matrices called `*_basis` hold these transforms and learn slowly (their entries
are of very different size); a square matrix beside each, which starts as the
identity and sees channels of similar size, learns at the full rate.

Rate: eight rows of channel gains in the log domain, interpolated between the
qualities 1 to 8 (gained VAE, Cui et al., CVPR 2021). Entropy model: a hyperprior
and a quadtree context of four passes (as DCVC-DC, Li et al., CVPR 2023): each
pass codes one of the four positions of every 2x2 cell, another one in each of
four channel groups. The context networks run at 1/32, one vector a cell.

Cost, thousands of multiplications a pixel: 13.4 for each transform, 3.4 for all
entropy networks together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.entropy.tables import SCALES
from licodec.layers.pointwise import Pointwise, ResidualBlock
from licodec.models.base import CompressionModel, gaussian_bits

QUALITIES = 8
LAMBDA_MIN, LAMBDA_MAX = 0.0018, 0.05
# Position of a 2x2 cell that group g codes in pass k is CELL[k ^ g]: diagonal neighbours first.
CELL = ((0, 0), (1, 1), (0, 1), (1, 0))


@dataclass(frozen=True)
class LiteConfig:
    """Sizes: N channels at 1/8, M at 1/16 (a multiple of 4), C in the entropy networks."""

    N: int = 160
    M: int = 320
    C: int = 256
    Z: int = 64
    blocks: int = 6


def rate_lambda(quality: Tensor) -> Tensor:
    """The rate-distortion weight of a quality in [1, 8]: log-spaced 0.0018 to 0.05."""
    position = (quality - 1) / (QUALITIES - 1)
    return LAMBDA_MIN * (LAMBDA_MAX / LAMBDA_MIN) ** position


class QualityTable(nn.Module):
    """A vector a quality in the log domain, interpolated: quality [B] -> [B, C, 1, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.zeros(QUALITIES, channels))

    def forward(self, quality: Tensor) -> Tensor:
        position = (quality.to(self.log.dtype) - 1).clamp(0, QUALITIES - 1)
        low = position.floor().clamp(max=QUALITIES - 2).long()
        weight = (position - low)[:, None]
        row = self.log[low] * (1 - weight) + self.log[low + 1] * weight
        return row.exp()[:, :, None, None]


def magnitude_features(y: Tensor) -> Tensor:
    """Signed and unsigned log magnitude, [B, C, H, W] -> [B, 2C, H, W]."""
    magnitude = torch.log1p(y.abs())
    return torch.cat([magnitude * y.sign(), magnitude], 1)


def split_cells(y: Tensor) -> list[Tensor]:
    """y [B, M, H, W] -> the four parts [B, M, H/2, W/2] that the passes code."""
    groups = y.chunk(4, 1)
    return [
        torch.cat([g[:, :, CELL[k ^ i][0] :: 2, CELL[k ^ i][1] :: 2] for i, g in enumerate(groups)], 1)
        for k in range(4)
    ]


def join_cells(parts: list[Tensor]) -> Tensor:
    """The inverse of `split_cells`."""
    b, m, h, w = parts[0].shape
    y = parts[0].new_empty(b, m, h, 2, w, 2)
    for k, part in enumerate(parts):
        for i, group in enumerate(part.chunk(4, 1)):
            row, column = CELL[k ^ i]
            y[:, i * m // 4 : (i + 1) * m // 4, :, row, :, column] = group
    return y.view(b, m, 2 * h, 2 * w)


class LiteContext:
    """Four passes over the cells; the state is one vector of C channels a cell."""

    def __init__(self, model: Lite, z_hat: Tensor, quality: Tensor) -> None:
        self.entropy = model.entropy
        self.state = self.entropy.hyper(z_hat)
        self.sigma = self.entropy.sigma(quality)
        self.parts: list[Tensor] = []

    def params(self, step: int) -> tuple[Tensor, Tensor]:
        mean, log_scale = self.entropy.heads[step](self.state).chunk(2, 1)
        return mean * self.sigma, self.sigma * log_scale.clamp(-8, 8).exp()

    def push(self, step: int, part: Tensor) -> None:
        self.parts.append(part)
        if step < 3:
            seen = self.entropy.inputs[step](magnitude_features(part))
            self.state = self.entropy.blocks[step](self.state + seen)

    def y_hat(self) -> Tensor:
        return join_cells(self.parts)


class Entropy(nn.Module):
    """All that the decoder must reproduce: h_s, the four passes and the priors."""

    def __init__(self, config: LiteConfig) -> None:
        super().__init__()
        c = config.C
        self.hyper = nn.Sequential(Pointwise(config.Z, 4 * c), nn.PixelShuffle(2), ResidualBlock(c), ResidualBlock(c))
        self.heads = nn.ModuleList(Pointwise(c, 2 * config.M, gain=0.1) for _ in range(4))
        self.inputs = nn.ModuleList(Pointwise(2 * config.M, c) for _ in range(3))
        self.blocks = nn.ModuleList(ResidualBlock(c) for _ in range(3))
        self.sigma = QualityTable(config.M)
        self.z_sigma = QualityTable(config.Z)
        self.z_mean = nn.Parameter(torch.zeros(config.Z))


class Lite(CompressionModel):
    """The model; see the module's docstring. Pictures are padded to a multiple of 64."""

    name = "lite"
    stride = 64
    padding = "replicate"
    overlap = 64  # the transforms' receptive field reaches 64 pixels: 6 blocks at 1/8, 1 at 1/16
    overlap_is_all = True
    steps = 4
    exact = ("entropy",)
    variable_rate = True
    storage = torch.float16

    def __init__(self, config: LiteConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LiteConfig()
        n, m, c = config.N, config.M, config.C
        self.latent_channels, self.hyper_channels = m, config.Z
        self.patch_basis = Pointwise(192, n)
        self.patch = Pointwise(n, n)
        self.analysis = nn.Sequential(*(ResidualBlock(n) for _ in range(config.blocks)))
        self.gain_in = QualityTable(n)
        self.merge_basis = Pointwise(4 * n, m)
        self.analysis_deep = ResidualBlock(m)
        self.to_latent = Pointwise(m, m)
        self.gain = QualityTable(m)
        self.inverse_gain = QualityTable(m)
        self.from_latent = Pointwise(m, m)
        self.synthesis_deep = ResidualBlock(m)
        self.unmerge_basis = Pointwise(m, 4 * n)
        self.gain_out = QualityTable(n)
        self.synthesis = nn.Sequential(*(ResidualBlock(n) for _ in range(config.blocks)))
        self.unpatch = Pointwise(n, n)
        self.unpatch_basis = Pointwise(n, 192)
        self.hyper_in = nn.Sequential(Pointwise(2 * m, c // 2), ResidualBlock(c // 2))
        self.hyper_mid = nn.Sequential(Pointwise(2 * c, c), ResidualBlock(c))
        self.hyper_out = Pointwise(4 * c, config.Z)
        self.entropy = Entropy(config)

    def analyse(self, x: Tensor, quality: Tensor) -> Tensor:
        features = self.patch(self.patch_basis(F.pixel_unshuffle(x - 0.5, 8)))
        features = self.analysis(features) * self.gain_in(quality)
        merged = self.merge_basis(F.pixel_unshuffle(features, 2))
        return self.to_latent(self.analysis_deep(merged)) * self.gain(quality)

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        merged = self.synthesis_deep(self.from_latent(y_hat * self.inverse_gain(quality)))
        features = F.pixel_shuffle(self.unmerge_basis(merged), 2) * self.gain_out(quality)
        patches = self.unpatch_basis(self.unpatch(self.synthesis(features)))
        return F.pixel_shuffle(patches, 8) + 0.5

    def hyper_analyse(self, y: Tensor, quality: Tensor) -> Tensor:
        low = F.pixel_unshuffle(self.hyper_in(magnitude_features(y)), 2)
        return self.hyper_out(F.pixel_unshuffle(self.hyper_mid(low), 2))

    def split(self, y: Tensor) -> list[Tensor]:
        return split_cells(y)

    def context(self, z_hat: Tensor, quality: Tensor) -> LiteContext:
        return LiteContext(self, z_hat, quality)

    def rate_lambda(self, quality: Tensor) -> Tensor:
        return rate_lambda(quality)

    def thresholds(self) -> np.ndarray:
        # the nearest scale, not the next larger one: 0.4 % fewer bits
        return np.sqrt(SCALES[:-1] * SCALES[1:])

    def z_offset(self, quality: Tensor) -> Tensor:
        return self.entropy.z_mean[None, :, None, None]

    def z_rows(self, quality: Tensor, thresholds: Tensor) -> Tensor:
        return torch.bucketize(self.entropy.z_sigma(quality)[0, :, 0, 0], thresholds)

    def z_bits(self, z: Tensor, quality: Tensor) -> Tensor:
        return gaussian_bits(z, self.z_offset(quality), self.entropy.z_sigma(quality))

    @torch.no_grad()
    def init_from_pictures(self, patches: Tensor) -> None:
        """Start the transforms as a KLT of 16x16 patches [K, 3, 16, 16] in [0, 1].

        Channels are scaled after each matrix (see `_half_whitening`); the gains hold
        step sizes that fit each quality's lambda, and sigma the channels' deviations.
        """
        n, m = self.config.N, self.config.M
        x = F.pixel_unshuffle(patches - 0.5, 8)  # [K, 192, 2, 2]
        basis, deviation = _klt(x.permute(0, 2, 3, 1).reshape(-1, 192), n)
        scale = _half_whitening(deviation)
        self.patch_basis.weight.copy_(basis.T / scale[:, None])
        self.unpatch_basis.weight.copy_(basis * scale)
        inner = torch.einsum("kchw,cn->knhw", x, basis)
        inner = F.pixel_unshuffle(inner, 2).flatten(1)  # [K, 4n], channel-major as in analyse
        basis2, deviation2 = _klt(inner, m)
        scale, scale2 = scale.repeat_interleave(4), _half_whitening(deviation2)
        self.merge_basis.weight.copy_(basis2.T * scale / scale2[:, None])
        self.unmerge_basis.weight.copy_(basis2 * scale2 / scale[:, None])
        for layer in (self.patch, self.unpatch, self.to_latent, self.from_latent):
            layer.weight.copy_(torch.eye(len(layer.weight)))
        quality = torch.arange(1, QUALITIES + 1, dtype=torch.float32)
        # two thirds of the step that is optimal where no symbol is zero (D = step^2 / 12)
        step = 0.67 * (18 / (rate_lambda(quality) * math.log(2))).sqrt()[:, None]
        log_gain = (255 * scale2 / step).log()
        self.gain.log.copy_(log_gain)
        self.inverse_gain.log.copy_(-log_gain)
        self.entropy.sigma.log.copy_((255 * deviation2 / step).log().clamp(min=math.log(0.2)))


def _half_whitening(deviation: Tensor) -> Tensor:
    """Divisors that bring channels halfway to equal size, their mean square to one.

    Whitened fully, every step of an optimiser would move the large channels
    (the mean colour) by far more than the pictures tolerate; not at all, the
    small ones would never reach the bend of a nonlinearity.
    """
    return (deviation * deviation.mean()).sqrt()


def _klt(samples: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """Leading eigenvectors [D, keep] of samples [K, D] and their deviations [keep]."""
    covariance = samples.double().T @ samples.double() / len(samples)
    values, vectors = torch.linalg.eigh(covariance)
    values, vectors = values.flip(0)[:keep], vectors.flip(1)[:, :keep]
    floor = (1 / 255) ** 2  # channels below a grey level are not blown up to unit size
    return vectors.float(), (values.clamp(min=0) + floor).sqrt().float()

"""`lite`: the bundled default, a small variable-rate model of our own, the third of its line (lite-3).

A picture is cut into 8x8 patches, which a matrix turns into N channels at 1/8
resolution; depthwise residual blocks refine them; 2x2 of them are merged into M
channels at 1/16. Both matrices start as the Karhunen-Loeve transform of the
training pictures (see `init_from_pictures`), so that training starts from a
block transform codec rather than from noise. The decoder mirrors this; two small
convolutions at half resolution then see across the borders of the patches. The
matrices called `*_basis` hold these transforms and learn slowly (their entries
are of very different size); a square matrix beside each, which starts as the
identity and sees channels of similar size, learns at the full rate.

Rate: ten rows of channel gains in the log domain, interpolated between the
qualities 1 to 10 (gained VAE, Cui et al., CVPR 2021). Entropy model: a hyperprior
and a quadtree context of four passes (as DCVC-DC, Li et al., CVPR 2023): each
pass codes one of the four positions of every 2x2 cell, another one in each of
four channel groups. The context networks run at 1/32, one vector per cell.

All that the decoder must reproduce is made of integers (`layers/integer.py`): z and the
symbols, means in sixteenths, and rows of the table of Gaussians, which the networks
give directly.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.entropy.tables import SCALES
from licodec.layers.integer import BYTE
from licodec.models.base import CompressionModel, gaussian_bits
from licodec.models.lite_entropy import (
    MEAN_UNIT,
    PASSES,
    QUALITIES,
    Entropy,
    TrainableTables,
    interpolate,
    row_of,
    scale_of,
)

# Weights of the distortion at qualities 1, 4, 7 and 10, log-linear between them: SSIMULACRA 2 near 30, 65, 82 and 90.
KNOTS = (1, 4, 7, 10)
LAMBDAS = (0.0008, 0.009, 0.08, 2.0)  # of the mean squared error, of values to 255
MUS = (0.003, 0.016, 0.075, 0.9)  # of 100 - SSIMULACRA 2
# Position of a 2x2 cell that group g codes in pass k is CELL[k ^ g]: diagonal neighbours first.
CELL = ((0, 0), (1, 1), (0, 1), (1, 0))


@dataclass(frozen=True)
class LiteConfig:
    """Sizes.

    N: channels at 1/8. M: of the latent y, at 1/16, a multiple of 4. C: of the entropy networks.
    Z: of the hyper latent z. blocks: residual blocks at 1/8 of each transform. P: channels between the
    two convolutions at half resolution.
    """

    N: int = 160
    M: int = 448
    C: int = 256
    Z: int = 64
    blocks: int = 6
    P: int = 16


def _between(values: tuple[float, ...], quality: Tensor) -> Tensor:
    """Log-linear between the values at KNOTS, [B]."""
    return torch.from_numpy(np.exp(np.interp(quality.cpu().double(), KNOTS, np.log(values)))).to(quality)


def rate_lambda(quality: Tensor) -> Tensor:
    """Weight, in bits per pixel, of the mean squared error (of values to 255) at qualities [B] in [1, 10]."""
    return _between(LAMBDAS, quality)


def rate_mu(quality: Tensor) -> Tensor:
    """Weight, in bits per pixel, of 100 - SSIMULACRA 2 at qualities [B] in [1, 10]."""
    return _between(MUS, quality)


class Gain(nn.Module):
    """Channel factors of a quality, log-linear between the whole ones: quality [B] -> [B, C, 1, 1]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.zeros(QUALITIES, channels))

    def forward(self, quality: Tensor) -> Tensor:
        return interpolate(self.log, quality).exp()


class Pointwise(nn.Conv2d):
    """A 1x1 convolution."""

    bias: nn.Parameter

    def __init__(self, in_channels: int, out_channels: int, gain: float = 1.0) -> None:
        super().__init__(in_channels, out_channels, 1)
        nn.init.normal_(self.weight, std=gain * in_channels**-0.5)
        nn.init.zeros_(self.bias)


class DepthwiseResidual(nn.Module):
    """x + p2(LeakyReLU(p1(depthwise3x3(x)))), expansion 2; shape is kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.expand = Pointwise(channels, 2 * channels, gain=1.4)
        self.reduce = Pointwise(2 * channels, channels, gain=0.1)
        with torch.no_grad():  # near the identity, so that the first steps see sharp features
            self.depthwise.weight.mul_(0.5)
            self.depthwise.weight[:, 0, 1, 1] += 1.0
            self.depthwise.get_parameter("bias").zero_()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.reduce(F.leaky_relu(self.expand(self.depthwise(x)), 0.1))


class Overlap(nn.Module):
    """What lets neighbouring 8x8 patches know of one another: x [B, 3, H, W] -> the same.

    At half resolution, where the four phases are channels; starts as the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = nn.Conv2d(12, channels, 3, padding=1)
        self.after = nn.Conv2d(channels, 12, 3, padding=1)
        for parameter in self.after.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        half = F.pixel_unshuffle(x, 2)
        return x + F.pixel_shuffle(self.after(F.leaky_relu(self.before(half), 0.1)), 2)


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
    groups = zip(*(part.chunk(4, 1) for part in parts), strict=True)
    cells = [CELL.index(position) for position in ((0, 0), (0, 1), (1, 0), (1, 1))]  # as pixel_shuffle has them
    stacked = [torch.stack([passes[cell ^ i] for cell in cells], 2).flatten(1, 2) for i, passes in enumerate(groups)]
    return F.pixel_shuffle(torch.cat(stacked, 1), 2)


class LiteContext:
    """Four passes over the cells, see `lite_entropy`."""

    def __init__(self, entropy: Entropy, z_hat: Tensor, quality: Tensor) -> None:
        self.entropy = entropy
        self.integers = entropy.tables(quality)
        self.stream = entropy.begin(z_hat.float(), self.integers.start)
        self.parts: list[Tensor] = []

    def params(self, step: int) -> tuple[Tensor, Tensor]:
        mean, row = self.entropy.head(step, self.stream, self.integers.factors[step], self.integers.row)
        return mean * MEAN_UNIT, scale_of(row)

    def push(self, step: int, part: Tensor) -> None:
        self.parts.append(part.float())
        if step < PASSES - 1:
            self.stream = self.entropy.update(step, self.stream, self.parts[-1])

    def y_hat(self) -> Tensor:
        return join_cells(self.parts)


class Lite(CompressionModel):
    """The model; see the module's docstring. Pictures are padded to a multiple of 64."""

    name = "lite"
    stride = 64
    padding = "replicate"
    overlap = 80  # the reach of the synthesis: 6 blocks at 1/8, 1 at 1/16, and 4 pixels of the overlap
    overlap_is_all = True
    steps = 4
    variable_rate = True
    storage = torch.float16
    config: LiteConfig

    def __init__(self, config: LiteConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LiteConfig()
        n, m, c = config.N, config.M, config.C
        self.latent_channels, self.hyper_channels = m, config.Z
        self.patch_basis = Pointwise(192, n)
        self.patch = Pointwise(n, n)
        self.analysis = nn.Sequential(*(DepthwiseResidual(n) for _ in range(config.blocks)))
        self.gain_in = Gain(n)
        self.merge_basis = Pointwise(4 * n, m)
        self.analysis_deep = DepthwiseResidual(m)
        self.to_latent = Pointwise(m, m)
        self.gain = Gain(m)
        self.inverse_gain = Gain(m)
        self.from_latent = Pointwise(m, m)
        self.synthesis_deep = DepthwiseResidual(m)
        self.unmerge_basis = Pointwise(m, 4 * n)
        self.gain_out = Gain(n)
        self.synthesis = nn.Sequential(*(DepthwiseResidual(n) for _ in range(config.blocks)))
        self.unpatch = Pointwise(n, n)
        self.unpatch_basis = Pointwise(n, 192)
        self.overlapped = Overlap(config.P)
        self.hyper_in = nn.Sequential(Pointwise(2 * m, c // 2), DepthwiseResidual(c // 2))
        self.hyper_mid = nn.Sequential(Pointwise(2 * c, c), DepthwiseResidual(c))
        self.hyper_out = Pointwise(4 * c, config.Z)
        self.entropy = Entropy(m, c, config.Z)

    def analyse(self, x: Tensor, quality: Tensor) -> Tensor:
        features = self.patch(self.patch_basis(F.pixel_unshuffle(x - 0.5, 8)))
        features = self.analysis(features) * self.gain_in(quality)
        merged = self.merge_basis(F.pixel_unshuffle(features, 2))
        return self.to_latent(self.analysis_deep(merged)) * self.gain(quality)

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        merged = self.synthesis_deep(self.from_latent(y_hat * self.inverse_gain(quality)))
        features = F.pixel_shuffle(self.unmerge_basis(merged), 2) * self.gain_out(quality)
        patches = self.unpatch_basis(self.unpatch(self.synthesis(features)))
        return self.overlapped(F.pixel_shuffle(patches, 8)) + 0.5

    def hyper_analyse(self, y: Tensor, quality: Tensor) -> Tensor:
        low = F.pixel_unshuffle(self.hyper_in(magnitude_features(y)), 2)
        return self.hyper_out(F.pixel_unshuffle(self.hyper_mid(low), 2)).clamp(-BYTE, BYTE)

    def split(self, y: Tensor) -> list[Tensor]:
        return split_cells(y)

    def join(self, parts: list[Tensor]) -> Tensor:
        """The inverse of `split`."""
        return join_cells(parts)

    def context(self, z_hat: Tensor, quality: Tensor) -> LiteContext:
        return LiteContext(self.entropy, z_hat, quality)

    def rate_lambda(self, quality: Tensor) -> Tensor:
        return rate_lambda(quality)

    def rate_mu(self, quality: Tensor) -> Tensor:
        return rate_mu(quality)

    def z_offset(self, quality: Tensor) -> Tensor:
        return quality.new_zeros(1, 1, 1, 1)

    def z_scale(self, quality: Tensor) -> Tensor:
        """[B, Z, 1, 1]."""
        return scale_of(row_of(self.entropy.tables(quality).z_row))

    def z_rows(self, quality: Tensor, thresholds: Tensor) -> Tensor:
        return torch.bucketize(self.z_scale(quality)[0, :, 0, 0].double(), thresholds)

    def z_bits(self, z: Tensor, quality: Tensor) -> Tensor:
        return gaussian_bits(z, 0.0, self.z_scale(quality))

    def thresholds(self) -> np.ndarray:
        # half way between the scales, so that those that the entropy model gives are far from all of them
        return np.sqrt(SCALES[:-1] * SCALES[1:])

    def coding_state(self) -> dict[str, Tensor]:
        model = copy.deepcopy(self)
        model.entropy.freeze()
        return {
            name: tensor.to(self.storage) if tensor.is_floating_point() and not name.startswith("entropy.") else tensor
            for name, tensor in model.state_dict().items()
        }

    @classmethod
    def for_coding(cls, config: LiteConfig) -> Self:
        model = cls(config)
        model.entropy.make_room()
        return model

    def load_coding_state(self, state: dict[str, Tensor]) -> None:
        model = self.for_coding(self.config)
        model.load_state_dict(state)
        own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("entropy.")}
        self.load_state_dict(own, strict=False)
        self.entropy.thaw(model.entropy)

    def prepare(self) -> Self:
        self.entropy.prepare()
        return super().prepare()

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
        _set(self.patch_basis, basis.T / scale[:, None])
        _set(self.unpatch_basis, basis * scale)
        inner = torch.einsum("kchw,cn->knhw", x, basis)
        inner = F.pixel_unshuffle(inner, 2).flatten(1)  # [K, 4n], channel-major as in analyse
        basis2, deviation2 = _klt(inner, m)
        scale, scale2 = scale.repeat_interleave(4), _half_whitening(deviation2)
        _set(self.merge_basis, basis2.T * scale / scale2[:, None])
        _set(self.unmerge_basis, basis2 * scale2 / scale[:, None])
        for layer in (self.patch, self.unpatch, self.to_latent, self.from_latent):
            _set(layer, torch.eye(layer.out_channels))
        # two thirds of the step that is optimal where no symbol is zero (D = step^2 / 12)
        quality = torch.arange(1, QUALITIES + 1, dtype=torch.float32)
        step = 0.67 * (18 / (rate_lambda(quality) * math.log(2))).sqrt()[:, None]
        log_gain = (255 * scale2 / step).log()
        self.gain.log.copy_(log_gain)
        self.inverse_gain.log.copy_(-log_gain)
        assert isinstance(self.entropy.tables, TrainableTables)
        self.entropy.tables.log_sigma.copy_((255 * deviation2 / step).log().clamp(min=math.log(0.2)))


def _set(layer: Pointwise, matrix: Tensor) -> None:
    layer.weight.copy_(matrix[:, :, None, None])


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

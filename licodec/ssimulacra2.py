"""SSIMULACRA 2, differentiable: what `lite` is trained for.

The metric of Jon Sneyers (Cloudinary, 2022), version 2.1: SSIM and two edge terms on three
channels of a positive XYB, six scales, means and 4-norms, fixed weights. As the PyPI package
`ssimulacra2` computes it, in float32; its blur pads with zeros along a picture's width and
mirrors along its height, so this one does.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

OPSIN = ((0.30, 0.622, 0.078), (0.23, 0.692, 0.078), (0.24342268924547819, 0.20476744424496821, 0.5518098665095536))
OPSIN_BIAS = 0.0037930732552754493
C2 = 0.0009
SIGMA, RADIUS = 1.5, 5
WHOLE_SIDE = 512  # larger sides are blurred in blocks
BLOCK = 64
LEAST_SIDE = 8  # smaller scales are left out
FULL_SIDE = 256  # of pictures that have all scales
SCALE_COUNT = 6
NEXT_TO_NOTHING = 0.01  # of weights that reach 225: leaving these out moves scores by 0.001 points
WEIGHTS = (  # [3 channels X, Y, B][6 scales][norm 1, norm 4][SSIM, artefact, lost detail]
    (
        ((0.0, 0.0007376606707406586, 0.0), (0.0, 0.0007793481682867309, 0.0)),
        ((0.0, 0.0004371155730107379, 0.0), (1.1041726426657346, 0.00066284834129271, 0.00015231632783718752)),
        ((0.0, 0.0016406437456599754, 0.0), (1.8422455520539298, 11.441172603757666, 0.0)),
        ((0.0007989109436015163, 0.000176816438078653, 0.0), (1.8787594979546387, 10.94906990605142, 0.0)),
        (
            (0.0007289346991508072, 0.9677937080626833, 0.0),
            (0.00014003424285435884, 0.9981766977854967, 0.00031949755934435053),
        ),
        ((0.0004550992113792063, 0.0, 0.0), (0.0013648766163243398, 0.0, 0.0)),
    ),
    (
        ((0.0, 0.0, 0.0), (7.466890328078848, 0.0, 17.445833984131262)),
        ((0.0006235601634041466, 0.0, 0.0), (6.683678146179332, 0.00037724407979611296, 1.027889937768264)),
        ((225.20515300849274, 0.0, 0.0), (19.213238186143016, 0.0011401524586618361, 0.001237755635509985)),
        ((176.39317598450694, 0.0, 0.0), (24.43300999870476, 0.28520802612117757, 0.0004485436923833408)),
        ((0.0, 0.0, 0.0), (34.77906344483772, 44.835625328877896, 0.0)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    ),
    (
        ((0.0, 0.0008680556573291698, 0.0), (0.0, 0.0, 0.0)),
        ((0.0, 0.0005313191874358747, 0.0), (0.00016533814161379112, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (0.0004179171803251336, 0.0017290828234722833, 0.0)),
        ((0.0020827005846636437, 0.0, 0.0), (8.826982764996862, 23.19243343998926, 0.0)),
        (
            (95.1080498811086, 0.9863978034400682, 0.9834382792465353),
            (0.0012286405048278493, 171.2667255897307, 0.9807858872435379),
        ),
        ((0.0, 0.0, 0.0), (0.0005130064588990679, 0.0, 0.00010854057858411537)),
    ),
)


def ssimulacra2(x_hat: Tensor, x: Tensor) -> Tensor:
    """Scores [B] of decoded pictures, at most 100, from sRGB pictures [B, 3, H, W] in [0, 1].

    Gradients flow to `x_hat` alone. 30 is low, 50 medium, 70 high, 90 visually lossless quality.
    Sides are at least 8 pixels (256 for all six scales). Computed in float32.
    """
    return Reference(x).score(x_hat)


def of_pixels(decoded: np.ndarray, original: np.ndarray) -> float | None:
    """The score of a decoded picture: both uint8 or uint16, [H, W] or [H, W, 3]. None if a side is under 8 pixels."""
    if min(original.shape[:2]) < LEAST_SIDE:
        return None

    def tensor(pixels: np.ndarray) -> Tensor:
        colour = np.atleast_3d(pixels).transpose(2, 0, 1)[None].astype(np.float32) / np.iinfo(pixels.dtype).max
        return torch.from_numpy(np.ascontiguousarray(np.broadcast_to(colour, (1, 3, *colour.shape[2:]))))

    with torch.no_grad():  # inference mode would spoil the matrices that training keeps, too
        return ssimulacra2(tensor(decoded), tensor(original)).item()


class Reference:
    """Original pictures [B, 3, H, W] in [0, 1], to which decoded ones are compared, perhaps many times."""

    @torch.no_grad()
    def __init__(self, x: Tensor) -> None:
        pyramid = [_linear(x.float())]
        while len(pyramid) < SCALE_COUNT and min(pyramid[-1].shape[-2:]) > 2 * (LEAST_SIDE - 1):
            pyramid.append(_halved(pyramid[-1]))
        # in this order the reference hands out the weights, also where there are fewer than six scales
        weights = torch.tensor(WEIGHTS).flatten()[: 18 * len(pyramid)].view(3, len(pyramid), 2, 3).to(x.device)
        self.scales = [_Scale(linear, weights[:, i]) for i, linear in enumerate(pyramid)]

    def score(self, x_hat: Tensor) -> Tensor:
        """Scores [B], see `ssimulacra2`."""
        linear = _linear(x_hat.float())
        total = linear.new_zeros(len(linear))
        for i, scale in enumerate(self.scales):
            linear = _halved(linear) if i else linear
            if scale.channels:
                total = total + scale.weighted(linear)
        total = 0.9562382616834844 * total
        total = 2.326765642916932 * total - 0.020884521182843837 * total**2 + 6.248496625763138e-05 * total**3
        return 100 - 10 * total.clamp(min=1e-6) ** 0.6276336467831387


def _linear(x: Tensor) -> Tensor:
    x = x.clamp(0, 1)
    return torch.where(x <= 0.04045, x / 12.92, ((x.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def _halved(x: Tensor) -> Tensor:
    """Means of 2x2 pixels; of what there is at the right and the lower border."""
    return F.avg_pool2d(x, 2, ceil_mode=True)


def _xyb(linear: Tensor) -> Tensor:
    """Linear RGB -> X, Y, B - Y, each shifted and scaled to be positive."""
    mixed = torch.einsum("oc,bchw->bohw", torch.tensor(OPSIN, device=linear.device), linear) + OPSIN_BIAS
    long, middle, short = (mixed ** (1 / 3) - OPSIN_BIAS ** (1 / 3)).unbind(1)
    y = 0.5 * (long + middle)
    return torch.stack([7 * (long - middle) + 0.42, y + 0.01, short - y + 0.55], 1)


def _gaussian() -> list[float]:
    taps = [math.exp(-0.5 * (k / SIGMA) ** 2) for k in range(-RADIUS, RADIUS + 1)]
    return [tap / sum(taps) for tap in taps]


@functools.lru_cache(maxsize=32)
def _blur_matrix(size: int, mirrored: bool, device: torch.device) -> Tensor:
    """[size, size]: the Gaussian as a banded matrix. Two products are ten times as fast as convolutions here."""
    matrix = torch.zeros(size, size, dtype=torch.float64)
    for row in range(size):
        for k, tap in enumerate(_gaussian()):
            column = row + k - RADIUS
            if mirrored:  # the border's pixel counts twice
                column %= 2 * size
                column = min(column, 2 * size - 1 - column)
            if 0 <= column < size:
                matrix[row, column] += tap
    return matrix.float().to(device)


@functools.lru_cache(maxsize=4)
def _block_matrix(device: torch.device) -> Tensor:
    """[BLOCK, BLOCK + 2 RADIUS]: the Gaussian of a block of pixels, from them and their neighbours."""
    taps = torch.tensor(_gaussian(), dtype=torch.float64)
    matrix = torch.zeros(BLOCK, BLOCK + 2 * RADIUS, dtype=torch.float64)
    for row in range(BLOCK):
        matrix[row, row : row + len(taps)] = taps
    return matrix.float().to(device)


def _blur(x: Tensor) -> Tensor:
    """The Gaussian of [..., H, W]; large sides in blocks, as a matrix of a whole side grows with its square."""
    height, width = x.shape[-2:]
    window = BLOCK + 2 * RADIUS
    if width <= WHOLE_SIDE:
        x = x @ _blur_matrix(width, False, x.device).T
    else:
        padded = F.pad(x, (RADIUS, RADIUS + -width % BLOCK))
        x = (padded.unfold(-1, window, BLOCK) @ _block_matrix(x.device).T).flatten(-2)[..., :width]
    if height <= WHOLE_SIDE:
        return _blur_matrix(height, True, x.device) @ x
    mirrored = torch.cat([x[..., :RADIUS, :].flip(-2), x, x[..., -RADIUS:, :].flip(-2)], -2)
    windows = F.pad(mirrored, (0, 0, 0, -height % BLOCK)).unfold(-2, window, BLOCK)  # [..., blocks, W, window]
    return (_block_matrix(x.device) @ windows.transpose(-1, -2)).flatten(-3, -2)[..., :height, :]


class _Scale:
    """What a scale of the original, linear RGB [B, 3, H, W], contributes; weights [3 channels, 2 norms, 3 maps].

    Channels whose weights are next to nothing at this scale are left out, which more than
    halves the work: at full size that is all but luma.
    """

    def __init__(self, linear: Tensor, weights: Tensor) -> None:
        self.channels = (weights.amax((1, 2)) > NEXT_TO_NOTHING).nonzero()[:, 0].tolist()
        self.weights = weights[self.channels]
        if self.channels:
            x = _xyb(linear)[:, self.channels]
            self.x, self.mu = x, _blur(x)
            self.variance = _blur(x * x) - self.mu * self.mu
            self.edge = 1 + (x - self.mu).abs()

    def weighted(self, linear: Tensor) -> Tensor:
        """Weighted sums [B] of the means and 4-norms, over the pixels, of the three maps."""
        x_hat = _xyb(linear)[:, self.channels]
        mu, square, product = _blur(torch.stack([x_hat, x_hat * x_hat, x_hat * self.x]))
        luminance = 1 - (mu - self.mu).square()
        structure = (2 * (product - mu * self.mu) + C2) / (square - mu.square() + self.variance + C2)
        dissimilarity = (1 - luminance * structure).clamp(min=0)
        change = (1 + (x_hat - mu).abs()) / self.edge - 1
        maps = torch.stack([dissimilarity, change.clamp(min=0), (-change).clamp(min=0)], 2)  # [B, channels, 3, H, W]
        mean = maps.mean((-2, -1))
        fourth = (maps.square().square().mean((-2, -1)) + 1e-28) ** 0.25
        return (torch.stack([mean, fourth], 2) * self.weights).sum((1, 2, 3))

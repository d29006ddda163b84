"""What training minimises: rate plus lambda times distortion, and what a paper adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from licodec.models.base import CompressionModel, Estimate
    from licodec.train.loop import TrainConfig

LAMBDA_MIDDLE = 0.0095  # of lite's range: its pictures have weight one
MS_SSIM_SIDE = 161  # smallest side that five scales of MS-SSIM can do


@dataclass(frozen=True)
class Loss:
    """The loss to go back from, and what to log: bits per pixel, mean squared error of values in [0, 1]."""

    total: Tensor
    bpp: float
    mse: float


def distortion(x_hat: Tensor, x: Tensor, metric: str) -> Tensor:
    """Of each picture, [B]: 255^2 MSE, or 1 - MS-SSIM."""
    if metric == "mse":
        return 255**2 * (x_hat - x).square().flatten(1).mean(1)
    from pytorch_msssim import ms_ssim

    return 1 - ms_ssim(x_hat, x, data_range=1.0, size_average=False)


def training_loss(model: CompressionModel, estimate: Estimate, x: Tensor, quality: Tensor, config: TrainConfig) -> Loss:
    """The loss of a batch.

    Of a variable-rate model each picture has the lambda of its quality. Its
    loss is about proportional to lambda**0.7, so a weight of lambda**-0.5 keeps
    the high rates from drowning the low ones: BD-rate counts relative savings.
    """
    bpp = estimate.bits / (x.shape[-1] * x.shape[-2])
    x_hat = estimate.x_hat.float()
    loss = distortion(x_hat, x, config.metric)
    lambdas = model.rate_lambda(quality)
    if lambdas is None:
        rate_weight, distortion_weight = model.loss_weights(config.rate_lambda)
        total = (rate_weight * bpp + distortion_weight * loss).mean()
    else:
        total = ((lambdas / LAMBDA_MIDDLE) ** -0.5 * (bpp + lambdas * loss)).mean()
    if estimate.extra is not None:
        total = total + estimate.extra
    if (aux := model.aux_loss()) is not None:
        total = total + aux  # of the quantiles alone, which nothing else moves
    with torch.no_grad():
        mse = (x_hat - x).square().mean().item()
    return Loss(total, bpp.mean().item(), mse)

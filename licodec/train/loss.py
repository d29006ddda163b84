"""What training minimises: rate plus lambda times distortion, and what a paper adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from licodec.models.base import luma_weighted_error, squared_error
from licodec.ssimulacra2 import ssimulacra2

if TYPE_CHECKING:
    from licodec.models.base import CompressionModel, Estimate
    from licodec.train.config import TrainConfig

LAMBDA_MIDDLE = 0.0095  # of lite's range: its pictures have weight one
MS_SSIM_SIDE = 161  # smallest side that five scales of MS-SSIM can do


@dataclass(frozen=True)
class Loss:
    """The loss to go back from, and what to log: bits per pixel, mean squared error of values in [0, 1]."""

    total: Tensor
    bpp: float
    mse: float
    ssimulacra2: float | None = None


def distortion(x_hat: Tensor, x: Tensor, metric: str) -> Tensor:
    """Of each picture, [B], for fixed-rate models: 255^2 MSE, or 1 - MS-SSIM."""
    if metric == "mse":
        return squared_error(x_hat, x)
    from pytorch_msssim import ms_ssim

    return 1 - ms_ssim(x_hat, x, data_range=1.0, size_average=False)


def training_loss(model: CompressionModel, estimate: Estimate, x: Tensor, quality: Tensor, config: TrainConfig) -> Loss:
    """The loss of a batch.

    Of a variable-rate model each picture has the lambda (and mu) of its quality:
    bpp + share * lambda * error + (1 - share) * mu * (100 - SSIMULACRA 2), where
    the error is `luma_weighted_error`; trained for MSE, bpp + lambda * 255^2 MSE. Its
    loss grows with lambda, so a weight of lambda**-0.4 keeps the high rates from
    drowning the low ones: BD-rate counts relative savings.

    Raises ValueError if the configuration lacks what the model needs.
    """
    bpp = estimate.bits / (x.shape[-1] * x.shape[-2])
    x_hat = estimate.x_hat.float()
    lambdas = model.rate_lambda(quality)
    score = None
    if lambdas is None:
        if config.rate_lambda is None:
            raise ValueError(f"{model.name} has one rate, and needs the lambda of it")
        rate_weight, distortion_weight = model.loss_weights(config.rate_lambda)
        total = (rate_weight * bpp + distortion_weight * distortion(x_hat, x, config.metric)).mean()
    else:
        perceived = config.metric == "ssimulacra2"
        share, error = (config.mse_share, luma_weighted_error) if perceived else (1.0, squared_error)
        cost = share * lambdas * error(x_hat, x)
        if share < 1:
            mus, scores = model.rate_mu(quality), ssimulacra2(x_hat, x)
            if mus is None:
                raise ValueError(f"{model.name} cannot be trained for SSIMULACRA 2")
            cost = cost + (1 - share) * mus * (100 - scores)
            score = scores.mean().item()
        total = ((lambdas / LAMBDA_MIDDLE) ** -0.4 * (bpp + cost)).mean()
    if estimate.extra is not None:
        total = total + estimate.extra
    if (aux := model.aux_loss()) is not None:
        total = total + aux  # of the quantiles alone, which nothing else moves
    with torch.no_grad():
        mse = (x_hat - x).square().mean().item()
    return Loss(total, bpp.mean().item(), mse, score)

"""What training minimises: rate plus lambda times distortion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from licodec.models.base import CompressionModel, Estimate
    from licodec.train.loop import TrainConfig

LAMBDA_MIDDLE = 0.0095  # of lite's range: its pictures have weight one


def rate_distortion(
    model: CompressionModel, estimate: Estimate, x: Tensor, quality: Tensor, config: TrainConfig
) -> tuple[Tensor, float, float]:
    """Loss, mean bits per pixel and mean squared error (of values in [0, 1]) of a batch.

    Of a variable-rate model each picture has the lambda of its quality. Its
    loss is about proportional to lambda**0.7, so a weight of lambda**-0.5 keeps
    the high rates from drowning the low ones: BD-rate counts relative savings.
    """
    pixels = x.shape[-1] * x.shape[-2]
    bpp = estimate.bits / pixels
    mse = (estimate.x_hat.float() - x).square().flatten(1).mean(1)
    lambdas = model.rate_lambda(quality)
    if lambdas is None:
        loss = (bpp + config.rate_lambda * 255**2 * mse).mean()
    else:
        weight = (lambdas / LAMBDA_MIDDLE) ** -0.5
        loss = (weight * (bpp + lambdas * 255**2 * mse)).mean()
    return loss, bpp.mean().item(), mse.mean().item()

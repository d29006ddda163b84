"""What a training run depends on."""

from __future__ import annotations

import math
from dataclasses import dataclass

METRICS = ("mse", "ms-ssim", "ssimulacra2")


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on; stored in its checkpoints.

    Attributes:
        batch, crop: crops per step and process, and their side in pixels.
        lr, lr_min, warmup: highest and last learning rate, and the steps until the highest.
        optimizer: "muon" for `lite`; the published models were trained with "adam" at 1e-4.
        clip: largest norm of a gradient.
        ema: decay of the averaged weights.
        rate_lambda: weight of the distortion, for fixed-rate models.
        metric: one of METRICS, the distortion.
        mse_share: of the distortion, where the metric is SSIMULACRA 2.
        precision: "auto", "no" (float32), "bf16" or "fp16", for what is not integers.
        quality: to note in fixed-rate weights.
    """

    model: str = "lite"
    steps: int = 20_000
    batch: int = 8
    crop: int = 256
    lr: float = 1e-3
    lr_min: float = 2e-5
    warmup: int = 100
    optimizer: str = "muon"
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    rate_lambda: float | None = None
    metric: str = "mse"
    mse_share: float = 0.4
    precision: str = "auto"
    quality: int | None = None

    def rate(self, step: int) -> float:
        """Learning rate relative to `lr`: linear warm-up, then half a cosine."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        low = self.lr_min / self.lr
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

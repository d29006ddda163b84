"""The training loop.

Devices, precision and several processes are accelerate's business; EMA,
optimisers and schedules are torch's. What is here: what a step trains on, what
it minimises, and a checkpoint from which a killed run goes on as if it had not
been killed (batches and noise depend on the seed and the step alone).
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from licodec.files import beside
from licodec.models import model_info
from licodec.models.base import CompressionModel
from licodec.models.export import export
from licodec.runtime.torch import has_bf16
from licodec.ssimulacra2 import ssimulacra2
from licodec.train.config import TrainConfig
from licodec.train.data import Crops
from licodec.train.loss import training_loss

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"
WEIGHTS = "weights.safetensors"


def _relative_rate(name: str) -> float:
    """How fast a parameter learns, relative to `lr` (see models/lite.py for the bases)."""
    if name.endswith((".log", "log_sigma")):
        return 3.0
    if name.endswith("quantiles"):
        return 10.0
    if name.endswith("entrance.multiplier") or ".entrances." in name:
        return 0.1
    return 0.03 if "_basis." in name else 1.0


def _is_matrix(parameter: nn.Parameter) -> bool:
    """Of a linear map or a 1x1 convolution."""
    return parameter.ndim in (2, 4) and parameter.shape[1] > 1 and parameter[0, 0].numel() == 1


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for matrices and Adam for the rest, or Adam for all, with each parameter's own rate."""
    groups: dict[float, list[nn.Parameter]] = {}
    matrices = []
    for name, parameter in model.named_parameters():
        rate = _relative_rate(name)
        if config.optimizer == "muon" and _is_matrix(parameter) and rate == 1.0:
            matrices.append(parameter)
        elif parameter.requires_grad:
            groups.setdefault(rate, []).append(parameter)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam([{"params": p, "lr": rate * config.lr} for rate, p in groups.items()], betas=(0.9, 0.99))
    ]
    if matrices:
        from timm.optim.muon import Muon

        # update RMS matched to Adam's, so that one learning rate serves both
        optimizers.append(Muon(matrices, lr=config.lr, nesterov=True, adjust_lr_fn="match_rms_adamw"))
        if not has_bf16(matrices[0].device):
            _iterate_in_float32()
    return optimizers


def _iterate_in_float32() -> None:
    """Let timm's Muon, which offers no choice, iterate in float32: without bf16 a CPU emulates it, very slowly."""
    from timm.optim import muon

    muon.zeropower_via_newtonschulz = functools.partial(muon.zeropower_via_newtonschulz, dtype=torch.float32)


class Run:
    """One training run in a folder of its own: checkpoint, log, weights."""

    def __init__(
        self,
        model: CompressionModel,
        config: TrainConfig,
        folder: Path,
        pictures: list[np.ndarray],
        device: str = "auto",
        licence: str = "unknown",
    ) -> None:
        from accelerate import Accelerator

        self.config, self.folder, self.licence = config, folder, licence
        cpu = device == "cpu" or not torch.cuda.is_available()
        precision = config.precision
        if precision == "auto":
            precision = "bf16" if has_bf16(torch.device("cpu" if cpu else "cuda")) else "no"
        self.accelerator = Accelerator(cpu=cpu, mixed_precision=precision)
        self.crops = Crops(pictures, config.seed)
        model = model.to(self.accelerator.device).to(memory_format=torch.channels_last)
        self.ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
        optimizers = make_optimizers(model, config)
        self.model, *self.optimizers = self.accelerator.prepare(model, *optimizers)
        # the quantiles of a z prior have a loss of their own, which would hide the gradient's norm
        self.clipped = [p for n, p in self.model.named_parameters() if not n.endswith("quantiles")]
        self.base_rates = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        self.qualities = model_info(config.model).qualities
        self.step = 0

    def save(self) -> None:
        """Write the checkpoint beside and rename, so that a kill never leaves half of one."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "config": asdict(self.config),
            "step": self.step,
            "model": self.accelerator.unwrap_model(self.model).state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
        }
        with beside(self.folder / CHECKPOINT) as temporary:
            torch.save(state, temporary)
        notes = {"steps": str(self.step), "train_config": json.dumps(asdict(self.config))}
        export(self.averaged(), self.folder / WEIGHTS, notes, self.licence, self.config.quality)

    def averaged(self) -> CompressionModel:
        """The model with the averaged weights."""
        assert isinstance(self.ema.module, CompressionModel)
        return self.ema.module

    def resume(self) -> None:
        """Go on from the folder's checkpoint. Raises ValueError if it is of another model."""
        path = self.folder / CHECKPOINT
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["config"]["model"] != self.config.model:
            raise ValueError(f"{path}: trains {state['config']['model']}, not {self.config.model}")
        self.accelerator.unwrap_model(self.model).load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]

    def train_step(self) -> dict[str, float]:
        """One optimiser step; returns its loss, bpp, PSNR and learning rate."""
        rank = self.accelerator.process_index
        count, size = self.config.batch, self.config.crop
        x = torch.from_numpy(self.crops.batch(self.step, count, size, rank)).to(self.accelerator.device)
        x = x.permute(0, 3, 1, 2).float().div_(255).contiguous(memory_format=torch.channels_last)
        torch.manual_seed((self.config.seed << 32) + self.step * 64 + rank)
        quality = stratified_quality(count, self.qualities[0], self.qualities[-1]).to(x.device)
        factor = self.config.rate(self.step)
        for optimizer, rates in zip(self.optimizers, self.base_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        self.model.train()
        with self.accelerator.autocast():
            estimate = self.model(x, quality)
        loss = training_loss(self.accelerator.unwrap_model(self.model), estimate, x, quality, self.config)
        self.accelerator.backward(loss.total)
        norm = self.accelerator.clip_grad_norm_(self.clipped, self.config.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.ema.update_parameters(self.accelerator.unwrap_model(self.model))
        self.step += 1
        return {
            "loss": loss.total.item(),
            "bpp": loss.bpp,
            "psnr": -10 * math.log10(max(loss.mse, 1e-10)),
            **({} if loss.ssimulacra2 is None else {"ssimulacra2": loss.ssimulacra2}),
            "grad": float(norm),
            "lr": factor * self.config.lr,
        }

    @torch.no_grad()
    def validate(self, pictures: list[np.ndarray], qualities: tuple[float, ...]) -> list[dict[str, float]]:
        """Mean bpp (estimated), PSNR and SSIMULACRA 2 of the averaged weights at each quality."""
        model = self.averaged().eval()
        rows = []
        for q in qualities:
            found = []
            for picture in pictures:
                x = centre_crop(picture, model.stride, self.accelerator.device)
                with self.accelerator.autocast():
                    out = model(x, x.new_full((1,), q))
                x_hat = (out.x_hat.float().clamp(0, 1) * 255).round() / 255
                mse = (x_hat - x).square().mean().item()
                bpp = out.bits.item() / (x.shape[-1] * x.shape[-2])
                found.append((bpp, -10 * math.log10(max(mse, 1e-10)), ssimulacra2(x_hat, x).item()))
            names = ("val_bpp", "val_psnr", "val_ssimulacra2")
            rows.append({"quality": q} | dict(zip(names, np.mean(found, 0).tolist(), strict=True)))
        return rows

    def run(
        self,
        report: Callable[[int, dict[str, float]], None],
        validation: list[np.ndarray] | None = None,
        save_every: int = 500,
        log_every: int = 50,
        validate_every: int = 2000,
        qualities: tuple[float, ...] = (1.0, 4.0, 7.0, 10.0),
    ) -> None:
        """Train to the end; `report(step, row)` is called after every step."""
        sums: dict[str, float] = {}
        began = time.monotonic()
        while self.step < self.config.steps:
            row = self.train_step()
            report(self.step, row)
            for key, value in row.items():
                sums[key] = sums.get(key, 0.0) + value
            last = self.step == self.config.steps
            if self.step % log_every == 0:
                seconds = time.monotonic() - began
                self.log({k: v / log_every for k, v in sums.items()} | {"seconds": seconds})
                sums, began = {}, time.monotonic()
            if self.step % save_every == 0 or last:
                self.save()
            if validation and (self.step % validate_every == 0 or last):
                for values in self.validate(validation, qualities):
                    self.log(values)
                began = time.monotonic()

    def log(self, row: dict[str, float]) -> None:
        """Append a line to the run's log.jsonl."""
        if self.accelerator.is_main_process:
            with open(self.folder / LOG, "a") as file:
                file.write(json.dumps({"step": self.step} | {k: round(v, 6) for k, v in row.items()}) + "\n")


def stratified_quality(count: int, low: float, high: float) -> Tensor:
    """`count` qualities in [low, high], one from each of as many equal parts of the range."""
    return low + (high - low) * (torch.arange(count) + torch.rand(count)) / count


def centre_crop(picture: np.ndarray, multiple: int, device: torch.device) -> Tensor:
    """The middle of a picture, sides cut down to a multiple, as [1, 3, H, W] in [0, 1]."""
    h, w = (s // multiple * multiple for s in picture.shape[:2])
    top, left = (picture.shape[0] - h) // 2, (picture.shape[1] - w) // 2
    crop = np.ascontiguousarray(picture[top : top + h, left : left + w].transpose(2, 0, 1))
    return torch.from_numpy(crop)[None].to(device).float().div_(255)

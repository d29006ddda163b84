"""`licodec train`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from licodec.cli.common import Options, complete_model
from licodec.errors import InputError, UsageError, WeightsError

if TYPE_CHECKING:
    from licodec.train.loop import Run


def train(
    folder: Annotated[Path, typer.Argument(help="Folder of training pictures.", exists=True, file_okay=False)],
    out: Path = typer.Option(Path("run"), "-o", "--output", help="Folder of the run: checkpoint, log, weights."),
    model: str = typer.Option("lite", "-m", "--model", help="See `licodec models`.", autocompletion=complete_model),
    steps: int = typer.Option(20_000, "--steps", min=1, help="Steps in all, from the run's start."),
    batch: int = typer.Option(8, "--batch", min=1, help="Crops per step and process."),
    crop: int = typer.Option(256, "--crop", min=64, help="Side of the crops."),
    lr: float | None = typer.Option(None, "--lr", help="Highest learning rate. [default: 1e-3, with adam 1e-4]"),
    optimizer: str | None = typer.Option(
        None, "--optimizer", help="muon (with Adam for what is no matrix) or adam. [default: muon for lite]"
    ),
    ema: float = typer.Option(0.999, "--ema", min=0, max=1, help="Decay of the averaged weights."),
    rate_lambda: float | None = typer.Option(None, "--lambda", help="Lambda of the paper (fixed-rate models)."),
    metric: str | None = typer.Option(
        None, "--metric", help="mse, ms-ssim, or for lite ssimulacra2, mixed with mse. [default: ssimulacra2 for lite]"
    ),
    mse_share: float = typer.Option(0.4, "--mse-share", min=0, max=1, help="Share of mse beside ssimulacra2."),
    quality: int | None = typer.Option(None, "-q", "--quality", help="Quality to note in fixed-rate weights."),
    seed: int = typer.Option(0, "--seed", help="Same seed, same run."),
    precision: str = typer.Option("auto", "--precision", help="auto, no (fp32), bf16 or fp16."),
    resume: bool = typer.Option(False, "--resume", help="Go on from the checkpoint in the output folder."),
    init: Path | None = typer.Option(None, "--init", help="Start from this weights file, with a fresh optimiser."),
    validate: Path | None = typer.Option(None, "--validate", help="Folder of pictures to measure on."),
    validate_every: int = typer.Option(2000, "--validate-every", min=1, help="Steps between measurements."),
    save_every: int = typer.Option(500, "--save-every", min=1, help="Steps between checkpoints."),
    licence: str = typer.Option("unknown", "--licence", help="Licence to note in the weights."),
    device: str = Options.device,
    threads: int = Options.threads,
    quiet: bool = Options.quiet,
) -> None:
    """Train a model on a folder of pictures.

    The output folder gets checkpoint.pt (a killed run goes on from it with
    --resume), log.jsonl (one line every 50 steps) and weights.safetensors (the
    averaged weights, for `licodec encode --weights`). On several GPUs run it
    under `accelerate launch -m licodec train ...`.
    """
    try:
        import accelerate  # noqa: F401
    except ImportError:
        raise UsageError("training needs more packages: pip install 'licodec[train]'") from None
    import torch

    from licodec.models import LITE, model_info
    from licodec.models.export import load_state
    from licodec.runtime.torch import use_threads
    from licodec.ssimulacra2 import FULL_SIDE
    from licodec.train.config import METRICS, TrainConfig
    from licodec.train.data import Crops, load_pictures
    from licodec.train.loop import CHECKPOINT, Run
    from licodec.train.loss import MS_SSIM_SIDE

    use_threads(threads)
    info = model_info(model)
    if not info.variable_rate and rate_lambda is None:
        raise UsageError(f"{model} has a fixed rate: say which with --lambda, for instance 0.013")
    own = info.name == LITE
    optimizer = optimizer or ("muon" if own else "adam")
    lr = lr or (1e-3 if optimizer == "muon" else 1e-4)
    metric = metric or ("ssimulacra2" if own else "mse")
    choices = {"optimizer": ("muon", "adam"), "precision": ("auto", "no", "bf16", "fp16"), "metric": METRICS}
    for option, given in (("optimizer", optimizer), ("precision", precision), ("metric", metric)):
        if given not in choices[option]:
            raise UsageError(f"--{option} is one of {', '.join(choices[option])}, not {given}")
    if metric == "ms-ssim" and (info.variable_rate or crop < MS_SSIM_SIDE):
        raise UsageError(f"--metric ms-ssim is for fixed-rate models and crops of at least {MS_SSIM_SIDE}")
    if metric == "ssimulacra2" and not own:
        raise UsageError("--metric ssimulacra2 is for lite: published models are trained for mse or ms-ssim")
    if metric == "ssimulacra2" and crop < FULL_SIDE:
        raise UsageError(f"--metric ssimulacra2 needs crops of at least {FULL_SIDE}")
    if (out / CHECKPOINT).exists() and not resume:
        raise UsageError(f"{out / CHECKPOINT} exists; go on from it with --resume, or name another folder with -o")
    if resume and not (out / CHECKPOINT).exists():
        raise UsageError(f"{out / CHECKPOINT}: no checkpoint to resume from")
    config = TrainConfig(
        model=model, steps=steps, batch=batch, crop=crop, lr=lr, optimizer=optimizer, ema=ema, seed=seed,
        rate_lambda=rate_lambda, metric=metric, mse_share=mse_share, precision=precision, quality=quality,
        lr_min=lr / 50,
    )  # fmt: skip
    torch.manual_seed(seed)
    net = info.build({})
    if crop % net.stride:
        raise UsageError(f"crops of {crop} do not fit {model}, they must be multiples of {net.stride}")
    try:
        pictures = load_pictures(folder, crop)
        held_out = load_pictures(validate, net.stride) if validate else None
    except ValueError as error:
        raise InputError(str(error)) from None
    if init:
        try:
            load_state(net, init)
        except RuntimeError as error:
            raise WeightsError(f"{init}: does not fit {model} ({str(error).splitlines()[0]})") from None
    elif not resume and own:
        patches = torch.from_numpy(Crops(pictures, seed).batch(0, 40_000, 16))
        net.init_from_pictures(patches.permute(0, 3, 1, 2).float() / 255)
    net.add_training_parts()
    out.mkdir(parents=True, exist_ok=True)
    run = Run(net, config, out, pictures, device, licence)
    if resume:
        try:
            run.resume()
        except ValueError as error:
            raise UsageError(str(error)) from None
    with _report(run, quiet) as report:
        run.run(report, held_out, save_every, validate_every=validate_every)
    if not quiet:
        print(f"{out / 'weights.safetensors'}: weights after {run.step} steps", file=sys.stderr)


class _report:
    """Progress on a terminal, a line every 100 steps elsewhere."""

    def __init__(self, run: Run, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.run, self.quiet = run, quiet
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self.bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=quiet)
        self.animated = sys.stderr.isatty() and not quiet
        self.mean: dict[str, float] = {}

    def __enter__(self) -> _report:
        self.task = self.bar.add_task("", total=self.run.config.steps, completed=self.run.step)
        if self.animated:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.animated:
            self.bar.stop()

    def __call__(self, step: int, row: dict[str, float]) -> None:
        """Show running means of loss, bpp and PSNR."""
        for key, value in row.items():
            self.mean[key] = 0.98 * self.mean.get(key, value) + 0.02 * value
        text = f"loss {self.mean['loss']:.4f}  {self.mean['bpp']:.3f} bpp  {self.mean['psnr']:.2f} dB"
        if "ssimulacra2" in self.mean:
            text += f"  SSIMULACRA 2 {self.mean['ssimulacra2']:.1f}"
        self.bar.update(self.task, completed=step, description=text)
        if not self.animated and not self.quiet and step % 100 == 0:
            left = self.bar.tasks[0].time_remaining
            eta = "?" if left is None else f"{left / 60:.0f} min"
            print(f"step {step}/{self.run.config.steps}  {text}  left {eta}", file=sys.stderr, flush=True)

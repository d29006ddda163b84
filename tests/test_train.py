"""Training: it learns, resumes exactly after a kill, and its weights code pictures."""

import json
import math
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import licodec, render
from PIL import Image

from licodec.models.base import COLOUR_WEIGHT, LUMA, Estimate, luma_weighted_error, squared_error
from licodec.models.lite import Lite, LiteConfig, rate_lambda
from licodec.ssimulacra2 import ssimulacra2
from licodec.train.config import TrainConfig
from licodec.train.loop import stratified_quality
from licodec.train.loss import training_loss


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("train")
    for seed in range(3):
        Image.fromarray(render(160, 140, seed)).save(path / f"{seed}.png")
    return path


ARGUMENTS = ("--batch", 2, "--crop", 64, "--metric", "mse", "--save-every", 2, "-j", 1)


def command(folder, out, *more):
    """`licodec train` of a small lite."""
    code = (
        "import licodec.models.lite as lite, functools\n"
        "lite.LiteConfig.__init__.__defaults__ = (16, 16, 16, 8, 1, 4)\n"
        "from licodec.cli import main; main()"
    )
    return [sys.executable, "-c", code, "train", folder, "-o", out, *map(str, ARGUMENTS), *map(str, more)]


def weights(out):
    return (out / "weights.safetensors").read_bytes()


def test_interrupted_run_ends_as_the_uninterrupted_one(folder, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(folder, whole, "--steps", 12), check=True, capture_output=True)
    process = subprocess.Popen(command(folder, killed, "--steps", 12), stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not (killed / "checkpoint.pt").exists() and time.time() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    step = torch.load(killed / "checkpoint.pt", weights_only=True)["step"]
    assert 2 <= step < 12
    refused = subprocess.run(command(folder, killed, "--steps", 12), capture_output=True)
    assert refused.returncode == 2 and b"--resume" in refused.stderr
    subprocess.run(command(folder, killed, "--steps", 12, "--resume"), check=True, capture_output=True)
    assert weights(killed) == weights(whole)


def test_loss_falls_and_the_weights_code_pictures(folder, tmp_path):
    out = tmp_path / "run"
    more = ("--steps", 150, "--validate", folder, "--validate-every", 50, "--ema", 0.9, "--quiet")
    result = subprocess.run(command(folder, out, *more), capture_output=True)
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert len([r for r in rows if "loss" in r]) == 3
    measured = [r for r in rows if "val_psnr" in r]
    assert [r["quality"] for r in measured] == [1, 4, 7, 10] * 3
    lambdas = rate_lambda(torch.tensor([1.0, 4, 7, 10])).tolist()
    cost = [r["val_bpp"] + lambdas[i % 4] * 255**2 * 10 ** (-r["val_psnr"] / 10) for i, r in enumerate(measured)]
    assert math.prod(cost[-4:]) < 0.9 * math.prod(cost[:4]), cost
    picture = folder / "0.png"
    trained = out / "weights.safetensors"
    coded = licodec("encode", picture, "--weights", trained, "-o", tmp_path / "x.lic", "--verify", "--json")
    assert json.loads(coded.stdout)["psnr"] > 20, coded.stderr
    start = subprocess.run(command(folder, tmp_path / "b", "--steps", 2, "--init", trained), capture_output=True)
    assert start.returncode == 0, start.stderr


def test_the_loss_mixes_both_distortions():
    """Of one batch: the share of each distortion, weighted by its quality."""
    torch.manual_seed(0)
    model = Lite(LiteConfig(16, 16, 16, 8, 1, 4))
    x = torch.from_numpy(render(256, 256, 1).copy()).permute(2, 0, 1)[None].float() / 255
    x_hat = (x + 0.02 * torch.randn_like(x)).requires_grad_()
    quality = torch.tensor([4.0])
    found = {}
    for share in (0.0, 0.3, 1.0):
        estimate = Estimate(x_hat, torch.zeros(1))
        config = TrainConfig(metric="ssimulacra2", mse_share=share)
        found[share] = training_loss(model, estimate, x, quality, config)
    assert found[0.3].total.item() == pytest.approx(0.7 * found[0.0].total.item() + 0.3 * found[1.0].total.item())
    assert found[0.3].ssimulacra2 == pytest.approx(ssimulacra2(x_hat, x).item())
    found[0.3].total.backward()
    assert float(x_hat.grad.abs().sum()) > 0


def test_errors_of_colour_weigh_less():
    x = torch.full((1, 3, 8, 8), 0.5)
    grey, of_luma = x + 0.1, torch.tensor(LUMA)
    colour = x + 0.1 * torch.tensor([of_luma[1], -of_luma[0], 0.0])[None, :, None, None]  # of equal luma
    assert luma_weighted_error(grey, x).item() == pytest.approx(squared_error(grey, x).item())
    assert luma_weighted_error(colour, x).item() == pytest.approx(COLOUR_WEIGHT * squared_error(colour, x).item())


def test_schedule():
    config = TrainConfig(steps=1000, warmup=100, lr=1e-3, lr_min=1e-5)
    rates = [config.rate(s) for s in range(1000)]
    assert rates[0] == 0.01 and max(rates) == rates[99] == rates[100] == 1
    assert rates[-1] == pytest.approx(0.01, rel=0.01)


def test_muon_iterates_in_float32_where_bf16_is_emulated(monkeypatch):
    from timm.optim import muon

    from licodec.train import loop

    types = []
    real = muon.zeropower_via_newtonschulz

    def spy(*args, dtype=torch.bfloat16, **kwargs):
        types.append(dtype)
        return real(*args, dtype=dtype, **kwargs)

    for native in (True, False):
        monkeypatch.setattr(muon, "zeropower_via_newtonschulz", spy)
        monkeypatch.setattr(loop, "has_bf16", lambda device, native=native: native)
        model = torch.nn.Linear(8, 8)
        optimizers = loop.make_optimizers(model, TrainConfig())
        model(torch.ones(1, 8)).sum().backward()
        optimizers[1].step()
    assert types == [torch.bfloat16, torch.float32]


def test_qualities_of_a_batch_are_spread():
    quality = stratified_quality(9, 1, 10)
    assert all(1 + i <= q <= 2 + i for i, q in enumerate(quality.tolist()))


def test_unreadable_picture_is_named(folder, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "x.png").write_bytes(b"nothing")
    result = licodec("train", bad, "-o", tmp_path / "run")
    assert result.returncode == 1 and b"x.png" in result.stderr and b"Traceback" not in result.stderr

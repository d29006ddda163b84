"""Small inputs: rendered pictures, and a tiny `lite` whose weights take no training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import warm
from PIL import Image

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, see licodec/cli
os.environ.setdefault("LICODEC_OFFLINE", "1")  # tests that want a network bring their own

PICTURES = Path(__file__).parent / "pictures"
GOLDEN = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared"


def render(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A picture with smooth shading, edges and texture, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:height, :width].astype(np.float64)
    picture = np.stack([128 + 90 * np.sin(row / 37 + c + column / (50 + 9 * c)) for c in range(3)], 2)
    for _ in range(6):
        y, x, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(5, 40)
        picture[(row - y) ** 2 + (column - x) ** 2 < r * r] = rng.uniform(0, 255, 3)
    picture[: height // 2] += 12 * np.sin(column[: height // 2, :, None] * 1.3)
    return np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def picture_file(tmp_path: Path) -> Path:
    """A rendered PNG of 150x100."""
    path = tmp_path / "picture.png"
    Image.fromarray(render(150, 100)).save(path)
    return path


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a tiny `lite`: the KLT of a rendered picture, no training."""
    import torch

    from licodec.models.export import export
    from licodec.models.lite import Lite, LiteConfig
    from licodec.train.data import Crops

    torch.manual_seed(0)
    model = Lite(LiteConfig(N=32, M=48, C=16, Z=8, blocks=1))
    patches = torch.from_numpy(Crops([render(256, 256)], 0).batch(0, 2000, 16))
    model.init_from_pictures(patches.permute(0, 3, 1, 2).float() / 255)
    for name, weight in model.named_parameters():
        if name.endswith("reduce.weight"):
            weight.data *= 0.1  # untrained blocks disturb less, but still reach across tiles
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    export(model, path, {"made_by": "tests"}, "Apache-2.0")
    return path


def torch_model(path: Path):
    """The model of a weights file run by torch, also where the codec would use ONNX Runtime."""
    from licodec.runtime.torch import TorchModel
    from licodec.weights import file

    return TorchModel.load(file.read(path), "cpu")


def licodec(*arguments: object, stdin: bytes = b"", env: dict[str, str] | None = None):
    """Run the command line in a process of its own; a quite new one if `env` speaks to torch, which reads it once."""
    words, own = [*map(str, arguments)], env or {}
    env = {**os.environ, **own}
    if warm.POSSIBLE and not any(name.startswith(("ATEN_", "ONEDNN_", "OMP_")) for name in own):
        return warm.run(words, stdin, env)
    return subprocess.run([sys.executable, "-m", "licodec", *words], input=stdin, capture_output=True, env=env)


def heed_interrupts() -> None:
    """For `preexec_fn`: what a shell starts in the background ignores Ctrl-C, and so would its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

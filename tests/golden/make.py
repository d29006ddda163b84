"""Makes golden files. Run it for a new kind of file only: what is here must decode for ever, as it is.

python tests/golden/make.py NAME
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import formula  # noqa: E402
from conftest import PICTURES, render  # noqa: E402

from licodec import codec, container, imaging, output  # noqa: E402
from licodec.models import MODELS  # noqa: E402
from licodec.models.export import export  # noqa: E402


def lite_rgb() -> tuple[codec.Codec, imaging.Picture, dict]:
    """A photograph, one tile, default weights."""
    with Image.open(PICTURES / "astronaut.png") as image:
        return (
            codec.for_model("lite", 5, device="cpu"),
            imaging.from_pil(image.crop((100, 20, 260, 164))),
            {"quality": 5},
        )


def lite_tiled() -> tuple[codec.Codec, imaging.Picture, dict]:
    """Grey, alpha, metadata, several tiles, a quality between two."""
    grey = np.asarray(Image.fromarray(render(300, 200)).convert("L"))
    alpha = np.tile(np.arange(300) % 256, (200, 1)).astype(np.uint8)
    picture = imaging.Picture(grey, alpha, icc=b"profile", exif=b"Exif\0\0", xmp=b"<x/>")
    return codec.for_model("lite", 2.37, device="cpu"), picture, {"quality": 2.37, "tile": 128}


def lite_deep() -> tuple[codec.Codec, imaging.Picture, dict]:
    """Colour and alpha of 16 bits, cICP."""
    deep = render(150, 110).astype(np.uint16) * 256 + np.arange(150, dtype=np.uint16)[None, :, None]
    alpha = np.tile(np.arange(150, dtype=np.uint16) * 400, (110, 1))
    return codec.for_model("lite", 6.5, device="cpu"), imaging.Picture(deep, alpha, cicp=b"\1\2\3\4"), {"quality": 6.5}


def conv_hyperprior() -> tuple[codec.Codec, imaging.Picture, dict]:
    """A published architecture with small random weights, which lie beside the file."""
    torch.manual_seed(1)
    weights = HERE / "conv-hyperprior.safetensors"
    model = MODELS["conv-hyperprior"].build({"M": 16, "Z": 8})
    with torch.no_grad():  # so that symbols, scales and the picture vary
        model.g_a[-1].weight.mul_(300)
        model.h_a[-1].weight.mul_(100)
        model.h_s[-1].weight.mul_(10)
        model.h_s[-1].bias[:16] += 3
        model.g_s[-1].bias += 0.5
    export(model, weights, {"made_by": "tests"}, "Apache-2.0", 1)
    return codec.load(weights, "cpu"), imaging.Picture(render(130, 90)), {}


def of_recipe(name: str) -> Callable[[], tuple[codec.Codec, imaging.Picture, dict]]:
    """A published architecture with small weights from a formula (see formula.py), sides that need padding."""

    def make() -> tuple[codec.Codec, imaging.Picture, dict]:
        with TemporaryDirectory() as folder:
            path = formula.weights(name, Path(folder) / "weights.safetensors")
            return codec.load(path, "cpu"), imaging.Picture(render(150, 140)), {}

    return make


MAKERS = {
    "lite-rgb": lite_rgb,
    "lite-tiled": lite_tiled,
    "lite-deep": lite_deep,
    "conv-hyperprior": conv_hyperprior,
    **{path.stem: of_recipe(path.stem) for path in HERE.glob("*.recipe")},
}

if __name__ == "__main__":
    for name in sys.argv[1:]:
        chosen, picture, options = MAKERS[name]()
        data = chosen.encode(picture, **options).data
        (HERE / f"{name}.lic").write_bytes(data)
        decoded = chosen.decode(container.read(data))
        (HERE / f"{name}.png").write_bytes(output.to_bytes(imaging.Picture(decoded.pixels, decoded.alpha), "PNG"))

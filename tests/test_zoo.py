"""CompressAI's zoo against compressai's own models, at full size, with weights from its initialiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import licodec, render
from PIL import Image

from licodec import codec, coding, container, imaging
from licodec.errors import WeightsError
from licodec.models import MODELS
from licodec.models.autoregressive import diagonal
from licodec.upstream.convert import convert, load_state
from licodec.weights import drive, manifest, zoo

FIXED = [
    "bmshj2018-factorized",
    "bmshj2018-hyperprior",
    "mbt2018-mean",
    "mbt2018",
    "cheng2020-anchor",
    "cheng2020-attn",
]
VARIABLE = ["bmshj2018-hyperprior-vbr", "mbt2018-mean-vbr", "mbt2018-vbr"]
SIDES = (104, 88)  # padded to 128 x 128
LARGER = {"g_a": 40, "h_a": 10, "h_s": 3, "entropy_parameters": 3, "g_s": 3}  # the weights of their last layers
LEVEL = 5  # of the variable ones: quality 6


def theirs(name: str):
    """compressai's model; last layers are made larger, so that symbols are not all zero nor pictures all grey."""
    from compressai.zoo import image_models
    from compressai.zoo.image_vbr import model_architectures

    torch.manual_seed(3)
    if name == "mbt2018-vbr":
        net = model_architectures[name](192, 320)
    elif name in VARIABLE:
        net = model_architectures[name](192, 320, vr_entbttlnck=True)
    else:
        net = image_models[name](1)
    net.eval()
    with torch.no_grad():
        for transform, factor in LARGER.items():
            parts = getattr(net, transform, torch.nn.Module()).modules()
            last = [m for m in parts if isinstance(m, torch.nn.Conv2d | torch.nn.ConvTranspose2d)]
            if last:
                last[-1].weight *= factor
        if name == "cheng2020-attn":  # which ends with attention
            net.g_a[7].weight *= 15
    return net


class Recorder:
    """An entropy coder of compressai's that remembers what it coded."""

    symbols: list[int]

    def __init__(self, coder) -> None:
        self.coder = coder

    def encode_with_indexes(self, symbols, *rest):
        Recorder.symbols += symbols
        return self.coder.encode_with_indexes(symbols, *rest)

    def __getattr__(self, name):
        return getattr(self.coder, name)


def their_code(net, name: str, x: torch.Tensor, monkeypatch):
    """Symbols, number of bytes and decoded picture."""
    from compressai.models import google, vbr

    Recorder.symbols = []
    variable = name in VARIABLE
    if name in VARIABLE[:2]:
        net.update(force=True, scale=net.Gain[LEVEL])
    else:
        net.update(force=True)
    for model in (net.entropy_bottleneck, getattr(net, "gaussian_conditional", None)):
        if model is not None:
            model.entropy_coder = Recorder(model.entropy_coder)
    for module in (google, vbr):
        encoder = module.BufferedRansEncoder
        monkeypatch.setattr(module, "BufferedRansEncoder", lambda encoder=encoder: Recorder(encoder()))
    level = {"s": LEVEL} if variable else {}
    with torch.inference_mode():
        coded = net.compress(x, **level)
        x_hat = net.decompress(coded["strings"], coded["shape"], **level)["x_hat"]
    return sorted(Recorder.symbols), sum(len(s[0]) for s in coded["strings"]), x_hat


def our_symbols(chosen: codec.Codec, x: np.ndarray, quality: float, monkeypatch) -> list[int]:
    found = []

    class Remembering(coding.Encoder):
        def push(self, symbols, *rest):
            found.append(symbols.ravel())
            super().push(symbols, *rest)

    monkeypatch.setattr(coding, "Encoder", Remembering)
    coding.encode_latent(chosen.model, chosen.tables, chosen.model.analyse(x, quality), quality)
    return sorted(np.concatenate(found).tolist())


@pytest.mark.parametrize("name", FIXED + VARIABLE)
def test_symbols_bytes_and_pixels_are_compressais(name, tmp_path, monkeypatch):
    net = theirs(name)
    torch.save(net.state_dict(), tmp_path / "zoo.pth.tar")
    converted = convert(tmp_path / "zoo.pth.tar")  # recognised by itself
    assert converted.model.name == name
    quality = float(LEVEL + 1 if name in VARIABLE else 1)
    converted.save(tmp_path / "w.safetensors")
    chosen = codec.load(tmp_path / "w.safetensors", "cpu")

    picture = render(*SIDES)
    left, top = ((128 - side) // 2 for side in SIDES)
    x = np.zeros((1, 3, 128, 128), np.float32)
    x[0, :, top : top + SIDES[1], left : left + SIDES[0]] = picture.transpose(2, 0, 1) / np.float32(255)
    symbols, size, x_hat = their_code(net, name, torch.from_numpy(x), monkeypatch)
    assert np.count_nonzero(symbols) > 300 and 0.05 < x_hat.std() < 0.48

    ours = our_symbols(chosen, x, quality, monkeypatch)
    assert len(ours) == len(symbols)
    assert np.count_nonzero(np.array(ours) != symbols) <= 2  # float32 against float64: a tie may fall either way
    encoded = chosen.encode(imaging.Picture(picture), quality)
    assert abs(encoded.payload_bytes - size) <= 0.01 * size + 12  # theirs are two streams, ours has a checksum
    pixels = chosen.decode(container.read(encoded.data)).pixels.astype(int)
    expected = x_hat[0, :, top : top + SIDES[1], left : left + SIDES[0]].mul(255).round().permute(1, 2, 0).numpy()
    assert np.abs(pixels - expected).max() <= 1


def test_diagonals_cover_a_latent_once_and_see_only_what_is_known():
    for height, width in ((1, 1), (1, 5), (4, 1), (4, 7), (7, 4)):
        when = np.full((height, width), -1)
        for step in range(width + 3 * (height - 1)):
            rows, columns = (places.numpy() for places in diagonal(step, height, width))
            assert (when[rows, columns] == -1).all()
            when[rows, columns] = step
        assert (when >= 0).all()
        for row, column in np.ndindex(height, width):
            for r in range(max(0, row - 2), row + 1):
                last = column + 2 if r < row else column - 1
                assert (when[r, max(0, column - 2) : last + 1] < when[row, column]).all()


def test_addresses_are_compressais():
    """Every entry has one, with a hash in its name, and every address of compressai's zoo has an entry."""
    from compressai.zoo import image, image_vbr

    known = {image_vbr.model_urls[name]["mse"] for name in VARIABLE}
    known |= {url for metrics in image.model_urls.values() for urls in metrics.values() for url in urls.values()}
    entries = [e for name in FIXED + VARIABLE for e in manifest.package().models[name].weights]
    assert {drive.address(e) for e in entries} == known
    assert len(entries) == len(known) == 91
    with pytest.raises(WeightsError, match="no weights of mbt2018-vbr for ms-ssim"):
        zoo.url("mbt2018-vbr", "ms-ssim", "vbr")


def test_old_names(tmp_path):
    """The names that CompressAI's files had before, as its `load_pretrained` knows them."""
    from compressai.zoo.pretrained import load_pretrained

    state = theirs("cheng2020-anchor").state_dict()
    old = {}
    for key, value in state.items():
        for new, former in (("matrix", "matrices"), ("bias", "biases"), ("factor", "factors")):
            if key.startswith(f"entropy_bottleneck._{new}") or key.startswith(f"entropy_bottleneck.{former}."):
                key = f"entropy_bottleneck._{former}.{key[-1]}"
        old[key.replace(".skip.", ".downsample.")] = value
    assert set(old) != set(state) and len(load_pretrained(old)) == len(state)
    torch.save(old, tmp_path / "old.pth.tar")
    torch.save(state, tmp_path / "new.pth.tar")
    models = [convert(tmp_path / name).model.state_dict() for name in ("old.pth.tar", "new.pth.tar")]
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[1])
    assert load_state(tmp_path / "old.pth.tar").keys() == old.keys()


def test_gains_between_the_trained_ones(tmp_path):
    """Bytes rise with the quality, also between whole ones; tables of z are those of the nearer rate."""
    from licodec.models.export import export

    torch.manual_seed(0)
    model = MODELS["mbt2018-mean-vbr"].build({"N": 16, "M": 24, "levels": 8})
    with torch.no_grad():
        model.g_a[-1].weight.mul_(100)
    qualities = torch.tensor([1.0, 2.5, 8.0])
    gains = model.gain(qualities).flatten()
    assert gains[0] == model.gains[0] and gains[2] == model.gains[7] and model.gains[1] < gains[1] < model.gains[2]
    export(model, tmp_path / "w.safetensors", {}, "test")
    chosen = codec.load(tmp_path / "w.safetensors", "cpu")
    picture = imaging.Picture(render(70, 50))
    sizes = []
    for quality in (1, 2.5, 4, 8):
        data = chosen.encode(picture, quality).data
        assert container.read(data).header.quality == quality
        assert chosen.decode(container.read(data)).size == (70, 50)
        sizes.append(len(data))
    assert sizes == sorted(sizes) and sizes[-1] > 2 * sizes[0]


def test_a_model_of_variable_rate_trains(tmp_path):
    """Its defaults are those of published models, not those of `lite`, and one file serves all qualities."""
    Image.fromarray(render(80, 70)).save(tmp_path / "0.png")
    options = ["-m", "bmshj2018-hyperprior-vbr", "--steps", "1", "--batch", "2", "--crop", "64", "-j", "1"]
    run = licodec("train", tmp_path, "-o", tmp_path / "run", *options)
    assert run.returncode == 0, run.stderr.decode()
    coded = codec.load(tmp_path / "run" / "weights.safetensors", "cpu")
    assert coded.metadata.quality is None and coded.quality(7.5) == 7.5

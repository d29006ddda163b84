"""`lite`: integers that are the same however they are computed, and what it is trained for."""

import io
import json

import numpy as np
import pytest
import torch
from conftest import PICTURES, licodec, render
from PIL import Image
from torch.nn import functional as F

import licodec as licodec_api
from licodec import codec, container, imaging
from licodec.errors import UsageError
from licodec.layers import integer
from licodec.layers.integer import BYTE, WORD, IntegerConv, TrainableConv
from licodec.models.lite import Lite, LiteConfig
from licodec.models.lite_entropy import interpolate_integers
from licodec.runtime.refine import MSE_SHARE
from licodec.search import pixel_psnr
from licodec.ssimulacra2 import _blur, ssimulacra2

SMALL = LiteConfig(16, 32, 16, 8, 1, 4)


def distorted(seed):
    """A picture and what JPEG makes of it, as arrays."""
    if seed < 6:
        picture = Image.fromarray(render(120 + 7 * seed, 90 + 16 * seed, seed))
    else:
        with Image.open(PICTURES / "astronaut.png") as image:
            picture = image.convert("RGB").crop((20 * seed, 10 * seed, 20 * seed + 130, 10 * seed + 101))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=(10, 30, 60, 90)[seed % 4])
    return np.asarray(picture), np.asarray(Image.open(buffer))


def tensor(array):
    return torch.from_numpy(array.copy()).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("seed", range(12))
def test_ssimulacra2_is_the_reference(seed, tmp_path):
    reference = pytest.importorskip("ssimulacra2")
    original, coded = distorted(seed)
    for name, array in (("a", original), ("b", coded)):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    expected = reference.compute_ssimulacra2(str(tmp_path / "a.png"), str(tmp_path / "b.png"))
    assert ssimulacra2(tensor(coded), tensor(original)).item() == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("height, width", [(16, 131), (90, 16), (64, 128), (65, 129)])
def test_blocks_blur_as_one_matrix_does(height, width, monkeypatch):
    """Borders and gradients included."""
    x = torch.rand(2, 3, height, width, requires_grad=True)
    weights = torch.rand(height, width)
    found = []
    for side in (512, 16):
        monkeypatch.setattr("licodec.ssimulacra2.WHOLE_SIDE", side)
        blurred = _blur(x)
        found.append((blurred, *torch.autograd.grad((blurred * weights).sum(), x)))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=2e-6)


def test_gradient_of_ssimulacra2():
    original, coded = map(tensor, distorted(7))
    x_hat = coded.clone().requires_grad_()
    ssimulacra2(x_hat, original).sum().backward()
    direction = x_hat.grad / x_hat.grad.norm()
    with torch.no_grad():
        step = 0.004
        change = (
            ssimulacra2(coded + step * direction, original) - ssimulacra2(coded - step * direction, original)
        ).item()
    assert change / (2 * step) == pytest.approx(float(x_hat.grad.norm()), rel=0.03)
    assert ssimulacra2(original, original).item() > 99.9


def adversarial(channels, seed):
    """Activations at their limits, in the order that makes partial sums largest, and random ones."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(-BYTE, BYTE + 1, (2, channels, 9, 7), generator=generator).float()
    x[0, : channels // 2], x[0, channels // 2 :] = BYTE, -BYTE
    return x


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("onednn", [True, False])
def test_products_are_exact(threads, onednn):
    """The widest product (1040 inputs at their limits) against int64, in any layout."""
    layer = IntegerConv(1040, 24)
    layer.weight = torch.randint(-BYTE, BYTE + 1, layer.weight.shape, generator=torch.Generator().manual_seed(1))
    layer.weight[0] = BYTE
    layer.weight[1, :520], layer.weight[1, 520:] = BYTE, -BYTE
    layer.multiplier = torch.rand(24) * 1e-3
    x = adversarial(1040, 2)
    expected = torch.einsum("oi,bihw->bohw", layer.weight[:, :, 0, 0].long(), x.long()).double()
    expected = (expected.float() * layer.multiplier[:, None, None]).round()
    layer.prepare()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.mkldnn.flags(enabled=onednn):
            for layout in (torch.contiguous_format, torch.channels_last):
                got = layer(x.contiguous(memory_format=layout)).round()
                assert torch.equal(got, expected)
    finally:
        torch.set_num_threads(before)


def test_inexact_products_are_refused():
    layer = IntegerConv(1100, 1)
    layer.weight = torch.full_like(layer.weight, BYTE)
    with pytest.raises(ValueError, match="exactly"):
        layer.prepare()


def test_frozen_convolution_computes_what_training_computes():
    torch.manual_seed(3)
    layer = TrainableConv(32, 48)
    torch.nn.init.normal_(layer.bias)
    frozen = layer.freeze()
    frozen.prepare()
    x = adversarial(32, 4)
    assert torch.equal(layer(x), frozen(x))
    again = TrainableConv(32, 48)
    again.thaw(layer.freeze())
    assert torch.equal(again(x).round(), frozen(x).round())
    assert float((again.weight - layer.weight).abs().max()) <= float(layer.weight.detach().abs().max()) / BYTE


def lite(seed=0):
    """A small untrained model whose entropy networks say something, and its frozen form."""
    torch.manual_seed(seed)
    model = Lite(SMALL).eval()
    with torch.no_grad():
        for table in model.entropy.tables.parameters():
            table.normal_(0, 0.7)
        for head in (*model.entropy.mean_heads, *model.entropy.row_heads):
            head.weight.mul_(5)
    frozen = Lite.for_coding(SMALL)
    frozen.load_state_dict(model.coding_state())
    return model, frozen.prepare()


def walk(model, z, quality, symbols):
    context = model.context(z, torch.tensor([quality]))
    out = []
    for step, part in enumerate(symbols):
        mean, scale = context.params(step)
        out += [mean.float(), scale.float()]
        context.push(step, part + mean)
    return [*out, context.y_hat().float()]


def reference_convolve(x, weight, bias, multiplier):
    """The same in float64, where every sum is exact whatever its order."""
    groups = len(weight) if weight.shape[-1] > 1 else 1
    total = F.conv2d(x.double(), weight.double(), bias.double(), padding=weight.shape[-1] // 2, groups=groups)
    return total.float() * multiplier[:, None, None]


@pytest.mark.parametrize("quality", [1.0, 3.37, 10.0])
def test_entropy_networks_are_exact(quality, monkeypatch):
    """Same integers from 1 and 3 threads, oneDNN on and off, and float64; wild symbols included."""
    _, model = lite()
    generator = torch.Generator().manual_seed(5)
    z = torch.randint(-BYTE, BYTE + 1, (1, SMALL.Z, 2, 3), generator=generator).double()
    z[0, 0], z[0, 1] = 1e6, -1e6  # what a damaged file may hold
    symbols = [torch.randint(-300, 300, (1, SMALL.M, 4, 6), generator=generator).double() for _ in range(4)]
    symbols[1][0, 0] = 2.0**24
    with torch.inference_mode():
        expected = walk(model, z, quality, symbols)
        before = torch.get_num_threads()
        for threads, onednn in ((1, False), (3, True), (3, False)):
            torch.set_num_threads(threads)
            with torch.backends.mkldnn.flags(enabled=onednn):
                got = walk(model, z, quality, symbols)
            assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
        torch.set_num_threads(before)
        monkeypatch.setattr(integer, "convolve", reference_convolve)
        got = walk(model, z, quality, symbols)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert len(expected[0].unique()) > 10 and len(expected[1].unique()) > 5


def test_training_computes_the_frozen_integers():
    model, frozen = lite(1)
    z = torch.randint(-9, 10, (1, SMALL.Z, 2, 2)).float()
    symbols = [torch.randint(-9, 10, (1, SMALL.M, 4, 4)).float() for _ in range(4)]
    with torch.no_grad():
        for a, b in zip(walk(model, z, 4.0, symbols), walk(frozen, z, 4.0, symbols), strict=True):
            assert float((a == b).double().mean()) > 0.99  # ties of the tables' own rounding


def test_training_goes_on_from_frozen_weights():
    model, _ = lite(2)
    again = Lite(SMALL).eval()
    again.load_coding_state(model.coding_state())
    x = torch.from_numpy(render(128, 128, 3).copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        a, b = (m(x, torch.tensor([4.0])).bits.item() for m in (model, again))
    assert a == pytest.approx(b, rel=0.02)


def test_tables_between_qualities_are_whole():
    table = torch.randint(-WORD, WORD, (10, 5))
    for hundredths in (100, 101, 250, 999, 1000):
        got = interpolate_integers(table, torch.tensor([hundredths / 100]))[0, :, 0, 0]
        low = min(hundredths // 100 - 1, 8)
        weight = hundredths - 100 * (low + 1)
        exact = (table[low] * (100 - weight) + table[low + 1] * weight) / 100
        assert got.dtype == torch.int64 and float((got - exact).abs().max()) <= 0.5


def test_cost():
    """The issue's budget: synthesis and entropy networks at most 20 kMAC a pixel."""
    model = Lite()
    macs = 0

    def count(module, args, out):
        nonlocal macs
        macs += out.shape[-2] * out.shape[-1] * module.weight.numel()

    with torch.no_grad():
        q = torch.tensor([5.0])
        y = torch.zeros(1, model.latent_channels, 16, 16)
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d | TrainableConv):
                module.register_forward_hook(count)
        model.synthesise(y, q)
        context = model.context(torch.zeros(1, model.hyper_channels, 4, 4), q)
        for step, part in enumerate(model.split(y)):
            context.params(step)
            context.push(step, part)
    assert macs / 256**2 <= 20_000
    assert sum(t.numel() * t.element_size() for t in model.coding_state().values()) < 16e6


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    path = tmp_path_factory.mktemp("lite") / "photograph.png"
    with Image.open(PICTURES / "astronaut.png") as image:
        image.convert("RGB").crop((60, 0, 316, 256)).save(path)
    return path


def test_effort_lowers_what_training_minimises(photograph):
    """Bits plus weighted distortion, on real files; the same file each time."""
    x = tensor(np.asarray(Image.open(photograph)))
    quality = torch.tensor([5.0])
    costs, sizes = [], []
    for effort in (1, 2, 4):
        data = licodec_api.encode(photograph, quality=5, effort=effort)
        x_hat = tensor(licodec_api.decode_array(data))
        model = Lite()
        squared = 255**2 * float((x_hat - x).square().mean())
        lost = 100 - ssimulacra2(x_hat, x).item()
        weighted = MSE_SHARE * model.rate_lambda(quality).item() * squared
        weighted += (1 - MSE_SHARE) * model.rate_mu(quality).item() * lost
        costs.append(8 * len(data) / 256**2 + weighted)
        sizes.append(len(data))
    assert costs[1] < 0.99 * costs[0] and costs[2] < costs[1], (costs, sizes)
    assert licodec_api.encode(photograph, quality=5, effort=2) == licodec_api.encode(photograph, quality=5, effort=2)


def test_effort_of_tiles_and_its_progress(photograph):
    seen = []
    chosen = codec.for_model("lite", 3, device="cpu")
    picture = imaging.read(photograph)
    encoded = chosen.encode(picture, 3, 128, lambda done, total: seen.append((done, total)), effort=3)
    assert seen == [(i + 1, 12) for i in range(12)]  # 4 tiles, 2 rounds each and the coding
    plain = chosen.encode(picture, 3, 128)
    assert encoded.data != plain.data
    reached = [pixel_psnr(chosen.decode(container.read(e.data)).pixels, picture.pixels) for e in (encoded, plain)]
    assert reached[0] > reached[1] - 0.5 and len(encoded.data) < 1.02 * len(plain.data)


def test_effort_is_refused_where_there_is_none(photograph):
    with pytest.raises(UsageError, match="effort 10"):
        licodec_api.encode(photograph, effort=10)
    result = licodec("encode", photograph, "--effort", "0")
    assert result.returncode == 2


def test_target_ssimulacra2(photograph, tmp_path):
    out = tmp_path / "x.lic"
    result = licodec("encode", photograph, "--target-ssimulacra2", "70", "-o", out, "--json")
    assert result.returncode == 0, result.stderr
    quality = json.loads(result.stdout)["quality"]
    x = tensor(np.asarray(Image.open(photograph)))
    scores = {}
    for q in (quality, round(quality - 0.01, 2)):
        x_hat = tensor(licodec_api.decode_array(licodec_api.encode(photograph, quality=q)))
        scores[q] = ssimulacra2(x_hat, x).item()
    assert scores[quality] >= 70 > min(scores.values()) - 0.2
    assert out.read_bytes() == licodec_api.encode(photograph, quality=quality)
    unreachable = licodec("encode", photograph, "--target-ssimulacra2", "99.9", "-o", tmp_path / "y.lic")
    assert unreachable.returncode == 1 and b"SSIMULACRA 2" in unreachable.stderr

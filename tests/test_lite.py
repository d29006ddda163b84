"""`lite`: integers that are the same however they are computed, and what it is trained for."""

import io

import numpy as np
import pytest
import torch
from conftest import PICTURES, render
from PIL import Image
from torch.nn import functional as F

from licodec.layers import integer
from licodec.layers.integer import BYTE, WORD, IntegerConv, TrainableConv
from licodec.models.lite import Lite, LiteConfig
from licodec.models.lite_entropy import interpolate_integers
from licodec.train.ssimulacra2 import ssimulacra2

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

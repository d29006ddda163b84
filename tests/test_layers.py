"""Layers that stand in for torch's: the same results."""

import copy

import pytest
import torch
from torch.nn import functional as F

from licodec.layers import activation, conv, dictionary, linear, parallel, products, winograd
from licodec.layers import window as window_layers
from licodec.layers.conv import GDN, Conv1x1, Conv3x3, Conv5x5, Deconv5x5, SubpelConv
from licodec.layers.dictionary import DictionaryAttention, GatedBlock
from licodec.layers.linear import MLP
from licodec.layers.pointwise import Depthwise, Pointwise
from licodec.layers.window import SwinBlock, WindowAttention


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (8, 8), (17, 6)])
def test_winograd_is_exact_to_float64(size):
    torch.manual_seed(0)
    x = torch.randn(2, 24, *size, dtype=torch.float64) * 10
    weight, bias = torch.randn(7, 24, 3, 3, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    expected = F.conv2d(x, weight, bias, padding=1)
    result = winograd.conv3x3(x, winograd.transform(weight), bias)
    assert float((result - expected).abs().max() / expected.abs().max()) < 1e-13


@pytest.mark.parametrize("library", [torch.matmul, products.openblas])
def test_winograd_of_maps_side_by_side(library, monkeypatch):
    """With either library: the products of several maps are summed, and their patches are views with strides."""
    monkeypatch.setattr(products, "_fastest", lambda dtype: library)
    torch.manual_seed(0)
    maps = [torch.randn(2, channels, 9, 14, dtype=torch.float64) for channels in (5, 3, 4, 2)]
    weight, bias = torch.randn(7, 14, 3, 3, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    expected = F.conv2d(torch.cat(maps, 1), weight, bias, padding=1)
    with torch.inference_mode():
        first, second, third, fourth = (winograd.Shared(x) for x in maps)
        parts = [first, winograd.Joined([second, third]), fourth]
        for _ in range(2):  # patches are kept, and not spoilt by their first use
            result = winograd.conv3x3(parts, winograd.transform(weight), bias)
            assert float((result - expected).abs().max() / expected.abs().max()) < 1e-13


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("library", [torch.matmul, products.openblas])
@pytest.mark.parametrize("strip", [1, 5, 1000])
@pytest.mark.parametrize("size", [(8, 8), (2, 14), (22, 18)])
@pytest.mark.parametrize("kind", [Conv3x3, Conv5x5, Deconv5x5, SubpelConv])
def test_winograd_in_float32(kind, size, strip, library, monkeypatch):
    """Of every kind of convolution, with tiles cut off at the ends, with either library."""
    monkeypatch.setattr(conv, "LEAST_CHANNELS", 1)
    monkeypatch.setattr(winograd, "STRIP", strip)
    monkeypatch.setattr(products, "_fastest", lambda dtype: library)
    torch.manual_seed(0)
    layer = kind(6, 5).requires_grad_(False)
    x = torch.randn(2, 6, *size)
    expected = layer(x)
    for layout in (torch.contiguous_format, torch.channels_last):
        with torch.inference_mode():
            result = layer(x.contiguous(memory_format=layout))
        assert result.shape == expected.shape and torch.allclose(result, expected, atol=1e-5)
    assert layer.winograd.kernels


@pytest.mark.parametrize("kind", [Conv5x5, Deconv5x5])
def test_5x5_in_float64(kind):
    torch.manual_seed(0)
    layer, x = kind(6, 5).double().requires_grad_(False), torch.randn(2, 6, 10, 14).double()
    expected = layer(x)
    with torch.inference_mode():
        assert torch.allclose(layer(x), expected, atol=1e-13)
        assert torch.allclose(layer.float()(x.float()), expected.float(), atol=1e-5)


def test_winograd_leaves_odd_sizes_to_torch(monkeypatch):
    monkeypatch.setattr(conv, "LEAST_CHANNELS", 1)
    layer, x = Conv5x5(6, 5).requires_grad_(False), torch.randn(1, 6, 9, 8).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert torch.equal(layer(x), F.conv2d(x, layer.weight, layer.bias, 2, 2))
    assert "winograd" not in layer.__dict__


def test_winograd_in_float32_is_as_exact_as_a_plain_sum():
    """Errors against float64, of as many channels as the models have."""
    torch.manual_seed(0)
    layer, x = Conv5x5(192, 64).requires_grad_(False), torch.randn(1, 192, 32, 32)
    exact = F.conv2d(x.double(), layer.weight.double(), layer.bias.double(), 2, 2)
    with torch.inference_mode():
        error = (layer(x) - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert layer.winograd.kernels
    assert error < 2e-6


@pytest.mark.parametrize("activation", ["none", "gelu", "relu"])
@pytest.mark.parametrize("way", ["fused", "packed", "plain"])
def test_every_way_to_a_linear_map(way, activation, monkeypatch):
    if way != "plain" and not linear.OFFERED:
        pytest.skip("this torch does not offer it")
    monkeypatch.setattr(linear, "_way", lambda activation: way)
    torch.manual_seed(0)
    layer, x = linear.Linear(6, 5).requires_grad_(False), torch.randn(2, 3, 6)
    expected = layer(x, activation)
    with torch.inference_mode():
        for _ in range(2):
            assert torch.allclose(layer(x, activation), expected, atol=1e-6)


def test_gelu_in_float64():
    """In parts, in place, on any layout."""
    torch.manual_seed(0)
    for x in (torch.randn(70_000), torch.randn(2, 3, 5, 4).permute(0, 3, 1, 2), torch.randn(1, 4, 6, 6)[:, :, :5]):
        x = x.double()
        expected = F.gelu(x)
        with torch.inference_mode():
            y = x.clone(memory_format=torch.preserve_format)
            assert activation.gelu(y) is y
            assert torch.allclose(y, expected, atol=1e-15, rtol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_on_any_layout(dtype, two_threads):
    torch.manual_seed(0)
    whole = torch.randn(2, 8, 40, 30, dtype=dtype)
    dense = whole.contiguous(memory_format=torch.channels_last)
    for x in (whole, dense, dense[:, :5], dense[:, 3:], whole[0], whole[:, :, :, :20]):
        y = torch.randn_like(x)
        added, leaky = x + y, F.leaky_relu(x) + y
        with torch.inference_mode(), parallel.team(torch.device("cpu")):
            assert torch.equal(activation.add(x.clone(), y), added)
            part = dense.clone(memory_format=torch.preserve_format)[:, :5]
            assert activation.leaky_relu(part, plus=part.clone()) is part  # only a part of a map is changed
            assert torch.allclose(activation.leaky_relu(x.clone(), plus=y), leaky)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(1, 1), (6, 9), (23, 8)])
@pytest.mark.parametrize(
    "layer",
    [
        conv.Conv(3, 5, 5, 2, 2),
        conv.Conv(3, 5, 3, 2, 1),
        conv.Conv(3, 5, 1, 2),
        conv.Conv(4, 4, 3, padding=1, groups=4),
        conv.Conv(2, 1, 7, padding=3, bias=False),
        conv.Deconv(3, 5, 5, 2),
        conv.Deconv(3, 5, 3, 2),
        conv.Deconv(3, 5, 3, 1),
    ],
    ids=lambda layer: f"{type(layer).__name__}{layer.kernel_size[0]}/{layer.stride[0]}/{layer.groups}",
)
def test_convolutions_by_rows(layer, size, dtype, two_threads, monkeypatch):
    for module in (parallel, conv):
        monkeypatch.setattr(module, "STRIP", 16)
    torch.manual_seed(0)
    layer = layer.to(dtype).requires_grad_(False)
    x = torch.randn(2, layer.in_channels, *size, dtype=dtype)
    expected = layer(x)  # torch's own: not in inference
    for layout in (torch.contiguous_format, torch.channels_last):
        with torch.inference_mode(), parallel.team(torch.device("cpu")):
            result = layer(x.contiguous(memory_format=layout))
        assert result.shape == expected.shape
        assert torch.allclose(result, expected, atol=1e-5 if dtype == torch.float32 else 1e-13)


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_in_place(inverse, two_threads, monkeypatch):
    monkeypatch.setattr(parallel, "STRIP", 16)
    torch.manual_seed(0)
    layer = conv.GDN(5, inverse).requires_grad_(False)
    x, skip = (torch.randn(2, 5, 9, 6).contiguous(memory_format=torch.channels_last) for _ in range(2))
    norm = F.conv2d(x**2, (layer.gamma**2 - layer.PEDESTAL)[:, :, None, None], layer.beta**2 - layer.PEDESTAL)
    expected = (x * norm.sqrt() if inverse else x * norm.rsqrt()) + skip
    assert torch.allclose(layer(x, plus=skip), expected, atol=1e-6)
    with torch.inference_mode(), parallel.team(torch.device("cpu")):
        result = layer(x, plus=skip)
    assert torch.allclose(result, expected, atol=1e-6)
    assert result.data_ptr() == x.data_ptr()


@pytest.mark.parametrize("layer", [Conv3x3(6, 5), Conv1x1(6, 5), Depthwise(6)], ids=lambda m: type(m).__name__)
def test_float64_paths_compute_the_same_as_float32(layer):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 9, 7)
    expected = layer(x)
    plain = F.conv2d(x, layer.weight, layer.bias, padding=layer.padding, groups=layer.groups)
    assert torch.allclose(expected, plain, atol=1e-5)
    with torch.inference_mode():
        assert torch.allclose(layer.double()(x.double()).float(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("window", "shift", "masked"), [(4, 0, -100.0), (4, 2, -100.0), (4, 2, float("-inf")), (8, 4, -100.0)]
)
def test_window_attention_against_the_definition(window, shift, masked):
    """Every position attends to those of its shifted window that are really beside it."""
    torch.manual_seed(0)
    heads, dim, h, w = 2, 8, 2 * window, 3 * window
    layer = WindowAttention(dim, heads, window, shift, masked=masked)
    x = torch.randn(1, h, w, dim)
    q, k, v = layer.qkv(x)[0].view(h, w, 3, heads, dim // heads).unbind(2)
    expected = torch.zeros(h, w, heads, dim // heads)

    def place(row, column):
        """Window of a position, counted from the shifted origin; those at the map's ends are cut in two."""
        return (row + window - shift) // window, (column + window - shift) // window

    positions = [(r, c) for r in range(h) for c in range(w)]
    for row, column in positions:
        seen = [p for p in positions if place(*p) == place(row, column)]
        for head in range(heads):
            logits = []
            for r, c in seen:
                bias = layer.bias_table[(row - r + window - 1) * (2 * window - 1) + column - c + window - 1, head]
                logits.append(layer.scale * q[row, column, head] @ k[r, c, head] + bias)
            weights = torch.stack(logits).softmax(0)
            expected[row, column, head] = sum(a * v[r, c, head] for a, (r, c) in zip(weights, seen, strict=True))
    result = layer(x)[0]
    assert torch.allclose(result, layer.proj(expected.flatten(2)), atol=1e-5)


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("strip", [1, 40, 10_000])
@pytest.mark.parametrize("attention", [window_layers._fused, window_layers._by_products])
def test_a_swin_block_strip_by_strip_is_the_same(attention, shift, strip, monkeypatch):
    torch.manual_seed(0)
    block = SwinBlock(8, 2, 4, shift, masked=float("-inf"))
    x = torch.randn(2, 16, 12, 8)
    whole = block(x)  # with gradients: all at once
    monkeypatch.setattr(window_layers, "STRIP", strip)
    monkeypatch.setattr(window_layers, "_fastest_attention", lambda dtype: attention)
    block.requires_grad_(False)
    with torch.inference_mode():
        assert torch.allclose(block(x), whole, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("strip", [1, 24, 30, 10_000])
def test_a_gated_block_strip_by_strip_is_the_same(strip, dtype, monkeypatch):
    torch.manual_seed(0)
    block = GatedBlock(8, WindowAttention(8, 2, 4, 2)).to(dtype)
    for scale in (block.scale1, block.scale2):
        torch.nn.init.normal_(scale)
    x = torch.randn(2, 16, 12, 8, dtype=dtype)
    given = x.clone()
    whole = block(x)  # with gradients: all at once
    monkeypatch.setattr(window_layers, "STRIP", strip)
    monkeypatch.setattr(dictionary, "STRIP", strip)
    with torch.inference_mode():
        assert torch.allclose(block(x), whole, atol=1e-5)
    assert torch.equal(x, given)


@pytest.mark.parametrize("strip", [4, 1 << 20], ids=["in parts", "whole"])
def test_dictionary_attention_with_folded_maps_is_the_same(strip, monkeypatch):
    torch.manual_seed(0)
    layer = DictionaryAttention(12, 6).double().requires_grad_(False)
    for scale in (layer.scale1, layer.scale2, layer.scale3):
        torch.nn.init.normal_(scale)
    x, words = torch.randn(1, 12, 5, 4).double(), torch.randn(7, 640).double()
    expected = layer(x, words)
    for part in (layer, layer.aggregation):
        part.freeze()
    for parameter in (layer.mlp.fc2.weight, layer.aggregation.stages[-1][-1].weight):
        parameter.fill_(float("nan"))  # they are not needed any more
    monkeypatch.setattr(parallel, "STRIP", strip)
    with torch.inference_mode():
        assert torch.allclose(layer(x, words), expected, atol=1e-12)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "layer", [Conv3x3(6, 5), Conv1x1(6, 5), Depthwise(6), Pointwise(6, 5), GDN(6)], ids=lambda m: type(m).__name__
)
def test_inference_computes_what_training_does(layer, layout):
    """Packed weights in float32 and numpy's products in float64, each called twice, as the weight is kept."""
    torch.manual_seed(0)
    layer = copy.deepcopy(layer).float()
    x = torch.randn(2, 6, 9, 7)
    with torch.no_grad():
        expected = layer(x)
        exact = copy.deepcopy(layer).double()(x.double())
    with torch.inference_mode():
        x = x.contiguous(memory_format=layout)
        for _ in range(2):
            assert torch.allclose(layer(x), expected, atol=1e-5)
        layer.double()
        for _ in range(2):
            assert torch.allclose(layer(x.double()), exact, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 8), (1, 4, 6, 8)])
def test_linear_and_mlp_in_inference(shape):
    torch.manual_seed(0)
    mlp = MLP(8, 32)
    x = torch.randn(*shape)
    expected = torch.nn.Sequential(*mlp)(x).detach()
    with torch.inference_mode():
        for _ in range(2):
            assert torch.allclose(mlp(x), expected, atol=1e-6)
        assert torch.allclose(mlp[0](x.transpose(0, -2)), mlp[0](x).transpose(0, -2), atol=1e-6)  # any strides
    with torch.no_grad():
        exact = torch.nn.Sequential(*mlp.double())(x.double())
    with torch.inference_mode():
        assert torch.allclose(mlp(x.double()), exact, atol=1e-12)

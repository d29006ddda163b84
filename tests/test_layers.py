"""Layers that stand in for torch's: the same results."""

import copy

import pytest
import torch
from torch.nn import functional as F

from licodec.layers import dictionary, exact, winograd
from licodec.layers import window as window_layers
from licodec.layers.conv import GDN, Conv1x1, Conv3x3
from licodec.layers.dictionary import GatedBlock
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


@pytest.mark.parametrize("library", [torch.matmul, exact._openblas])
def test_winograd_of_maps_side_by_side(library, monkeypatch):
    """With either library: the products of several maps are summed, and their patches are views with strides."""
    monkeypatch.setattr(exact, "_fastest", lambda: library)
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


@pytest.mark.parametrize("layer", [Conv3x3(6, 5), Conv1x1(6, 5), Depthwise(6)], ids=lambda m: type(m).__name__)
def test_float64_paths_compute_the_same_as_float32(layer):
    torch.manual_seed(0)
    x = torch.randn(2, 6, 9, 7)
    expected = layer(x)
    plain = F.conv2d(x, layer.weight, layer.bias, padding=layer.padding, groups=layer.groups)
    assert torch.allclose(expected, plain, atol=1e-5)
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
def test_a_swin_block_strip_by_strip_is_the_same(shift, strip, monkeypatch):
    torch.manual_seed(0)
    block = SwinBlock(8, 2, 4, shift)
    x = torch.randn(2, 16, 12, 8)
    whole = block(x)  # with gradients: all at once
    monkeypatch.setattr(window_layers, "STRIP", strip)
    with torch.no_grad():
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

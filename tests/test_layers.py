"""Layers against their definitions and CompressAI's, and the conversion to exact ones against float64."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from licodec.layers import conv, exact
from licodec.layers.dictionary import DictionaryAttention, GatedBlock
from licodec.layers.exact import make_exact
from licodec.layers.factorized import FactorizedPrior
from licodec.layers.window import SwinBlock, WindowAttention
from licodec.models.base import gaussian_bits
from licodec.models.cca import NAFTransform
from licodec.models.tcm import SlimAttention


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


CONVOLUTIONS = {
    "3x3": (conv.conv3x3(6, 5), exact.Conv3x3),
    "3x3 without bias": (nn.Conv2d(6, 5, 3, padding=1, bias=False), exact.Conv3x3),
    "1x1": (conv.conv1x1(6, 5), exact.ProductConv),
    "depthwise": (conv.depthwise3x3(6), exact.DepthwiseConv3x3),
    "strided 5x5": (conv.conv(6, 5), exact.ProductConv),
    "strided 3x3": (conv.conv3x3(6, 5, 2), exact.ProductConv),
    "strided 1x1": (conv.conv1x1(6, 5, 2), exact.ProductConv),
    "1x7": (nn.Conv2d(6, 5, (1, 7), padding=(0, 3)), exact.ProductConv),
    "transposed 5x5": (conv.deconv(6, 5), exact.TransposedConv),
    "transposed 3x3": (conv.deconv(6, 5, 3), exact.TransposedConv),
    "transposed 3x3, same size": (conv.deconv(6, 5, 3, 1), exact.TransposedConv),
    "transposed 2x2 by 2": (nn.ConvTranspose2d(6, 5, 2, 2, bias=False), exact.TransposedConv),
    "transposed 9x9 by 4": (nn.ConvTranspose2d(6, 5, 9, 4, 4, 3), exact.TransposedConv),
    "transposed 7x7 by 2": (nn.ConvTranspose2d(6, 5, 7, 2, 3, 1), nn.ConvTranspose2d),  # four taps: stays torch's own
    "grouped": (nn.Conv2d(6, 4, 3, padding=1, groups=2), nn.Conv2d),
    "dilated": (nn.Conv2d(6, 5, 3, padding=2, dilation=2), nn.Conv2d),
}


@pytest.mark.parametrize("size", [(1, 1), (8, 12), (9, 7)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_an_exact_convolution_is_the_original_in_float64(name, layout, size):
    layer, kind = CONVOLUTIONS[name]
    x = 10 * torch.randn(2, 6, *size, dtype=torch.float64)
    layer = copy.deepcopy(layer).requires_grad_(False)
    expected = copy.deepcopy(layer).double()(x)
    converted = make_exact(layer)
    assert type(converted) is kind
    result = converted(x.contiguous(memory_format=layout))
    assert result.dtype == torch.float64 and result.shape == expected.shape
    assert float((result - expected).abs().max() / expected.abs().max()) < 1e-13


BLOCKS = {
    "hyper synthesis": (conv.hyper_synthesis([6, 8, 8, 8, 8, 4]), 6),
    "residual block": (conv.ResidualBlock(6, 8), 6),
    "upsampling with inverse GDN": (conv.ResidualBlockUpsample(6, 4), 6),
    "stride with GDN": (conv.ResidualBlockWithStride(6, 4), 6),
    "attention of TCM's slices": (SlimAttention(6, 32), 6),
    "NAF transform": (NAFTransform(6, 8, 2), 6),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_an_exact_block_is_the_original_in_float64(name):
    block, channels = BLOCKS[name]
    block = copy.deepcopy(block).requires_grad_(False)
    for parameter in block.parameters():  # no scale of zero hides what it scales
        parameter.add_(0.05 * torch.randn_like(parameter))
    x = torch.randn(1, channels, 8, 8, dtype=torch.float64)
    expected = copy.deepcopy(block).double()(x)
    converted = make_exact(block)
    assert any(isinstance(module, exact.ExactConvolution) for module in converted.modules())
    assert torch.allclose(converted(x), expected, atol=1e-12, rtol=1e-12)


def test_exact_dictionary_attention_is_the_original_in_float64():
    layer = DictionaryAttention(12, 6).requires_grad_(False)
    for scale in (layer.scale1, layer.scale2, layer.scale3):
        nn.init.normal_(scale)
    x, words = torch.randn(1, 12, 5, 4).double(), torch.randn(7, 640).double()
    expected = copy.deepcopy(layer).double()(x, words)
    assert torch.allclose(make_exact(layer)(x, words), expected, atol=1e-12)


def test_an_exact_model_can_be_saved_moved_and_loaded():
    block = nn.Sequential(conv.conv3x3(6, 6), nn.GELU(), conv.deconv(6, 5), conv.depthwise3x3(5)).requires_grad_(False)
    x = torch.randn(1, 6, 8, 8).double()
    converted = make_exact(copy.deepcopy(block))
    names = {name: tensor.shape for name, tensor in block.state_dict().items()}
    assert {name: tensor.shape for name, tensor in converted.state_dict().items()} == names
    expected = converted(x)
    other = make_exact(copy.deepcopy(block))
    for parameter in other.parameters():
        parameter.zero_()
    other.load_state_dict(converted.state_dict())
    assert torch.equal(other(x), expected)
    block.load_state_dict(converted.state_dict())  # back into what it was made of
    file = io.BytesIO()
    torch.save(converted, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), expected)
    assert {tensor.device.type for tensor in copy.deepcopy(converted).to("meta").buffers()} == {"meta"}


@pytest.mark.parametrize(
    ("window", "shift", "mask_value"), [(4, 0, -100.0), (4, 2, -100.0), (4, 2, float("-inf")), (8, 4, -100.0)]
)
def test_window_attention_against_the_definition(window, shift, mask_value):
    """Every position attends to those of its shifted window that are really beside it."""
    torch.manual_seed(0)
    heads, dim, h, w = 2, 8, 2 * window, 3 * window
    layer = WindowAttention(dim, heads, window, shift, mask_value=mask_value)
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


@pytest.mark.parametrize("block", [SwinBlock(8, 2, 4, 2), GatedBlock(8, WindowAttention(8, 2, 4, 2))])
@pytest.mark.parametrize("size", [(8, 8), (5, 11), (1, 1)])
def test_blocks_keep_any_size(block, size):
    x = torch.randn(2, *size, 8)
    given = x.clone()
    assert block(x).shape == x.shape
    assert torch.equal(x, given)  # nothing is changed in place


def test_gelu_in_float64_is_the_function():
    x = torch.linspace(-6, 6, 1001, dtype=torch.float64)
    assert torch.allclose(F.gelu(x), x * (1 + torch.erf(x / 2**0.5)) / 2, atol=1e-15)


# CompressAI as the reference; its import takes seconds, so all that needs it is in these tests
TWINS = {
    "GDN": lambda r: (conv.GDN(6), r.GDN(6)),
    "inverse GDN": lambda r: (conv.GDN(6, inverse=True), r.GDN(6, inverse=True)),
    "ResidualBlock": lambda r: (conv.ResidualBlock(6, 8), r.ResidualBlock(6, 8)),
    "ResidualBlockWithStride": lambda r: (conv.ResidualBlockWithStride(6, 8), r.ResidualBlockWithStride(6, 8)),
    "ResidualBlockUpsample": lambda r: (conv.ResidualBlockUpsample(6, 8), r.ResidualBlockUpsample(6, 8)),
    "AttentionBlock": lambda r: (conv.AttentionBlock(8, nn.Identity()), r.AttentionBlock(8)),
}


def reset_gdn(layer):
    for module in layer.modules():
        for name in ("beta", "gamma"):
            if hasattr(module, name):
                getattr(module, name).data.add_(0.1 * torch.rand(getattr(module, name).shape))


@pytest.mark.parametrize("name", TWINS)
def test_layers_compute_what_compressai_does(name):
    reference = pytest.importorskip("compressai.layers")
    ours, theirs = TWINS[name](reference)
    reset_gdn(ours)
    tensors = [*ours.state_dict().values()]
    wanted = [key for key in theirs.state_dict() if "reparam" not in key]
    theirs.load_state_dict(dict(zip(wanted, tensors, strict=True)), strict=False)
    x = torch.randn(2, 8 if name == "AttentionBlock" else 6, 8, 12)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)


@pytest.fixture
def bottleneck():
    models = pytest.importorskip("compressai.entropy_models")
    theirs, ours = models.EntropyBottleneck(7), FactorizedPrior(7)
    with torch.no_grad():
        for name in ("matrices", "biases", "factors"):
            for own, other in zip(getattr(ours, name), getattr(theirs, name), strict=True):
                own.add_(0.3 * torch.randn_like(own))
                other.copy_(own)
        ours.quantiles.copy_(torch.tensor([-9.6, 0.0, 10.7]) + torch.randn(7, 1, 1))
        theirs.quantiles.copy_(ours.quantiles)
    return ours, theirs.eval()


def test_the_z_prior_is_compressais(bottleneck):
    ours, theirs = bottleneck
    z = 4 * torch.randn(2, 7, 3, 5)
    with torch.no_grad():
        z_hat, likelihoods = theirs(z)
        rounded = (z - ours.medians()).round() + ours.medians()
        assert torch.allclose(z_hat, rounded, atol=1e-6)
        assert torch.allclose(ours.bits(rounded), -likelihoods.log2(), rtol=1e-4, atol=1e-4)
        assert ours.aux_loss().item() == pytest.approx(theirs.loss().item(), rel=1e-5)


def test_the_tables_of_z_are_compressais(bottleneck):
    """Ranges are equal; frequencies differ by the rounding of masses to 1/65536 alone."""
    ours, theirs = bottleneck
    theirs.update(force=True)
    tables = ours.tables()
    assert torch.equal(torch.from_numpy(tables.minima), theirs.offset.int())
    assert torch.equal(torch.from_numpy(tables.lengths) + 1, theirs.cdf_length.int())
    for row in range(7):
        length = int(tables.lengths[row])
        expected = theirs.quantized_cdf[row, : length + 1].diff()
        found = torch.from_numpy(tables.row(row).astype("int32"))
        assert (found - expected).abs().max() <= length


def test_gaussian_bits_are_compressais():
    models = pytest.importorskip("compressai.entropy_models")
    theirs = models.GaussianConditional(None).eval()
    y, mean, scale = 5 * torch.randn(2, 6, 4, 4), torch.randn(2, 6, 4, 4), 3 * torch.rand(2, 6, 4, 4)
    y_hat, likelihoods = theirs(y, scale, mean)
    assert torch.allclose(gaussian_bits(y_hat, mean, scale), -likelihoods.log2(), rtol=1e-3, atol=1e-4)

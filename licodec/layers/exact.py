"""Exactness as a conversion: what a decoder must reproduce, in float64 and nearly at the price of float32.

torch's float64 convolutions take about four times as long as its float32 ones, and
depthwise ones a hundred times. `make_exact` replaces them, as quantisation libraries
replace modules; models do not know of it. Winograd's algorithm is that of Lavin and
Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4.3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# F(4x4, 3x3), at the points 0, 1, -1, 2, -2 and infinity: each tile of 4x4 outputs takes
# 36 products in place of 144. Rounding costs some 1e-15, relative to the outputs.
_INPUT = torch.tensor(
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
     [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]],
    dtype=torch.float64, device="cpu",
)  # fmt: skip
_KERNEL = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64, device="cpu"
) / 24  # fmt: skip
_OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    dtype=torch.float64, device="cpu",
)  # fmt: skip


def winograd_kernels(weight: Tensor) -> Tensor:
    """Weights [O, C, 3, 3] -> float64 kernels [36, C, O], four times as many numbers."""
    matrix = torch.kron(_KERNEL, _KERNEL).to(weight.device)
    kernels = matrix @ weight.double().reshape(-1, 9).T
    return kernels.view(36, *weight.shape[:2]).transpose(1, 2).contiguous()


def winograd_conv3x3(x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
    """Convolution with zeros around: [B, C, H, W] -> [B, O, H, W], float64, channels_last.

    Transforms of rows and of columns are one matrix product each, of 36 x 36 and 16 x 36.
    """
    batch, channels, height, width = x.shape
    rows, columns = -(-height // 4), -(-width // 4)
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 4 * columns + 1 - width, 1, 4 * rows + 1 - height))
    patches = x.unfold(1, 6, 4).unfold(2, 6, 4).permute(4, 5, 0, 1, 2, 3).reshape(36, -1)
    patches = torch.kron(_INPUT, _INPUT).to(x.device) @ patches
    products = torch.bmm(patches.view(36, -1, channels), kernels)
    products[7] += bias  # the product at (1, 1), which is part of all outputs of a tile with factor one
    tiles = torch.kron(_OUTPUT, _OUTPUT).to(x.device) @ products.flatten(1)
    out = tiles.view(4, 4, batch, rows, columns, -1).permute(2, 3, 0, 4, 1, 5)
    return out.reshape(batch, 4 * rows, 4 * columns, -1)[:, :height, :width].permute(0, 3, 1, 2)


class ExactConvolution(nn.Module):
    """Base of the replacements: float64 kernels, made of the weight whenever that is loaded.

    The weight itself stays as it was, so the state of a model has the same names and
    shapes before and after the conversion.
    """

    kernels: Tensor

    def __init__(self, original: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__()
        if isinstance(original.padding, str):  # a word, which only nn.Conv2d takes
            raise ValueError(f"padding {original.padding!r} has no replacement")
        self.kernel_size, self.stride, self.padding = original.kernel_size, original.stride, original.padding
        self.weight, self.bias = original.weight, original.bias
        self.register_buffer("kernels", self.make_kernels(self.weight.detach()), persistent=False)

    def make_kernels(self, weight: Tensor) -> Tensor:
        """What `forward` multiplies with."""
        raise NotImplementedError

    def _load_from_state_dict(self, *args: object) -> None:
        super()._load_from_state_dict(*args)
        self.kernels = self.make_kernels(self.weight.detach())

    def exact_bias(self) -> Tensor:
        """[O], float64; each number as often as its channel has kernels."""
        channels = self.kernels.shape[-1]
        if self.bias is None:
            return self.kernels.new_zeros(channels)
        return self.bias.double().repeat_interleave(channels // len(self.bias))


class Conv3x3(ExactConvolution):
    """A 3x3 convolution that keeps the size."""

    def make_kernels(self, weight: Tensor) -> Tensor:
        return winograd_kernels(weight)

    def forward(self, x: Tensor) -> Tensor:
        return winograd_conv3x3(x, self.kernels, self.exact_bias())


class TransposedConv(ExactConvolution):
    """A transposed convolution that multiplies the size by its stride s, as a 3x3 one and a pixel shuffle by s."""

    def make_kernels(self, weight: Tensor) -> Tensor:
        """Output row s * i + phase takes tap phase + padding - s * d of input row i + d, where there is such a tap."""
        s, padding, size = self.stride[0], self.padding[0], weight.shape[2]
        taps = {
            (phase, d): tap for phase in range(s) for d in (-1, 0, 1) if 0 <= (tap := phase + padding - s * d) < size
        }
        kernels = weight.new_zeros(weight.shape[1], s, s, weight.shape[0], 3, 3)
        for (row, up), i in taps.items():
            for (column, left), j in taps.items():
                kernels[:, row, column, :, up + 1, left + 1] = weight[:, :, i, j].T
        return winograd_kernels(kernels.flatten(0, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.pixel_shuffle(winograd_conv3x3(x, self.kernels, self.exact_bias()), self.stride[0])
        return x.contiguous(memory_format=torch.channels_last)


class ProductConv(ExactConvolution):
    """Any other convolution over all channels, as one matrix product of its patches."""

    def make_kernels(self, weight: Tensor) -> Tensor:
        return weight.double().flatten(1).T

    def forward(self, x: Tensor) -> Tensor:
        (top, left), x = self.padding, x.permute(0, 2, 3, 1)
        if top or left:
            x = F.pad(x, (0, 0, left, left, top, top))
        x = x.unfold(1, self.kernel_size[0], self.stride[0]).unfold(2, self.kernel_size[1], self.stride[1])
        return (x.flatten(3) @ self.kernels + self.exact_bias()).permute(0, 3, 1, 2)


class DepthwiseConv3x3(ExactConvolution):
    """A 3x3 convolution of each channel: nine shifted products per row, whose sums stay in the cache."""

    def make_kernels(self, weight: Tensor) -> Tensor:
        return weight.double()[:, 0].permute(1, 2, 0).contiguous()

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        bias, rows = self.exact_bias(), []
        for top in range(height):
            row = bias
            for i in range(3):
                for j in range(3):
                    row = torch.addcmul(row, x[:, top + i, j : j + width], self.kernels[i, j])
            rows.append(row)
        return torch.stack(rows, 1).permute(0, 3, 1, 2)


def exact_convolution(original: nn.Module) -> nn.Module:
    """The replacement of one of torch's convolutions.

    Anything else is given back as it is: classes derived from torch's, which may do more, and what
    no replacement can do.
    """
    if type(original) is nn.ConvTranspose2d:
        return TransposedConv(original) if _keeps_to_three_taps(original) else original
    if type(original) is not nn.Conv2d or original.dilation != (1, 1) or isinstance(original.padding, str):
        return original
    small = (original.kernel_size, original.stride, original.padding) == ((3, 3), (1, 1), (1, 1))
    if small and original.groups == original.in_channels == original.out_channels:
        return DepthwiseConv3x3(original)
    if original.groups != 1:
        return original
    return (Conv3x3 if small else ProductConv)(original)


def _keeps_to_three_taps(conv: nn.ConvTranspose2d) -> bool:
    """Whether the size is multiplied by the stride, and an output has no more than three inputs along an axis."""
    if isinstance(conv.padding, str):
        return False
    sides = (conv.kernel_size, conv.stride, conv.padding, conv.output_padding)
    plain = all(a == b for a, b in sides) and conv.groups == 1 and conv.dilation == (1, 1)
    size, stride, padding, extra = (side[0] for side in sides)
    multiplied = extra == stride + 2 * padding - size
    return plain and multiplied and padding <= stride and size <= 2 * stride + padding


def make_exact(module: nn.Module) -> nn.Module:
    """Convert a module to float64, its convolutions to those of this file; returns the module or what replaces it.

    For inference. Results are those of the original in float64, but for rounding.
    """
    replacement = exact_convolution(module)
    if replacement is not module:
        return replacement
    for name, child in module.named_children():
        setattr(module, name, make_exact(child))
    for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        if tensor.is_floating_point():
            tensor.data = tensor.data.double()
    return module

"""3x3 convolutions in float64 at a quarter of the products: Winograd's F(4x4, 3x3).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
section 4.3. torch has no fast float64 convolution; im2col and dgemm are bound
to twice the time of float32, this is faster than float32 itself. In float32 the
transforms would cost three digits; in float64 the result is within 1e-13 of
exact, relative to the largest output, far below what could change an integer.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

from licodec.layers.exact import matmul

_INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_KERNEL = (
    torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64) / 24
)
_OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float64
)
# both axes at once, on flattened 6x6 and 3x3 patches
_INPUT2, _KERNEL2, _OUTPUT2 = (torch.kron(m, m) for m in (_INPUT, _KERNEL, _OUTPUT))


def transform(weight: Tensor) -> Tensor:
    """What `conv3x3` takes in place of a weight [O, C, 3, 3]: [36, C, O], four times as large."""
    kernels = _KERNEL2.to(weight.device) @ weight.permute(2, 3, 1, 0).reshape(9, -1)
    return kernels.view(36, *weight.shape[1::-1])


class Shared:
    """A float64 map [B, C, H, W] that several convolutions read: its patches are cut and transformed once."""

    def __init__(self, x: Tensor) -> None:
        self.map = x

    @functools.cached_property
    def patches(self) -> Tensor:
        """[36, B * tiles, C], transformed.

        A tile's 36 vectors lie side by side in memory: 36 planes would be multiples of
        4096 bytes apart, which caches do not tell from one another.
        """
        return _patches(self.map)


class Joined(Shared):
    """Maps side by side along the channels, as one."""

    def __init__(self, parts: list[Shared]) -> None:
        super().__init__(side_by_side(parts))
        self.parts = parts

    @functools.cached_property
    def patches(self) -> Tensor:
        return torch.cat([part.patches.transpose(0, 1) for part in self.parts], 2).transpose(0, 1)


def side_by_side(parts: list[Shared]) -> Tensor:
    """The maps as one tensor."""
    return parts[0].map if len(parts) == 1 else torch.cat([part.map for part in parts], 1)


def _tiles(side: int) -> int:
    return -(-side // 4)


def _patches(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 4 * _tiles(width) + 1 - width, 1, 4 * _tiles(height) + 1 - height))
    c = x.shape[3]
    patches = x.unfold(1, 6, 4).unfold(2, 6, 4).permute(0, 1, 2, 4, 5, 3).reshape(-1, 36, c)
    return matmul(_INPUT2.to(x.device), patches).transpose(0, 1)


def conv3x3(x: Tensor | list[Shared], kernels: Tensor, bias: Tensor) -> Tensor:
    """Convolution with zeros around, [B, C, H, W] and `transform(weight)` -> [B, O, H, W], all float64.

    `x` may be maps side by side along the channels; they are never joined, which would take
    as long as a third of the products. channels_last maps are taken and given without a
    copy: whole vectors of channels move at a time.
    """
    parts = x if isinstance(x, list) else [Shared(x)]
    b, _, height, width = parts[0].map.shape
    rows, columns, out_channels = _tiles(height), _tiles(width), kernels.shape[2]
    products, first = None, 0
    for part in parts:
        last = first + part.map.shape[1]
        products = matmul(part.patches, kernels[:, first:last], plus=products)
        first = last
    out = matmul(_OUTPUT2.to(bias.device), products.view(36, -1)).view(4, 4, b, rows, columns, out_channels)
    out = out.permute(2, 3, 0, 4, 1, 5).reshape(b, 4 * rows, 4 * columns, out_channels)[:, :height, :width]
    return (out + bias if torch.is_grad_enabled() else out.add_(bias)).permute(0, 3, 1, 2)

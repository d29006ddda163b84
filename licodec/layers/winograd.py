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
    """A float64 map [B, C, H, W] that several convolutions read: its patches are cut and transformed once.

    Args:
        parts: the map, or maps side by side along the channels, whose own patches are used.
    """

    def __init__(self, *parts: Tensor | Shared) -> None:
        self.parts = parts

    @property
    def size(self) -> tuple[int, int, int]:
        """Batch, height, width."""
        first = self.parts[0]
        return (first.shape[0], *first.shape[2:]) if isinstance(first, Tensor) else first.size

    @functools.cached_property
    def map(self) -> Tensor:
        maps = [part if isinstance(part, Tensor) else part.map for part in self.parts]
        return maps[0] if len(maps) == 1 else torch.cat(maps, 1)

    @functools.cached_property
    def patches(self) -> Tensor:
        """[36, B * tiles, C], transformed."""
        patches = [_patches(part) if isinstance(part, Tensor) else part.patches for part in self.parts]
        return patches[0] if len(patches) == 1 else torch.cat(patches, 2)


def _tiles(side: int) -> int:
    return -(-side // 4)


def _patches(x: Tensor) -> Tensor:
    _, c, height, width = x.shape
    rows, columns = _tiles(height), _tiles(width)
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 4 * columns + 1 - width, 1, 4 * rows + 1 - height))
    patches = x.unfold(1, 6, 4).unfold(2, 6, 4).permute(4, 5, 0, 1, 2, 3).reshape(36, -1)
    return matmul(_INPUT2.to(x.device), patches).view(36, -1, c)


def conv3x3(x: Tensor | Shared, kernels: Tensor, bias: Tensor) -> Tensor:
    """Convolution with zeros around, [B, C, H, W] and `transform(weight)` -> [B, O, H, W], all float64.

    channels_last maps are taken and given without a copy: whole vectors of channels move at a time.
    """
    shared = x if isinstance(x, Shared) else Shared(x)
    b, height, width = shared.size
    rows, columns, out_channels = _tiles(height), _tiles(width), kernels.shape[2]
    products = matmul(shared.patches, kernels).view(36, -1)
    out = matmul(_OUTPUT2.to(products.device), products).view(4, 4, b, rows, columns, out_channels)
    out = out.permute(2, 3, 0, 4, 1, 5).reshape(b, 4 * rows, 4 * columns, out_channels)[:, :height, :width]
    return (out + bias).permute(0, 3, 1, 2)

"""3x3 convolutions in float64 at a quarter of the products: Winograd's F(4x4, 3x3).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
section 4.3. torch has no fast float64 convolution; im2col and dgemm are bound
to twice the time of float32, this is faster than float32 itself. In float32 the
transforms would cost three digits; in float64 the result is within 1e-13 of
exact, relative to the largest output, far below what could change an integer.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

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
    """What `conv3x3` takes in place of a weight [O, C, 3, 3]: [36, O, C], four times as large."""
    return (_KERNEL2.to(weight.device) @ weight.reshape(-1, 9).T).view(36, *weight.shape[:2])


def conv3x3(x: Tensor, kernels: Tensor, bias: Tensor) -> Tensor:
    """Convolution with zeros around, [B, C, H, W] and `transform(weight)` -> [B, O, H, W], all float64."""
    b, c, height, width = x.shape
    out_channels = kernels.shape[1]
    rows, columns = -(-height // 4), -(-width // 4)
    x = F.pad(x, (1, 4 * columns + 1 - width, 1, 4 * rows + 1 - height))
    patches = x.unfold(2, 6, 4).unfold(3, 6, 4).permute(4, 5, 1, 0, 2, 3).reshape(36, -1)
    patches = (_INPUT2.to(x.device) @ patches).view(36, c, -1)
    products = torch.bmm(kernels, patches).view(36, -1)
    out = (_OUTPUT2.to(x.device) @ products).view(4, 4, out_channels, b, rows, columns)
    out = out.permute(3, 2, 4, 0, 5, 1).reshape(b, out_channels, 4 * rows, 4 * columns)[:, :, :height, :width]
    return out + bias[:, None, None]

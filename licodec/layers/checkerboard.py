"""The two halves of a checkerboard (He et al., CVPR 2021), each squeezed to half its width.

Of a map [B, C, H, W], H and W even, the half of a parity is the positions whose
row + column is even (0) or odd (1). Squeezed, it is [B, C, H, W/2]: the
positions of each row lie side by side.
"""

from __future__ import annotations

import torch
from torch import Tensor


def squeeze(x: Tensor, parity: int) -> Tensor:
    """One half: [B, C, H, W] -> [B, C, H, W/2]."""
    even, odd = x[:, :, 0::2, parity::2], x[:, :, 1::2, 1 - parity :: 2]
    return torch.stack([even, odd], 3).flatten(2, 3)


def unsqueeze(half: Tensor, parity: int) -> Tensor:
    """The half in its place, zeros elsewhere: [B, C, H, W/2] -> [B, C, H, W]."""
    b, c, h, w = half.shape
    x = half.new_zeros(b, c, h, 2 * w)
    x[:, :, 0::2, parity::2] = half[:, :, 0::2]
    x[:, :, 1::2, 1 - parity :: 2] = half[:, :, 1::2]
    return x


def keep(x: Tensor, parity: int) -> Tensor:
    """A map with zeros in the other half."""
    return unsqueeze(squeeze(x, parity), parity)

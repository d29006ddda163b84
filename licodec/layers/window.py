"""Window attention, plain and shifted, once for all models (Liu et al., Swin, ICCV 2021).

Maps are [B, H, W, C], which a channels_last convolution takes and gives without
a copy. Sides that are no multiple of the window are padded with zeros on the
right and below and cropped again.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def relative_index(window: int) -> Tensor:
    """Row of the bias table for each pair of positions in a window: int64 [w*w, w*w]."""
    position = torch.arange(window, device="cpu")  # also where the model is built without memory
    row, column = (p.flatten() for p in torch.meshgrid(position, position, indexing="ij"))
    down = row[:, None] - row + window - 1
    across = column[:, None] - column + window - 1
    return down * (2 * window - 1) + across


def to_windows(x: Tensor, window: int) -> Tensor:
    """[B, H, W, C] -> [B, H/w, W/w, w*w, C]."""
    b, h, w, c = x.shape
    x = x.view(b, h // window, window, w // window, window, c).transpose(2, 3)
    return x.reshape(b, h // window, w // window, window * window, c)


def from_windows(x: Tensor, window: int) -> Tensor:
    """The inverse of `to_windows`."""
    b, rows, columns, _, c = x.shape
    x = x.view(b, rows, columns, window, window, c).transpose(2, 3)
    return x.reshape(b, rows * window, columns * window, c)


def padded(x: Tensor, window: int) -> Tensor:
    """[B, H, W, C] with zeros on the right and below, so that its sides are multiples of the window."""
    right, below = -x.shape[2] % window, -x.shape[1] % window
    return F.pad(x, (0, 0, 0, right, 0, below)) if right or below else x


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a bias by relative position.

    Args:
        shift: cyclic shift of the windows, 0 for none. Positions that come together
            only because of the cycle do not see each other.
        scale: of the logits; head_dim ** -0.5 if None.
        mask_value: what is added to the logits of such positions: -100 in code that
            descends from Swin's, -inf in TCM and DCAE.
    """

    index: Tensor

    def __init__(
        self, dim: int, heads: int, window: int, shift: int = 0, scale: float | None = None, mask_value: float = -100.0
    ) -> None:
        super().__init__()
        self.heads, self.window, self.shift, self.mask_value = heads, window, shift, mask_value
        self.scale = scale or (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.register_buffer("index", relative_index(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[1:3]
        x = padded(x, self.window)
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        x = self.attend(self.qkv(to_windows(x, self.window)))
        x = self.proj(from_windows(x, self.window))
        if self.shift:
            x = x.roll((self.shift, self.shift), (1, 2))
        return x[:, :h, :w]

    def attend(self, qkv: Tensor) -> Tensor:
        """Windows of a map that has been shifted: [B, rows, columns, w*w, 3*C] -> [B, rows, columns, w*w, C]."""
        n, dim = qkv.shape[3], qkv.shape[4] // 3
        bias = self.bias_table[self.index.flatten()].view(n, n, self.heads).permute(2, 0, 1)
        if not self.shift:
            return self._scaled_dot_product(qkv, bias)
        # only the last row and column of windows hold parts from both ends of the map
        out = qkv.new_empty(*qkv.shape[:4], dim)
        ends = ((slice(-1), False), (slice(-1, None), True))
        for (rows, last_row), (columns, last_column) in itertools.product(ends, ends):
            group = qkv[:, rows, columns]
            if group.numel():
                mask = self._mask(last_row, last_column).to(bias)
                out[:, rows, columns] = self._scaled_dot_product(group, bias + mask)
        return out

    def _scaled_dot_product(self, qkv: Tensor, bias: Tensor) -> Tensor:
        *windows, n, dim3 = qkv.shape
        q, k, v = qkv.reshape(-1, n, 3, self.heads, dim3 // 3 // self.heads).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].to(q.dtype), scale=self.scale)
        return out.transpose(1, 2).reshape(*windows, n, dim3 // 3)

    def _mask(self, last_row: bool, last_column: bool) -> Tensor:
        """[w*w, w*w]: `mask_value` between positions on different sides of the map's edges, else 0."""
        far = torch.arange(self.window, device=self.index.device) >= self.window - self.shift
        side = ((far & last_row)[:, None] * 2 + (far & last_column)[None, :].int()).flatten()
        return torch.zeros(side.shape * 2, device=side.device).masked_fill_(side[:, None] != side, self.mask_value)


class MLP(nn.Sequential):
    """Two linear maps with GELU between them, [..., dim] -> [..., dim]."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim))


class SwinBlock(nn.Module):
    """Window attention and an MLP, each after a LayerNorm and with a skip; [B, H, W, C]."""

    def __init__(
        self, dim: int, heads: int, window: int, shift: int = 0, scale: float | None = None, mask_value: float = -100.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window, shift, scale, mask_value)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """2x2 positions to one, [B, H, W, C] -> [B, H/2, W/2, out]: LayerNorm, then a linear map.

    Order of the four: (0, 0), (1, 0), (0, 1), (1, 1) as (row, column).
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, out_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)], -1)
        return self.reduction(self.norm(x))


class PatchSplitting(nn.Module):
    """One position to 2x2, [B, H, W, C] -> [B, 2H, 2W, out]: LayerNorm, a linear map, a pixel shuffle."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.reduction = nn.Linear(dim, 4 * out_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduction(self.norm(x)).permute(0, 3, 1, 2)
        return F.pixel_shuffle(x, 2).permute(0, 2, 3, 1)


class SwinStage(nn.Module):
    """Swin blocks, every second one shifted, then a change of resolution; [B, H, W, C]."""

    def __init__(
        self, dim: int, depth: int, heads: int, window: int, resample: nn.Module | None, scale: float | None = None
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(SwinBlock(dim, heads, window, window // 2 if i % 2 else 0, scale) for i in range(depth))
        )
        self.resample = resample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.resample(self.blocks(x))

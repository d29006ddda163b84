"""Window attention, plain and shifted, once for all models (Liu et al., Swin, ICCV 2021).

Maps are [B, H, W, C], which a channels_last convolution takes and gives without
a copy. Sides that are no multiple of the window are padded with zeros on the
right and below and cropped again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.layers.linear import MLP, Linear
from licodec.layers.parallel import STRIP, each, pieces, positionwise
from licodec.layers.products import coding, quickest


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


def in_strips(
    x: Tensor, window: int, shift: int, block: Callable[[Tensor, bool], Tensor], out: Tensor | None = None
) -> Tensor:
    """Apply a block of layers strip by strip, so that what lies between them stays in the cache; for inference.

    Args:
        x: map [B, H, W, C]; H and W are multiples of the window.
        block: takes some rows of windows of the map, rolled up and left by `shift`, and whether
            they are the last ones. All that is not within windows must work position by position.
        out: where the result, rolled back, goes; may be `x` itself. A new tensor if None.
    """
    out = torch.empty_like(x) if out is None else out
    height, width = x.shape[1:3]

    def strip(rows: slice) -> None:
        # rows of the rolled map lie `shift` further down in the map itself, the last ones at the top
        first, last = rows.start + shift, rows.stop + shift
        places = [slice(first, min(last, height)), slice(0, max(0, last - height))]
        parts = [x[:, place] for place in places if place.stop > place.start]
        rolled = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        done = block(rolled.roll(-shift, 2) if shift else rolled, rows.stop == height)
        for place, part in zip(places, done.split([p.stop - p.start for p in places], 1), strict=True):
            out[:, place, shift:] = part[:, :, : width - shift]
            out[:, place, :shift] = part[:, :, width - shift :]

    each(strip, pieces(height, STRIP // width, window))
    return out


def by_windows(attention: nn.Module, x: Tensor, block: Callable[..., Tensor], out: Tensor | None = None) -> Tensor:
    """Apply a block of layers around window attention; in inference `in_strips`, if nothing is to be padded.

    Args:
        block: takes a map [B, H, W, C] and a function that attends to such a map; all else in it
            must work position by position.
        out: for inference: where the result goes; may be `x` itself. A new tensor if None.
    """
    window = attention.window
    if torch.is_grad_enabled() or x.shape[1] % window or x.shape[2] % window:
        done = block(x, attention)
        return done if out is None else out.copy_(done)
    return in_strips(
        x,
        window,
        attention.shift,
        lambda strip, last: block(strip, lambda part: attention.within_windows(part, last)),
        out,
    )


def _fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """[windows, heads, positions, d], bias [1, heads, positions, positions]; torch's own."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)


def _by_products(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float) -> Tensor:
    """The same in three steps, for inference."""
    logits = torch.matmul(q * scale, k.transpose(-1, -2)).add_(bias)
    return torch.matmul(torch.softmax(logits, -1, out=logits), v)


@functools.cache
def _fastest_attention(dtype: torch.dtype) -> Callable[..., Tensor]:
    """The faster of the two, by a trial of some 50 ms: torch's gains nothing from a second thread on some machines."""
    q, bias = torch.ones(16, 8, 64, 16, dtype=dtype), torch.zeros(1, 8, 64, 64, dtype=dtype)
    ways = {"fused": _fused, "products": _by_products}
    return ways[quickest({name: functools.partial(way, q, q, q, bias, 0.25) for name, way in ways.items()})]


class WindowAttention(nn.Module):
    """Multi-head self-attention within windows, with a bias by relative position.

    Args:
        shift: cyclic shift of the windows, 0 for none. Positions that come together
            only because of the cycle do not see each other.
        scale: of the logits; head_dim ** -0.5 if None.
        masked: what is added to the logits of such positions: -100 in code that
            descends from Swin's, -inf in TCM and DCAE.
    """

    def __init__(
        self, dim: int, heads: int, window: int, shift: int = 0, scale: float | None = None, masked: float = -100.0
    ) -> None:
        super().__init__()
        self.heads, self.window, self.shift, self.masked = heads, window, shift, masked
        self.scale = scale or (dim // heads) ** -0.5
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        self.bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.register_buffer("index", relative_index(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        h, w = x.shape[1:3]
        padding = (-w % self.window, -h % self.window)
        if any(padding):
            x = F.pad(x, (0, 0, 0, padding[0], 0, padding[1]))
        if self.shift:
            x = x.roll((-self.shift, -self.shift), (1, 2))
        x = self.within_windows(x)
        if self.shift:
            x = x.roll((self.shift, self.shift), (1, 2))
        return x[:, :h, :w] if any(padding) else x

    def within_windows(self, x: Tensor, bottom: bool = True) -> Tensor:
        """Attention of a map that has been shifted, or of a strip of it; `bottom`: it holds the last windows."""
        return self.proj(from_windows(self.attend(self.qkv(to_windows(x, self.window)), bottom), self.window))

    def attend(self, qkv: Tensor, bottom: bool = True) -> Tensor:
        """[B, rows, columns, w*w, 3*C] -> [B, rows, columns, w*w, C]."""
        b, rows, columns, n, c3 = qkv.shape
        heads = qkv.view(b, rows, columns, n, 3, self.heads, c3 // 3 // self.heads)
        q, k, v = heads.permute(4, 0, 1, 2, 5, 3, 6)
        bias = self.bias_table[self.index.flatten()].view(n, n, self.heads).permute(2, 0, 1)
        if not self.shift:
            return self._scaled_dot(q, k, v, bias)
        # only the last row and column of windows hold parts from both ends of the map
        inner_rows = rows - 1 if bottom else rows
        out = qkv.new_empty(b, rows, columns, n, c3 // 3)
        for part_rows, last_row in ((slice(inner_rows), False), (slice(inner_rows, rows), True)):
            for part_columns, last_column in ((slice(columns - 1), False), (slice(columns - 1, columns), True)):
                part = (slice(None), part_rows, part_columns)
                if q[part].numel():
                    mask = bias + self._mask(last_row, last_column).to(bias)
                    out[part] = self._scaled_dot(q[part], k[part], v[part], mask)
        return out

    def _scaled_dot(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        shape = q.shape
        q, k, v = (t.reshape(-1, *shape[3:]) for t in (q, k, v))
        attention = _fastest_attention(q.dtype) if coding(q) else _fused
        out = attention(q, k, v, bias[None].to(q.dtype), self.scale)
        return out.view(shape).transpose(3, 4).reshape(*shape[:3], shape[4], -1)

    def _mask(self, last_row: bool, last_column: bool) -> Tensor:
        """[w*w, w*w]: `masked` between positions on different sides of the map's edges."""
        far = torch.arange(self.window, device=self.index.device) >= self.window - self.shift
        side = (far & last_row)[:, None] * 2 + (far & last_column)[None, :].int()
        side = side.flatten()
        return torch.zeros(side.shape * 2, device=side.device).masked_fill_(side[:, None] != side, self.masked)


class SwinBlock(nn.Module):
    """Window attention and an MLP, each after a LayerNorm and with a skip; [B, H, W, C]."""

    def __init__(
        self, dim: int, heads: int, window: int, shift: int = 0, scale: float | None = None, masked: float = -100.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window, shift, scale, masked)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, 4 * dim)

    def forward(self, x: Tensor, out: Tensor | None = None) -> Tensor:
        """`out`, for inference: where the result goes, which may be `x` itself."""
        return by_windows(self.attn, x, self._block, out)

    def _block(self, x: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
        x = attend(self.norm1(x)).add_(x)
        return self.mlp(self.norm2(x)).add_(x)


class PatchMerging(nn.Module):
    """2x2 positions to one, [B, H, W, C] -> [B, H/2, W/2, out]: LayerNorm, then a linear map.

    Order of the four: (0, 0), (1, 0), (0, 1), (1, 1) as (row, column).
    """

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = Linear(4 * dim, out_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return positionwise(lambda *parts: self.reduction(self.norm(torch.cat(parts, -1))), *parts)


class PatchSplitting(nn.Module):
    """One position to 2x2, [B, H, W, C] -> [B, 2H, 2W, out]: LayerNorm, a linear map, a pixel shuffle."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.reduction = Linear(dim, 4 * out_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        def split(x: Tensor) -> Tensor:
            x = self.reduction(self.norm(x)).permute(0, 3, 1, 2)
            return F.pixel_shuffle(x, 2).permute(0, 2, 3, 1)

        return positionwise(split, x, scale=2)


class SwinStage(nn.Module):
    """Swin blocks, every second one shifted, then a change of resolution; [B, H, W, C]."""

    def __init__(
        self, dim: int, depth: int, heads: int, window: int, resample: nn.Module | None, scale: float | None = None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            SwinBlock(dim, heads, window, window // 2 if i % 2 else 0, scale) for i in range(depth)
        )
        self.resample = resample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.resample(x) if self.resample is not None else x

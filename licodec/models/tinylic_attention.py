"""Neighbourhood attention in plain torch (Hassani et al., CVPR 2023): each position sees the square around it.

At the map's edges the square stays within the map, so a position sees as many others there. Positions are taken in
tiles: all queries of a tile look at all keys that any of them sees, and a bias of -inf hides those that are too far.
That does four times the products that are needed, and is much faster than to gather every position's own keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TILE = 8  # positions per side
HIDDEN = float("-inf")


@dataclass(frozen=True)
class Tiles:
    """Neighbouring tiles along one axis that look at keys from the same distance.

    Attributes:
        queries: the positions of all of them.
        keys: int64 [tiles, K], the positions of the keys that a tile sees.
        distance: int64 [T, K], row of the bias table for a query and a key, -1 where it is too far.
    """

    queries: slice
    keys: Tensor
    distance: Tensor


def tiles(length: int, kernel: int, device: torch.device) -> list[Tiles]:
    """Cut an axis of at least `kernel` positions."""
    groups: list[Tiles] = []
    for first in range(0, length, TILE):
        query = torch.arange(first, min(first + TILE, length), device=device)
        start = (query - kernel // 2).clamp(0, length - kernel)  # of what each query sees
        key = torch.arange(int(start[0]), int(start[-1]) + kernel, device=device)
        seen = (key >= start[:, None]) & (key < start[:, None] + kernel)
        distance = torch.where(seen, key - query[:, None] + kernel - 1, -1)
        last = groups[-1] if groups else None
        if last and torch.equal(last.distance, distance):
            groups[-1] = Tiles(
                slice(last.queries.start, int(query[-1]) + 1), torch.cat([last.keys, key[None]]), distance
            )
        else:
            groups.append(Tiles(slice(first, int(query[-1]) + 1), key[None], distance))
    return groups


class NeighbourhoodAttention(nn.Module):
    """Multi-head attention of every position to the `kernel` x `kernel` around it, [B, H, W, C]."""

    def __init__(self, dim: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.heads, self.kernel = heads, kernel
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rpb = nn.Parameter(torch.empty(heads, 2 * kernel - 1, 2 * kernel - 1))
        nn.init.trunc_normal_(self.rpb, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, max(0, self.kernel - width), 0, max(0, self.kernel - height)))  # as the authors
        q, k, v = self.qkv(x).unflatten(3, (3, self.heads, -1)).unbind(3)
        columns = tiles(x.shape[2], self.kernel, x.device)
        rows = [
            torch.cat([self._attend(q, k, v, row, i, column) for column in columns], 2)
            for row in tiles(x.shape[1], self.kernel, x.device)
            for i in range(len(row.keys))
        ]
        return self.proj(torch.cat(rows, 1)[:, :height, :width])

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, row: Tiles, i: int, column: Tiles) -> Tensor:
        """The i-th tile of a group of rows, all tiles of a group of columns: [B, T, columns, C]."""
        count, high, wide = len(column.keys), *(len(axis.distance) for axis in (row, column))
        top = row.queries.start + i * TILE
        q = q[:, top : top + high, column.queries].unflatten(2, (count, wide)).movedim(2, 1)  # [B, n, T, T, heads, d]
        first = int(row.keys[i, 0])
        bands = (t[:, first : first + row.keys.shape[1]][:, :, column.keys].movedim(2, 1) for t in (k, v))
        q, k, v = (t.flatten(0, 1).flatten(1, 2).transpose(1, 2) for t in (q, *bands))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self._bias(row, column).to(q.dtype))
        out = out.transpose(1, 2).unflatten(0, (-1, count)).unflatten(2, (high, wide))
        return out.movedim(1, 2).flatten(2, 3).flatten(3)

    def _bias(self, row: Tiles, column: Tiles) -> Tensor:
        """[1, heads, T * T, K * K]."""
        down, across = row.distance[:, None, :, None], column.distance[None, :, None, :]
        bias = self.rpb[:, down, across].masked_fill((down < 0) | (across < 0), HIDDEN)
        return bias.flatten(3).flatten(1, 2)[None]

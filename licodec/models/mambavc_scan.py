"""The selective scan over maps in plain torch (Gu & Dao, Mamba, 2023; Liu et al., VMamba, NeurIPS 2024).

A map is read in four directions, and each reading is a recurrence over all its positions. Those are taken in blocks,
whose inputs are computed at once, and the blocks in chunks that the cache holds: of a chunk all factors and inflows are
computed at once too, so that a position costs one call.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

DIRECTIONS = 4  # rows, columns, and both backwards
BLOCK = 1024  # positions
CHUNK_VALUES = 1 << 19  # of states


class Recurrence(torch.autograd.Function):
    """h[t] = factors[t] h[t - 1] + inflows[t], along the first dimension; h takes the memory of `inflows`.

    Its gradient is the same recurrence backwards, so that training too needs one call for a position.
    """

    @staticmethod
    def forward(ctx: Any, inflows: Tensor, factors: Tensor, state: Tensor) -> Tensor:
        last = state
        for inflow, factor in zip(inflows, factors, strict=True):
            last = inflow.addcmul_(factor, last)
        ctx.mark_dirty(inflows)
        ctx.save_for_backward(inflows, factors, state)
        return inflows

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        states, factors, state = ctx.saved_tensors
        grads = grad.clone().unbind()
        for before, after, factor in zip(grads[-2::-1], grads[:0:-1], factors.flip(0), strict=False):
            before.addcmul_(factor, after)
        grad = torch.stack(grads)
        earlier = torch.cat([state[None], states[:-1]])
        return grad, grad * earlier, grad[0] * factors[0]


def selective_scan(u: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """h[t] = exp(dt[t] a) h[t - 1] + dt[t] u[t] b[t], out[t] = c[t] . h[t]: the recurrence of Mamba's section 3.

    Args:
        u, dt: [T, B, K, D], the input and the step sizes of D channels in each of K groups.
        a: [K, N, D], negative.
        b, c: [T, B, K, N], shared by the channels of a group.
        state: [B, K, N, D], what h begins with.

    Returns: out [T, B, K, D], and the last h.
    """
    outs = []
    length = max(1, CHUNK_VALUES // state.numel())
    for first in range(0, len(u), length):
        part = slice(first, first + length)
        inflows = b[part][..., None] * (dt[part] * u[part])[..., None, :]
        states = Recurrence.apply(inflows, torch.exp_(dt[part][..., None, :] * a), state)
        state = states[-1].clone()
        outs.append((c[part][..., None, :] @ states).squeeze(-2))
    return torch.cat(outs), state


class SelectiveScan2d(nn.Module):
    """VMamba's SS2D, [B, H, W, C]: scans in four directions, summed, normalised, and gated by the input.

    The inner width is 2C, the rank of the step sizes C / 16.
    """

    def __init__(self, dim: int, states: int = 16) -> None:
        super().__init__()
        inner, self.rank, self.states = 2 * dim, math.ceil(dim / 16), states
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv2d = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.x_proj_weight = nn.Parameter(torch.empty(DIRECTIONS, self.rank + 2 * states, inner))
        self.dt_projs_weight = nn.Parameter(torch.empty(DIRECTIONS, inner, self.rank))
        self.dt_projs_bias = nn.Parameter(torch.empty(DIRECTIONS, inner))
        self.A_logs = nn.Parameter(torch.empty(DIRECTIONS * inner, states))
        self.Ds = nn.Parameter(torch.ones(DIRECTIONS * inner))
        self.out_norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """As Mamba: A = -1, -2, ...; softplus of the bias is between 0.001 and 0.1, evenly in its logarithm."""
        self.x_proj_weight.uniform_(-1, 1).mul_(self.x_proj_weight.shape[2] ** -0.5)
        self.dt_projs_weight.uniform_(-1, 1).mul_(self.rank**-0.5)
        self.dt_projs_bias.uniform_(math.log(1e-3), math.log(1e-1)).exp_().expm1_().log_()
        for n, column in enumerate(self.A_logs.unbind(1), 1):
            column.fill_(math.log(n))

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.in_proj(x).chunk(2, -1)
        x = F.silu(self.conv2d(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
        with torch.autocast(x.device.type, enabled=False):  # sums over the whole map are not for bf16
            scanned = self._scanned(x.to(self.A_logs.dtype))
        return self.out_proj(self.out_norm(scanned) * F.silu(gate))

    def _scanned(self, x: Tensor) -> Tensor:
        """The sum of the scans in all directions, each of all positions."""
        rows, columns = x.flatten(1, 2), x.transpose(1, 2).flatten(1, 2)
        of_rows, of_columns = torch.zeros_like(rows), torch.zeros_like(columns)
        length = rows.shape[1]
        state = x.new_zeros(len(x), DIRECTIONS, self.states, x.shape[3])
        for first in range(0, length, BLOCK):
            last = min(first + BLOCK, length)
            ahead, back = slice(first, last), slice(length - last, length - first)
            u = torch.stack(
                [rows[:, ahead], columns[:, ahead], rows[:, back].flip(1), columns[:, back].flip(1)], 2
            ).transpose(0, 1)
            if torch.is_grad_enabled():  # keep the states of block ends only
                out, state = checkpoint(self._block, u, state, use_reentrant=False)
            else:
                out, state = self._block(u, state)
            along_rows, along_columns, back_rows, back_columns = out.transpose(0, 1).unbind(2)
            of_rows[:, ahead] += along_rows
            of_columns[:, ahead] += along_columns
            of_rows[:, back] += back_rows.flip(1)
            of_columns[:, back] += back_columns.flip(1)
        of_columns = of_columns.unflatten(1, (x.shape[2], x.shape[1])).transpose(1, 2)
        return of_rows.unflatten(1, x.shape[1:3]) + of_columns

    def _block(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Some positions u [T, B, K, D] of all directions: step sizes, b and c from the input, then the scan."""
        by_direction = u.permute(2, 1, 0, 3).flatten(1, 2)  # [K, B * T, D]
        dt, b, c = (by_direction @ self.x_proj_weight.mT).split([self.rank, self.states, self.states], -1)
        dt = F.softplus(dt @ self.dt_projs_weight.mT + self.dt_projs_bias[:, None])
        dt, b, c = (t.unflatten(1, (u.shape[1], u.shape[0])).permute(2, 1, 0, 3).contiguous() for t in (dt, b, c))
        a = -self.A_logs.exp().view(DIRECTIONS, -1, self.states).mT.contiguous()
        out, state = selective_scan(u, dt, a, b, c, state)
        return out + self.Ds.view(DIRECTIONS, -1) * u, state

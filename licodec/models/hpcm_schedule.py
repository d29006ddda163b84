"""Where and when HPCM codes what (Li et al., ICCV 2025, section 3.2 and figure 4).

Of the fine scale's positions the middle scale has one in four, and of those the
coarse one has one in four; which one differs between groups of channels. A step
codes one group of the channels at each position of its scale: a half of them at
the coarse scale, a quarter at the middle one, an eighth at the fine one. Which
group it is alternates from position to position, so that a step sees them all.
Its part is these channels alone, folded to [B, M / groups, h, w].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Offsets = Sequence[tuple[int, int]]
# Which position of each 2x2 the next coarser scale has, by group of channels: of the fine and of the middle scale.
TO_MIDDLE: Offsets = ((0, 0), (1, 1), (0, 1), (1, 0)) * 2
TO_COARSE: Offsets = ((0, 0), (0, 1), (1, 0), (1, 1))
# By scale, the positions of each phase in a block, as its rows and columns repeat.
COARSE_PHASES = (2, (((0, 0), (1, 1)), ((0, 1), (1, 0))))
MIDDLE_PHASES = (2, (((0, 0),), ((0, 1),), ((1, 0),), ((1, 1),)))
FINE_PHASES = (4, (((0, 0), (2, 2)), ((0, 2), (2, 0)), ((1, 1), (3, 3)), ((1, 3), (3, 1)),
                   ((0, 1), (2, 3)), ((0, 3), (2, 1)), ((1, 0), (3, 2)), ((1, 2), (3, 0))))  # fmt: skip
# Each step's scale, and the phase at which each group of channels is coded in it. Missing steps are those whose
# positions the coarser scale has.
STEPS = (
    *((0, tuple(g ^ s for g in range(2))) for s in (0, 1)),
    *((1, tuple(g ^ s for g in range(4))) for s in (3, 2, 1)),
    *((2, tuple(((s if g < 4 else s ^ 1) + 2 * g) % 8 for g in range(8))) for s in range(2, 8)),
)


def pick(x: Tensor, offsets: Offsets) -> Tensor:
    """The coarser scale's positions: [B, C, H, W] -> [B, C, H/2, W/2]."""
    groups = x.chunk(len(offsets), 1)
    return torch.cat([group[:, :, i::2, j::2] for group, (i, j) in zip(groups, offsets, strict=True)], 1)


def spread(x: Tensor, offsets: Offsets) -> Tensor:
    """The inverse, zeros elsewhere: [B, C, h, w] -> [B, C, 2h, 2w]."""
    out = []
    for group, (i, j) in zip(x.chunk(len(offsets), 1), offsets, strict=True):
        b, c, h, w = group.shape
        finer = group.new_zeros(b, c, 2 * h, 2 * w)
        finer[:, :, i::2, j::2] = group
        out.append(finer)
    return torch.cat(out, 1)


def all_but(offset: tuple[int, int], like: Tensor) -> Tensor:
    """Positions of a map but one of each 2x2, bool [H, W]."""
    mask = like.new_ones(like.shape[2:], dtype=torch.bool)
    mask[offset[0] :: 2, offset[1] :: 2] = False
    return mask


def middle_hyper(hyper: Tensor) -> Tensor:
    """The hyper parameters that the middle scale adds: [B, C, H, W] -> [B, C, H/2, W/2], zeros where the coarse one is.

    The authors leave out other positions than they fill, (0, 0) of each 2x2 for the first half
    of the channels and (0, 1) for the second, so the rest moves along its row or to the next.
    """
    out = []
    for k, source in enumerate(pick(hyper, TO_MIDDLE).chunk(8, 1)):
        moved = torch.zeros_like(source)
        moved[:, :, all_but(TO_COARSE[k // 2], source)] = source[:, :, all_but((0, k // 4), source)]
        out.append(moved)
    return torch.cat(out, 1)


def fine_hyper(hyper: Tensor) -> Tensor:
    """The hyper parameters that the fine scale adds: zeros where the middle one is."""
    return hyper - spread(pick(hyper, TO_MIDDLE), TO_MIDDLE)


def step_mask(step: int, like: Tensor) -> Tensor:
    """What a step codes, [groups, 1, H, W], 1 or 0; `like` is of its scale."""
    scale, phases = STEPS[step]
    side, places = (COARSE_PHASES, MIDDLE_PHASES, FINE_PHASES)[scale]
    h, w = like.shape[2:]
    mask = like.new_zeros(len(phases), 1, h, w)
    for group, phase in enumerate(phases):
        for i, j in places[phase]:
            mask[group, :, i::side, j::side] = 1
    return mask


def fold(x: Tensor, step: int) -> Tensor:
    """The part of a map of the step's scale that it codes: [B, C, H, W] -> [B, C / groups, H, W]."""
    mask = step_mask(step, x)
    return (x.unflatten(1, (len(mask), -1)) * mask).sum(1)


def unfold(part: Tensor, step: int) -> Tensor:
    """The inverse, zeros elsewhere."""
    return (part.unsqueeze(1) * step_mask(step, part)).flatten(1, 2)

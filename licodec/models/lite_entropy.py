"""The entropy model of `lite`: all that its decoder must reproduce, made of integers.

A hyperprior and a quadtree context of four passes over 2x2 cells. The state is a
residual stream of C integers per cell; before pass k two heads read from it the
means of the symbols, in sixteenths, and what is added to the quality's row of the table of
Gaussians; after it, the decoded part enters the stream through a table of log
magnitudes. See `layers/integer.py` for the arithmetic.

What depends on the quality are tables of integers at the ten whole qualities, interpolated over
hundredths in integers: the start of the stream, the rows before any context (of y
and of z), and the factors from a mean head's sums to sixteenths.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.entropy.tables import SCALES
from licodec.layers.bound import lower_bound
from licodec.layers.integer import (
    BYTE,
    STREAM_UNIT,
    WORD,
    Entrance,
    IntegerBlock,
    IntegerConv,
    TrainableConv,
    replace,
    rounded,
)

QUALITIES = 10
PASSES = 4
MEAN_UNIT = 1 / 16
ROW_UNIT = 1 / 16  # in which a head and the quality's table add up to a row
LOG_SCALE_MIN, LOG_SCALE_STEP = math.log(0.11), math.log(256 / 0.11) / 63  # of the rows, see entropy.tables.SCALES
HEAD_UNIT = ROW_UNIT * LOG_SCALE_STEP  # of a logarithm of a scale
MAGNITUDE_MAX = 256  # of y as context; larger ones look the same
MAGNITUDE_UNIT = math.log1p(MAGNITUDE_MAX) / BYTE
FACTOR_BITS = 22  # of the largest factor of a mean head's channel
MEAN_LIMIT = WORD * 16  # in sixteenths
Kind = TypeVar("Kind", bound=nn.Module)


def interpolate(table: Tensor, quality: Tensor) -> Tensor:
    """Rows of a table [10, C] at qualities [B] in [1, 10]: [B, C, 1, 1]."""
    position = (quality.to(table.dtype) - 1).clamp(0, QUALITIES - 1)
    low = position.floor().clamp(max=QUALITIES - 2).long()
    weight = (position - low)[:, None]
    return (table[low] * (1 - weight) + table[low + 1] * weight)[:, :, None, None]


def interpolate_integers(table: Tensor, quality: Tensor) -> Tensor:
    """The same of whole numbers, over hundredths, rounded: int64 [B, C, 1, 1]."""
    hundredths = (quality.double() * 100).round().long().clamp(100, 100 * QUALITIES) - 100
    low = (hundredths // 100).clamp(max=QUALITIES - 2)
    weight = (hundredths - 100 * low)[:, None]
    table = table.long()
    between = table[low] * (100 - weight) + table[low + 1] * weight
    return torch.div(between + 50, 100, rounding_mode="floor")[:, :, None, None]


def row_base(log_sigma: Tensor) -> Tensor:
    """Sixteenths of rows that stand for a logarithm of a scale; adding half a row makes floor round."""
    return (log_sigma - LOG_SCALE_MIN) / HEAD_UNIT + 0.5 / ROW_UNIT


def row_of(sixteenths: Tensor) -> Tensor:
    """Row of the table of Gaussians, with the gradient of the sum; the lowest row can be left again."""
    row = lower_bound(sixteenths * ROW_UNIT - 0.5, 0.0).clamp(max=len(SCALES) - 1)
    whole = (sixteenths.detach() * ROW_UNIT).floor().clamp(0, len(SCALES) - 1)
    return row + (whole - row).detach()


def scale_of(row: Tensor) -> Tensor:
    """The scale that a row of the table stands for."""
    return (LOG_SCALE_MIN + LOG_SCALE_STEP * row).exp()


@dataclass(frozen=True)
class QualityIntegers:
    """Whole numbers of a quality, as floats [B, ., 1, 1]; the factors are multiples of powers of two."""

    start: Tensor
    row: Tensor
    z_row: Tensor
    factors: list[Tensor]


class TrainableTables(nn.Module):
    """Tables of the qualities while they are trained, [10, C] each.

    log_sigma, z_log_sigma: logarithms of the scales of y and z before any context; state: start of the stream.
    """

    def __init__(self, m: int, c: int, z: int) -> None:
        super().__init__()
        self.log_sigma = nn.Parameter(torch.zeros(QUALITIES, m))
        self.z_log_sigma = nn.Parameter(torch.zeros(QUALITIES, z))
        self.state = nn.Parameter(torch.zeros(QUALITIES, c))

    def forward(self, quality: Tensor) -> QualityIntegers:
        sigma = interpolate(self.log_sigma.exp(), quality)
        return QualityIntegers(
            rounded(interpolate(self.state, quality) / STREAM_UNIT, WORD),
            rounded(row_base(interpolate(self.log_sigma, quality)), WORD),
            rounded(row_base(interpolate(self.z_log_sigma, quality)), WORD),
            [sigma / MEAN_UNIT] * PASSES,
        )

    def room(self) -> IntegerTables:
        """Frozen tables of the same shapes."""
        return IntegerTables(*(table.shape[1] for table in (self.log_sigma, self.state, self.z_log_sigma)))

    @torch.no_grad()
    def freeze(self, mean_multipliers: list[Tensor]) -> IntegerTables:
        """The tables of the same integers; the mean heads' multipliers go into the factors."""
        frozen = self.room()
        frozen.start = rounded(self.state / STREAM_UNIT, WORD).int()
        frozen.row = rounded(row_base(self.log_sigma), WORD).int()
        frozen.z_row = rounded(row_base(self.z_log_sigma), WORD).int()
        factors = torch.stack([m * self.log_sigma.double().exp() / MEAN_UNIT for m in mean_multipliers])
        frozen.exponent = (FACTOR_BITS - 1 - factors.amax(1).log2().floor()).clamp(0, 100).int()
        frozen.factor = (factors * torch.exp2(frozen.exponent.double())[:, None]).round().int()
        return frozen

    @torch.no_grad()
    def thaw(self, frozen: IntegerTables) -> list[Tensor]:
        """Take what frozen integers stand for; returns the mean heads' multipliers."""
        self.state.copy_(frozen.start * STREAM_UNIT)
        for own, table in ((self.log_sigma, frozen.row), (self.z_log_sigma, frozen.z_row)):
            own.copy_((table - 0.5 / ROW_UNIT) * HEAD_UNIT + LOG_SCALE_MIN)
        factors = frozen.factor.double() * torch.exp2(-frozen.exponent.double())[:, None]
        return list((factors * MEAN_UNIT / self.log_sigma.double().exp()).mean(1).float())


class IntegerTables(nn.Module):
    """Frozen tables of the qualities.

    Buffers, int32: start [10, C]; row [10, M] and z_row [10, Z] in sixteenths; factor [4, 10, M], whose
    values are factor * 2^-exponent with exponent [4, M].
    """

    start: Tensor
    row: Tensor
    z_row: Tensor
    factor: Tensor
    exponent: Tensor

    def __init__(self, m: int, c: int, z: int) -> None:
        super().__init__()
        shapes = {
            "start": (QUALITIES, c),
            "row": (QUALITIES, m),
            "z_row": (QUALITIES, z),
            "factor": (PASSES, QUALITIES, m),
            "exponent": (PASSES, m),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.int32))

    def forward(self, quality: Tensor) -> QualityIntegers:
        start, row, z_row = (interpolate_integers(t, quality).float() for t in (self.start, self.row, self.z_row))
        bits = [1, 2, 4, 8, 16, 32, 64]
        digits = self.exponent[..., None] // torch.tensor(bits, device=self.exponent.device) % 2
        bases = torch.tensor([2.0**-bit for bit in bits], device=self.exponent.device)
        powers = torch.where(digits > 0, bases, 1.0).prod(-1)[:, :, None, None]  # exact, as no exp2 need be
        factors = [interpolate_integers(f, quality).float() * p for f, p in zip(self.factor, powers, strict=True)]
        return QualityIntegers(start, row, z_row, factors)

    def prepare(self) -> None:
        """Raises ValueError if float32 would not hold every number exactly."""
        words = (self.start, self.row, self.z_row)
        if any(int(table.abs().max()) > WORD for table in words) or int(self.factor.abs().max()) > 1 << FACTOR_BITS:
            raise ValueError("the tables of the qualities are out of range")
        if int(self.exponent.min()) < 0 or int(self.exponent.max()) > 100:
            raise ValueError("the exponents of the qualities are out of range")


def _as(kind: type[Kind], module: nn.Module) -> Kind:
    """The module, which is of this kind. Raises TypeError."""
    if not isinstance(module, kind):
        raise TypeError(f"{type(module).__name__} in place of {kind.__name__}: frozen already, or not yet")
    return module


def _all_as(kind: type[Kind], modules: nn.ModuleList) -> list[Kind]:
    return [_as(kind, module) for module in modules]


def magnitude_table() -> Tensor:
    """The integers of log(1 + |y|) for |y| in sixteenths up to 256, uint8 [4097]."""
    y = np.arange(MAGNITUDE_MAX / MEAN_UNIT + 1) * MEAN_UNIT
    return torch.from_numpy(np.rint(np.log1p(y) / MAGNITUDE_UNIT).astype(np.uint8))


class Entropy(nn.Module):
    """h_s, the four passes and the tables of the qualities; trainable until `frozen`.

    Args:
        m, c, z: channels of y, of the stream and of z.
    """

    magnitudes: Tensor

    def __init__(self, m: int, c: int, z: int) -> None:
        super().__init__()
        self.tables: TrainableTables | IntegerTables = TrainableTables(m, c, z)
        self.hyper_in: nn.Module = TrainableConv(z, 4 * c, unit=1.0, unit_out=STREAM_UNIT)
        self.hyper = nn.Sequential(IntegerBlock(c), IntegerBlock(c))
        self.entrances = nn.ModuleList(Entrance(c) for _ in range(PASSES))
        self.mean_heads = nn.ModuleList(TrainableConv(c, m, unit_out=1.0, gain=0.1) for _ in range(PASSES))
        self.row_heads = nn.ModuleList(TrainableConv(c, m, unit_out=HEAD_UNIT, gain=0.1) for _ in range(PASSES))
        self.inputs = nn.ModuleList(
            TrainableConv(2 * m, c, unit=MAGNITUDE_UNIT, unit_out=STREAM_UNIT) for _ in range(PASSES - 1)
        )
        self.blocks = nn.ModuleList(IntegerBlock(c) for _ in range(PASSES - 1))
        self.register_buffer("magnitudes", magnitude_table())

    def begin(self, z_hat: Tensor, start: Tensor) -> Tensor:
        """h_s: z_hat [B, Z, h, w], whole, -> the stream [B, C, 2h, 2w], one vector per cell."""
        return self.hyper(rounded(F.pixel_shuffle(self.hyper_in(z_hat.clamp(-BYTE, BYTE)), 2) + start, WORD))

    def head(self, step: int, stream: Tensor, factor: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Means in sixteenths and rows of the table, each [B, M, h, w]."""
        seen = self.entrances[step](stream)
        mean = rounded(self.mean_heads[step](seen) * factor, MEAN_LIMIT)
        return mean, row_of(rounded(self.row_heads[step](seen), WORD) + row)

    def update(self, step: int, stream: Tensor, part: Tensor) -> Tensor:
        """The stream after a pass, from its decoded part in units of one [B, M, h, w]."""
        seen = rounded(self.inputs[step](self.magnitude(part)), WORD)
        return self.blocks[step](rounded(stream + seen, WORD))

    def magnitude(self, part: Tensor) -> Tensor:
        """Whole numbers: signed and unsigned log magnitude, [B, M, h, w] -> [B, 2M, h, w]."""
        index = (part.detach() / MEAN_UNIT).abs().clamp(max=MAGNITUDE_MAX / MEAN_UNIT)
        whole = self.magnitudes[index.round().int()].float()
        if torch.is_grad_enabled():
            smooth = torch.log1p(part.abs()) / MAGNITUDE_UNIT
            whole = smooth + (whole - smooth).detach()
        return torch.cat([whole * part.detach().sign(), whole], 1)

    @torch.no_grad()
    def freeze(self) -> None:
        """Replace what is trained by the integers it stands for."""
        multipliers = [head.integers()[2] for head in _all_as(TrainableConv, self.mean_heads)]
        self.tables = _as(TrainableTables, self.tables).freeze(multipliers)
        replace(self, TrainableConv.freeze)
        for head in _all_as(IntegerConv, self.mean_heads):  # their multipliers are in the tables now
            head.multiplier = torch.ones_like(head.multiplier)

    def make_room(self) -> None:
        """Replace what is trained by frozen integers that are yet to be loaded."""
        self.tables = _as(TrainableTables, self.tables).room()
        replace(self, TrainableConv.room)

    @torch.no_grad()
    def thaw(self, frozen: Entropy) -> None:
        """Take what frozen integers stand for, to go on training."""
        multipliers = _as(TrainableTables, self.tables).thaw(_as(IntegerTables, frozen.tables))
        for head, multiplier in zip(_all_as(IntegerConv, frozen.mean_heads), multipliers, strict=True):
            head.multiplier = multiplier
        for name, module in self.named_modules():
            if isinstance(module, TrainableConv):
                module.thaw(_as(IntegerConv, frozen.get_submodule(name)))
            elif isinstance(module, Entrance):
                module.multiplier.copy_(_as(Entrance, frozen.get_submodule(name)).multiplier)

    def prepare(self) -> None:
        """Check frozen integers and make them ready to use. Raises ValueError."""
        for module in self.modules():
            if isinstance(module, IntegerConv | IntegerTables):
                module.prepare()
        if int(self.magnitudes.max()) > BYTE:
            raise ValueError("the table of magnitudes is out of range")

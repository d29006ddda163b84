"""Frequency tables: which integers a row can code, and how often each is expected.

Tables are computed once, when weights are trained or converted, and stored with
them: two machines would not compute the same ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

PRECISION = 16
TOTAL = 1 << PRECISION
TAIL_MASS = 1e-9  # of a Gaussian, outside its row; the value of compressai and all models here
# The 64 scales of Minnen et al. 2018 (section 3); float32 as the authors' code computes them.
SCALES = np.exp(np.linspace(math.log(0.11), math.log(256), 64)).astype(np.float32)
# The widest row of `gaussian_tables`, about 3133, with room for learned priors.
LONGEST_ROW = 1 << 14


@dataclass(frozen=True, eq=False)
class Tables:
    """Rows of frequencies. Entry i of row r stands for the integer minima[r] + i.

    The last entry of each row is the escape, which stands for all other integers.

    Attributes:
        minima: int32 [R].
        lengths: int32 [R], entries per row, the escape included; at least 2.
        frequencies: uint16 [sum of lengths], each at least 1; each row sums to 65536.
    """

    minima: np.ndarray
    lengths: np.ndarray
    frequencies: np.ndarray

    def __post_init__(self) -> None:
        """Check what may come from a file. Raises ValueError."""
        if self.minima.ndim != 1 or self.lengths.shape != self.minima.shape or not len(self.minima):
            raise ValueError("entropy tables: minima and lengths do not match")
        if self.lengths.min() < 2 or self.lengths.max() > LONGEST_ROW:
            raise ValueError("entropy tables: a row's length is out of range")
        if np.abs(self.minima.astype(np.int64)).max() > 1 << 24:
            raise ValueError("entropy tables: a row's minimum is out of range")
        if self.frequencies.shape != (int(self.lengths.sum(dtype=np.int64)),):
            raise ValueError("entropy tables: wrong number of frequencies")
        sums = np.add.reduceat(self.frequencies.astype(np.int64), self.starts())
        if self.frequencies.min() < 1 or (sums != TOTAL).any():
            raise ValueError(f"entropy tables: a row does not sum to {TOTAL}")

    def __len__(self) -> int:
        return len(self.minima)

    def starts(self) -> np.ndarray:
        """Index into `frequencies` of each row's first entry, int64 [R]."""
        return np.concatenate([[0], np.cumsum(self.lengths[:-1], dtype=np.int64)])

    def row(self, index: int) -> np.ndarray:
        """Frequencies of one row, uint16."""
        start = int(self.starts()[index])
        return self.frequencies[start : start + int(self.lengths[index])]

    def costs(self, index: int) -> np.ndarray:
        """Ideal code length in bits of one row's entries, float64."""
        return PRECISION - np.log2(self.row(index))

    @classmethod
    def from_masses(cls, minima: np.ndarray, masses: list[np.ndarray]) -> Tables:
        """Quantise rows of probabilities, each with the escape's mass last."""
        rows = [quantise(mass) for mass in masses]
        return cls(
            np.asarray(minima, np.int32),
            np.array([len(r) for r in rows], np.int32),
            np.concatenate(rows).astype(np.uint16),
        )


def quantise(mass: np.ndarray) -> np.ndarray:
    """Integer frequencies [n], each at least 1, that sum to 65536 and cost the fewest bits.

    `mass` is float64 [n], n < 65536, non-negative; it need not sum to one. Each
    entry starts at its share rounded down (at least 1); what is left over is
    handed out, or taken back, one by one where that changes the expected code
    length best.
    """
    mass = np.asarray(mass, np.float64) / mass.sum()
    frequency = np.maximum(1, np.floor(mass * TOTAL)).astype(np.int64)
    while (left := TOTAL - int(frequency.sum())) != 0:
        if left > 0:
            gain = mass * np.log2((frequency + 1) / frequency)
            chosen = np.argsort(-gain, kind="stable")[:left]
            frequency[chosen] += 1
        else:
            lower = np.where(frequency > 1, frequency - 1, frequency)
            cost = np.where(frequency > 1, mass * np.log2(frequency / lower), np.inf)
            chosen = np.argsort(cost, kind="stable")[: min(-left, int((frequency > 1).sum()))]
            frequency[chosen] -= 1
    return frequency


def gaussian_tables(scales: np.ndarray = SCALES) -> Tables:
    """Rows for zero-mean Gaussians of the given scales, integrated over unit intervals."""
    reach = 6.109410204869  # -Phi^-1(TAIL_MASS / 2)
    minima, masses = [], []
    for scale in scales.astype(np.float64):
        half = math.ceil(scale * reach)
        edges = np.arange(half + 2) - 0.5
        # upper tail Q(edge / scale); exact differences far out, where 1 - Phi would cancel
        tail = np.array([0.5 * math.erfc(e / (scale * math.sqrt(2))) for e in edges])
        side = tail[:-1] - tail[1:]  # mass of 0, 1, ..., half
        masses.append(np.concatenate([side[:0:-1], side, [2 * tail[-1]]]))
        minima.append(-half)
    return Tables.from_masses(np.array(minima), masses)


def fold_escapes(entries: np.ndarray, escape: int) -> np.ndarray:
    """Entries outside a row whose last entry, the escape, is `escape`, as integers >= 0, int64.

    Values above a row become even numbers, values below it odd ones.
    """
    entries = entries.astype(np.int64)
    return np.where(entries < 0, -2 * entries - 1, 2 * (entries - escape))


def unfold_escapes(folded: np.ndarray, rows: np.ndarray, tables: Tables) -> np.ndarray:
    """The values that `fold_escapes` folded, int64, given the row of each."""
    half = folded >> 1
    above = tables.minima[rows] + tables.lengths[rows] - 1 + half
    return np.where(folded & 1, tables.minima[rows].astype(np.int64) - half - 1, above)


def nibble_counts(folded: np.ndarray) -> np.ndarray:
    """Hexadecimal digits that each folded value needs, 0 for zero, int32."""
    return np.ceil(np.log2(folded.astype(np.float64) + 1) / 4).astype(np.int32)

"""The ANS coder: groups of integers, each with the table rows that code it, in one stream.

`constriction` does the arithmetic (Rust, bounds-checked), or `ans.py` where there is
no build of it. ANS is a stack, so the encoder gathers all groups and writes them last first; the decoder then reads
them first to last, and may compute the rows of a group from those before it.
Within a group the symbols of each row are coded together, which is several times
as fast as one by one and costs nothing, since both sides know the rows.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable

import numpy as np

from licodec.entropy import ans
from licodec.entropy.tables import TOTAL, Tables, fold_escapes, nibble_counts, unfold_escapes

NIBBLES = 8  # of an escaped value at most: it fits in 32 bits


class StreamError(ValueError):
    """The bytes are not a stream that the encoder could have written."""


# constriction comes without types; of its interface ans.py has what is used here
AnsCoder: Callable[..., ans.AnsCoder]
Categorical: Callable[..., ans.Categorical]
try:
    import constriction
except ImportError:  # see pyproject.toml
    AnsCoder, Categorical = ans.AnsCoder, ans.Categorical
else:
    AnsCoder = constriction.stream.stack.AnsCoder
    Categorical = functools.partial(constriction.stream.model.Categorical, perfect=False)


def _model(frequencies: np.ndarray) -> ans.Categorical:
    return Categorical(frequencies.astype(np.float64) / TOTAL)


@functools.lru_cache(maxsize=8)
def _row_models(tables: Tables) -> list[ans.Categorical | None]:
    """One model per row, made when first used (`Tables` hashes by identity)."""
    return [None] * len(tables)


def _row_model(tables: Tables, row: int) -> ans.Categorical:
    models = _row_models(tables)
    model = models[row]
    if model is None:
        model = models[row] = _model(tables.row(row))
    return model


@functools.cache
def _uniform(size: int) -> ans.Categorical:
    return _model(np.full(size, TOTAL / size))


def _by_row(rows: np.ndarray, tables: Tables) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """An order that sorts `rows`, and (row, begin, end) of each run in it."""
    if len(tables) <= 256:
        rows = rows.astype(np.uint8)  # which numpy sorts in half the time
    order = np.argsort(rows, kind="stable")
    edges = np.searchsorted(rows[order], np.arange(len(tables) + 1)).tolist()
    return order, [(row, *edges[row : row + 2]) for row in range(len(tables)) if edges[row] < edges[row + 1]]


class _Checksum:
    """CRC-32 of all rows and symbols that passed, in order."""

    def __init__(self) -> None:
        self.check = 0

    def _note(self, symbols: np.ndarray, rows: np.ndarray) -> None:
        self.check = zlib.crc32(rows.astype("<u2").tobytes(), self.check)
        self.check = zlib.crc32(symbols.astype("<i4").tobytes(), self.check)


class _Group:
    """Symbols, sorted by row, as entries of their rows; and those of the escapes, folded, in the same order."""

    def __init__(self, symbols: np.ndarray, rows: np.ndarray, tables: Tables) -> None:
        self.tables = tables
        order, self.runs = _by_row(rows, tables)
        self.entries = symbols[order]
        folded = [np.empty(0, np.int64)]
        for row, begin, end in self.runs:
            part, escape = self.entries[begin:end], int(tables.lengths[row]) - 1
            part -= tables.minima[row]
            outside = part.view(np.uint32) >= escape  # also those below zero
            if outside.any():
                folded.append(fold_escapes(part[outside], escape))
                part[outside] = escape
        self.folded = np.concatenate(folded)
        self.counts = nibble_counts(self.folded)

    def bits(self) -> float:
        costs = (self.tables.costs(row)[self.entries[begin:end]].sum() for row, begin, end in self.runs)
        return float(sum(costs) + 4 * (1 + self.counts).sum())

    def encode(self, coder: ans.AnsCoder) -> None:
        for position in reversed(range(int(self.counts.max(initial=0)))):
            digits = (self.folded[self.counts > position] >> (4 * position)) & 15
            coder.encode_reverse(digits.astype(np.int32), _uniform(16))
        if len(self.counts):
            coder.encode_reverse(self.counts, _uniform(16))
        for row, begin, end in reversed(self.runs):
            coder.encode_reverse(self.entries[begin:end], _row_model(self.tables, row))


class Encoder(_Checksum):
    """Gathers groups; `stream` writes them."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[_Group] = []

    def push(self, symbols: np.ndarray, rows: np.ndarray, tables: Tables) -> None:
        """Add a group: integers [n] that fit in 31 bits, and for each its row of `tables`."""
        symbols, rows = symbols.astype(np.int32).ravel(), rows.astype(np.uint16).ravel()
        self._note(symbols, rows)
        self.groups.append(_Group(symbols, rows, tables))

    def bits(self) -> float:
        """Ideal code length of what was pushed, in bits; escaped values count their bits too."""
        return sum(group.bits() for group in self.groups)

    def stream(self) -> bytes:
        """The stream of all groups."""
        coder = AnsCoder()
        for group in reversed(self.groups):
            group.encode(coder)
        return coder.get_compressed().astype("<u4").tobytes()


class Decoder(_Checksum):
    """Reads groups back in the order in which they were pushed."""

    def __init__(self, data: bytes) -> None:
        """Raises StreamError if `data` cannot be a stream."""
        super().__init__()
        if len(data) % 4:
            raise StreamError("its length is not a multiple of 4 bytes")
        words = np.frombuffer(data, "<u4").astype(np.uint32)
        try:
            self.coder = AnsCoder(words)
        except ValueError as error:
            raise StreamError(str(error)) from None

    def pop(self, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """The next group, int32 [n], given its rows [n] (each in the range of `tables`).

        Wrong rows or damaged bytes give wrong integers, not an error; `expect_end`
        and the checksum tell. Raises StreamError where no encoder could be.
        """
        rows = rows.astype(np.uint16).ravel()
        order, runs = _by_row(rows, tables)
        values = np.empty(len(rows), np.int32)
        escapes = [np.empty(0, np.int64)]
        for row, begin, end in runs:
            entries = self.coder.decode(_row_model(tables, row), end - begin)
            np.add(entries, tables.minima[row], out=values[begin:end])
            escapes.append(np.flatnonzero(entries == tables.lengths[row] - 1) + begin)
        if len(escaped := np.concatenate(escapes)):
            values[escaped] = self._escapes(rows[order[escaped]], tables)
        symbols = np.empty_like(values)
        symbols[order] = values
        self._note(symbols, rows)
        return symbols

    def _escapes(self, rows: np.ndarray, tables: Tables) -> np.ndarray:
        counts = self.coder.decode(_uniform(16), len(rows))
        if counts.max(initial=0) > NIBBLES:
            raise StreamError("an escaped value is too long")
        folded = np.zeros(len(rows), np.int64)
        for position in range(int(counts.max(initial=0))):
            longer = counts > position
            digits = self.coder.decode(_uniform(16), int(longer.sum()))
            folded[longer] |= digits.astype(np.int64) << (4 * position)
        values = unfold_escapes(folded, rows, tables)
        if np.abs(values).max() > 2**31 - 1:
            raise StreamError("an escaped value is out of range")
        return values

    def expect_end(self) -> None:
        """Raises StreamError unless all bytes have been used up."""
        if not self.coder.is_empty():
            raise StreamError("data is left over behind the last symbol")

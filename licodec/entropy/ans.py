"""The ANS coder of `constriction` in plain Python: the same bytes, at a third of the speed.

For processors that constriction has no wheels for, 64-bit ARM under Linux first of all. It has
the part of constriction's interface that `coder.py` uses. The state has 64 bits, words
have 32, probabilities 24 (constriction's defaults; asymmetric numeral systems: Duda 2013).
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

import numpy as np

PRECISION = 24
WORD, STATE = 32, 64


class Categorical:
    """A distribution over 0, 1, ..., as constriction's `Categorical(..., perfect=False)` makes it."""

    def __init__(self, probabilities: np.ndarray) -> None:
        """Take float64 [n], a sum of at most 1 of multiples of 2^-16; each entry gets 2^-24 on top."""
        count = len(probabilities)
        free = (1 << PRECISION) - count
        sums = [0.0, *accumulate(probabilities.tolist())]
        scale = free / sums[-1]
        self.left = [int(total * scale) + i for i, total in enumerate(sums[:-1])]
        self.size = [b - a for a, b in zip(self.left, [*self.left[1:], 1 << PRECISION], strict=True)]


class AnsCoder:
    """A stack of symbols."""

    def __init__(self, words: np.ndarray | None = None) -> None:
        """Take uint32 words as `get_compressed` gives them. Raises ValueError if the last one is zero."""
        self.words = [] if words is None else words.tolist()
        if self.words and not self.words[-1]:
            raise ValueError("the last word of a stream cannot be zero")
        self.state = 0
        for _ in range(min(2, len(self.words))):
            self.state = self.state << WORD | self.words.pop()

    def encode_reverse(self, symbols: np.ndarray, model: Categorical) -> None:
        """Push int32 symbols [n], the last one first."""
        state, push = self.state, self.words.append
        for symbol in symbols.tolist()[::-1]:
            size = model.size[symbol]
            if state >> (STATE - PRECISION) >= size:
                push(state & 0xFFFFFFFF)
                state >>= WORD
            prefix, remainder = divmod(state, size)
            state = prefix << PRECISION | (model.left[symbol] + remainder)
        self.state = state

    def decode(self, model: Categorical, count: int) -> np.ndarray:
        """Pop symbols, int32 [count]."""
        state, words, left, size = self.state, self.words, model.left, model.size
        symbols = [0] * count
        for i in range(count):
            quantile = state & ((1 << PRECISION) - 1)
            symbols[i] = symbol = bisect_right(left, quantile) - 1
            state = (state >> PRECISION) * size[symbol] + quantile - left[symbol]
            if state < 1 << WORD and words:
                state = state << WORD | words.pop()
        self.state = state
        return np.array(symbols, np.int32)

    def get_compressed(self) -> np.ndarray:
        """All of the stack as uint32 words."""
        rest = [self.state & 0xFFFFFFFF, self.state >> WORD]
        while rest and not rest[-1]:
            rest.pop()
        return np.array([*self.words, *rest], np.uint32)

    def is_empty(self) -> bool:
        """Whether there is nothing left to pop."""
        return not self.words and not self.state

"""Tables and the coder: exact round trips, sizes near the ideal, wrong data noticed."""

import constriction
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from licodec.entropy import ans
from licodec.entropy.coder import Decoder, Encoder, StreamError
from licodec.entropy.tables import SCALES, TOTAL, Tables, gaussian_tables, quantise

TABLES = gaussian_tables()


def sample(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 64, count)
    return np.rint(rng.normal(size=count) * SCALES[rows]).astype(np.int32), rows


def test_rows_are_gaussians():
    for index in (0, 20, 40):  # the widest rows have thicker tails: no frequency is below 1
        row = TABLES.row(index).astype(np.float64)
        values = TABLES.minima[index] + np.arange(len(row) - 1)
        assert row.sum() == TOTAL
        deviation = np.sqrt((row[:-1] * values**2).sum() / TOTAL)
        # a rounded Gaussian has the variance of the Gaussian plus 1/12, where it is not all zeros
        expected = np.sqrt(SCALES[index] ** 2 + 1 / 12) if index else 0.0
        assert deviation == pytest.approx(expected, rel=0.02, abs=0.02)


def test_stream_is_as_small_as_its_entropy():
    symbols, rows = sample(200_000)
    encoder = Encoder()
    encoder.push(symbols, rows, TABLES)
    assert 8 * len(encoder.stream()) == pytest.approx(encoder.bits(), rel=3e-4)
    wide = SCALES[rows] > 2  # where the entropy of integers is the differential one
    entropy = np.log2(SCALES[rows][wide] * np.sqrt(2 * np.pi * np.e)).sum()
    encoder = Encoder()
    encoder.push(symbols[wide], rows[wide], TABLES)
    assert encoder.bits() == pytest.approx(entropy, rel=5e-3)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(-(2**31) + 1, 2**31 - 1) | st.integers(-9, 9), st.integers(0, 63)), max_size=40),
        max_size=5,
    )
)
def test_round_trip_of_any_groups(groups):
    encoder = Encoder()
    arrays = [np.array(g, np.int64).reshape(-1, 2) for g in groups]
    for group in arrays:
        encoder.push(np.clip(group[:, 0], -(2**30), 2**30), group[:, 1], TABLES)
    decoder = Decoder(encoder.stream())
    for group in arrays:
        assert (decoder.pop(group[:, 1], TABLES) == np.clip(group[:, 0], -(2**30), 2**30)).all()
    decoder.expect_end()
    assert decoder.check == encoder.check


def test_wrong_row_is_noticed():
    symbols, rows = sample(5000)
    encoder = Encoder()
    encoder.push(symbols, rows, TABLES)
    rows[77] = (rows[77] + 1) % 64
    decoder = Decoder(encoder.stream())
    decoder.pop(rows, TABLES)
    assert decoder.check != encoder.check


def test_arbitrary_bytes_never_crash():
    rng = np.random.default_rng(1)
    rows = sample(3000)[1]
    for size in (0, 4, 8, 400, 4000):
        for _ in range(5):
            try:
                decoder = Decoder(rng.bytes(size))
                decoder.pop(rows, TABLES)
                decoder.expect_end()
            except StreamError:
                continue


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=300).filter(lambda m: sum(m) > 0))
def test_quantised_masses_are_usable(masses):
    frequency = quantise(np.array(masses))
    assert frequency.sum() == TOTAL and frequency.min() >= 1


@pytest.mark.parametrize(
    "change",
    [
        {"lengths": np.array([1], np.int32)},
        {"frequencies": np.array([1, 1], np.uint16)},
        {"frequencies": np.array([0, 65535], np.uint16)},
        {"minima": np.array([2**30], np.int32)},
        {"minima": np.zeros(0, np.int32)},
    ],
)
def test_damaged_tables_are_refused(change):
    good = {
        "minima": np.array([0], np.int32),
        "lengths": np.array([2], np.int32),
        "frequencies": np.array([32768, 32768], np.uint16),
    }
    Tables(**good)
    with pytest.raises(ValueError):
        Tables(**(good | change))


def test_our_coder_is_constriction_s_to_the_byte():
    """Streams of each are read by the other; garbage gives the same symbols too."""
    stack, categorical = constriction.stream.stack.AnsCoder, constriction.stream.model.Categorical
    rng = np.random.default_rng(0)

    def both(frequencies):
        p = frequencies.astype(np.float64) / TOTAL
        return categorical(p, perfect=False), ans.Categorical(p), p

    for _ in range(20):
        theirs, ours, groups = stack(), ans.AnsCoder(), []
        for _ in range(rng.integers(1, 40)):
            a, b, p = both(TABLES.row(int(rng.integers(64))) if rng.random() < 0.8 else np.full(16, TOTAL // 16))
            count = int(rng.integers(0, 300))
            symbols = rng.integers(0, len(p), count) if rng.random() < 0.5 else rng.choice(len(p), count, p=p)
            theirs.encode_reverse(symbols.astype(np.int32), a)
            ours.encode_reverse(symbols.astype(np.int32), b)
            groups.append((symbols, b))
        words = ours.get_compressed()
        assert (theirs.get_compressed() == words).all()
        decoder = ans.AnsCoder(words)
        for symbols, model in reversed(groups):
            assert (decoder.decode(model, len(symbols)) == symbols).all()
        assert decoder.is_empty()
        words = rng.integers(0, 2**32, rng.integers(1, 200), dtype=np.uint32) | 1
        theirs, ours = stack(words), ans.AnsCoder(words)
        for _ in range(20):
            a, b, _ = both(TABLES.row(int(rng.integers(64))))
            count = int(rng.integers(0, 60))
            assert (theirs.decode(a, count) == ours.decode(b, count)).all()
        assert theirs.is_empty() == ours.is_empty()
    with pytest.raises(ValueError, match="zero"):
        ans.AnsCoder(np.zeros(1, np.uint32))

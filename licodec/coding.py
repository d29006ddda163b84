"""Latents to bytes and back: where a model's coding steps meet the entropy coder. Numpy, no torch.

`walk` is the one loop over the steps. The encoder's `code` function rounds and
gathers integers, the decoder's reads them; means and table rows are what the
model must reproduce wherever it runs (see `licodec.runtime.protocol`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from licodec.entropy.coder import Decoder, Encoder, StreamError
from licodec.entropy.tables import Tables
from licodec.errors import CorruptError, WeightsError
from licodec.runtime.protocol import Context, Model

CHECK_BYTES = 4
SYMBOL_MAX = 1 << 24  # beyond what float32 counts exactly; no picture gets near it


@dataclass(frozen=True)
class EntropyTables:
    """The tables of a model's weights.

    Attributes:
        y: rows for y.
        z: rows for z (see `Model.z_rows`).
    """

    y: Tables
    z: Tables


@dataclass(frozen=True)
class Coded:
    """A coded tile: its payload, and what it would cost an ideal coder."""

    payload: bytes
    ideal_bits: float


def walk(
    model: Model,
    z_symbols: np.ndarray,
    quality: float,
    code: Callable[[int, np.ndarray, np.ndarray], np.ndarray],
) -> Context:
    """Run all coding steps and return the context, which then gives y_hat.

    `code(step, mean, rows)` returns the symbols, int32, of the step.
    """
    context = model.context(z_symbols, quality)
    for step in range(model.geometry.coding_steps(z_symbols.shape)):
        mean, rows = context.params(step)
        context.push(step, code(step, mean, rows))
    return context


def _integers(x: np.ndarray) -> np.ndarray:
    """Whole numbers as int32. Raises WeightsError if a model gives no usable numbers."""
    if not (np.abs(x) < SYMBOL_MAX).all():  # also false for NaN
        raise WeightsError("these weights turn the picture into values that cannot be coded; are they trained?")
    return x.astype(np.int32)


def _z_rows(model: Model, quality: float, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(model.z_rows(quality)[:, None, None], shape[1:])


def encode_latent(
    model: Model, tables: EntropyTables, y: np.ndarray, quality: float, z_from: np.ndarray | None = None
) -> Coded:
    """Code y, float [1, M, H, W], as the payload of a tile; z comes from another latent if `z_from` is given."""
    encoder = Encoder()
    z_symbols = _integers(model.hyper_analyse(y if z_from is None else z_from, quality))
    encoder.push(z_symbols, _z_rows(model, quality, z_symbols.shape), tables.z)
    parts = model.split(y)

    def code(step: int, mean: np.ndarray, rows: np.ndarray) -> np.ndarray:
        symbols = _integers(np.rint(parts[step] - mean))
        encoder.push(symbols, rows, tables.y)
        return symbols

    walk(model, z_symbols, quality, code)
    payload = encoder.check.to_bytes(CHECK_BYTES, "little") + encoder.stream()
    return Coded(payload, encoder.bits())


def decode_latent(
    model: Model, tables: EntropyTables, payload: bytes, z_shape: tuple[int, ...], quality: float
) -> np.ndarray:
    """y_hat, float32 [1, M, H, W], from a tile's payload; z_shape is that of z, [1, C, h, w].

    Raises CorruptError if the integers are not those that were coded.
    """
    check = int.from_bytes(payload[:CHECK_BYTES], "little")
    try:
        decoder = Decoder(payload[CHECK_BYTES:])

        def read(rows: np.ndarray, table: Tables) -> np.ndarray:
            symbols = decoder.pop(rows, table)
            if np.abs(symbols.astype(np.int64)).max(initial=0) >= SYMBOL_MAX:
                raise StreamError("a value is out of range")
            return symbols.reshape(rows.shape)

        z_symbols = read(_z_rows(model, quality, z_shape)[None], tables.z)
        y_hat = walk(model, z_symbols, quality, lambda step, mean, rows: read(rows, tables.y)).y_hat()
        decoder.expect_end()
    except StreamError as error:
        raise CorruptError(f"the decoder is out of step with the encoder ({error})") from None
    if decoder.check != check:
        raise CorruptError("the decoder is out of step with the encoder (the decoded integers fail their checksum)")
    return y_hat

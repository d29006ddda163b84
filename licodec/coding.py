"""Latents to bytes and back: where the models' walk meets the entropy coder.

Both directions drive `models.base.walk`; the encoder's `code` function rounds
and gathers integers, the decoder's reads them. z_hat, the scales and all that they
depend on are float64 in both (see `CompressionModel.prepare`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from licodec.entropy.coder import Decoder, Encoder, StreamError
from licodec.entropy.tables import Tables
from licodec.errors import CorruptError, WeightsError
from licodec.models.base import CompressionModel, walk

CHECK_BYTES = 4
SYMBOL_MAX = 1 << 24  # beyond what float32 counts exactly; no picture gets near it


@dataclass(frozen=True)
class EntropyTables:
    """The tables of a model's weights.

    Attributes:
        y: rows for the Gaussians of y, one a scale.
        z: rows for z (see `CompressionModel.z_rows`).
        thresholds: float64 [R - 1]: a scale's row is the number of thresholds below it.
    """

    y: Tables
    z: Tables
    thresholds: Tensor


@dataclass(frozen=True)
class Coded:
    """A coded tile: its payload, and what it would cost an ideal coder."""

    payload: bytes
    ideal_bits: float


def _integers(x: Tensor) -> np.ndarray:
    """Rounded values as int32. Raises WeightsError if a model gives no usable numbers."""
    if not bool((x.abs() < SYMBOL_MAX).all()):  # also false for NaN
        raise WeightsError("these weights turn the picture into values that cannot be coded; are they trained?")
    return x.to(torch.int32).cpu().numpy().ravel()


def _z_rows(model: CompressionModel, tables: EntropyTables, quality: Tensor, shape: torch.Size) -> np.ndarray:
    rows = model.z_rows(quality, tables.thresholds)[:, None, None].expand(shape[1:])
    return rows.cpu().numpy().ravel()


def _y_rows(scale: Tensor, tables: EntropyTables) -> np.ndarray:
    return torch.bucketize(scale.contiguous(), tables.thresholds, out_int32=True).cpu().numpy().ravel()


def encode_latent(model: CompressionModel, tables: EntropyTables, y: Tensor, z: Tensor, quality: Tensor) -> Coded:
    """Code y [1, M, H, W] and z [1, C, h, w] as the payload of a tile."""
    encoder = Encoder()
    y, z = y.double().contiguous(), z.double().contiguous()  # the decoder's layout: kernels round by layout
    offset = model.z_offset(quality).double()
    z_symbols = (z - offset).round()
    encoder.push(_integers(z_symbols), _z_rows(model, tables, quality, z.shape), tables.z)
    parts = model.split(y)

    def code(step: int, mean: Tensor, scale: Tensor) -> Tensor:
        symbols = model.quantise(parts[step] - mean, scale)
        encoder.push(_integers(symbols), _y_rows(scale, tables), tables.y)
        return symbols + mean

    walk(model, z_symbols + offset, quality, code)
    payload = encoder.check.to_bytes(CHECK_BYTES, "little") + encoder.finish()
    return Coded(payload, encoder.bits())


def decode_latent(
    model: CompressionModel, tables: EntropyTables, payload: bytes, z_shape: tuple[int, ...], quality: Tensor
) -> Tensor:
    """y_hat [1, M, H, W] from a tile's payload; z_shape is that of z, [1, C, h, w].

    Raises CorruptError if the integers are not those that were coded.
    """
    check = int.from_bytes(payload[:CHECK_BYTES], "little")
    device = quality.device
    try:
        decoder = Decoder(payload[CHECK_BYTES:])

        def read(rows: np.ndarray, table: Tables, shape: tuple[int, ...]) -> Tensor:
            symbols = decoder.pop(rows, table)
            if np.abs(symbols.astype(np.int64)).max(initial=0) >= SYMBOL_MAX:
                raise StreamError("a value is out of range")
            return torch.from_numpy(symbols).to(device).double().view(shape)

        rows = _z_rows(model, tables, quality, torch.Size(z_shape))
        z_hat = read(rows, tables.z, z_shape) + model.z_offset(quality).double()

        def code(step: int, mean: Tensor, scale: Tensor) -> Tensor:
            return read(_y_rows(scale, tables), tables.y, tuple(mean.shape)) + mean

        y_hat = walk(model, z_hat, quality, code).y_hat()
        decoder.finish()
    except StreamError as error:
        raise CorruptError(f"the decoder is out of step with the encoder ({error})") from None
    if decoder.check != check:
        raise CorruptError("the decoder is out of step with the encoder (the decoded integers fail their checksum)")
    return y_hat

"""From a model in torch to a weights file, and back into one that is trained further."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from licodec.entropy.tables import gaussian_tables
from licodec.models.base import CompressionModel
from licodec.weights import file


def export(
    model: CompressionModel, path: Path, notes: dict[str, str], licence: str, quality: int | None = None
) -> bytes:
    """Freeze a trained model into a weights file; returns the fingerprint.

    Floats are stored in the model's `storage` type (float16 for `lite`: 0.001 dB).
    """
    metadata = file.Metadata(model.name, asdict(model.config), quality, licence, notes)
    tables = {"y": gaussian_tables()} | model.z_tables()
    return file.save(path, metadata, model.coding_state(), tables, model.thresholds())


def load_state(model: CompressionModel, path: Path) -> None:
    """Fill a model from a weights file, for `--init`. Raises WeightsError, RuntimeError."""
    model.load_coding_state(file.read(path).float_state())

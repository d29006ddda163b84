"""A weights file: safetensors with the parameters, the entropy tables and what they are.

Tensors: the model's parameters under their own names, `thresholds` (float32 [63]:
a scale's row is the number of thresholds below it) and per table set, `y` and
possibly `z`, `tables.NAME.minima`, `.lengths` and `.frequencies`. Metadata: see
`Metadata`. The fingerprint is of the tensors alone, so that correcting the
metadata does not orphan files.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from licodec.errors import WeightsError
from licodec.files import beside

if TYPE_CHECKING:
    import torch

    from licodec.entropy.tables import Tables

FORMAT = 1
_RESERVED = ("tables.", "thresholds")


@dataclass(frozen=True)
class Metadata:
    """What a weights file says of itself.

    Attributes:
        config: the model's configuration, as its dataclass takes it.
        quality: for fixed-rate weights, the quality they serve; None for variable-rate ones.
        notes: free text by key: source, source_sha256, rate_lambda, metric, trained_on ...
    """

    model: str
    config: dict[str, object]
    quality: int | None = None
    licence: str = "unknown"
    notes: dict[str, str] = field(default_factory=dict)

    def to_strings(self, fingerprint: bytes) -> dict[str, str]:
        """As safetensors metadata: one string, since safetensors writes several in random order."""
        facts = {"format": FORMAT, "fingerprint": fingerprint.hex(), **asdict(self)}
        return {"licodec": json.dumps(facts, sort_keys=True)}

    @classmethod
    def from_strings(cls, strings: dict[str, str] | None, path: Path) -> tuple[Metadata, bytes]:
        """Metadata and fingerprint. Raises WeightsError."""
        if not strings or "licodec" not in strings:
            raise WeightsError(f"{path}: not a licodec weights file; convert checkpoints with `licodec convert`")
        try:
            facts = json.loads(strings["licodec"])
            if facts.pop("format") != FORMAT:
                raise WeightsError(f"{path}: weights of a format this licodec does not read; upgrade licodec")
            name = bytes.fromhex(facts.pop("fingerprint"))
            return cls(**facts), name
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WeightsError(f"{path}: damaged metadata ({error}); get the file again") from None


@dataclass(frozen=True)
class Weights:
    """A weights file in memory: its parameters by name, and the tables (thresholds as float64)."""

    path: Path
    metadata: Metadata
    state: dict[str, np.ndarray]
    tables: dict[str, Tables]
    thresholds: np.ndarray
    fingerprint: bytes

    def float_state(self) -> dict[str, torch.Tensor]:
        """The parameters for torch, floats as float32, whatever type they are stored in."""
        import torch

        tensors = {name: torch.from_numpy(array) for name, array in self.state.items()}
        return {name: x.float() if x.is_floating_point() else x for name, x in tensors.items()}


def fingerprint(tensors: dict[str, np.ndarray]) -> bytes:
    """First 8 bytes of the SHA-256 over names, types, shapes and contents, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.asarray(tensors[name], order="C")
        digest.update(f"{name} {array.dtype.str} {list(array.shape)}\n".encode())
        digest.update(array.data)
    return digest.digest()[:8]


def save(
    path: Path,
    metadata: Metadata,
    state: dict[str, torch.Tensor],
    tables: dict[str, Tables],
    thresholds: np.ndarray,
) -> bytes:
    """Write a weights file beside and rename; returns its fingerprint."""
    import torch
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    tensors["thresholds"] = torch.from_numpy(thresholds.copy())
    for name, table in tables.items():
        for column in ("minima", "lengths", "frequencies"):
            tensors[f"tables.{name}.{column}"] = torch.from_numpy(getattr(table, column))
    mark = fingerprint({key: tensor.numpy() for key, tensor in tensors.items()})
    with beside(path) as temporary:
        save_file(tensors, temporary, metadata.to_strings(mark))
        temporary.chmod(0o644)  # safetensors keeps it to its owner
    return mark


@dataclass(frozen=True)
class Summary:
    """What a weights file says before its tensors are read.

    `fingerprint` is what the file claims; `read` checks it.
    """

    metadata: Metadata
    fingerprint: bytes
    parameters: int


def read_header(path: Path) -> Summary:
    """What the file says of itself, without torch. Raises WeightsError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata, name = Metadata.from_strings(file.metadata(), path)
            count = 0
            for key in file.keys():  # noqa: SIM118 - not a mapping
                if not key.startswith(_RESERVED):
                    size = 1
                    for side in file.get_slice(key).get_shape():
                        size *= side
                    count += size
            return Summary(metadata, name, count)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: cannot be read as a weights file ({error}); get it again") from None


def read(path: Path) -> Weights:
    """Read a whole weights file, without torch. Raises WeightsError if it is missing, foreign or damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    summary = read_header(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: cannot be read as safetensors ({error}); get the file again") from None
    if fingerprint(tensors) != summary.fingerprint:
        raise WeightsError(f"{path}: its contents do not have the fingerprint it claims; get the file again")
    state = {key: tensor for key, tensor in tensors.items() if not key.startswith(_RESERVED)}
    try:
        tables = {
            key.split(".")[1]: _tables(tensors, key.split(".")[1])
            for key in tensors
            if key.startswith("tables.") and key.endswith(".minima")
        }
        thresholds = tensors["thresholds"].astype(np.float64)
        if len(thresholds) + 1 != len(tables["y"]) or not (np.diff(thresholds) > 0).all():
            raise ValueError("thresholds do not match the table of y")
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path}: its entropy tables are damaged ({error}); get the file again") from None
    return Weights(path, summary.metadata, state, tables, thresholds, summary.fingerprint)


def _tables(tensors: dict[str, np.ndarray], name: str) -> Tables:
    from licodec.entropy.tables import Tables

    return Tables(*(tensors[f"tables.{name}.{column}"] for column in ("minima", "lengths", "frequencies")))

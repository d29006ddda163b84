"""Weights of small models from a formula, so that golden files of large architectures need no large files.

A recipe holds what no formula gives: the configuration, gains and offsets of some
tensors, and the tables of z. Never change what is here: the golden files would not decode.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from licodec.entropy.tables import Tables
from licodec.models import MODELS
from licodec.weights import file

HERE = Path(__file__).parent
PARTS = ("minima", "lengths", "frequencies")
INITIAL = (
    "haar",
    "scaling_factors",
    "freq_weights",
    "global_alpha",
    "gains",
    "z_prior.matrices",
    "z_prior.factors",
    "A_logs",
)


def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Multiples of 1/128 in [-1, 1), which float32 holds exactly; numpy promises never to change the generator."""
    return np.random.RandomState(zlib.crc32(name.encode())).randint(-128, 128, shape) / 128


def tensor(name: str, initial: torch.Tensor) -> torch.Tensor:
    """A tensor of a model by its name and its shape; `initial` is what the model begins with."""
    shape, last = tuple(initial.shape), name.rsplit(".", maxsplit=1)[-1]
    u = noise(name, shape)
    if any(word in name for word in INITIAL):
        value = np.round(initial.double().numpy(), 3)
    elif last == "dt_projs_bias":  # of step sizes, before softplus
        value = u - 3
    elif name.startswith("invertible.operations.") and u.ndim == 2:  # not far from the identity
        value = np.eye(len(u)) + u / len(u)
    elif last == "quantiles":
        value = np.array([-6.0, 0, 6]) + np.round(u[:, :, :1], 1)
    elif "z_prior.biases" in name:
        value = u / 2
    elif last == "gamma" and u.ndim == 2:  # of GDN
        value = np.eye(len(u)) / 4 + np.abs(u) / 32
    elif last == "beta" and u.ndim == 1:
        value = 1 + u / 8
    elif last in ("beta", "gamma", "bias_table", "dt", "global_tokens"):
        value = u / 2
    elif last.startswith("scale") or (last == "weight" and u.ndim == 1):
        value = 1 + u / 8
    elif last == "bias":
        value = u / 16
    else:
        value = u * np.sqrt(3 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, np.float32))


def state(name: str, config: dict, gains: dict[str, float], offsets: dict[str, float]) -> dict[str, torch.Tensor]:
    """All tensors of a model; some are multiplied by a power of two, to some a number is added."""
    initial = MODELS[name].build(config).state_dict()
    return {key: tensor(key, value) * gains.get(key, 1.0) + offsets.get(key, 0.0) for key, value in initial.items()}


def save_recipe(name: str, config: dict, gains: dict[str, float], offsets: dict[str, float]) -> None:
    """Write the recipe of a model, once."""
    facts = {"config": config, "gains": gains, "offsets": offsets}
    model = MODELS[name].build(config)
    model.load_state_dict(state(name, **facts))
    tables = model.z_tables()
    tensors = {part: getattr(tables["z"], part) for part in PARTS}
    if "y" in tables:  # of a density of its own
        tensors |= {f"y.{part}": getattr(tables["y"], part) for part in PARTS} | {"thresholds": model.thresholds()}
    save_file(tensors, HERE / f"{name}.recipe", {"recipe": json.dumps(facts, sort_keys=True)})


def weights(name: str, path: Path) -> Path:
    """Make the weights file of a recipe; the fingerprint is the same everywhere."""
    with safe_open(HERE / f"{name}.recipe", framework="numpy") as recipe:
        facts = json.loads(recipe.metadata()["recipe"])
        own = {key: recipe.get_tensor(key) for key in recipe.keys()}  # noqa: SIM118 - not a mapping
    z = Tables(*(own[part] for part in PARTS))
    if "thresholds" in own:
        y, thresholds = Tables(*(own[f"y.{part}"] for part in PARTS)), own["thresholds"]
    else:
        common = file.read(HERE / "conv-hyperprior.safetensors")
        y, thresholds = common.tables["y"], common.thresholds.astype(np.float32)
    metadata = file.Metadata(name, facts["config"], 1, "Apache-2.0", {"made_by": "tests"})
    file.save(path, metadata, state(name, **facts), {"y": y, "z": z}, thresholds)
    return path

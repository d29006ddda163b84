"""From an author's checkpoint to an installed weights file."""

from __future__ import annotations

import collections
import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from licodec.errors import InputError, UsageError, WeightsError
from licodec.files import sha256
from licodec.models import model_info
from licodec.models.base import CompressionModel
from licodec.models.export import export
from licodec.upstream import compressai, glic, hpcm, invcompress, layouts, mambavc, mlicpp, nju, shiftlic, zoo
from licodec.upstream.layouts import Layout, State

MODULES = (layouts, shiftlic, nju, mambavc, invcompress, mlicpp, hpcm, glic, zoo)
LAYOUTS = tuple(layout for module in MODULES for layout in module.LAYOUTS)

WRAPPERS = ("state_dict", "model_state_dict", "ema", "model", "net")
PREFIXES = ("module.", "net.", "model.", "ema_model.")
SHOWN = 12  # names in an error message


@dataclass(frozen=True)
class Converted:
    """A converted checkpoint: the model, and what the weights file shall say of it."""

    model: CompressionModel
    quality: int | None
    notes: dict[str, str]

    def save(self, path: Path, licence: str | None = None) -> bytes:
        """Write the weights file; returns its fingerprint. Raises WeightsError."""
        licence = licence or model_info(self.model.name).licence
        try:
            return export(self.model, path, self.notes, licence, self.quality)
        except ValueError as error:
            raise WeightsError(f"its z prior makes no tables ({error}); is the checkpoint complete?") from None


def load_state(path: Path) -> State:
    """The tensors of a checkpoint, wrappers and prefixes stripped.

    Raises:
        InputError: the file cannot be read or holds no tensors.
        WeightsError: it is a pickle that wants to run code, or is damaged.
    """
    if not path.is_file():
        raise InputError("no such file")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            content: object = load_file(path)
        except SafetensorError as error:
            raise WeightsError(f"cannot be read as safetensors ({error})") from None
    else:
        content = _unpickle(path)
    state = _unwrap(content)
    if not state:
        raise InputError("holds no model: no dictionary of tensors was found in it")
    for prefix in PREFIXES:
        while all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _unpickle(path: Path) -> object:
    try:
        # plain containers that schedulers leave in checkpoints, beside what torch allows anyway
        with torch.serialization.safe_globals([collections.Counter, collections.defaultdict]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"wants to run {wanted[1]}" if wanted else "holds more than tensors and plain data"
        raise WeightsError(f"the pickle {what}; it was not executed, and is refused") from None
    except Exception as error:  # torch's reader raises whatever a damaged stream makes it stumble over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "PytorchStreamReader" in reason:  # a paragraph of advice
            reason = "its zip archive is damaged or cut short"
        raise WeightsError(f"cannot be read as a checkpoint ({reason})") from None


def _unwrap(content: object) -> State:
    """The dictionary of tensors in what a training script saved."""
    for _ in range(3):
        if not isinstance(content, dict):
            return {}
        tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), None)
        if inner is None:
            return tensors
        content = inner
    return {}


def recognise(state: State, model: str | None) -> Layout:
    """The layout of a checkpoint. Raises UsageError if none or several fit, or not the one asked for."""
    names = list(state)
    fitting = [layout for layout in LAYOUTS if layout.suits(state)]
    if model is not None:
        model_info(model)
        chosen = [layout for layout in fitting if layout.model == model]
        if not chosen:
            found = " or ".join(layout.model for layout in fitting) or "no model known here"
            raise UsageError(f"its tensors are not those of {model}, they look like {found}")
        return chosen[0]
    if not fitting:
        known = ", ".join(dict.fromkeys(layout.model for layout in LAYOUTS))
        raise UsageError(f"its tensors are of no model known here ({known}); first of them: {_some(names)}")
    if len(fitting) > 1:
        raise UsageError(f"could be {' or '.join(layout.model for layout in fitting)}; say which with -m")
    return fitting[0]


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(sorted(names)[:SHOWN]) + more


def convert(path: Path, model: str | None = None, quality: int | None = None) -> Converted:
    """Read, recognise, rename and check a checkpoint.

    Raises:
        InputError, UsageError, WeightsError: with a line that says what is wrong.
    """
    state = load_state(path)
    if compressai.is_compressai(state):
        try:
            state = compressai.to_authors(state)
        except KeyError as error:
            raise WeightsError(f"a tensor of CompressAI's layout is missing: {error.args[0]}") from None
    layout = recognise(state, model)
    info = model_info(layout.model)
    if info.variable_rate:
        quality = None  # one file serves all of them
    elif quality is None and len(info.qualities) == 1:
        quality = info.qualities[0]
    if quality is not None and quality not in info.qualities:
        raise UsageError(f"{info.name} has no quality {quality}; it has {', '.join(map(str, info.qualities))}")
    try:
        tensors = layout.translate(state)
        config = layout.config(tensors)
        net = info.build(config)
    except KeyError as error:
        raise WeightsError(f"a tensor of {info.name} is missing: {error.args[0]}") from None
    except (ValueError, RuntimeError, IndexError) as error:
        raise WeightsError(f"its tensors imply no {info.name} that can be built ({error})") from None
    _load_strictly(net, tensors, info.name)
    notes = {"source_file": path.name, "source_sha256": sha256(path), "source": info.source, "paper": info.paper}
    if (entry := info.entry(quality)) and quality is not None:
        notes["metric"] = entry.metric
        if entry.rate_lambda:
            notes["rate_lambda"] = str(entry.rate_lambda)
    return Converted(net, quality, notes)


def _load_strictly(net: CompressionModel, tensors: State, name: str) -> None:
    expected = net.state_dict()
    problems = []
    if missing := [key for key in expected if key not in tensors]:
        problems.append(f"missing: {_some(missing)}")
    if unknown := [key for key in tensors if key not in expected]:
        problems.append(f"unknown: {_some(unknown)}")
    wrong = [
        f"{key} {list(tensors[key].shape)} in place of {list(value.shape)}"
        for key, value in expected.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    if wrong:
        problems.append(f"of another shape: {_some(wrong)}")
    bad = [k for k, t in tensors.items() if not t.is_floating_point() or not bool(torch.isfinite(t).all())]
    if bad and not problems:
        problems.append(f"not finite numbers: {_some(bad)}")
    if problems:
        raise WeightsError(f"its tensors do not fit {name}; {'; '.join(problems)}")
    net.load_state_dict({key: tensor.float() for key, tensor in tensors.items()})

"""The registry: every model by name, imported when first used. No torch here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from licodec.errors import UsageError

if TYPE_CHECKING:
    from licodec.models.base import CompressionModel


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model without loading it.

    Attributes:
        target: "module:Class" of the model; the module has `Class` and `ClassConfig`.
        qualities: the qualities there are or may be weights for.
        variable_rate: one weights file serves all qualities and any value between.
    """

    name: str
    target: str
    title: str
    paper: str
    licence: str
    qualities: tuple[int, ...]
    variable_rate: bool = False

    def load_class(self) -> type[CompressionModel]:
        """Import the model's class (imports torch)."""
        module, name = self.target.split(":")
        return getattr(importlib.import_module(module), name)

    def build(self, config: dict[str, object]) -> CompressionModel:
        """A model with untrained weights. Raises TypeError or ValueError on a wrong configuration."""
        cls = self.load_class()
        module = importlib.import_module(cls.__module__)
        return cls(getattr(module, f"{cls.__name__}Config")(**config))


DEFAULT = "lite"
MODELS = {
    info.name: info
    for info in (
        ModelInfo(
            "lite",
            "licodec.models.lite:Lite",
            "licodec's own small variable-rate model",
            "",
            "Apache-2.0",
            tuple(range(1, 9)),
            variable_rate=True,
        ),
    )
}


def model_info(name: str) -> ModelInfo:
    """Look a model up. Raises UsageError that names the models there are."""
    try:
        return MODELS[name]
    except KeyError:
        raise UsageError(f"unknown model {name!r}; known: {', '.join(MODELS)} (see `licodec models`)") from None

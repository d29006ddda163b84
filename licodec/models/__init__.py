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
_SEE = "see the authors' repository"


def _published(name: str, target: str, title: str, paper: str, licence: str = _SEE, best: int = 6) -> ModelInfo:
    return ModelInfo(name, f"licodec.models.{target}", title, paper, licence, tuple(range(1, best + 1)))


_STF = "Zou, Song, Zhang: The Devil Is in the Details, CVPR 2022"
_TBTC = "Zhu, Yang, Cohen: Transformer-Based Transform Coding, ICLR 2022"
_TCM = "Liu, Sun, Katto: Learned Image Compression with Mixed Transformer-CNN Architectures, CVPR 2023"
_AUXT = "Li et al.: On Disentangled Training for Nonlinear Transform in Learned Image Compression, ICLR 2025"
_CCA = "Han et al.: Causal Context Adjustment Loss for Learned Image Compression, NeurIPS 2024"
_DCAE = "Lu et al.: Learned Image Compression with Dictionary-based Entropy Model, CVPR 2025"
_SAAF = "Ma et al.: Learned Image Compression via Sparse Attention and Adaptive Frequency, CVPR 2026"
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
        _published("wacnn", "wacnn:WACNN", "CNN with window attention", _STF, "Apache-2.0"),
        _published("stf", "stf:STF", "symmetrical transformer", _STF, "Apache-2.0"),
        _published("tcm", "tcm:TCM", "transformer-CNN mixture", _TCM, "MIT"),
        _published("tcm-auxt", "tcm:TCMAuxT", "TCM with a wavelet branch", _AUXT),
        _published("cca", "cca:CCA", "causal context adjustment", _CCA, "MIT", 4),
        _published("dcae", "dcae:DCAE", "dictionary entropy model", _DCAE),
        _published("saaf", "saaf:SAAF", "dictionary entropy model, global tokens", _SAAF),
        _published("swint-charm", "tbtc:SwinTChARM", "Swin transforms, channel slices", _TBTC, "none given", 1),
        _published("swint-hyperprior", "tbtc:SwinTHyperprior", "Swin transforms, hyperprior", _TBTC, "none given", 1),
        _published("conv-charm", "tbtc:ConvChARM", "convolutions, channel slices", _TBTC, "none given", 1),
        _published("conv-hyperprior", "tbtc:ConvHyperprior", "convolutions, hyperprior", _TBTC, "none given", 1),
    )
}


def model_info(name: str) -> ModelInfo:
    """Look a model up. Raises UsageError that names the models there are."""
    try:
        return MODELS[name]
    except KeyError:
        raise UsageError(f"unknown model {name!r}; known: {', '.join(MODELS)} (see `licodec models`)") from None

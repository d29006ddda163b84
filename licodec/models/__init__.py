"""The registry: every model by name, imported when first used. No torch here."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from licodec.errors import UsageError

if TYPE_CHECKING:
    from licodec.models.base import CompressionModel


LARGEST = 4096  # of any size in a configuration: channels, blocks, slices


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model without loading it.

    Attributes:
        target: "module:Class" of the model; the module has `Class` and `ClassConfig`.
        qualities: the qualities there are or may be weights for.
        source: the authors' repository.
        lambdas: what the authors trained each quality with, where they say so.
        parameters: at the published size, entropy models included.
        variable_rate: one weights file serves all qualities and any value between.
    """

    name: str
    target: str
    title: str
    paper: str
    source: str
    licence: str
    qualities: tuple[int, ...]
    lambdas: tuple[float, ...] = ()
    parameters: int | None = None
    variable_rate: bool = False

    def load_class(self) -> type[CompressionModel]:
        """Import the model's class (imports torch)."""
        module, name = self.target.split(":")
        return getattr(importlib.import_module(module), name)

    def build(self, config: dict[str, object]) -> CompressionModel:
        """A model with untrained weights.

        Raises:
            TypeError, ValueError: a wrong configuration, or one of absurd size (it may come from a file).
        """
        for value in config.values():
            sizes = value if isinstance(value, list | tuple) else [value]
            if len(sizes) > 64 or not all(isinstance(size, int) and 0 < size <= LARGEST for size in sizes):
                raise ValueError(f"sizes of {self.name} are out of range: {value}")
        cls = self.load_class()
        module = importlib.import_module(cls.__module__)
        return cls(getattr(module, f"{cls.__name__}Config")(**config))


LITE = ModelInfo(
    name="lite",
    target="licodec.models.lite:Lite",
    title="licodec's own small variable-rate model",
    paper="",
    source="",
    licence="Apache-2.0",
    qualities=tuple(range(1, 9)),
    variable_rate=True,
)

_STF = ("Zou, Song, Zhang: The Devil Is in the Details, CVPR 2022", "https://github.com/Googolxx/STF", "Apache-2.0")
_TCM = (
    "Liu, Sun, Katto: Learned Image Compression with Mixed Transformer-CNN Architectures, CVPR 2023",
    "https://github.com/jmliu206/LIC_TCM",
    "MIT",
)
_AUXT = (
    "Li et al.: On Disentangled Training for Nonlinear Transform in Learned Image Compression, ICLR 2025",
    "https://github.com/qingshi9974/AuxT",
    "see source",
)
_CCA = (
    "Han et al.: Causal Context Adjustment Loss for Learned Image Compression, NeurIPS 2024",
    "https://github.com/LabShuHangGU/CCA",
    "MIT",
)
_DCAE = (
    "Lu et al.: Learned Image Compression with Dictionary-based Entropy Model, CVPR 2025",
    "https://github.com/LabShuHangGU/DCAE",
    "see source",
)
_SAAF = (
    "Ma et al.: Learned Image Compression via Sparse Attention and Adaptive Frequency, CVPR 2026",
    "https://github.com/huidong-ma/SAAF",
    "see source",
)
_TBTC = (
    "Zhu, Yang, Cohen: Transformer-Based Transform Coding, ICLR 2022",
    "https://github.com/ali-zafari/TBTC",
    "none given",
)
_COMPRESSAI = (0.0018, 0.0035, 0.0067, 0.013, 0.025, 0.0483)

# name, target, title, origin, lambdas by quality (of CCA: the weight of the rate), parameters
_PUBLISHED = (
    ("wacnn", "wacnn:WACNN", "CNN with window attention", _STF, _COMPRESSAI, 75_235_779),
    ("stf", "stf:STF", "symmetrical transformer", _STF, _COMPRESSAI, 99_855_639),
    ("tcm", "tcm:TCM", "transformer-CNN mixture, N = 64", _TCM, (0.0025, *_COMPRESSAI[1:5], 0.05), 45_180_752),
    ("tcm-auxt", "tcm:TCMAuxT", "TCM with a wavelet branch", _AUXT, _COMPRESSAI, 45_778_996),
    ("cca", "cca:CCA", "causal context adjustment", _CCA, (3.5, 1.8, 0.85, 0.3), 64_988_067),
    ("dcae", "dcae:DCAE", "dictionary-based entropy model", _DCAE, (*_COMPRESSAI[:5], 0.05), 119_400_351),
    ("saaf", "saaf:SAAF", "DCAE with global tokens and a side branch", _SAAF, (*_COMPRESSAI[:5], 0.05), 123_327_162),
    ("swint-charm", "tbtc:SwinTChARM", "Swin transforms, channel slices", _TBTC, (0.01,), 32_337_884),
    ("swint-hyperprior", "tbtc:SwinTHyperprior", "Swin transforms, hyperprior", _TBTC, (0.01,), 24_645_008),
    ("conv-charm", "tbtc:ConvChARM", "convolutions, channel slices", _TBTC, (0.01,), 29_078_031),
    ("conv-hyperprior", "tbtc:ConvHyperprior", "convolutions, hyperprior", _TBTC, (0.01,), 21_385_155),
)

DEFAULT = LITE.name
MODELS = {LITE.name: LITE} | {
    name: ModelInfo(
        name, f"licodec.models.{target}", title, *origin, tuple(range(1, len(lambdas) + 1)), lambdas, parameters
    )
    for name, target, title, origin, lambdas, parameters in _PUBLISHED
}


def model_info(name: str) -> ModelInfo:
    """Look a model up. Raises UsageError that names the models there are."""
    try:
        return MODELS[name]
    except KeyError:
        raise UsageError(f"unknown model {name!r}; known: {', '.join(MODELS)} (see `licodec models`)") from None

"""The registry: every model by name, imported when first used. No torch here."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from licodec.errors import UsageError

if TYPE_CHECKING:
    from licodec.models.base import CompressionModel
    from licodec.models.listing import Listed
    from licodec.weights import manifest


LARGEST = 4096  # of any size in a configuration: channels, blocks, slices


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a model without loading it.

    Attributes:
        target: "module:Class" of the model; the module has `Class` and `ClassConfig`.
        parameters: at the published size, entropy models included.
        variable_rate: one weights file serves all qualities and any value between.
    """

    name: str
    target: str
    title: str
    parameters: int | None = None
    variable_rate: bool = False

    @property
    def facts(self) -> manifest.ManifestModel:
        """What the package's manifest says of it; read when first asked for, `lite` codes without."""
        from licodec.weights import manifest

        return manifest.package().models[self.name]

    @property
    def qualities(self) -> tuple[int, ...]:
        """The qualities there are or may be weights for."""
        if self.variable_rate:
            return tuple(range(1, 11 if self.name == LITE else 9))
        return tuple(sorted(entry.quality for entry in self.facts.weights if entry.quality))

    @property
    def paper(self) -> str:
        """Authors, title, venue."""
        return self.facts.paper

    @property
    def source(self) -> str:
        """The authors' repository."""
        return self.facts.source

    @property
    def licence(self) -> str:
        """Of the authors' code and weights."""
        return self.facts.licence

    def entry(self, quality: int | None) -> manifest.Entry | None:
        """What the package's manifest says of the weights of a quality."""
        return next((e for e in self.facts.weights if e.quality == quality), None)

    def load_class(self) -> type[CompressionModel]:
        """Import the model's class (imports torch)."""
        module, name = self.target.split(":")
        return getattr(importlib.import_module(module), name)

    def build(self, config: dict[str, object], coding: bool = False) -> CompressionModel:
        """A model with untrained weights; with `coding`, one that takes the state of a weights file.

        Raises:
            TypeError, ValueError: a wrong configuration, or one of absurd size (it may come from a file);
                a model that does not keep the contract (see models/base.py).
        """
        for value in config.values():
            sizes = value if isinstance(value, list | tuple) else [value]
            if len(sizes) > 64 or not all(isinstance(size, int) and 0 < size <= LARGEST for size in sizes):
                raise ValueError(f"sizes of {self.name} are out of range: {value}")
        cls = self.load_class()
        module = importlib.import_module(cls.__module__)
        configured = getattr(module, f"{cls.__name__}Config")(**config)
        model = cls.for_coding(configured) if coding else cls(configured)
        model.check_contract()
        return model


LITE = "lite"

# name: target, title, parameters; papers, licences, qualities and lambdas are in weights.toml
_MODELS = {
    LITE: ("lite:Lite", "licodec's own small variable-rate model", None),
    "bmshj2018-factorized": ("hyperprior:Factorized", "convolutions and GDN, factorised prior, N = 128", 2_998_147),
    "bmshj2018-hyperprior": ("hyperprior:ScaleHyperprior", "the same with a scale hyperprior, N = 128", 5_075_843),
    "mbt2018-mean": ("hyperprior:MeanScaleHyperprior", "the same with means, N = 128", 7_028_003),
    "mbt2018": ("autoregressive:JointAutoregressive", "the same, autoregressive, N = M = 192", 14_130_467),
    "cheng2020-anchor": ("autoregressive:ChengAnchor", "residual blocks, autoregressive, N = 128", 11_833_149),
    "cheng2020-attn": ("autoregressive:ChengAttention", "the same with attention, N = 128", 13_183_293),
    "bmshj2018-hyperprior-vbr": ("vbr:VariableScaleHyperprior", "scale hyperprior of variable rate", 11_816_677),
    "mbt2018-mean-vbr": ("vbr:VariableMeanScale", "the same with means", 17_562_053),
    "mbt2018-vbr": ("vbr:VariableJoint", "the same, autoregressive", 25_506_089),
    "wacnn": ("wacnn:WACNN", "CNN with window attention", 75_235_779),
    "stf": ("stf:STF", "symmetrical transformer", 99_855_639),
    "tcm": ("tcm:TCM", "transformer-CNN mixture, N = 64", 45_180_752),
    "tcm-auxt": ("tcm:TCMAuxT", "TCM with a wavelet branch", 45_778_996),
    "cca": ("cca:CCA", "causal context adjustment", 64_988_067),
    "dcae": ("dcae:DCAE", "dictionary-based entropy model", 119_400_351),
    "saaf": ("saaf:SAAF", "DCAE with global tokens and a side branch", 123_327_162),
    "swint-charm": ("tbtc:SwinTChARM", "Swin transforms, channel slices", 32_337_884),
    "swint-hyperprior": ("tbtc:SwinTHyperprior", "Swin transforms, hyperprior", 24_645_008),
    "conv-charm": ("tbtc:ConvChARM", "convolutions, channel slices", 29_078_031),
    "conv-hyperprior": ("tbtc:ConvHyperprior", "convolutions, hyperprior", 21_385_155),
    "tic": ("tic:TIC", "Swin blocks, causal attention; slow to decode", 10_227_299),
    "invcompress": ("invcompress:InvCompress", "invertible transforms; slow to decode", 50_032_618),
    "mambavc": ("mambavc:MambaVC", "selective scans, TCM's entropy model", 53_301_187),
    "tinylic": ("tinylic:TinyLIC", "neighbourhood attention, multistage context", 28_338_211),
    "shiftlic-small": ("shiftlic:ShiftLICSmall", "shifts and 1x1 convolutions, hyperprior", 3_970_252),
    "shiftlic-middle": ("shiftlic:ShiftLICMiddle", "the same with an attention", 5_790_508),
    "shiftlic-large": ("shiftlic:ShiftLICLarge", "the same with TinyLIC's context", 11_647_519),
    "mlicpp": ("mlicpp:MLICPlusPlus", "MLIC++: multi-reference entropy model", 83_501_408),
    "hpcm": ("hpcm:HPCM", "hierarchical progressive context", 68_505_299),
    "glic": ("glic:GLIC", "graph neural networks", 69_367_113),
}


def _info(name: str) -> ModelInfo:
    target, title, parameters = _MODELS[name]
    return ModelInfo(name, f"licodec.models.{target}", title, parameters, name == LITE or name.endswith("-vbr"))


DEFAULT = LITE
MODELS = {name: _info(name) for name in _MODELS}


def model_info(name: str) -> ModelInfo:
    """Look a model up. Raises UsageError that names the models there are."""
    try:
        return MODELS[name]
    except KeyError:
        raise UsageError(f"unknown model {name!r}; known: {', '.join(MODELS)} (see `licodec models`)") from None


class ModelsPackage(ModuleType):
    """`licodec.models()` lists the models, `licodec.models.MODELS` is the registry: both names are the package's."""

    def __call__(self) -> list[Listed]:
        """Every model with its weights, as `licodec models --json` has them."""
        from licodec.models.listing import listing

        return listing(MODELS.values())


sys.modules[__name__].__class__ = ModelsPackage

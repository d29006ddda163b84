"""What can be measured: our models, and the codecs that Pillow can write and read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import PIL
from PIL import Image, features

from licodec import codec, container, imaging
from licodec.errors import UsageError


class Measured(Protocol):
    """A codec at one setting.

    Attributes:
        name: of the curve it is a point of.
        setting: its quality, as the codec counts it.
        identity: changes whenever its output might: weights, library version.
    """

    name: str
    setting: float
    identity: str

    def encode(self, pixels: np.ndarray) -> bytes:
        """The file of a picture, uint8 [H, W, 3]."""

    def decode(self, data: bytes) -> np.ndarray:
        """The picture of a file, uint8 [H, W, 3]."""


@dataclass
class Model:
    """One of our models at a quality."""

    name: str
    setting: float
    device: str

    def __post_init__(self) -> None:
        self.codec = codec.for_model(self.name, self.setting, None, self.device)
        self.identity = self.codec.fingerprint.hex()

    def encode(self, pixels: np.ndarray) -> bytes:
        return self.codec.encode(imaging.Picture(pixels), self.setting).data

    def decode(self, data: bytes) -> np.ndarray:
        return self.codec.decode(container.read(data)).pixels


@dataclass
class Rival:
    """A format that Pillow writes."""

    name: str
    setting: float
    format: str
    options: dict[str, object]

    def __post_init__(self) -> None:
        self.identity = f"Pillow {PIL.__version__} {sorted(self.options.items())}"

    def encode(self, pixels: np.ndarray) -> bytes:
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, self.format, **self.options)
        return out.getvalue()

    def decode(self, data: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))


# Settings span about 0.1 to 2 bits a pixel on photographs. Effort is each format's usual best.
_RIVALS = {
    "jpeg": ("JPEG", "quality", (10, 15, 20, 30, 40, 50, 60, 70, 80, 90), {"optimize": True, "subsampling": 2}),
    "webp": ("WEBP", "quality", (1, 5, 10, 20, 30, 45, 60, 75, 85, 92), {"method": 6}),
    "avif": ("AVIF", "quality", (10, 20, 30, 40, 50, 60, 70, 80), {"speed": 4}),
    "jpeg2000": ("JPEG2000", "rate", (150, 100, 70, 50, 35, 25, 17, 12), {"irreversible": True}),
}
_NEEDED = {"webp": "webp", "avif": "avif", "jpeg2000": "jpg_2000"}


def models(names: list[str], qualities: list[float], device: str) -> Iterator[Model]:
    """All of our codecs to measure. Raises UsageError, WeightsError."""
    for name in names:
        for quality in qualities:
            yield Model(name, quality, device)


def rivals(names: list[str]) -> Iterator[Rival]:
    """All points of the named formats. Raises UsageError if one is unknown or Pillow lacks it."""
    for name in names:
        if name not in _RIVALS:
            raise UsageError(f"unknown rival {name!r}; known: {', '.join(_RIVALS)}")
        if name in _NEEDED and not features.check(_NEEDED[name]):
            raise UsageError(f"this Pillow cannot do {name}; install a build that can")
        format_name, knob, settings, fixed = _RIVALS[name]
        for setting in settings:
            value = {"quality_mode": "rates", "quality_layers": [setting]} if knob == "rate" else {knob: setting}
            yield Rival(name, setting, format_name, {**fixed, **value})

"""What can be measured; our own models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from licodec import codec, container, finding, imaging
from licodec.errors import UsageError
from licodec.models import LITE, model_info
from licodec.weights import file as weights_file


class Measured(Protocol):
    """A codec at one setting.

    Attributes:
        name: of the curve it is a point of.
        setting: its quality, as the codec counts it.
        identity: one word that changes whenever its output might: weights, library version.
        in_process: whether its memory is this process's.
    """

    name: str
    setting: float
    identity: str
    in_process: bool

    def encode(self, pixels: np.ndarray) -> tuple[bytes, float | None]:
        """The file of a picture, uint8 [H, W, 3], and the bits an ideal coder would need, where that is known."""

    def decode(self, data: bytes) -> np.ndarray:
        """The picture of a file, uint8 [H, W, 3]."""

    def near(self, pixels: np.ndarray, size: int) -> tuple[float, bytes] | None:
        """Setting and file that come closest to a size in bytes; None if it has no finer settings."""


def closest(encode: Callable[[int], bytes], low: int, high: int, size: int) -> tuple[int, bytes]:
    """The step in [low, high] whose file is closest to `size`; sizes grow with the step."""
    tried: dict[int, bytes] = {}
    while low <= high:
        middle = (low + high) // 2
        tried[middle] = encode(middle)
        if len(tried[middle]) <= size:
            low = middle + 1
        else:
            high = middle - 1
    return min(tried.items(), key=lambda item: abs(len(item[1]) - size))


@dataclass
class ModelAtQuality:
    """One of our models at a quality, loaded when first used. Another effort than 1 becomes part of the name."""

    name: str
    setting: float
    device: str
    precision: str = "float32"
    effort: int = 1
    in_process = True

    def __post_init__(self) -> None:
        self.info = model_info(self.name)
        self.path = finding.find(self.info, self.setting)
        self.identity = weights_file.read_header(self.path).fingerprint.hex()
        if self.precision != "float32":
            self.identity += f"-{self.precision}"
        if self.effort != 1:
            self.name += f":effort={self.effort}"
            self.identity += f"-effort{self.effort}"

    @property
    def codec(self) -> codec.Codec:
        """The loaded codec; `load` keeps the last ones, so a long list of models does not fill the memory."""
        return codec.load(self.path, self.device, self.precision)

    def encode(self, pixels: np.ndarray) -> tuple[bytes, float | None]:
        encoded = self.codec.encode(imaging.Picture(pixels), self.setting, effort=self.effort)
        return encoded.data, encoded.ideal_bits

    def decode(self, data: bytes) -> np.ndarray:
        return self.codec.decode(container.read(data)).pixels

    def near(self, pixels: np.ndarray, size: int) -> tuple[float, bytes] | None:
        if not self.info.variable_rate:
            return None
        picture, low, high = imaging.Picture(pixels), self.info.qualities[0] * 20, self.info.qualities[-1] * 20
        effort = self.effort
        step, data = closest(lambda step: self.codec.encode(picture, step / 20, effort=effort).data, low, high, size)
        return step / 20, data


def models(
    names: list[str], qualities: list[float], efforts: list[float], device: str, precision: str = "float32"
) -> Iterator[ModelAtQuality]:
    """All of our codecs to measure; each model at those qualities and efforts that it has.

    Raises UsageError, WeightsError.
    """
    unknown = [effort for effort in efforts if effort not in codec.ROUNDS]
    if unknown:
        raise UsageError(f"effort {unknown[0]:g} is out of range; it goes from 1 to {max(codec.ROUNDS)}")
    for name in names:
        info = model_info(name)
        own = [q for q in qualities if info.variable_rate or q in info.qualities]
        if not own:
            raise UsageError(f"{name} has none of the qualities asked for; it has {info.qualities}")
        searched = [int(effort) for effort in efforts if effort == 1 or info.name == LITE]
        if not searched:
            raise UsageError(f"effort {efforts[0]:g} is for {LITE}; {name} has only effort 1")
        for effort in searched:
            for quality in own:
                yield ModelAtQuality(name, quality, device, precision, effort)

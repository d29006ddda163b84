"""The protocol: what the codec asks of a model, in numpy terms.

Arrays are [1, C, H, W] maps unless said otherwise; `quality` is a plain number, which models of one rate ignore.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from licodec.tiling import coding_steps, padded


@dataclass(frozen=True)
class Geometry:
    """What the codec must know of a model to cut pictures and to shape latents.

    Attributes:
        stride: a picture's sides are padded to a multiple of this.
        padding: "replicate" (right and bottom), or "centred-zeros".
        overlap: pixels around a tile that g_a and g_s see, a multiple of `latent_stride`.
        overlap_is_all: nothing beyond the overlap can change what g_s gives.
        tile: default side of the tiles of big pictures, a multiple of `stride`.
        latent_stride, hyper_stride: pixels to a position of y and of z.
        hyper_channels: of z.
        steps: number of coding steps of y.
        row_delay: y is coded diagonal by diagonal, see `coding_steps`; 0: in `steps` steps.
    """

    stride: int
    padding: str
    overlap: int
    overlap_is_all: bool
    tile: int
    latent_stride: int
    hyper_stride: int
    hyper_channels: int
    steps: int
    row_delay: int = 0

    def coding_steps(self, z_shape: tuple[int, ...]) -> int:
        """Number of coding steps of the y that belongs to a z of this shape."""
        height, width = (side * self.hyper_stride // self.latent_stride for side in z_shape[-2:])
        return coding_steps(self.steps, self.row_delay, height, width)

    def tile_sizes(self, width: int, height: int, tile: int | None) -> tuple[int, int]:
        """Tile side and overlap to code a picture with; (0, 0) is one tile for all.

        `tile` is what the user asked for, None for the default: tiles once the
        padded picture has more pixels than four of them.
        """
        width, height = padded(width, self.stride), padded(height, self.stride)
        if tile is None:
            tile = self.tile if width * height > 4 * self.tile**2 else 0
        tile = padded(tile, self.stride)
        return (tile, self.overlap) if 0 < tile < max(width, height) else (0, 0)


class Context(Protocol):
    """The state of one walk over the coding steps of a latent."""

    def params(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Means (float) and rows of the table of y (integers) of the part that `step` codes, shaped as it."""

    def push(self, step: int, symbols: np.ndarray) -> None:
        """Take the symbols, int32, of a step; its part of y_hat is symbols + mean."""

    def y_hat(self) -> np.ndarray:
        """The whole latent, float32, after the last push. Encoders do not ask."""


class Model(Protocol):
    """A model with its weights, ready to code. May be called from several threads at once.

    Raises OutOfMemoryError from whatever computes.

    Attributes:
        side_by_side: how many tiles of a picture it is worth to work on at once.
    """

    geometry: Geometry
    side_by_side: int

    def analyse(self, window: np.ndarray, quality: float) -> np.ndarray:
        """Picture, float32 [1, 3, H, W] in [0, 1] -> y, float32."""

    def hyper_analyse(self, y: np.ndarray, quality: float) -> np.ndarray:
        """y -> the symbols of z: whole numbers, as floats; not finite if the weights are unusable."""

    def z_rows(self, quality: float) -> np.ndarray:
        """Row of the table of z that codes each channel of z, [C]."""

    def context(self, z_symbols: np.ndarray, quality: float) -> Context:
        """A fresh context from the symbols of z, int32."""

    def split(self, y: np.ndarray) -> list[np.ndarray]:
        """The parts of y that the steps code, in order."""

    def synthesise(self, y_hat: np.ndarray, quality: float) -> np.ndarray:
        """y_hat, float32 -> picture, float32, not clamped."""

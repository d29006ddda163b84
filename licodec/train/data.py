"""Training pictures: decoded once into memory, cropped at random, reproducibly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from licodec.files import files_below

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".avif"}


def load_pictures(folder: Path, least: int = 1) -> list[np.ndarray]:
    """All pictures below `folder`, in order of their paths, as uint8 [H, W, 3].

    Pictures with a side under `least` pixels are left out.
    Raises ValueError if a file cannot be read or none is left.
    """
    pictures = []
    for path in files_below(folder, SUFFIXES):
        try:
            with Image.open(path) as image:
                array = np.asarray(image.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"{path}: not a readable picture ({error})") from error
        if min(array.shape[:2]) >= least:
            pictures.append(array)
    if not pictures:
        raise ValueError(f"{folder}: no picture of at least {least}x{least} pixels found")
    return pictures


class Crops:
    """Random crops, flipped and transposed at random; the batch of a step depends on (seed, step) alone.

    Pictures are drawn in proportion to their area.
    """

    def __init__(self, pictures: list[np.ndarray], seed: int) -> None:
        self.pictures = pictures
        self.seed = seed
        areas = np.array([p.shape[0] * p.shape[1] for p in pictures], dtype=np.float64)
        self.shares = areas / areas.sum()

    def batch(self, step: int, count: int, size: int, stream: int = 0) -> np.ndarray:
        """`count` crops as uint8 [count, size, size, 3]; `stream` tells processes apart."""
        rng = np.random.default_rng((self.seed, step, stream))
        crops = np.empty((count, size, size, 3), np.uint8)
        for i, index in enumerate(rng.choice(len(self.pictures), count, p=self.shares)):
            crops[i] = _random_crop(self.pictures[index], size, rng)
        return crops


def _random_crop(picture: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    top = rng.integers(picture.shape[0] - size + 1)
    left = rng.integers(picture.shape[1] - size + 1)
    crop = picture[top : top + size, left : left + size]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return crop.transpose(1, 0, 2) if rng.random() < 0.5 else crop

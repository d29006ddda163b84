"""Samples of other depths, and orientations that were applied already."""

from __future__ import annotations

import numpy as np
from PIL import Image

from licodec.imaging import ORIENTATION, Picture


def sixteen_bit(samples: np.ndarray, bits: int) -> np.ndarray:
    """uint16 samples of `bits` bits -> uint16 of 16: full scale stays full scale, rounded."""
    if bits == 16:
        return samples
    full = (1 << bits) - 1
    wide = np.minimum(samples, full).astype(np.uint32)
    return ((wide * 65535 + full // 2) // full).astype(np.uint16)


def picture_of(samples: np.ndarray) -> Picture:
    """[H, W] or [H, W, 1 to 4], grey or RGB, the last of 2 or 4 channels alpha."""
    if samples.ndim == 2:
        return Picture(np.ascontiguousarray(samples))
    channels = samples.shape[2]
    colour = samples[:, :, 0] if channels < 3 else samples[:, :, :3]
    alpha = np.ascontiguousarray(samples[:, :, -1]) if channels in (2, 4) else None
    if alpha is not None and (alpha == np.iinfo(alpha.dtype).max).all():
        alpha = None
    return Picture(np.ascontiguousarray(colour), alpha)


def array_of(picture: Picture) -> np.ndarray:
    """The inverse of `picture_of`: [H, W] or [H, W, C] with alpha as the last channel."""
    return picture.pixels if picture.alpha is None else np.dstack([picture.pixels, picture.alpha])


def upright(exif: bytes | None) -> bytes | None:
    """EXIF that says the picture is upright, for decoders that have turned it already."""
    if not exif:
        return None
    tags = Image.Exif()
    tags.load(exif)
    if tags.get(ORIENTATION, 1) == 1:
        return exif
    tags[ORIENTATION] = 1
    return b"Exif\0\0" + tags.tobytes().removeprefix(b"Exif\0\0")


def turned(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Samples [H, W, ...] stored with an EXIF orientation, 1 to 8, as they shall be seen."""
    if orientation >= 5:
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return samples

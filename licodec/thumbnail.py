"""Small pictures of large ones, without more of the large one in memory than decoding needs."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageCms

from licodec.imaging import to_eight_bit, to_srgb
from licodec.output import Decoding

MARGIN = 2  # bands are averaged to this many times the size wanted, then resampled


def thumbnail(decoding: Decoding, side: int) -> Image.Image:
    """A picture of at most `side` pixels, 8 bits, in sRGB; mode L, LA, RGB or RGBA. Decodes; raises what that does."""
    picture = decoding.picture
    factor = max(1, max(decoding.size) // (MARGIN * side))
    parts: list[np.ndarray] = []
    rest = None
    for band in decoding.bands:
        band = to_eight_bit(band) if decoding.bit_depth == 16 else band
        band = band if rest is None else np.concatenate([rest, band])
        whole = len(band) // factor * factor
        rest = band[whole:]
        if whole:
            parts.append(_reduced(band[:whole], factor))
    if rest is not None and len(rest):
        parts.append(_reduced(rest, factor))
    image = _in_srgb(Image.fromarray(np.concatenate(parts)), picture.icc)
    if picture.alpha is not None:
        alpha = to_eight_bit(picture.alpha) if decoding.bit_depth == 16 else picture.alpha
        image.putalpha(Image.fromarray(_reduced(alpha, factor)))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def _reduced(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Averages of squares of factor x factor, those at the edges of what there is."""
    pixels = np.ascontiguousarray(pixels)
    return pixels if factor == 1 else np.asarray(Image.fromarray(pixels).reduce(factor))


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """As desktops show thumbnails; a profile that cannot be used is ignored, as viewers do."""
    if not profile:
        return image
    try:
        return to_srgb(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image

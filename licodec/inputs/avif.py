"""AVIF: Pillow's plugin gives 8 bits; the samples of 10 and 12 come from imagecodecs (libavif)."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

from licodec import imaging
from licodec.errors import InputError
from licodec.imaging import Picture
from licodec.inputs import bmff
from licodec.inputs.arrays import picture_of, sixteen_bit, turned

HEAD = 1 << 16  # the boxes that describe the picture are at the beginning


def read(source: Path | bytes, max_pixels: int, frame: int | None, max_side: int) -> Picture:
    """A picture with all its bits, or a warning that says what keeps them. Raises InputError."""
    picture = imaging.read(source, max_pixels, False, frame, max_side)
    data = source if isinstance(source, bytes) else source.read_bytes()
    if picture.icc is None:
        picture.cicp = bmff.nclx(data[:HEAD])
    bits = bmff.av1_depth(data[:HEAD])
    if bits == 8:
        return picture
    if not importlib.util.find_spec("imagecodecs"):
        note = f"its samples of {bits} bits are read with 8; pip install 'licodec[heif]' keeps them"
        picture.warnings.append(note)
        return picture
    import imagecodecs

    try:
        samples = imagecodecs.avif_decode(data, index=frame or 0)
    except (imagecodecs.AvifError, ValueError) as error:
        raise InputError(f"cannot be read as AVIF ({error})") from None
    with imaging._open(source) as image:  # Pillow's plugin gives the turns that libavif leaves to its caller
        orientation = image.getexif().get(imaging.ORIENTATION, 1)
    whole = picture_of(turned(sixteen_bit(samples, bits), orientation))
    return replace(picture, pixels=whole.pixels, alpha=whole.alpha)

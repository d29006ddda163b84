"""HEIC and other HEIF by pillow-heif (libheif): 8, 10 and 12 bits, grey, colour, alpha."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from licodec.errors import InputError
from licodec.imaging import Picture
from licodec.inputs.arrays import picture_of, sixteen_bit, upright
from licodec.inputs.bmff import cicp


def read(data: bytes, check: Callable[[int, int], None], frame: int | None) -> Picture:
    """The primary picture, or number `frame` of several. Raises InputError.

    libheif applies the file's rotation; EXIF's orientation says the same once
    more (HEIF, ISO/IEC 23008-12, section 8) and is reset.
    """
    import pillow_heif

    notes = []
    try:
        several = pillow_heif.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)
        if frame is None:
            image = several[several.primary_index]
            if len(several) > 1:
                notes.append(f"has {len(several)} pictures, the main one is taken; choose with `frame`")
        elif frame >= len(several):
            raise InputError(f"has {len(several)} pictures, no number {frame}; the first is 0")
        else:
            image = several[frame]
        check(*image.size)
        samples = np.asarray(image)
    except (ValueError, EOFError, SyntaxError, RuntimeError, OSError) as error:
        raise InputError(f"cannot be read as HEIF ({error})") from None
    info: dict[str, Any] = image.info
    picture = picture_of(sixteen_bit(samples, info["bit_depth"]) if samples.dtype == np.uint16 else samples)
    picture.warnings += notes
    picture.icc = info.get("icc_profile") or None
    picture.exif = upright(info.get("exif"))
    picture.xmp = info.get("xmp") or None
    if picture.icc is None and (codes := info.get("nclx_profile")):
        picture.cicp = cicp(codes["color_primaries"], codes["transfer_characteristics"])
    return picture

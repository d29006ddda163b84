"""Camera raw by rawpy (LibRaw): developed with the camera's white balance to sRGB of 16 bits, EXIF kept."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

from PIL import Image

from licodec.errors import InputError
from licodec.imaging import Picture

if TYPE_CHECKING:
    import rawpy

SRGB = (2.4, 12.92)  # exponent and slope near black of its transfer curve, IEC 61966-2-1
EXIF, GPS, MAKER_NOTE = 0x8769, 0x8825, 0x927C
# description, make, model, software, date, artist, copyright: the rest of a raw's first directory is how it is stored
KEPT = (0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298)


def read(data: bytes, check: Callable[[int, int], None], frame: int | None) -> Picture:
    """Develop a raw file, turned as the camera was held. Raises InputError."""
    import rawpy

    if frame:
        raise InputError(f"has 1 frame, no frame {frame}; the first is 0")
    try:
        with rawpy.imread(io.BytesIO(data)) as raw:
            check(raw.sizes.width, raw.sizes.height)
            pixels = raw.postprocess(use_camera_wb=True, output_bps=16, gamma=SRGB)
            exif = _exif(data, raw)
    except (rawpy.LibRawError, ValueError, OSError) as error:
        reason = error.args[0] if error.args else error
        reason = reason.decode() if isinstance(reason, bytes) else reason
        raise InputError(f"cannot be read as camera raw ({reason})") from None
    return Picture(pixels, exif=exif)


def _exif(data: bytes, raw: rawpy.RawPy) -> bytes | None:
    """What the file tells of the shot: from its own directory if it is a TIFF, else from the preview."""
    import rawpy

    tags = Image.Exif()
    try:
        if data[:4] in (b"II*\0", b"MM\0*"):
            tags.load_from_fp(io.BytesIO(data))
        else:
            preview = raw.extract_thumb()
            if preview.format != rawpy.ThumbFormat.JPEG or not isinstance(preview.data, bytes):
                return None
            with Image.open(io.BytesIO(preview.data)) as image:
                tags = image.getexif()
        kept = Image.Exif()
        for tag in KEPT:
            if tag in tags:
                kept[tag] = tags[tag]
        for directory in (EXIF, GPS):
            # a maker's notes point to places in the raw file that are no more
            found = {t: v for t, v in tags.get_ifd(directory).items() if t != MAKER_NOTE}
            if found:
                kept.get_ifd(directory).update(found)
        return b"Exif\0\0" + kept.tobytes().removeprefix(b"Exif\0\0") if len(kept) else None
    except (rawpy.LibRawError, OSError, SyntaxError, ValueError, KeyError, TypeError):
        return None

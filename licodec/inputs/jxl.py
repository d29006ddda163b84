"""JPEG XL: 8 bits and metadata by pillow-jxl-plugin, deeper samples by imagecodecs; both are libjxl.

The plugin decodes when it opens and reduces colour of more than 8 bits, so size, depth
and number of frames are read here first (ISO/IEC 18181-1, annex D).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from licodec import imaging
from licodec.errors import InputError
from licodec.imaging import Picture
from licodec.inputs.arrays import picture_of, sixteen_bit, upright

_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}  # width to height
Range = tuple[int, int]  # the smallest value, and the number of bits added to it


@dataclass(frozen=True)
class Header:
    """Of a codestream's header. `bits` is 0 for floating point."""

    width: int
    height: int
    bits: int
    animated: bool


class _Bits:
    """A cursor over bits, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self.value, self.left = int.from_bytes(data, "little"), 8 * len(data)

    def take(self, count: int) -> int:
        if count > self.left:
            raise InputError("cannot be read as JPEG XL (its header is cut short)")
        taken = self.value & ((1 << count) - 1)
        self.value >>= count
        self.left -= count
        return taken

    def choice(self, *ranges: Range) -> int:
        """U32 of the standard: two bits choose one of four ranges."""
        low, bits = ranges[self.take(2)]
        return low + self.take(bits)

    def size(self) -> tuple[int, int]:
        """SizeHeader -> width, height."""
        small = self.take(1)

        def side() -> int:
            return 8 * (self.take(5) + 1) if small else self.choice((1, 9), (1, 13), (1, 18), (1, 30))

        height = side()
        ratio = self.take(3)
        return (height * _RATIOS[ratio][0] // _RATIOS[ratio][1] if ratio else side()), height

    def skip_preview(self) -> None:
        """PreviewHeader."""
        coarse = self.take(1)

        def side() -> None:
            if coarse:
                self.choice((16, 0), (32, 0), (1, 5), (33, 9))
            else:
                self.choice((1, 6), (65, 8), (321, 10), (1345, 12))

        side()
        if not self.take(3):
            side()

    def skip_animation(self) -> None:
        """AnimationHeader."""
        self.choice((100, 0), (1000, 0), (1, 10), (1, 30))
        self.choice((1, 0), (1001, 0), (1, 8), (1, 10))
        self.choice((0, 0), (0, 3), (0, 16), (0, 32))
        self.take(1)


def read_header(data: bytes) -> Header:
    """Of a file's header. Raises InputError."""
    bits = _Bits(_codestream(data)[2:130])
    width, height = bits.size()
    animated = False
    if bits.take(1):  # all_default
        return Header(width, height, 8, animated)
    if bits.take(1):  # extra_fields
        bits.take(3)  # orientation
        if bits.take(1):
            bits.size()
        if bits.take(1):
            bits.skip_preview()
        if animated := bool(bits.take(1)):
            bits.skip_animation()
    depth = 0 if bits.take(1) else bits.choice((8, 0), (10, 0), (12, 0), (1, 6))
    return Header(width, height, depth, animated)


def _codestream(data: bytes) -> bytes:
    """The beginning of the codestream, which the file is or has in a box."""
    if data.startswith(b"\xff\x0a"):
        return data[:132]
    offset = 12
    while offset + 16 <= len(data):
        size, kind = int.from_bytes(data[offset : offset + 4]), data[offset + 4 : offset + 8]
        body = offset + (16 if size == 1 else 8)
        if kind in (b"jxlc", b"jxlp"):
            body += 4 if kind == b"jxlp" else 0
            return data[body : body + 132]
        size = int.from_bytes(data[offset + 8 : offset + 16]) if size == 1 else size
        if size < 8:
            break
        offset += size
    raise InputError("cannot be read as JPEG XL (it has no picture)")


def read(data: bytes, check: Callable[[int, int], None], frame: int | None) -> Picture:
    """A picture, or one of an animation. Raises InputError."""
    import imagecodecs
    import pillow_jxl  # noqa: F401  registers itself with Pillow
    from PIL import Image

    header = read_header(data)
    check(header.width, header.height)
    if header.animated and frame is None:
        raise InputError("has several frames; licodec codes still pictures, choose one with `frame` 0")
    if frame and not header.animated:
        raise InputError(f"has 1 frame, no frame {frame}; the first is 0")
    try:
        with Image.open(io.BytesIO(data), formats=["JXL"]) as opened:
            image: Any = opened  # of the plugin's class, which has `jpeg`
            if not image.jpeg:  # libjxl has turned it
                image.info["exif"] = upright(image.info.get("exif"))
                image.getexif().pop(imaging.ORIENTATION, None)
            picture = imaging.from_pil(image)
        if header.animated or header.bits > 8:
            samples = imagecodecs.jpegxl_decode(data, index=frame)
            if samples.dtype == np.uint16:
                samples = sixteen_bit(samples, header.bits)
            whole = picture_of(samples)
            picture = replace(picture, pixels=whole.pixels, alpha=whole.alpha)
    except (imagecodecs.JpegxlError, OSError, SyntaxError, ValueError, RuntimeError, IndexError) as error:
        raise InputError(f"cannot be read as JPEG XL ({error})") from None
    return picture

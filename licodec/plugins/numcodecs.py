"""numcodecs codec `licodec`, lossy, for chunks of pictures in zarr (version 2 of its format).

    import zarr, numcodecs

    codec = numcodecs.get_codec({"id": "licodec", "quality": 6})
    zarr.create_array("slide.zarr", data=pixels, chunks=(512, 512, 3), zarr_format=2, compressors=codec)

A chunk is uint8 or uint16, [H, W] or [H, W, 1, 3 or 4], axes of length one before that are ignored;
the fourth channel is alpha and stays as it is. numcodecs finds it by its entry point.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numcodecs.abc import Codec
from numcodecs.compat import ensure_bytes, ndarray_copy

from licodec import codec, container
from licodec.errors import UsageError
from licodec.imaging import Picture
from licodec.inputs.arrays import array_of


class Licodec(Codec):
    """See the module.

    Args:
        quality, model: as in `licodec.encode`.
    """

    codec_id = "licodec"

    def __init__(self, quality: float | None = None, model: str | None = None) -> None:
        self.quality = quality
        self.model = model

    def encode(self, buf: np.ndarray) -> bytes:
        """A chunk -> the bytes of a .lic. Raises UsageError for other shapes and types."""
        chunk = np.asarray(buf)
        shape = chunk.shape
        while len(shape) > 2 and shape[0] == 1 and not (len(shape) == 3 and shape[2] in (1, 3, 4)):
            shape = shape[1:]
        good = len(shape) in (2, 3) and shape[2:] in ((), (1,), (3,), (4,))
        if not good or chunk.dtype not in (np.uint8, np.uint16):
            given = f"a chunk of {chunk.dtype} {list(chunk.shape)}"
            raise UsageError(f"{given}; licodec codes uint8 and uint16, [H, W] or [H, W, 1, 3 or 4]")
        pixels = chunk.reshape(shape[:2] if shape[2:] == (1,) else shape)
        alpha = np.ascontiguousarray(pixels[:, :, 3]) if shape[2:] == (4,) else None  # kept where it is opaque too
        colour = pixels if alpha is None else pixels[:, :, :3]
        picture = Picture(np.ascontiguousarray(colour), alpha)
        return codec.for_model(self.model, self.quality).encode(picture, self.quality).data

    def decode(self, buf: Any, out: Any = None) -> np.ndarray:
        """The chunk, as [H, W] or [H, W, C]; into `out` if given. Raises LicodecError."""
        parsed = container.read(ensure_bytes(buf))
        chunk = array_of(codec.for_header(parsed.header).decode(parsed))
        return ndarray_copy(chunk, out)

"""The Python interface. torch is imported on the first `encode` or `decode`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from licodec import container

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from licodec import codec
    from licodec.imaging import Picture


def encode(
    image: Image.Image,
    model: str | None = None,
    quality: float | None = None,
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    strip: bool = False,
    tile: int | None = None,
) -> bytes:
    """Compress a Pillow picture.

    Args:
        model: its name; None for `lite`, or for that of `weights`.
        quality: 1 (smallest) to 8 (best), fractions too with `lite`; None for the default, 4.
        weights: a weights file in place of the installed ones.
        device: `auto`, `cpu` or `cuda[:N]`.
        strip: drop ICC profile, EXIF and XMP.
        tile: side of the tiles of big pictures in pixels; None chooses, 0 does without.

    Returns:
        The bytes of a .lic file.

    Raises:
        LicodecError: see `licodec.errors`.
    """
    from licodec import codec, imaging

    chosen = codec.for_model(model, quality, Path(weights) if weights else None, device)
    return chosen.encode(imaging.from_pil(image, strip), quality, tile).data


def decode(
    data: bytes,
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    crop: tuple[int, int, int, int] | None = None,
) -> Image.Image:
    """Decompress the bytes of a .lic file to a Pillow picture (mode L, LA, RGB or RGBA; I;16 for grey of 16 bits).

    Args:
        crop: left, top, width and height of the part to decode; only the tiles it needs are.

    Pillow has no colour of 16 bits; `decode_array` gives it.

    Raises:
        LicodecError: see `licodec.errors`.
    """
    return _decode(data, weights, device, crop).to_pil()


def decode_array(
    data: bytes,
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str = "auto",
    crop: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
    """As `decode`, but pixels without alpha: uint8 or uint16, [H, W, 3], or [H, W] if grey."""
    return _decode(data, weights, device, crop).pixels


def _decode(data: bytes, weights: str | os.PathLike[str] | None, device: str, crop: codec.Crop | None) -> Picture:
    from licodec import codec

    parsed = container.read(data)
    return codec.for_header(parsed.header, Path(weights) if weights else None, device).decode(parsed, crop)


def info(data: bytes) -> dict[str, object]:
    """What a .lic file says of itself, after all its checksums have been checked.

    Raises:
        FormatError, CorruptError: see `licodec.errors`.
    """
    parsed = container.read(data)
    header = parsed.header
    payload = sum(map(len, parsed.tiles))
    plain = len(container.write(container.Container(header, {}, parsed.tiles)))
    return {
        "format": f"lic {container.VERSION}",
        "model": header.model,
        "weights": header.fingerprint.hex(),
        "quality": header.quality,
        "width": header.width,
        "height": header.height,
        "channels": ("L" if header.grey else "RGB") + ("A" if "A" in parsed.metadata else ""),
        "bit_depth": 16 if header.deep else 8,
        "tiles": header.tiles(),
        "tile": header.tile,
        "overlap": header.overlap,
        "bytes": len(data),
        "payload_bytes": payload,
        "overhead_bytes": plain - payload,
        "metadata_bytes": len(data) - plain,
        "metadata": {container.COMPRESSED.get(k, "alpha"): len(v) for k, v in parsed.metadata.items()},
        "bpp": 8 * len(data) / (header.width * header.height),
    }

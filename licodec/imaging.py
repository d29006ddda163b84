"""Pictures in and out of files: modes, orientation, alpha, profiles. Pillow, no torch."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from licodec.errors import InputError

MAX_PIXELS = 200_000_000
# What `encode` picks out of a folder; any other format is coded when it is named itself.
SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".ppm", ".pgm", ".pnm",
    ".avif", ".jp2", ".j2k", ".tga", ".qoi",
}  # fmt: skip


def files_below(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """All files below a folder that end in one of `suffixes` (lower case), in order of their paths."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.is_file())


@dataclass
class Picture:
    """A picture as licodec codes it.

    Attributes:
        pixels: uint8 [H, W, 3] (sRGB or whatever `icc` says), or [H, W] if grey.
        alpha: uint8 [H, W], or None if opaque throughout.
        icc, exif, xmp: raw metadata, or None. EXIF orientation has been applied.
        warnings: what was lost on the way in, one line each.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Width, height."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def rgb(self) -> np.ndarray:
        """The pixels as uint8 [H, W, 3], three equal channels if grey."""
        return self.pixels if self.pixels.ndim == 3 else np.repeat(self.pixels[:, :, None], 3, 2)

    def to_pil(self) -> Image.Image:
        """A Pillow picture of mode L, LA, RGB or RGBA, metadata in its `info`."""
        image = Image.fromarray(self.pixels)
        if self.alpha is not None:
            image.putalpha(Image.fromarray(self.alpha))
        for key in ("icc", "exif", "xmp"):
            if (value := getattr(self, key)) is not None:
                image.info["icc_profile" if key == "icc" else key] = value
        return image


def from_pil(image: Image.Image, strip: bool = False) -> Picture:
    """Take a Pillow picture. Raises InputError for animations and modes that cannot be coded."""
    if getattr(image, "n_frames", 1) > 1:
        raise InputError(f"has {image.n_frames} frames; licodec codes still pictures, extract one frame first")
    image = ImageOps.exif_transpose(image)
    notes: list[str] = []
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        image = _eight_bit(image)
        notes.append(f"{mode} samples are reduced to 8 bits")
    elif mode == "CMYK" or mode in ("YCbCr", "LAB", "HSV"):
        notes.append(f"{mode} is converted to RGB without its profile")
    alpha = None
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
        alpha = None if (alpha == 255).all() else alpha
    grey = mode in ("1", "L", "LA", "La") or mode.startswith("I") or mode == "F"
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    picture = Picture(pixels, alpha, warnings=notes)
    if not strip:
        profile = image.info.get("icc_profile")
        matches = profile and (mode == "CMYK") == (profile[16:20] == b"CMYK")
        picture.icc = profile if matches and mode != "CMYK" else None
        picture.exif = image.info.get("exif") or None
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
        picture.xmp = xmp.encode() if isinstance(xmp, str) else xmp or None
    return picture


def _eight_bit(image: Image.Image) -> Image.Image:
    """16- and 32-bit integer samples (full scale 65535) to 8 bits, float ones from [0, 1] or [0, 255]."""
    samples = np.asarray(image).astype(np.float64)
    unit_range = image.mode == "F" and samples.size and np.nanmax(samples) <= 1
    scale = 255.0 if unit_range else 1.0 if image.mode == "F" else 1 / 257
    return Image.fromarray(np.clip(np.nan_to_num(samples) * scale + 0.5, 0, 255).astype(np.uint8))


@contextlib.contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Pillow warns at 89 megapixels and refuses at 179; our own limit is checked in its place."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def read(source: Path | bytes, max_pixels: int = MAX_PIXELS, strip: bool = False) -> Picture:
    """Read a picture from a file or from the bytes of one. Raises InputError."""
    try:
        opened = io.BytesIO(source) if isinstance(source, bytes) else source
        with _without_pillows_limit(), Image.open(opened) as image:
            check_pixels(*image.size, max_pixels)
            deep = image.mode in ("RGB", "RGBA") and any(";16" in str(tile) for tile in image.tile)
            picture = from_pil(image, strip)
            if deep:  # Pillow has no mode for it and reads the upper 8 bits
                picture.warnings.append("16-bit samples are reduced to 8 bits")
            return picture
    except FileNotFoundError:
        raise InputError("no such file") from None
    except UnidentifiedImageError:
        raise InputError("not a picture that Pillow can read") from None
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, KeyError, IndexError) as error:
        # what Pillow's decoders raise for damaged files, fuzzing found all of these
        raise InputError(f"cannot be read as a picture ({error})") from None


def check_pixels(width: int, height: int, most: int = MAX_PIXELS) -> None:
    """Raises InputError if a picture is larger than allowed."""
    if width * height > most:
        raise InputError(f"has {width}x{height} pixels, more than {most}; raise the limit with --max-pixels")


_ENCODE_OPTIONS = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"quality": 90}}
_NO_ALPHA = {"JPEG", "PPM", "BMP"}


def format_of(path: Path) -> str:
    """Pillow's name of the format that a file name's ending asks for. Raises InputError."""
    Image.init()
    name = Image.registered_extensions().get(path.suffix.lower())
    if name is None or name not in Image.SAVE:
        raise InputError(f"the ending {path.suffix!r} names no picture format that can be written; use .png")
    return name


def to_bytes(picture: Picture, format_name: str) -> bytes:
    """The picture as a file of a format (see `format_of`). Raises InputError."""
    image = picture.to_pil()
    if format_name in _NO_ALPHA and image.mode in ("RGBA", "LA"):
        raise InputError(f"has transparency, which {format_name} cannot hold; use .png")
    options: dict[str, object] = dict(_ENCODE_OPTIONS.get(format_name, {}))
    for key in ("icc_profile", "exif", "xmp"):
        if image.info.get(key):
            options[key] = image.info[key]
    out = io.BytesIO()
    try:
        image.save(out, format=format_name, **options)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot be written as {format_name} ({error}); use .png") from None
    return out.getvalue()


def alpha_to_bytes(alpha: np.ndarray) -> bytes:
    """An alpha channel, losslessly: PNG of one channel."""
    out = io.BytesIO()
    Image.fromarray(alpha).save(out, format="PNG", optimize=True)
    return out.getvalue()


def alpha_from_bytes(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """The inverse; `size` is width, height. Raises InputError if it is not that."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size != size or image.mode != "L":
                raise InputError("the alpha channel does not fit the picture")
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"the alpha channel is damaged ({error})") from None


def write_file(path: Path, data: bytes, force: bool) -> None:
    """Write beside and rename, so that a kill leaves no half file. Raises InputError."""
    if path.exists() and not force:
        raise InputError(f"{path} exists; -f overwrites it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)

"""Pictures in and out of files: modes, orientation, alpha, profiles. Pillow, no torch."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from licodec.errors import InputError

if TYPE_CHECKING:
    from PIL import ImageCms, ImageFile

MAX_PIXELS = 200_000_000
MAX_SIDE = 1 << 17
BAND = 256  # rows converted at a time
ORIENTATION = 0x0112  # EXIF tag
# What `encode` picks out of a folder; any other format is coded when it is named itself.
SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".ppm", ".pgm", ".pnm",
    ".avif", ".jp2", ".j2k", ".tga", ".qoi",
}  # fmt: skip


@dataclass
class Picture:
    """A picture as licodec codes it.

    Attributes:
        pixels: uint8 or uint16 [H, W, 3] (sRGB or whatever `icc` says), or [H, W] if grey.
        alpha: [H, W] of the same type, or None if opaque throughout.
        icc, exif, xmp: raw metadata, or None. EXIF orientation has been applied.
        cicp: the 4 bytes of PNG's cICP chunk, or None.
        warnings: what was lost on the way in, one line each.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    cicp: bytes | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Width, height."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def bit_depth(self) -> int:
        """Of the samples: 8 or 16."""
        return 8 * self.pixels.dtype.itemsize

    @property
    def rgb(self) -> np.ndarray:
        """The pixels as [H, W, 3], three equal channels if grey."""
        return self.pixels if self.pixels.ndim == 3 else np.repeat(self.pixels[:, :, None], 3, 2)

    def eight_bit(self) -> Picture:
        """The same with samples of 8 bits."""
        if self.bit_depth == 8:
            return self
        alpha = None if self.alpha is None else to_eight_bit(self.alpha)
        return replace(self, pixels=to_eight_bit(self.pixels), alpha=alpha)

    def to_pil(self) -> Image.Image:
        """A Pillow picture, metadata in its `info`: mode L, LA, RGB or RGBA; I;16 for grey of 16 bits.

        Pillow has no mode for colour or transparency of 16 bits; they are reduced to 8.
        """
        plain = self if self.pixels.ndim == 2 and self.alpha is None else self.eight_bit()
        image = Image.fromarray(plain.pixels)
        if plain.alpha is not None:
            image.putalpha(Image.fromarray(plain.alpha))
        for key in ("icc", "exif", "xmp"):
            if (value := getattr(self, key)) is not None:
                image.info["icc_profile" if key == "icc" else key] = value
        return image


def to_eight_bit(samples: np.ndarray) -> np.ndarray:
    """uint16 -> uint8, 65535 to 255, rounded."""
    return ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def from_pil(image: Image.Image, strip: bool = False, frame: int | None = None) -> Picture:
    """Take a Pillow picture.

    Args:
        frame: which of an animation's; without it they are refused.

    Raises:
        InputError: an animation, or a frame it does not have.
    """
    _choose_frame(image, frame)
    mode, notes = image.mode, []
    _widen_transparency(image)
    image = _upright(image)
    info = image.info
    profile = info.get("icc_profile")
    if mode in ("CMYK", "LAB"):
        image, note = _to_rgb_by_profile(image, profile)
        notes += note
        profile = None
    grey = mode in ("1", "L", "LA", "La") or mode.startswith("I") or mode == "F"
    alpha = None
    if mode.startswith("I") or mode == "F":
        pixels = _sixteen_bit(image, notes)
        if isinstance(level := info.get("transparency"), int):
            alpha = np.where(pixels == level, 0, 65535).astype(np.uint16)
    else:
        if "A" in image.getbands() or "a" in image.getbands() or "transparency" in info:
            image = image.convert("RGBA")
            alpha = np.asarray(image.getchannel("A"))
        pixels = _samples(image, "L" if grey else "RGB")
    picture = Picture(pixels, _unless_opaque(alpha), warnings=notes)
    _keep_metadata(picture, info, profile, strip)
    return picture


def _choose_frame(image: Image.Image, frame: int | None) -> None:
    frames = getattr(image, "n_frames", 1)
    if frame is None:
        if frames > 1:
            raise InputError(f"has {frames} frames; licodec codes still pictures, choose one with `frame` 0")
    elif frame >= frames:
        raise InputError(f"has {frames} frame{'s' if frames > 1 else ''}, no frame {frame}; the first is 0")
    elif frame:
        image.seek(frame)


def _widen_transparency(image: Image.Image) -> None:
    """A PNG's transparent grey level of 2 or 4 bits as one of 8: Pillow widens the samples and leaves the level."""
    tiles = getattr(image, "tile", None)
    stored = str(tiles[0].args) if tiles else ""
    if stored in ("L;2", "L;4") and isinstance(level := image.info.get("transparency"), int):
        image.info["transparency"] = level * 255 // ((1 << int(stored[2])) - 1)


def _upright(image: Image.Image) -> Image.Image:
    """EXIF orientation applied; without one the picture is not copied."""
    return ImageOps.exif_transpose(image) if image.getexif().get(ORIENTATION, 1) != 1 else image


def _samples(image: Image.Image, mode: str) -> np.ndarray:
    """The pixels in a mode, band by band: Pillow would make several copies of a large picture."""
    width, height = image.size
    pixels = np.empty((height, width) if mode == "L" else (height, width, 3), np.uint8)
    for top in range(0, height, BAND):
        band = image.crop((0, top, width, min(top + BAND, height)))
        pixels[top : top + BAND] = np.asarray(band if band.mode == mode else band.convert(mode))
    return pixels


def _unless_opaque(alpha: np.ndarray | None) -> np.ndarray | None:
    return None if alpha is None or (alpha == np.iinfo(alpha.dtype).max).all() else alpha


def _to_rgb_by_profile(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, list[str]]:
    """CMYK or LAB as sRGB, by the embedded profile (LAB: by the standard's), and a warning where that fails."""
    from PIL import ImageCms

    try:
        if image.mode == "LAB":
            source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        elif profile and profile[16:20] == b"CMYK":
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        else:
            return image.convert("RGB"), ["CMYK without a profile of its own; its colours are a guess"]
        return to_srgb(image, source), []
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        return image.convert("RGB"), [f"the {image.mode} profile cannot be used ({error}); its colours are a guess"]


def to_srgb(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    """From a profile to sRGB, by LittleCMS. Raises ImageCms.PyCMSError, OSError, ValueError."""
    from PIL import ImageCms

    made = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert made is not None  # as only a change in place gives
    return made


def _sixteen_bit(image: Image.Image, notes: list[str]) -> np.ndarray:
    """Samples of 16, 32 (full scale 65535 too) or float bits (full scale 1) as uint16 [H, W]."""
    samples = np.asarray(image)
    if samples.dtype == np.uint16:
        return samples
    full = 65535.0 if image.mode == "F" else 1.0
    values = np.nan_to_num(samples.astype(np.float64), posinf=1e300, neginf=-1e300) * full
    notes.append(f"{'float' if image.mode == 'F' else '32-bit'} samples are reduced to 16 bits")
    if values.size and (values.min() < -0.5 or values.max() >= 65535.5):
        notes.append(f"values outside 0 to {'1' if image.mode == 'F' else '65535'} are clipped")
    return np.clip(np.rint(values), 0, 65535).astype(np.uint16)


def _keep_metadata(picture: Picture, info: dict[Any, Any], profile: bytes | None, strip: bool) -> None:
    """Profile, EXIF and XMP; a warning for colour information that has no place in a .lic."""
    if not strip:
        fits = profile and profile[16:20] != b"CMYK"
        picture.icc = profile if fits else None
        picture.exif = info.get("exif") or None
        xmp = info.get("xmp") or info.get("XML:com.adobe.xmp")
        picture.xmp = xmp.encode() if isinstance(xmp, str) else xmp or None
    gamma = info.get("gamma")
    if not profile and "srgb" not in info and gamma and abs(float(gamma) - 0.45455) > 0.005:
        picture.warnings.append(f"the gamma {gamma:g} noted in the file is not kept; give it an ICC profile first")


@contextlib.contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Pillow warns at 89 megapixels and refuses at 179; our own limit is checked in its place."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def read(
    source: Path | bytes,
    max_pixels: int = MAX_PIXELS,
    strip: bool = False,
    frame: int | None = None,
    max_side: int = MAX_SIDE,
) -> Picture:
    """Read a picture from a file or from the bytes of one. Raises InputError."""
    try:
        with _without_pillows_limit(), _open(source) as image:
            check_pixels(*image.size, max_pixels, max_side)
            cicp = None if strip else _cicp(image)
            sixteen = image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(tile) for tile in image.tile)
            if sixteen and getattr(image, "n_frames", 1) == 1:
                picture = _read_sixteen_bit(source, strip)
            else:
                picture = from_pil(image, strip, frame)
            return replace(picture, cicp=cicp)
    except FileNotFoundError:
        raise InputError("no such file") from None
    except UnidentifiedImageError:
        raise InputError("not a picture that Pillow can read") from None
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, KeyError, IndexError, TypeError) as error:
        # what Pillow's decoders raise for damaged files, fuzzing found all of these
        raise InputError(f"cannot be read as a picture ({error})") from None


def _open(source: Path | bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)


_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


def _read_sixteen_bit(source: Path | bytes, strip: bool) -> Picture:
    """Colour or transparency of 16 bits, for which Pillow has no mode."""
    with _open(source) as image:
        grey = "LA;16B" in str(image.tile)
        samples = _grey_and_alpha(image) if grey else _both_bytes(source)
        info = image.info
    pixels, alpha = np.ascontiguousarray(samples[:, :, 0] if grey else samples[:, :, :3]), None
    if samples.shape[2] in (2, 4):
        alpha = np.ascontiguousarray(samples[:, :, -1])
    elif isinstance(colour := info.get("transparency"), tuple):
        alpha = np.where((pixels == colour).all(2), 0, 65535).astype(np.uint16)
    picture = Picture(pixels, _unless_opaque(alpha))
    _keep_metadata(picture, info, info.get("icc_profile"), strip)
    return picture


def _both_bytes(source: Path | bytes) -> np.ndarray:
    """uint16 [H, W, C]. Pillow unpacks the upper bytes; told the other byte order, it unpacks the lower ones."""
    halves = []
    for lower in (False, True):
        with _open(source) as image:
            if lower:
                image.tile = [_with_other_order(tile) for tile in image.tile]
            image.load()  # numpy would hide what is wrong with it
            halves.append(np.asarray(_upright(image)).astype(np.uint16))
    return halves[0] << 8 | halves[1]


def _grey_and_alpha(image: ImageFile.ImageFile) -> np.ndarray:
    """uint16 [H, W, 2] of a PNG: its four bytes per pixel are read as if they were RGBA of 8 bits."""
    image._mode = "RGBA"
    image.tile = [tile._replace(args="RGBA") for tile in image.tile]
    image.load()
    return np.asarray(_upright(image)).copy().view(">u2").astype(np.uint16)


def _with_other_order(tile: ImageFile._Tile) -> ImageFile._Tile:
    def swap(text: Any) -> Any:
        match = isinstance(text, str) and re.fullmatch(r"(.*;16)([BLN])", text)
        return match[1] + _OTHER_ORDER[match[2]] if match else text

    arguments = tile.args
    return tile._replace(args=tuple(map(swap, arguments)) if isinstance(arguments, tuple) else swap(arguments))


def _cicp(image: ImageFile.ImageFile) -> bytes | None:
    """PNG's cICP chunk, which names the transfer curve and gamut of HDR pictures; Pillow does not know it."""
    file = image.fp
    if image.format != "PNG" or file is None or not file.seekable():
        return None
    place = file.tell()
    file.seek(0)
    head = file.read(4096).partition(b"IDAT")[0]
    file.seek(place)
    begin = head.find(b"\0\0\0\x04cICP")
    return head[begin + 8 : begin + 12] if begin >= 0 else None


def check_pixels(width: int, height: int, most: int = MAX_PIXELS, max_side: int = MAX_SIDE) -> None:
    """Raises InputError if a picture is larger than allowed."""
    if width * height > most:
        raise InputError(f"has {width}x{height} pixels, more than {most}; raise the limit with `max_pixels`")
    if max(width, height) > max_side:
        raise InputError(f"has {width}x{height} pixels, a side over {max_side}; raise the limit with `max_side`")


def alpha_to_bytes(alpha: np.ndarray) -> bytes:
    """An alpha channel, losslessly: PNG of one channel, of 8 or 16 bits."""
    out = io.BytesIO()
    Image.fromarray(alpha).save(out, format="PNG", optimize=True)
    return out.getvalue()


def alpha_from_bytes(data: bytes, size: tuple[int, int], bit_depth: int = 8) -> np.ndarray:
    """The inverse; `size` is width, height. Raises InputError if it is not that."""
    try:
        with _without_pillows_limit(), Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size != size or image.mode != ("I;16" if bit_depth == 16 else "L"):
                raise InputError("the alpha channel does not fit the picture")
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"the alpha channel is damaged ({error})") from None

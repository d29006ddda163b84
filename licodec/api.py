"""The Python interface. What a model needs is imported when one is first used.

>>> import numpy as np
>>> import licodec
>>> picture = np.zeros((64, 96, 3), np.uint8)
>>> data = licodec.encode(picture, quality=4)
>>> licodec.decode(data).size
(96, 64)
>>> licodec.decode_array(data).shape
(64, 96, 3)
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypedDict, Unpack

from licodec import container
from licodec.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from licodec import codec, search
    from licodec.imaging import Picture

    Name = str | os.PathLike[str]
    ImageLike = Image.Image | np.ndarray | Name | bytes | IO[bytes]
    FileLike = bytes | Name | IO[bytes]


class Limits(TypedDict, total=False):
    """What larger pictures and tiles are refused with, as the command line does; InputError then.

    max_pixels: 200 million unless given. max_side: 131072. max_tile: a tile may have its square, 2896.
    """

    max_pixels: int
    max_side: int
    max_tile: int


class EncodeOptions(Limits, total=False):
    """How a picture is coded.

    target_bpp, target_size, target_psnr, target_ssimulacra2: in place of a quality: the best of at most so many
        bits per pixel or bytes, the smallest file of at least this PSNR in dB or this SSIMULACRA 2.
    effort: 1 (fast) to 9 (slow): how long `lite`'s encoder searches for cheaper symbols.
    tile: side of the tiles of big pictures in pixels; None chooses, 0 does without.
    strip: drop ICC profile, EXIF and XMP; or the kinds of metadata to drop.
    frame: which picture of an animation.
    verify: decode the result, and raise CorruptError if that fails.
    """

    target_bpp: float | None
    target_size: int | None
    target_psnr: float | None
    target_ssimulacra2: float | None
    effort: int
    tile: int | None
    strip: bool
    frame: int | None
    verify: bool


class DecodeOptions(Limits, total=False):
    """How a file is decoded.

    crop: left, top, width and height of the part to decode; only the tiles it needs are.
    """

    crop: tuple[int, int, int, int] | None


class Codec:
    """A model with its weights, loaded once and used often, from several threads if need be.

    >>> import numpy as np
    >>> import licodec
    >>> lite = licodec.load("lite")
    >>> data = lite.encode(np.zeros((10, 20), np.uint16), quality=2.5)
    >>> lite.decode_array(data).dtype
    dtype('uint16')
    """

    def __init__(self, chosen: codec.Codec) -> None:
        self.codec = chosen

    @property
    def name(self) -> str:
        """The model's."""
        return self.codec.info.name

    def encode(self, image: ImageLike, quality: float | None = None, **options: Unpack[EncodeOptions]) -> bytes:
        """As `licodec.encode`, with this model."""
        from licodec import codec, search

        found = search.encode(
            self.codec, _picture(image, options), quality, _target(options), options.get("tile"),
            verify=options.get("verify", False), max_tile=options.get("max_tile", codec.MAX_TILE),
            effort=options.get("effort", 1),
        )  # fmt: skip
        return found.encoded.data

    def decode(self, file: FileLike, **options: Unpack[DecodeOptions]) -> Image.Image:
        """As `licodec.decode`, of files that were made with these weights; raises WeightsError for others."""
        return _decode(_bytes(file), options, self.codec).to_pil()

    def decode_array(self, file: FileLike, *, alpha: bool = False, **options: Unpack[DecodeOptions]) -> np.ndarray:
        """As `licodec.decode_array`, of files that were made with these weights."""
        return _array(_decode(_bytes(file), options, self.codec), alpha)


def load(
    model: str | None = None,
    quality: float | None = None,
    *,
    weights: Name | None = None,
    device: str = "auto",
    precision: str = "float32",
) -> Codec:
    """A codec to use again and again; loading it a second time costs nothing.

    Args:
        model: its name; None for `lite`, or for that of `weights`.
        quality: which weights, for models that have one file for each.
        weights: a weights file in place of the installed ones.
        device: `auto`, `cpu` or `cuda[:N]`.
        precision: `float32`; or `bf16` for g_a and g_s, faster on GPUs and on processors with
            avx512_bf16 or AMX, and refused on others. It costs 0.02 to 0.1 dB; files stay compatible.

    Raises:
        LicodecError: see `licodec.errors`.
    """
    from licodec import codec

    return Codec(codec.for_model(model, quality, Path(weights) if weights else None, device, precision))


def encode(
    image: ImageLike,
    model: str | None = None,
    quality: float | None = None,
    *,
    weights: Name | None = None,
    device: str = "auto",
    precision: str = "float32",
    **options: Unpack[EncodeOptions],
) -> bytes:
    """Compress a picture.

    Args:
        image: a Pillow picture; an array, uint8 or uint16, [H, W] or [H, W, 1 to 4], the last of two or
            four channels alpha; or a file of one: its path, its bytes, or open for reading.
        model, weights, device, precision: see `load`.
        quality: 1 (smallest) to the best of the model, fractions too with `lite`; the default otherwise.
        options: see `EncodeOptions`.

    Returns:
        The bytes of a .lic file.

    Raises:
        LicodecError: see `licodec.errors`.
    """
    from licodec import codec

    chosen = codec.for_model(
        model, quality, Path(weights) if weights else None, device, precision, bool(_target(options).given())
    )
    return Codec(chosen).encode(image, quality, **options)


def decode(
    file: FileLike,
    *,
    weights: Name | None = None,
    device: str = "auto",
    precision: str = "float32",
    **options: Unpack[DecodeOptions],
) -> Image.Image:
    """Decompress a .lic file to a Pillow picture (mode L, LA, RGB or RGBA; I;16 for grey of 16 bits).

    Args:
        file: its bytes, its path, or open for reading.
        weights, device, precision: see `load`.
        options: see `DecodeOptions`.

    Pillow has no colour of 16 bits; `decode_array` gives it.

    Raises:
        LicodecError: see `licodec.errors`.
    """
    return _decode(_bytes(file), options, None, weights, device, precision).to_pil()


def decode_array(
    file: FileLike,
    *,
    alpha: bool = False,
    weights: Name | None = None,
    device: str = "auto",
    precision: str = "float32",
    **options: Unpack[DecodeOptions],
) -> np.ndarray:
    """As `decode`, but an array, uint8 or uint16: [H, W, 3], or [H, W] if grey.

    Args:
        alpha: if the file has transparency, give it as a further channel.
    """
    return _array(_decode(_bytes(file), options, None, weights, device, precision), alpha)


def _target(options: EncodeOptions) -> search.Target:
    from licodec import search

    return search.Target(
        size=options.get("target_size"), bpp=options.get("target_bpp"),
        psnr=options.get("target_psnr"), ssimulacra2=options.get("target_ssimulacra2"),
    )  # fmt: skip


def _bytes(file: FileLike) -> bytes:
    from licodec.errors import InputError

    if isinstance(file, bytes | bytearray | memoryview):
        return bytes(file)
    try:
        return Path(file).read_bytes() if isinstance(file, str | os.PathLike) else file.read()
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from None


def _picture(image: ImageLike, options: EncodeOptions) -> Picture:
    """Any picture as `imaging.Picture`. Raises InputError, UsageError."""
    import numpy as np
    from PIL import Image

    from licodec import imaging, inputs
    from licodec.inputs.arrays import picture_of

    strip, frame = options.get("strip", False), options.get("frame")
    most = options.get("max_pixels", imaging.MAX_PIXELS), options.get("max_side", imaging.MAX_SIDE)
    if isinstance(image, np.ndarray):
        if image.dtype not in (np.uint8, np.uint16) or image.ndim not in (2, 3) or not image.size:
            raise UsageError(
                f"an array of {image.dtype} {list(image.shape)}; give uint8 or uint16, [H, W] or [H, W, C]"
            )
        if image.ndim == 3 and image.shape[2] > 4:
            raise UsageError(f"an array with {image.shape[2]} channels; give 1 to 4")
        imaging.check_pixels(image.shape[1], image.shape[0], *most)
        return picture_of(image)
    if isinstance(image, Image.Image):
        imaging.check_pixels(*image.size, *most)
        return imaging.from_pil(image, strip, frame)
    source = Path(image) if isinstance(image, str | os.PathLike) else _bytes(image)
    return inputs.read(source, most[0], strip, frame, most[1])


def _decode(
    data: bytes,
    options: DecodeOptions,
    chosen: codec.Codec | None,
    weights: Name | None = None,
    device: str = "auto",
    precision: str = "float32",
) -> Picture:
    from licodec import codec, imaging

    parsed = container.read(data)
    header = parsed.header
    most = options.get("max_pixels", imaging.MAX_PIXELS), options.get("max_side", imaging.MAX_SIDE)
    imaging.check_pixels(header.width, header.height, *most)
    chosen = chosen or codec.for_header(header, Path(weights) if weights else None, device, precision)
    return chosen.open(parsed, options.get("crop"), max_tile=options.get("max_tile", codec.MAX_TILE)).collect()


def _array(picture: Picture, alpha: bool) -> np.ndarray:
    from licodec.inputs.arrays import array_of

    return array_of(picture) if alpha else picture.pixels


class HeaderInfo(TypedDict):
    """What the header and the metadata of a .lic say.

    weights: their fingerprint. channels: L, LA, RGB or RGBA. tile: side of the tiles, 0 for one tile. bytes: of the
    file. metadata: bytes of each kind.
    """

    format: str
    model: str
    weights: str
    quality: float
    width: int
    height: int
    channels: str
    bit_depth: int
    tiles: int
    tile: int
    overlap: int
    bytes: int
    metadata: dict[str, int]
    bpp: float


class Info(HeaderInfo):
    """What a whole .lic says: of its bytes those of the tiles, those of metadata, and the rest."""

    payload_bytes: int
    overhead_bytes: int
    metadata_bytes: int


def info(data: bytes) -> Info:
    """What a .lic file says of itself, after all its checksums have been checked.

    Raises:
        FormatError, CorruptError: see `licodec.errors`.
    """
    parsed = container.read(data)
    payload = sum(map(len, parsed.tiles))
    plain = len(container.write(container.Container(parsed.header, {}, parsed.tiles)))
    return {
        **header_info(parsed, len(data)),
        "payload_bytes": payload,
        "overhead_bytes": plain - payload,
        "metadata_bytes": len(data) - plain,
    }


def header_info(parsed: container.Container, size: int) -> HeaderInfo:
    """What the header and the metadata of a file of `size` bytes say; the tiles are not looked at."""
    header = parsed.header
    return {
        "format": f"lic {container.VERSION}",
        "model": header.model,
        "weights": header.fingerprint.hex(),
        "quality": header.quality,
        "width": header.width,
        "height": header.height,
        "channels": ("L" if header.grey else "RGB") + ("A" if "A" in parsed.metadata else ""),
        "bit_depth": header.bit_depth,
        "tiles": header.tiles(),
        "tile": header.tile,
        "overlap": header.overlap,
        "bytes": size,
        "metadata": {container.COMPRESSED.get(k, "alpha"): len(v) for k, v in parsed.metadata.items()},
        "bpp": 8 * size / (header.width * header.height),
    }

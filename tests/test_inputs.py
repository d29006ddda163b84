"""Pictures of every kind that people have: HEIF, AVIF, JPEG XL, camera raw, .lic, PNG of few bits."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from conftest import licodec, render
from PIL import Image

from licodec import inputs
from licodec.errors import InputError

TAGS = {0x010F: "Acme", 0x0132: "2026:01:02 03:04:05"}


def exif_with(orientation: int = 1) -> bytes:
    tags = Image.Exif()
    tags.update(TAGS)
    tags[0x0112] = orientation
    return tags.tobytes()


def dng(width: int = 96, height: int = 64, orientation: int = 1) -> bytes:
    """A camera raw file, uncompressed: a reddish ramp under an RGGB mosaic, sensor values of 16 bits."""
    rows, columns = np.mgrid[:height, :width]
    mosaic = (8000 + rows * 300 + columns * 100).astype("<u2")
    mosaic[1::2, 1::2] //= 2  # blue

    def words(kind: str, *values: int) -> bytes:
        return struct.pack(f"<{len(values)}{kind}", *values)

    def text(value: str) -> tuple[int, int, bytes]:
        return 2, len(value) + 1, value.encode() + b"\0"

    unity = words("i", *(v for i in range(9) for v in (int(i % 4 == 0), 1)))
    neutral = words("I", 5, 10, 10, 10, 7, 10)  # white balance: red twice, blue 1.43 times as strong
    entries = {
        254: (4, 1, words("I", 0)), 256: (4, 1, words("I", width)), 257: (4, 1, words("I", height)),
        258: (3, 1, words("H", 16)), 259: (3, 1, words("H", 1)), 262: (3, 1, words("H", 32803)),
        271: text("Acme"), 272: text("One"), 273: (4, 1, b""), 274: (3, 1, words("H", orientation)),
        277: (3, 1, words("H", 1)), 278: (4, 1, words("I", height)), 279: (4, 1, words("I", width * height * 2)),
        306: text(TAGS[0x0132]), 33421: (3, 2, words("H", 2, 2)), 33422: (1, 4, bytes([0, 1, 1, 2])),
        50706: (1, 4, bytes([1, 4, 0, 0])), 50708: text("Acme One"), 50714: (3, 1, words("H", 0)),
        50717: (4, 1, words("I", 65535)), 50721: (10, 9, unity), 50728: (5, 3, neutral), 50778: (3, 1, words("H", 21)),
    }  # fmt: skip
    base = 8 + 2 + 12 * len(entries) + 4
    strip = base + sum(len(d) + len(d) % 2 for _, _, d in entries.values() if len(d) > 4)
    entries[273] = (4, 1, words("I", strip))
    directory, blob = words("H", len(entries)), b""
    for tag, (kind, count, data) in sorted(entries.items()):
        value = data.ljust(4, b"\0") if len(data) <= 4 else words("I", base + len(blob))
        blob += data + b"\0" * (len(data) % 2) if len(data) > 4 else b""
        directory += struct.pack("<HHI", tag, kind, count) + value
    return b"II*\0" + words("I", 8) + directory + words("I", 0) + blob + mosaic.tobytes()


def grey_png(bits: int, levels: np.ndarray, transparent: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = levels.shape
    rows = b"".join(b"\0" + np.packbits((r[:, None] >> np.arange(bits)[::-1]) & 1).tobytes() for r in levels)
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    parts = ((b"IHDR", head), (b"tRNS", struct.pack(">H", transparent)), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_png_of_few_bits_keeps_its_transparent_grey(bits):
    levels = np.arange(64).reshape(8, 8) % (1 << bits)
    picture = inputs.read(grey_png(bits, levels, 1))
    assert ((picture.alpha == 0) == (levels == 1)).all()
    assert (picture.pixels == levels * (255 // ((1 << bits) - 1))).all()


def ten_bits() -> np.ndarray:
    """A smooth picture with all of 1024 levels, uint16 [64, 96, 3]."""
    row, column = np.mgrid[:64, :96]
    return np.stack([(row * 96 + column) // 6, column * 10, row * 16], 2).astype(np.uint16)


def test_heif_of_8_and_10_bits_with_its_metadata():
    heif = pytest.importorskip("pillow_heif")
    eight, out = render(96, 64), io.BytesIO()
    heif.from_pillow(Image.fromarray(eight)).save(out, quality=-1, chroma=444, exif=exif_with(6), matrix_coefficients=0)
    picture = inputs.read(out.getvalue())
    assert picture.size == (64, 96)  # turned once, by libheif
    assert (picture.pixels == np.rot90(eight, -1)).all()
    tags = Image.Exif()
    tags.load(picture.exif)
    assert tags[0x010F] == "Acme" and tags.get(0x0112, 1) == 1
    assert inputs.read(out.getvalue(), strip={"exif"}).exif is None

    deep, out = ten_bits(), io.BytesIO()
    coded = heif.from_bytes("RGB;16", (96, 64), (deep << 6).tobytes())
    coded.save(out, quality=-1, chroma=444, matrix_coefficients=0, color_primaries=9, transfer_characteristics=16)
    picture = inputs.read(out.getvalue())
    expected = np.rint(deep * (65535 / 1023))
    assert picture.bit_depth == 16 and np.abs(picture.pixels - expected).max() <= 1 and picture.pixels.max() > 65000
    assert picture.cicp == bytes([9, 16, 0, 1])  # BT.2020, PQ: kept as PNG has it


def test_heif_that_is_damaged_or_too_large():
    heif = pytest.importorskip("pillow_heif")
    out = io.BytesIO()
    heif.from_pillow(Image.fromarray(render(96, 64))).save(out)
    with pytest.raises(InputError, match="`max_pixels`"):
        inputs.read(out.getvalue(), max_pixels=96 * 64 - 1)
    for data in (out.getvalue()[:300], out.getvalue()[:-200]):
        with pytest.raises(InputError, match="HEIF"):
            inputs.read(data)


def test_avif_of_10_bits_keeps_them():
    imagecodecs = pytest.importorskip("imagecodecs")
    deep = ten_bits()
    data = imagecodecs.avif_encode(deep, level=100, bitspersample=10)
    picture = inputs.read(data)
    assert picture.bit_depth == 16 and np.abs(picture.pixels - np.rint(deep * (65535 / 1023))).max() <= 1
    out = io.BytesIO()
    Image.fromarray(render(64, 48)).save(out, "AVIF")
    assert inputs.read(out.getvalue()).bit_depth == 8


def test_avif_without_the_library_warns(monkeypatch):
    imagecodecs = pytest.importorskip("imagecodecs")
    data = imagecodecs.avif_encode(ten_bits(), level=100, bitspersample=10)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    picture = inputs.read(data)
    assert picture.bit_depth == 8 and "licodec[heif]" in picture.warnings[0]


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_jxl_of_many_bits(bits):
    imagecodecs = pytest.importorskip("imagecodecs")
    pytest.importorskip("pillow_jxl")
    deep = ten_bits() << (bits - 10)
    picture = inputs.read(imagecodecs.jpegxl_encode(deep, lossless=True, bitspersample=bits))
    full = (1 << bits) - 1
    assert picture.bit_depth == 16 and np.abs(picture.pixels - np.rint(deep * (65535 / full))).max() <= 1


def test_jxl_of_8_bits_is_turned_once_and_measured_before_it_is_decoded(monkeypatch):
    pillow_jxl = pytest.importorskip("pillow_jxl")
    eight, out = render(96, 64), io.BytesIO()
    Image.fromarray(eight).save(out, "JXL", lossless=True, exif=exif_with(6))
    picture = inputs.read(out.getvalue())
    assert (picture.pixels == eight).all() and picture.exif  # a codestream says itself how it is turned; EXIF does not
    monkeypatch.setattr(pillow_jxl.JpegXLImagePlugin, "Decoder", None)
    with pytest.raises(InputError, match="`max_pixels`"):
        inputs.read(out.getvalue(), max_pixels=96 * 64 - 1)
    with pytest.raises(InputError, match="JPEG XL"):
        inputs.read(out.getvalue()[:13])


def test_raw_is_developed_with_the_cameras_white_balance_and_keeps_exif(tmp_path):
    pytest.importorskip("rawpy")
    (tmp_path / "a.dng").write_bytes(dng(orientation=6))
    picture = inputs.read(tmp_path / "a.dng")
    assert picture.size == (64, 96) and picture.bit_depth == 16
    red, _, blue = picture.pixels.reshape(-1, 3).mean(0)
    assert red > 1.2 * blue  # red is doubled by the white balance, blue is 1.4 times a half
    tags = Image.Exif()
    tags.load(picture.exif)
    assert tags[0x010F] == "Acme" and tags[0x0132] == TAGS[0x0132] and 0x0111 not in tags
    assert inputs.read(dng()).size == (96, 64)  # without a name its tags tell
    with pytest.raises(InputError, match="`max_pixels`"):
        inputs.read(dng(), max_pixels=100)
    with pytest.raises(InputError, match="camera raw"):
        inputs.read(dng()[:600], name="a.dng")


def test_raw_as_pillow_would_misread_it(tmp_path):
    """A .nef is a TIFF whose first picture is a preview: its name says what it is."""
    preview = tmp_path / "a.nef"
    Image.fromarray(render(32, 24)).save(preview, "TIFF")
    assert inputs.kind_of(preview.read_bytes(), ".nef") == "raw"
    assert inputs.kind_of(preview.read_bytes(), ".tif") is None


def test_a_lic_is_an_input(tiny_weights, tmp_path, monkeypatch):
    Image.fromarray(render(96, 64)).save(tmp_path / "a.png", exif=exif_with())
    assert licodec("encode", tmp_path / "a.png", "-q", 8).returncode == 0
    result = licodec("encode", tmp_path / "a.lic", "-q", 2, "-o", tmp_path / "smaller.lic")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "smaller.lic").stat().st_size < (tmp_path / "a.lic").stat().st_size
    picture = inputs.read(tmp_path / "smaller.lic")
    assert picture.size == (96, 64) and picture.exif
    before = (tmp_path / "a.lic").read_bytes()
    for force in ((), ("-f",)):
        result = licodec("encode", tmp_path / "a.lic", "-q", 2, *force)
        assert result.returncode == 2 and b"itself" in result.stderr
    assert (tmp_path / "a.lic").read_bytes() == before
    with pytest.raises(InputError, match="`max_side`"):
        inputs.read(before, max_side=90)


def test_a_folder_says_what_it_left_out(tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    (photos / "deep").mkdir(parents=True)
    Image.fromarray(render(64, 64)).save(photos / "a.png")
    for name in ("b.mov", "deep/c.MOV", "deep/d", ".hidden.mov", "e.txt", "f.lic"):
        (photos / name).write_bytes(b"x")
    result = licodec("encode", photos, "-o", tmp_path / "out")
    assert result.returncode == 0
    said = result.stderr.decode().splitlines()
    assert "licodec: left out 5 files: 2 .mov, 1 .lic, 1 .txt, 1 without an ending" in said
    again = licodec("encode", photos, "-o", tmp_path / "out", "-f", "--quiet")
    assert not again.stderr


def test_what_is_left_out_names_the_extra(monkeypatch):
    from collections import Counter

    from licodec.cli.common import left_out

    monkeypatch.setattr(inputs.Kind, "available", lambda self: False)
    assert left_out(Counter({".heic": 301, ".mov": 11})) == (
        "left out 312 files: 301 .heic (pip install 'licodec[heif]'), 11 .mov"
    )
    assert ".heic" not in inputs.suffixes()


def test_a_folder_of_lic_is_coded_again(tmp_path, picture_file):
    assert licodec("encode", picture_file, "-q", 8, "-o", tmp_path / "in" / "a.lic").returncode == 0
    result = licodec("encode", tmp_path / "in", "-q", 1, "-o", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "a.lic").stat().st_size < (tmp_path / "in" / "a.lic").stat().st_size

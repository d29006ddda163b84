"""The .lic file, version 1: a header, then chunks. Knows neither torch nor numpy.

    magic     89 4C 49 43 0D 0A 1A 0A  (as PNG's: not text, broken by text-mode transfers)
    version   u8, 1. It also names the arithmetic: what the decoder must reproduce runs in
              float64, or, of `lite`, in integers that float32 adds exactly
    layout    u8: bits 0-3 length of the model id less one; bit 4 grey; bit 5 tiled; bit 6 samples of 16 bits;
              bit 7 zero
    model     the model id, ASCII
    weights   8 bytes, the fingerprint of the weights
    quality   varint, hundredths
    width, height   varints, pixels
    tile, overlap   varints, pixels; only if tiled

    chunk     type u8 (a letter), length varint, payload,
              CRC-32 (little-endian) of the header above and this chunk's type, length and payload

Varints are LEB128. Chunk types: `I` ICC profile, `E` EXIF, `X` XMP (these zlib-compressed),
`A` alpha (a PNG), `c` the 4 bytes of a cICP chunk (ITU-T H.273), `T` a tile: u32 check of
its decoded integers, then the ANS stream. Tiles come last, row by row, as many as the
header implies; the file ends with the last one. Unknown lower-case types are skipped,
unknown upper-case types refused.

A plain picture takes 40 bytes besides the ANS stream (a model id of four letters, sides
of 128 to 16383, a stream of 16 KiB to 2 MiB). To meet that, this departs from the first
design: one-letter chunk types, no end chunk (the header tells where the end is), and no
CRC of the header alone (each chunk's covers it).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from licodec.errors import CorruptError, FormatError

MAGIC = b"\x89LIC\r\n\x1a\n"
VERSION = 1
MAX_SIDE = 1 << 20
MAX_METADATA = 64 << 20  # bytes of a chunk other than a tile, decompressed
TILE = "T"
COMPRESSED = {"I": "icc", "E": "exif", "X": "xmp"}
KNOWN = {TILE, "A", "c", *COMPRESSED}
_MODEL_ID = re.compile(r"[a-z0-9][a-z0-9+.-]{0,15}")
# model names of more than 16 characters, and the ids that stand for them in files
SHORT_IDS = {
    "bmshj2018-factorized": "bmshj2018-fact",
    "bmshj2018-hyperprior": "bmshj2018-hyper",
    "bmshj2018-hyperprior-vbr": "bmshj2018-hp-vbr",
}
_LONG_NAMES = {short: name for name, short in SHORT_IDS.items()}


@dataclass(frozen=True)
class Header:
    """What a .lic says before its chunks.

    Attributes:
        fingerprint: 8 bytes that name the weights.
        quality: 0 to 655.35, in hundredths.
        width, height: of the picture, in pixels.
        tile: side of the tiles in pixels, 0 for one tile of any size.
        overlap: pixels that the transforms see around a tile.
        bit_depth: of the samples, 8 or 16.
    """

    model: str
    fingerprint: bytes
    quality: float
    width: int
    height: int
    grey: bool = False
    tile: int = 0
    overlap: int = 0
    bit_depth: int = 8

    def tiles(self) -> int:
        """Number of tiles."""
        if not self.tile:
            return 1
        return -(-self.width // self.tile) * -(-self.height // self.tile)


@dataclass(frozen=True)
class Container:
    """A parsed file: header, metadata chunks by type, and the tiles' payloads in order."""

    header: Header
    metadata: dict[str, bytes] = field(default_factory=dict)
    tiles: Sequence[bytes] = ()


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


class _Reader:
    """A cursor over the bytes that never reads past their end."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        self.position = 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.position:
            raise CorruptError("the file is cut short; copy or download it again")
        self.position += count
        return bytes(self.data[self.position - count : self.position])

    def varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise CorruptError("a number in the file is too long; the file is damaged")


def _header_bytes(header: Header) -> bytes:
    model = SHORT_IDS.get(header.model, header.model)
    if not _MODEL_ID.fullmatch(model):
        raise ValueError(f"model id {model!r} is not 1 to 16 lower-case letters, digits and +.-")
    layout = len(model) - 1 | header.grey << 4 | bool(header.tile) << 5 | (header.bit_depth == 16) << 6
    fields = [round(header.quality * 100), header.width, header.height]
    if header.tile:
        fields += [header.tile, header.overlap]
    return (
        MAGIC + bytes([VERSION, layout]) + model.encode("ascii") + header.fingerprint + b"".join(map(_varint, fields))
    )


def _read_header(reader: _Reader) -> Header:
    data = bytes(reader.data[: len(MAGIC)])
    if data != MAGIC:
        if len(data) < len(MAGIC) and data and MAGIC.startswith(data):
            raise CorruptError("the file is cut short; copy or download it again")
        raise FormatError("not a .lic file; decode wants a file that `licodec encode` wrote")
    reader.position = len(MAGIC)
    version, layout = reader.take(2)
    if version != VERSION:
        raise FormatError(f"a .lic of version {version}, this licodec reads version {VERSION}; upgrade licodec")
    if layout & 0x80:
        raise FormatError("a .lic with a layout this licodec does not know; upgrade licodec")
    model = reader.take((layout & 15) + 1).decode("latin-1")
    if not _MODEL_ID.fullmatch(model):
        raise CorruptError("the header is damaged; copy or download the file again")
    fingerprint = reader.take(8)
    quality, width, height = (reader.varint() for _ in range(3))
    tiled = bool(layout & 32)
    tile, overlap = (reader.varint(), reader.varint()) if tiled else (0, 0)
    plausible = (
        quality <= 65535
        and 1 <= width <= MAX_SIDE
        and 1 <= height <= MAX_SIDE
        and (not tiled or 64 <= tile <= MAX_SIDE)
        and overlap <= MAX_SIDE
    )
    if not plausible:
        raise CorruptError("the header is damaged; copy or download the file again")
    model = _LONG_NAMES.get(model, model)
    bit_depth = 16 if layout & 64 else 8
    return Header(model, fingerprint, quality / 100, width, height, bool(layout & 16), tile, overlap, bit_depth)


def write(container: Container) -> bytes:
    """The bytes of a file. `metadata` and `tiles` are as `read` returns them."""
    head = _header_bytes(container.header)
    crc = zlib.crc32(head)
    out = [head]
    chunks = [(kind, payload) for kind, payload in container.metadata.items()]
    for kind, payload in chunks + [(TILE, tile) for tile in container.tiles]:
        if kind in COMPRESSED:
            payload = zlib.compress(payload, 9)
        body = kind.encode("ascii") + _varint(len(payload)) + payload
        out += [body, zlib.crc32(body, crc).to_bytes(4, "little")]
    return b"".join(out)


def read_header(data: bytes) -> Header:
    """Only the header of a file's first bytes (256 suffice); no checksum is looked at."""
    return _read_header(_Reader(data))


HEADER_BYTES = 256  # more than any header has
CHUNK_HEAD_BYTES = 6  # type and length of a chunk, at most


def read_header_and_end(data: bytes) -> tuple[Header, int]:
    """The header of a file's first bytes, and where its first chunk begins. Raises as `read`."""
    reader = _Reader(data)
    return _read_header(reader), reader.position


def chunk_head(data: bytes) -> tuple[str, int, int]:
    """Of a chunk's first bytes: its type, bytes before its payload, bytes of its payload. Raises CorruptError."""
    reader = _Reader(data)
    kind = reader.take(1).decode("latin-1")
    length = reader.varint()
    return kind, reader.position, length


def keep(metadata: dict[str, bytes], kind: str, payload: bytes) -> None:
    """Put a chunk that comes before the tiles among the metadata. Raises FormatError, CorruptError."""
    if kind in metadata:
        raise CorruptError("a part of the file is in the wrong place; the file is damaged")
    if kind in KNOWN:
        metadata[kind] = _inflate(payload) if kind in COMPRESSED else payload
    elif kind.isupper():
        raise FormatError(f"the file needs the feature {kind!r}, unknown to this licodec; upgrade licodec")


def read(data: bytes) -> Container:
    """Parse and check a whole file.

    Raises:
        FormatError: not a .lic, or a version or chunk that is not known here.
        CorruptError: damaged or cut short.
    """
    reader = _Reader(data)
    header = _read_header(reader)
    crc = zlib.crc32(reader.data[: reader.position])
    metadata: dict[str, bytes] = {}
    tiles: list[bytes] = []
    while len(tiles) < header.tiles():
        kind, payload = _read_chunk(reader, crc)
        if kind == TILE:
            tiles.append(payload)
        elif tiles:
            raise CorruptError("a part of the file is in the wrong place; the file is damaged")
        else:
            keep(metadata, kind, payload)
    if reader.position != len(data):
        raise CorruptError("there is data behind the end of the picture; the file is damaged")
    return Container(header, metadata, tiles)


def _read_chunk(reader: _Reader, crc: int) -> tuple[str, bytes]:
    begin = reader.position
    kind = reader.take(1).decode("latin-1")
    payload = reader.take(reader.varint())
    body = reader.data[begin : reader.position]
    if zlib.crc32(body, crc).to_bytes(4, "little") != reader.take(4):
        raise CorruptError("a checksum does not match: the file is damaged; copy or download it again")
    if not (kind.isascii() and kind.isalpha()):
        raise CorruptError("a part of the file has no valid type; the file is damaged")
    return kind, payload


def _inflate(payload: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(payload, MAX_METADATA)
    except zlib.error:
        raise CorruptError("the metadata cannot be decompressed; the file is damaged") from None
    if not inflater.eof or inflater.unused_data:
        raise CorruptError("the metadata is cut short or too large; the file is damaged")
    return data

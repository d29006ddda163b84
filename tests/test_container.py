"""The file format: round trip, limits, and every kind of damage."""

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from licodec import container
from licodec.container import Container, Header
from licodec.errors import CorruptError, FormatError

HEADER = Header("lite", bytes(range(8)), 3.5, 768, 512)
PLAIN = Container(HEADER, {}, [b"\x01\x02\x03\x04" + b"payload" * 3000])
RICH = Container(
    Header("swint-hyperprior", b"abcdefgh", 8, 300, 100, True, 128, 64),
    {"I": b"profile" * 50, "E": b"exif", "X": b"<xmp/>", "A": b"alpha"},
    [b"tile%d" % i for i in range(3)],
)


@pytest.mark.parametrize("value", [PLAIN, RICH])
def test_round_trip(value):
    data = container.write(value)
    assert container.read(data) == value
    assert container.read_header(data[:256]) == value.header


def test_overhead_is_at_most_40_bytes_for_a_plain_picture():
    assert len(container.write(PLAIN)) - (len(PLAIN.tiles[0]) - 4) == 40


def test_every_changed_byte_is_noticed():
    data = container.write(RICH)
    for position in range(len(data)):
        for change in (1, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[position] ^= change
            with pytest.raises((FormatError, CorruptError)):
                container.read(bytes(damaged))


def test_every_truncation_and_any_addition_is_noticed():
    data = container.write(RICH)
    for length in range(len(data)):
        with pytest.raises((FormatError, CorruptError)):
            container.read(data[:length])
    with pytest.raises(CorruptError):
        container.read(data + b"\0")


def chunk(data: bytes, kind: bytes, payload: bytes) -> bytes:
    """A valid chunk for the header of the file `data`."""
    head = data[:28]  # magic, version, layout, "lite", fingerprint, three varints of two bytes
    body = kind + bytes([len(payload)]) + payload
    return body + zlib.crc32(body, zlib.crc32(head)).to_bytes(4, "little")


def test_unknown_chunks():
    data = container.write(PLAIN)
    head, rest = data[:28], data[28:]
    assert container.read(head + chunk(data, b"q", b"news") + rest) == PLAIN
    with pytest.raises(FormatError, match="'Q'"):
        container.read(head + chunk(data, b"Q", b"news") + rest)


def test_metadata_bomb_is_refused_without_being_unpacked():
    bomb = zlib.compress(bytes(container.MAX_METADATA + 1), 9)
    with pytest.raises(CorruptError, match="too large"):
        container._inflate(bomb)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + bytes(50), bytes(100)])
def test_other_files_are_refused_as_such(data):
    with pytest.raises(FormatError, match=r"not a \.lic"):
        container.read(data)


def test_later_version_is_refused_as_such():
    data = bytearray(container.write(PLAIN))
    data[8] = 2
    with pytest.raises(FormatError, match="version 2"):
        container.read(bytes(data))


@settings(max_examples=300)
@given(st.binary(max_size=80))
def test_arbitrary_bytes_after_the_magic_never_crash(tail):
    with pytest.raises((FormatError, CorruptError)):
        container.read(container.MAGIC + b"\x01" + tail)

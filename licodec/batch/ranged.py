"""A remote .lic by parts: `info` needs its beginning, a crop only the tiles it touches."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, overload

from licodec import container
from licodec.batch.place import Place
from licodec.batch.places import of
from licodec.container import Container
from licodec.errors import CorruptError

if TYPE_CHECKING:
    from licodec import api
    from licodec.batch.remote import Remote

WINDOW = 1 << 15  # bytes of the first request; header and metadata are mostly within it
STEP = 1 << 12  # bytes of a request for where the next tile begins


def opened(place: Place, parts: bool = False) -> tuple[Container, int]:
    """A parsed file, and the bytes that were read of it.

    With `parts`, a remote file's tiles are read when they are asked for, and only
    those are checked. Raises what `container.read` and reading do.
    """
    from licodec.batch.remote import Remote

    if not (parts and isinstance(place, Remote)):
        data = place.read()
        return container.read(data), len(data)
    size = place.size()
    if size is None or size <= 2 * WINDOW:
        data = place.read()
        return container.read(data), len(data)
    return scanned(place, size), size


def info_of(word: str) -> api.HeaderInfo:
    """What `licodec info` shows of a file or URL; of a large remote one only what its beginning tells.

    Raises what reading and `container.read` do.
    """
    from licodec import api
    from licodec.batch.remote import Remote

    place = of(word)
    if not isinstance(place, Remote) or (size := place.size()) is None or size <= 2 * WINDOW:
        return api.info(place.read())
    return api.header_info(scanned(place, size), size)


def scanned(place: Remote, size: int) -> Container:
    """The header and the metadata of a remote file of `size` bytes, and tiles that are read on demand."""
    window = _Window(place, size)
    head = window.take(0, container.HEADER_BYTES, WINDOW)
    header, offset = container.read_header_and_end(head)
    crc = zlib.crc32(head[:offset])
    metadata: dict[str, bytes] = {}
    while (kind := window.chunk(offset)[0]) != container.TILE:
        payload, offset = window.payload(offset, crc)
        container.keep(metadata, kind, payload)
    return Container(header, metadata, _Tiles(window, offset, header.tiles(), crc))


class _Window:
    """The bytes around where one reads."""

    def __init__(self, place: Remote, size: int) -> None:
        self.place, self.size = place, size
        self.begin, self.data = 0, b""

    def take(self, begin: int, count: int, ahead: int = STEP) -> bytes:
        """At most `count` bytes from `begin`, fewer at the end of the file."""
        end = min(begin + count, self.size)
        if not self.begin <= begin <= end <= self.begin + len(self.data):
            self.begin, self.data = begin, self.place.part(begin, min(max(end, begin + ahead), self.size))
        return self.data[begin - self.begin : end - self.begin]

    def chunk(self, offset: int) -> tuple[str, int, int]:
        """A chunk's type, and where its payload begins and ends. Raises CorruptError."""
        kind, body, length = container.chunk_head(self.take(offset, container.CHUNK_HEAD_BYTES))
        if offset + body + length + 4 > self.size:
            raise CorruptError("the file is cut short; copy or download it again")
        return kind, offset + body, offset + body + length

    def payload(self, offset: int, crc: int) -> tuple[bytes, int]:
        """A chunk's payload, checked, and where the next chunk begins. Raises CorruptError."""
        _, begin, end = self.chunk(offset)
        body = self.take(offset, end + 4 - offset)
        if zlib.crc32(body[:-4], crc).to_bytes(4, "little") != body[-4:]:
            raise CorruptError("a checksum does not match: the file is damaged; copy or download it again")
        return body[begin - offset : -4], end + 4


class _Tiles(Sequence[bytes]):
    """Payloads of the tiles, each read when it is asked for; the places of those before it are found on the way."""

    def __init__(self, window: _Window, offset: int, count: int, crc: int) -> None:
        self.window, self.length, self.crc = window, count, crc
        self.places = [offset]
        self.reader = ThreadPoolExecutor(1)  # tiles are decoded side by side, but read one at a time

    def __len__(self) -> int:
        return self.length

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.length))]
        if not 0 <= index < self.length:
            raise IndexError(f"tile {index} of {self.length}")
        return self.reader.submit(self._read, index).result()

    def _read(self, index: int) -> bytes:
        while len(self.places) <= index:
            _, _, end = self.window.chunk(self.places[-1])
            self.places.append(end + 4)
        return self.window.payload(self.places[index], self.crc)[0]

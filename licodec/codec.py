"""The one path from picture to file and back."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from licodec import container, finding, imaging, runtime
from licodec.coding import Coded, EntropyTables, decode_latent, encode_latent
from licodec.container import Container, Header
from licodec.errors import CorruptError, InputError, OutOfMemoryError, UsageError, WeightsError
from licodec.imaging import Picture
from licodec.models import LITE, model_info
from licodec.output import Decoding
from licodec.parallel import in_order
from licodec.tiling import Box, Grid, padded
from licodec.weights import file as weights_file

if TYPE_CHECKING:
    from licodec.runtime.refine import Searcher

METADATA = {"I": "icc", "E": "exif", "X": "xmp", "c": "cicp"}
ALPHA = "A"
Crop = tuple[int, int, int, int]  # left, top, width, height
Progress = Callable[[int, int], None]  # tiles done, tiles in all

ROUNDS = {1: 0, 2: 1, 3: 2, 4: 4, 5: 6, 6: 8, 7: 12, 8: 20, 9: 32}  # of the search (runtime/refine.py), by effort
MAX_TILE = 2896  # 8.4 megapixels: a decoder's memory is bounded by the tile, and the file is not believed


def _silent(done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class Encoded:
    """What `Codec.encode` gives: the file, and how many bits an ideal coder would need for its tiles."""

    data: bytes
    ideal_bits: float
    payload_bytes: int


def _check_tiles(grid: Grid, max_tile: int) -> None:
    """Raises InputError if tiles are larger than allowed."""
    largest = min(grid.step, grid.width) * min(grid.step, grid.height)
    if largest > max_tile**2:
        raise InputError(
            f"has tiles of {largest} pixels, which take much memory to decode; "
            f"allow them with `max_tile` {math.isqrt(largest - 1) + 1}"
        )


@contextlib.contextmanager
def _memory_guard() -> Iterator[None]:
    """Turn Python's out-of-memory error into ours; models see to their own."""
    try:
        yield
    except MemoryError:
        raise OutOfMemoryError("memory does not suffice; use a smaller `tile`") from None


class Codec:
    """A model with its weights and tables on a device, ready to code."""

    @_memory_guard()
    def __init__(self, path: Path, device: str = "auto", precision: str = "float32") -> None:
        """Load a weights file. Raises UsageError, WeightsError, OutOfMemoryError."""
        weights = weights_file.read(path)
        self.path, self.device, self.precision = path, device, precision
        self.info = model_info(weights.metadata.model)
        self.metadata = weights.metadata
        self.fingerprint = weights.fingerprint
        self.model = runtime.open_model(weights, device, precision)
        self.geometry = self.model.geometry
        y = weights.tables["y"]
        self.tables = EntropyTables(y, weights.tables.get("z", y))

    @functools.cached_property
    def _searcher(self) -> Searcher:
        from licodec.runtime.refine import Searcher

        return Searcher.load(weights_file.read(self.path), self.device)

    def quality(self, asked: float | None) -> float:
        """The quality to write into a header. Raises UsageError if these weights do not have it."""
        fixed = self.metadata.quality
        if not self.info.variable_rate:
            if asked is not None and fixed is not None and asked != fixed:
                raise UsageError(f"these weights serve quality {fixed}, not {asked:g}")
            return float(fixed or 0)
        low, high = self.info.qualities[0], self.info.qualities[-1]
        asked = 5.0 if asked is None else asked
        if not low <= asked <= high:
            raise UsageError(f"quality {asked:g} is out of range; {self.info.name} has {low} to {high}")
        return round(asked * 100) / 100

    def check_effort(self, effort: int) -> None:
        """Raises UsageError if there is no such effort, or none for this model."""
        if effort not in ROUNDS:
            raise UsageError(f"effort {effort} is out of range; it goes from 1 to {max(ROUNDS)}")
        if ROUNDS[effort] and self.info.name != LITE:
            raise UsageError(f"effort {effort} is for {LITE}; {self.info.name} has only effort 1")

    def _grid(self, header: Header) -> Grid:
        stride = self.geometry.stride
        if header.tile % stride or header.overlap % self.geometry.latent_stride:
            raise CorruptError(f"its tiles do not fit the model {self.info.name}; the file is damaged")
        return Grid(padded(header.height, stride), padded(header.width, stride), header.tile, header.overlap)

    def _window(self, picture: Picture, grid: Grid, box: Box) -> np.ndarray:
        """What the transforms see of a tile of the padded picture: float32 [1, 3, h, w] in [0, 1]."""
        width, height = picture.size
        left, top = self._corner(width, height, grid)
        rows, columns = np.arange(box.top, box.bottom) - top, np.arange(box.left, box.right) - left
        within = [np.clip(i, 0, size - 1) for i, size in ((rows, height), (columns, width))]
        cut = picture.pixels[within[0][0] : within[0][-1] + 1, within[1][0] : within[1][-1] + 1]
        beyond = cut.shape[:2] != (len(rows), len(columns))
        if beyond:
            cut = cut[within[0] - within[0][0]][:, within[1] - within[1][0]]
        if cut.ndim == 2:
            cut = np.repeat(cut[:, :, None], 3, 2)
        if beyond and self.geometry.padding == "centred-zeros":
            outside = ((rows < 0) | (rows >= height))[:, None] | ((columns < 0) | (columns >= width))
            cut[outside] = 0
        x = np.ascontiguousarray(cut.transpose(2, 0, 1)[None], np.float32)
        x /= (1 << picture.bit_depth) - 1
        return x

    def _corner(self, width: int, height: int, grid: Grid) -> tuple[int, int]:
        """Left and top of the picture within the padded one."""
        if self.geometry.padding == "centred-zeros":  # as the authors' evaluation scripts
            return (grid.width - width) // 2, (grid.height - height) // 2
        return 0, 0

    @_memory_guard()
    def encode(
        self,
        picture: Picture,
        quality: float | None = None,
        tile: int | None = None,
        report: Progress = _silent,
        max_tile: int = MAX_TILE,
        effort: int = 1,
    ) -> Encoded:
        """Code a picture as a .lic file.

        Args:
            quality: 1 to 10 for `lite`; None for the default, or for fixed-rate weights.
            tile: side of the tiles in pixels, rounded up to the model's stride; 0 for
                none; None to choose by the picture's size.
            report: told how many tiles (with effort: rounds of tiles) are done, and of how many.
            effort: 1 to 9; from 2 on `lite` searches for cheaper symbols, in torch.
            max_tile: refuse tiles of more than max_tile**2 pixels, as decoders do.
        """
        quality = self.quality(quality)
        width, height = picture.size
        tile, overlap = self.geometry.tile_sizes(width, height, tile)
        grey = picture.pixels.ndim == 2
        header = Header(
            self.info.name,
            self.fingerprint,
            quality,
            width,
            height,
            grey,
            tile,
            overlap if tile else 0,
            picture.bit_depth,
        )
        grid = self._grid(header)
        _check_tiles(grid, max_tile)
        self.check_effort(effort)
        rounds = ROUNDS[effort]
        steps = itertools.count(1)

        def tick() -> None:
            report(next(steps), header.tiles() * (rounds + 1))

        def code(box: Box) -> Coded:
            seen = grid.grown(box)
            window = self._window(picture, grid, seen)
            inner = box.within(seen).scaled(self.geometry.latent_stride).slices()
            if rounds:
                y, z_from = self._searcher.search(window, inner, quality, rounds, tick)
            else:
                y, z_from = np.ascontiguousarray(self.model.analyse(window, quality)[(..., *inner)]), None
            return encode_latent(self.model, self.tables, y, quality, z_from)

        tiles, bits = [], 0.0
        for coded in in_order(code, grid.boxes(), 1 if rounds else self.model.side_by_side):
            tiles.append(coded.payload)
            bits += coded.ideal_bits
            tick()
        metadata = {k: v for k, name in METADATA.items() if (v := getattr(picture, name)) is not None}
        if picture.alpha is not None:
            metadata[ALPHA] = imaging.alpha_to_bytes(picture.alpha)
        data = container.write(Container(header, metadata, tiles))
        return Encoded(data, bits, sum(map(len, tiles)))

    def decode(self, parsed: Container, crop: Crop | None = None, report: Progress = _silent) -> Picture:
        """The picture of a parsed file, or a part of it. Raises what `open` and its bands do."""
        return self.open(parsed, crop, report).collect()

    def open(
        self, parsed: Container, crop: Crop | None = None, report: Progress = _silent, max_tile: int = MAX_TILE
    ) -> Decoding:
        """Begin to decode a file, or the part of it that `crop` (left, top, width, height) names.

        Taking the bands decodes; no more than three rows of tiles are in memory.

        Raises:
            WeightsError: it was made with other weights.
            CorruptError: it is damaged; from the bands also: the decoder is out of step.
            UsageError: the crop is not within the picture.
            InputError: its tiles have more than max_tile**2 pixels.
        """
        header = parsed.header
        if header.fingerprint != self.fingerprint:
            raise WeightsError(
                f"made with weights {header.fingerprint.hex()} of {header.model}, these are {self.fingerprint.hex()}"
            )
        if self.info.variable_rate and not self.info.qualities[0] <= header.quality <= self.info.qualities[-1]:
            raise CorruptError(f"quality {header.quality:g} is none of {header.model}'s; the file is damaged")
        grid = self._grid(header)
        _check_tiles(grid, max_tile)
        left, top, width, height = crop or (0, 0, header.width, header.height)
        if min(left, top) < 0 or min(width, height) < 1 or left + width > header.width or top + height > header.height:
            raise UsageError(f"`crop` {left},{top},{width},{height} is not within {header.width}x{header.height}")
        picture = Picture(np.empty((0, 0), np.uint8))
        for kind, name in METADATA.items():
            setattr(picture, name, parsed.metadata.get(kind))
        if ALPHA in parsed.metadata:
            try:
                alpha = imaging.alpha_from_bytes(
                    parsed.metadata[ALPHA], (header.width, header.height), header.bit_depth
                )
            except InputError as error:
                raise CorruptError(str(error)) from None
            picture.alpha = alpha[top : top + height, left : left + width]
        x, y = self._corner(header.width, header.height, grid)
        wanted = Box(top + y, left + x, top + y + height, left + x + width)
        bands = self._bands(parsed, grid, wanted, report)
        return Decoding((width, height), header.grey, header.bit_depth, bands, picture)

    def _bands(self, parsed: Container, grid: Grid, wanted: Box, report: Progress) -> Iterator[np.ndarray]:
        """The rows of the padded picture's part `wanted`, a row of tiles at a time."""
        header, quality = parsed.header, parsed.header.quality
        rows = list(grid.rows(wanted))
        needed = {i for row in rows for _, seen in self._areas(grid, row) for i, _ in grid.touching(seen)}
        latents: dict[Box, np.ndarray] = {}
        done, workers = 0, self.model.side_by_side

        def decode(tile: tuple[int, Box]) -> np.ndarray:
            return self._decode_tile(tile[1], parsed.tiles[tile[0]], quality)

        def synthesise(area_and_seen: tuple[Box, Box]) -> np.ndarray:
            area, seen = area_and_seen
            touched = {box: latents[box] for _, box in grid.touching(seen)}
            y_hat = _gather(touched, seen, self.geometry.latent_stride)
            return self._synthesise(y_hat, seen, area, quality, header.bit_depth)

        for row in rows:
            areas = self._areas(grid, row)
            touched = {tile: None for _, seen in areas for tile in grid.touching(seen) if tile[1] not in latents}
            for (_, box), latent in zip(touched, in_order(decode, touched, workers), strict=True):
                latents[box] = latent
                done += 1
                report(done, len(needed))
            pixels = np.empty((row.height, row.width, 3), np.uint16 if header.bit_depth == 16 else np.uint8)
            for (area, _), made in zip(areas, in_order(synthesise, areas, workers), strict=True):
                pixels[area.within(row).slices()] = made
            latents = {box: y for box, y in latents.items() if box.bottom + grid.overlap > row.bottom}
            yield np.rint(pixels.mean(2, dtype=np.float32)).astype(pixels.dtype) if header.grey else pixels

    def _areas(self, grid: Grid, row: Box) -> list[tuple[Box, Box]]:
        """The tiles' parts of a row of pixels, each with what g_s must see to give it.

        That is the tile and its overlap; less, if the overlap is all that g_s can see.
        """
        areas = [(box, area) for _, box in grid.touching(row) if (area := box.common(row))]
        if not self.geometry.overlap_is_all:
            return [(area, grid.grown(box)) for box, area in areas]
        margin = grid.overlap or self.geometry.overlap
        return [(area, area.snapped(self.geometry.stride).grown(margin, grid.height, grid.width)) for _, area in areas]

    @_memory_guard()
    def _decode_tile(self, box: Box, payload: bytes, quality: float) -> np.ndarray:
        stride = self.geometry.hyper_stride
        z_shape = (1, self.geometry.hyper_channels, box.height // stride, box.width // stride)
        try:
            return decode_latent(self.model, self.tables, payload, z_shape, quality)
        except CorruptError as error:
            raise CorruptError(f"tile at {box.left},{box.top}: {error}") from None

    @_memory_guard()
    def _synthesise(self, y_hat: np.ndarray, seen: Box, area: Box, quality: float, bit_depth: int) -> np.ndarray:
        """Pixels [h, w, 3] of `area`, from the latent of `seen`."""
        x = self.model.synthesise(y_hat, quality)[(0, ..., *area.within(seen).slices())]
        full, samples = (65535, np.uint16) if bit_depth == 16 else (255, np.uint8)
        x = np.fmax(np.fmin(x, 1), 0)  # unlike clip they make something even of NaN, as untrained weights give
        x *= full
        return np.rint(x, out=x).astype(samples).transpose(1, 2, 0)


def _gather(latents: dict[Box, np.ndarray], seen: Box, stride: int) -> np.ndarray:
    """The latent of `seen` from those of the tiles it touches."""
    if seen in latents:
        return latents[seen]
    whole = seen.scaled(stride)
    some = next(iter(latents.values()))
    y_hat = np.empty((1, some.shape[1], whole.height, whole.width), some.dtype)
    for box, latent in latents.items():
        common = box.common(seen)
        assert common is not None  # the latents are those of the tiles that touch it
        source = common.within(box).scaled(stride).slices()
        y_hat[(..., *common.within(seen).scaled(stride).slices())] = latent[(..., *source)]
    return y_hat


@functools.lru_cache(maxsize=2)
def _load(path: Path, stamp: int, device: str, precision: str) -> Codec:
    return Codec(path, device, precision)


def load(path: Path, device: str = "auto", precision: str = "float32") -> Codec:
    """A codec from a weights file; loading the same file again costs nothing. See `runtime.open_model`."""
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        raise WeightsError(f"{path}: no such file; see `licodec models` for the weights there are") from None
    return _load(path.resolve(), stamp, device, precision)


def for_model(
    name: str | None,
    quality: float | None,
    weights: Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    target: bool = False,
) -> Codec:
    """The codec that `encode -m name -q quality --weights FILE` uses.

    Without a name it is that of the weights, or `lite`. With a target in place of a quality, models of one
    rate per weights file begin in the middle of those there are, see `licodec.search`.
    Raises UsageError, WeightsError.
    """
    info = model_info(name or LITE)
    if target and quality is None and not weights and not info.variable_rate:
        qualities = finding.reachable(info)
        quality = qualities[(len(qualities) - 1) // 2]
    codec = load(weights or finding.find(info, quality), device, precision)
    if name and codec.info.name != name:
        raise UsageError(f"{weights} holds weights of {codec.info.name}, not of {name}; leave out the one or the other")
    return codec


def for_header(header: Header, weights: Path | None = None, device: str = "auto", precision: str = "float32") -> Codec:
    """The codec that a file needs. Raises WeightsError if its weights are not here."""
    return load(weights or finding.find_fingerprint(header), device, precision)

"""The one path from picture to file and back."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from licodec import container, imaging
from licodec.coding import EntropyTables, decode_latent, encode_latent
from licodec.container import Container, Header
from licodec.errors import CorruptError, InputError, OutOfMemoryError, UsageError, WeightsError
from licodec.imaging import Picture
from licodec.models import model_info
from licodec.models.base import CompressionModel
from licodec.tiling import Grid, padded
from licodec.weights import file as weights_file
from licodec.weights import store

METADATA = {"I": "icc", "E": "exif", "X": "xmp"}
ALPHA = "A"


@dataclass(frozen=True)
class Encoded:
    """What `Codec.encode` gives: the file, and how many bits an ideal coder would need for its tiles."""

    data: bytes
    ideal_bits: float
    payload_bytes: int


def _is_out_of_memory(error: Exception) -> bool:
    """torch's CPU allocator raises a plain RuntimeError."""
    return "can't allocate memory" in str(error)


@contextlib.contextmanager
def _memory_guard() -> Iterator[None]:
    """Turn out-of-memory errors of torch and Python into ours."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise OutOfMemoryError("the GPU's memory does not suffice; use --device cpu or a smaller --tile") from None
    except MemoryError:
        raise OutOfMemoryError("memory does not suffice; use a smaller --tile") from None
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        raise OutOfMemoryError("memory does not suffice; use a smaller --tile") from None


class Codec:
    """A model with its weights and tables on a device, ready to code."""

    @_memory_guard()
    def __init__(self, path: Path, device: torch.device) -> None:
        """Load a weights file. Raises WeightsError, OutOfMemoryError."""
        weights = weights_file.read(path)
        self.info = model_info(weights.metadata.model)
        self.metadata = weights.metadata
        self.fingerprint = weights.fingerprint
        self.device = device
        try:
            with torch.device("meta"):  # nothing is allocated or initialised before the shapes are known to fit
                model = self.info.build(weights.metadata.config)
            model.load_state_dict(weights.float_state(), assign=True)
        except (RuntimeError, TypeError, ValueError) as error:
            if _is_out_of_memory(error):
                raise
            line = str(error).splitlines()[0]
            raise WeightsError(f"{path}: does not fit the model {self.info.name} ({line})") from None
        self.model: CompressionModel = model.prepare().to(device)
        y = weights.tables["y"]
        self.tables = EntropyTables(y, weights.tables.get("z", y), weights.thresholds.to(device))

    def quality(self, asked: float | None) -> float:
        """The quality to write into a header. Raises UsageError if these weights do not have it."""
        fixed = self.metadata.quality
        if not self.info.variable_rate:
            if asked is not None and fixed is not None and asked != fixed:
                raise UsageError(f"these weights serve quality {fixed}, not {asked:g}")
            return float(fixed or 0)
        low, high = self.info.qualities[0], self.info.qualities[-1]
        asked = 4.0 if asked is None else asked
        if not low <= asked <= high:
            raise UsageError(f"quality {asked:g} is out of range; {self.info.name} has {low} to {high}")
        return round(asked * 100) / 100

    def _tensor(self, quality: float) -> Tensor:
        return torch.tensor([quality], dtype=torch.float64, device=self.device)

    def _grid(self, header: Header) -> Grid:
        stride = self.model.stride
        if header.tile % stride or header.overlap % stride:
            raise CorruptError(f"its tiles do not fit the model {self.info.name}; the file is damaged")
        return Grid(padded(header.height, stride), padded(header.width, stride), header.tile, header.overlap)

    def _pad(self, pixels: np.ndarray, grid: Grid) -> Tensor:
        """Pixels uint8 [H, W, 3] -> [1, 3, grid.height, grid.width], uint8, on the CPU."""
        height, width = pixels.shape[:2]
        left, top = self._corner(width, height, grid)
        margins = ((top, grid.height - height - top), (left, grid.width - width - left), (0, 0))
        mode = "constant" if self.model.padding == "centred-zeros" else "edge"
        return torch.from_numpy(np.pad(pixels, margins, mode).transpose(2, 0, 1))[None]

    def _corner(self, width: int, height: int, grid: Grid) -> tuple[int, int]:
        """Left and top of the picture within the padded one."""
        if self.model.padding == "centred-zeros":  # as the authors' evaluation scripts
            return (grid.width - width) // 2, (grid.height - height) // 2
        return 0, 0

    @_memory_guard()
    @torch.inference_mode()
    def encode(self, picture: Picture, quality: float | None = None, tile: int | None = None) -> Encoded:
        """Code a picture as a .lic file.

        Args:
            quality: 1 to 8 for `lite`; None for the default, or for fixed-rate weights.
            tile: side of the tiles in pixels, rounded up to the model's stride; 0 for
                none; None to choose by the picture's size.
        """
        quality = self.quality(quality)
        width, height = picture.size
        tile, overlap = self.model.tile_sizes(width, height, tile)
        grey = picture.pixels.ndim == 2
        header = Header(self.info.name, self.fingerprint, quality, width, height, grey, tile, overlap if tile else 0)
        grid, q = self._grid(header), self._tensor(quality)
        x = self._pad(picture.rgb, grid)
        tiles, bits = [], 0.0
        for box in grid.boxes():
            seen = grid.grown(box)
            part = x[(..., *seen.slices())].to(self.device).float().div_(255)
            y = self.model.analyse(part.contiguous(memory_format=torch.channels_last), q)
            y = y[(..., *box.within(seen).scaled(self.model.latent_stride).slices())].contiguous()
            coded = encode_latent(self.model, self.tables, y, self.model.hyper_analyse(y, q), q)
            tiles.append(coded.payload)
            bits += coded.ideal_bits
        metadata = {k: v for k, name in METADATA.items() if (v := getattr(picture, name)) is not None}
        if picture.alpha is not None:
            metadata[ALPHA] = imaging.alpha_to_bytes(picture.alpha)
        data = container.write(Container(header, metadata, tiles))
        return Encoded(data, bits, sum(map(len, tiles)))

    @_memory_guard()
    @torch.inference_mode()
    def decode(self, parsed: Container) -> Picture:
        """The picture of a parsed file. Raises WeightsError, CorruptError."""
        header = parsed.header
        if header.fingerprint != self.fingerprint:
            raise WeightsError(
                f"made with weights {header.fingerprint.hex()} of {header.model}, these are {self.fingerprint.hex()}"
            )
        if self.info.variable_rate and not self.info.qualities[0] <= header.quality <= self.info.qualities[-1]:
            raise CorruptError(f"quality {header.quality:g} is none of {header.model}'s; the file is damaged")
        grid, q = self._grid(header), self._tensor(header.quality)
        left, top = self._corner(header.width, header.height, grid)
        pixels = self._synthesise(self._decode_latents(parsed, grid, q), grid, q)
        pixels = pixels[top : top + header.height, left : left + header.width]
        if header.grey:
            pixels = np.rint(pixels.astype(np.float32).mean(2)).astype(np.uint8)
        picture = Picture(np.ascontiguousarray(pixels))
        for kind, name in METADATA.items():
            setattr(picture, name, parsed.metadata.get(kind))
        if ALPHA in parsed.metadata:
            try:
                picture.alpha = imaging.alpha_from_bytes(parsed.metadata[ALPHA], picture.size)
            except InputError as error:
                raise CorruptError(str(error)) from None
        return picture

    def _decode_latents(self, parsed: Container, grid: Grid, q: Tensor) -> Tensor:
        stride = self.model.latent_stride
        y_hat = torch.empty(1, self.model.latent_channels, grid.height // stride, grid.width // stride)
        for box, payload in zip(grid.boxes(), parsed.tiles, strict=True):
            z_shape = (1, self.model.hyper_channels, box.height // 64, box.width // 64)
            try:
                part = decode_latent(self.model, self.tables, payload, z_shape, q)
            except CorruptError as error:
                raise CorruptError(f"tile at {box.left},{box.top}: {error}") from None
            y_hat[(..., *box.scaled(stride).slices())] = part.float().cpu()
        return y_hat

    def _synthesise(self, y_hat: Tensor, grid: Grid, q: Tensor) -> np.ndarray:
        pixels = np.empty((grid.height, grid.width, 3), np.uint8)
        for box in grid.boxes():
            seen = grid.grown(box)
            part = y_hat[(..., *seen.scaled(self.model.latent_stride).slices())].to(self.device)
            x = self.model.synthesise(part.contiguous(memory_format=torch.channels_last), q)
            x = x[(0, ..., *box.within(seen).slices())]
            pixels[box.slices()] = x.float().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
        return pixels


def pick_device(name: str = "auto") -> torch.device:
    """`auto`, `cpu` or `cuda[:N]`. Raises UsageError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name!r} is not there (CUDA devices found: {torch.cuda.device_count()})")
    return device


@functools.lru_cache(maxsize=2)
def _load(path: Path, stamp: int, device: str) -> Codec:
    return Codec(path, pick_device(device))


def load(path: Path, device: str = "auto") -> Codec:
    """A codec from a weights file; loading the same file again costs nothing."""
    try:
        stamp = path.stat().st_mtime_ns
    except OSError:
        raise WeightsError(f"{path}: no such file; see `licodec models` for the weights there are") from None
    return _load(path.resolve(), stamp, device)


def for_model(name: str, quality: float | None, weights: Path | None = None, device: str = "auto") -> Codec:
    """The codec that `encode -m name -q quality` uses. Raises UsageError, WeightsError."""
    info = model_info(name)
    codec = load(weights or store.find(info, quality), device)
    if codec.info.name != name:
        raise UsageError(f"{weights} holds weights of {codec.info.name}, not of {name}; say -m {codec.info.name}")
    return codec


def for_header(header: Header, weights: Path | None = None, device: str = "auto") -> Codec:
    """The codec that a file needs. Raises WeightsError if its weights are not here."""
    return load(weights or store.find_fingerprint(header), device)

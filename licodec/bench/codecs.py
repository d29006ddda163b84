"""What can be measured: our models, the codecs that Pillow can write and read, and any pair of commands."""

from __future__ import annotations

import functools
import hashlib
import io
import re
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import PIL
from PIL import Image, features

from licodec import codec, container, imaging
from licodec.errors import InputError, UsageError
from licodec.models import model_info
from licodec.weights import file as weights_file
from licodec.weights import store

COMMAND_SECONDS = 3600


class Measured(Protocol):
    """A codec at one setting.

    Attributes:
        name: of the curve it is a point of.
        setting: its quality, as the codec counts it.
        identity: one word that changes whenever its output might: weights, library version.
        in_process: whether its memory is this process's.
    """

    name: str
    setting: float
    identity: str
    in_process: bool

    def encode(self, pixels: np.ndarray) -> tuple[bytes, float | None]:
        """The file of a picture, uint8 [H, W, 3], and the bits an ideal coder would need, where that is known."""

    def decode(self, data: bytes) -> np.ndarray:
        """The picture of a file, uint8 [H, W, 3]."""

    def near(self, pixels: np.ndarray, size: int) -> tuple[float, bytes] | None:
        """Setting and file that come closest to a size in bytes; None if it has no finer settings."""


def _closest(encode: Callable[[int], bytes], low: int, high: int, size: int) -> tuple[int, bytes]:
    """The step in [low, high] whose file is closest to `size`; sizes grow with the step."""
    tried: dict[int, bytes] = {}
    while low <= high:
        middle = (low + high) // 2
        tried[middle] = encode(middle)
        if len(tried[middle]) <= size:
            low = middle + 1
        else:
            high = middle - 1
    return min(tried.items(), key=lambda item: abs(len(item[1]) - size))


@dataclass
class Model:
    """One of our models at a quality, loaded when first used."""

    name: str
    setting: float
    device: str
    precision: str = "float32"
    in_process = True

    def __post_init__(self) -> None:
        self.path = store.find(model_info(self.name), self.setting)
        self.identity = weights_file.read_header(self.path).fingerprint.hex()
        if self.precision != "float32":
            self.identity += f"-{self.precision}"

    @property
    def codec(self) -> codec.Codec:
        """The loaded codec; `load` keeps the last ones, so a long list of models does not fill the memory."""
        return codec.load(self.path, self.device, self.precision)

    def encode(self, pixels: np.ndarray) -> tuple[bytes, float | None]:
        encoded = self.codec.encode(imaging.Picture(pixels), self.setting)
        return encoded.data, encoded.ideal_bits

    def decode(self, data: bytes) -> np.ndarray:
        return self.codec.decode(container.read(data)).pixels

    def near(self, pixels: np.ndarray, size: int) -> tuple[float, bytes] | None:
        info = model_info(self.name)
        if not info.variable_rate:
            return None
        picture, low, high = imaging.Picture(pixels), info.qualities[0] * 20, info.qualities[-1] * 20
        step, data = _closest(lambda step: self.codec.encode(picture, step / 20).data, low, high, size)
        return step / 20, data


@dataclass(frozen=True)
class Format:
    """A format that Pillow writes.

    Attributes:
        knob: from a setting to Pillow's options.
        settings: what is measured, about 0.1 to 2 bits per pixel on photographs.
        steps: all settings, in order of growing size.
        needs: a feature of Pillow.
        plugin: a module that adds the format to Pillow, and the extra that brings it.
    """

    name: str
    knob: Callable[[float], dict[str, object]]
    settings: tuple[float, ...]
    steps: tuple[float, ...]
    options: dict[str, object]
    needs: str | None = None
    plugin: tuple[str, str] | None = None


def _quality(value: float) -> dict[str, object]:
    return {"quality": int(value)}


def _rates(value: float) -> dict[str, object]:
    return {"quality_mode": "rates", "quality_layers": [value]}


_WHOLE = tuple(float(q) for q in range(1, 100))
_FALLING = tuple(round(400 * 0.975**i, 2) for i in range(190))

# Effort is each format's usual best.
FORMATS = {
    "jpeg": Format(
        "JPEG", _quality, (10, 15, 20, 30, 40, 50, 60, 70, 80, 90), _WHOLE[:95], {"optimize": True, "subsampling": 2}
    ),
    "webp": Format("WEBP", _quality, (1, 5, 10, 20, 30, 45, 60, 75, 85, 92), _WHOLE, {"method": 6}, "webp"),
    "avif": Format("AVIF", _quality, (10, 20, 30, 40, 50, 60, 70, 80), _WHOLE, {"speed": 4}, "avif"),
    "jxl": Format("JXL", _quality, (10, 20, 30, 40, 50, 60, 70, 80, 90), _WHOLE, {"effort": 7},
                  plugin=("pillow_jxl", "licodec[jxl]")),
    "jpeg2000": Format(
        "JPEG2000", _rates, (150, 100, 70, 50, 35, 25, 17, 12), _FALLING, {"irreversible": True, "mct": 1}, "jpg_2000"
    ),
}  # fmt: skip


@dataclass
class Rival:
    """A format that Pillow writes, at a setting."""

    name: str
    setting: float
    format: Format
    in_process = True

    def __post_init__(self) -> None:
        version = PIL.__version__
        if self.format.plugin:
            import importlib.metadata

            version += "+" + importlib.metadata.version(self.format.plugin[0].replace("_jxl", "-jxl-plugin"))
        options = sorted((self.format.options | self.format.knob(self.setting)).items())
        self.identity = f"Pillow-{version}-{options}".replace(" ", "")

    def _encode(self, pixels: np.ndarray, setting: float) -> bytes:
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, self.format.name, **self.format.options, **self.format.knob(setting))
        return out.getvalue()

    def encode(self, pixels: np.ndarray) -> tuple[bytes, float | None]:
        return self._encode(pixels, self.setting), None

    def decode(self, data: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))

    def near(self, pixels: np.ndarray, size: int) -> tuple[float, bytes] | None:
        steps = self.format.steps
        step, data = _closest(lambda step: self._encode(pixels, steps[step]), 0, len(steps) - 1, size)
        return steps[step], data


_FIELD = re.compile(r"\{(in|out|q)(\.\w+)?\}")


@dataclass
class Command:
    """A codec that is a command, at a setting: see `parse_command`.

    Its times include the start of the process.
    """

    name: str
    setting: float
    encoder: list[str]
    decoder: list[str]
    in_process = False

    def __post_init__(self) -> None:
        words = shlex.join([*self.encoder, "=>", *self.decoder])
        self.identity = hashlib.sha256(words.encode()).hexdigest()[:16]

    def _run(self, words: list[str], given: bytes | np.ndarray, suffixes: tuple[str, str]) -> bytes:
        with tempfile.TemporaryDirectory(prefix="licodec-") as folder:
            names: dict[str, str] = {"q": f"{self.setting:g}"}

            def fill(match: re.Match[str]) -> str:
                key, ending = match[1], match[2]
                if key == "q":
                    return names["q"]
                return names.setdefault(key, str(Path(folder, key + (ending or suffixes[key == "out"]))))

            call = [_FIELD.sub(fill, word) for word in words]
            source, target = Path(names["in"]), Path(names["out"])
            if isinstance(given, bytes):
                source.write_bytes(given)
            else:
                Image.fromarray(given).save(source)
            try:
                done = subprocess.run(call, capture_output=True, timeout=COMMAND_SECONDS, cwd=folder)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise UsageError(f"{self.name}: {call[0]} cannot be run ({error})") from None
            if done.returncode or not target.exists():
                said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
                last = said[-1][:200] if said else "it said nothing"
                raise InputError(f"{self.name} at {self.setting:g}: {call[0]} failed with {done.returncode}: {last}")
            return target.read_bytes()

    def encode(self, pixels: np.ndarray) -> tuple[bytes, float | None]:
        return self._run(self.encoder, pixels, (".png", self._coded)), None

    @property
    def _coded(self) -> str:
        """The coded file's ending, which the decoder sees too."""
        endings = [m[2] for word in self.encoder for m in _FIELD.finditer(word) if m[1] == "out" and m[2]]
        return endings[0] if endings else ".bin"

    def decode(self, data: bytes) -> np.ndarray:
        if self.decoder:
            data = self._run(self.decoder, data, (self._coded, ".png"))
        try:
            with Image.open(io.BytesIO(data)) as image:
                return np.asarray(image.convert("RGB"))
        except OSError as error:
            how = "its output" if self.decoder else "the coded file, and no decoder is given after =>"
            raise InputError(f"{self.name}: Pillow cannot read {how} ({error})") from None

    def near(self, pixels: np.ndarray, size: int) -> tuple[float, bytes] | None:
        return None


def parse_command(text: str) -> list[Command]:
    """`NAME@Q,Q,...: ENCODER => DECODER` -> a codec a setting. Raises UsageError.

    The encoder has {in}, the picture (PNG, or as in {in.ppm}), {out}, the coded
    file, and {q}, the setting; the decoder {in}, the coded file, and {out}, the
    picture. Without a decoder Pillow must be able to read the coded file.
    No shell is involved.
    """
    head, _, commands = text.partition(":")
    name, _, numbers = head.partition("@")
    encoder, _, decoder = commands.partition("=>")
    try:
        settings = [float(part) for part in numbers.split(",")] if numbers.strip() else []
        calls = [shlex.split(encoder), shlex.split(decoder)]
    except ValueError as error:
        raise UsageError(f"--against {text!r}: {error}") from None
    for call in calls if decoder.strip() else calls[:1]:
        if not {"in", "out"} <= {m[1] for word in call for m in _FIELD.finditer(word)}:
            raise UsageError(f"--against {text!r}: each command needs {{in}} and {{out}}")
    if not re.fullmatch(r"[\w.+-]{1,30}", name.strip()):
        raise UsageError(f"--against {text!r}: {name!r} is no name of letters, digits and .+-_")
    if ("{q}" in encoder) != bool(settings):
        raise UsageError(f"--against {text!r}: say which values {{q}} shall take, NAME@20,30,40: ...")
    return [Command(name.strip(), setting, *calls) for setting in settings or [0.0]]


def models(names: list[str], qualities: list[float], device: str, precision: str = "float32") -> Iterator[Model]:
    """All of our codecs to measure; a fixed-rate model at those qualities that it has.

    Raises UsageError, WeightsError.
    """
    for name in names:
        info = model_info(name)
        own = [q for q in qualities if info.variable_rate or q in info.qualities]
        if not own:
            raise UsageError(f"{name} has none of the qualities asked for; it has {info.qualities}")
        for quality in own:
            yield Model(name, quality, device, precision)


def rivals(against: list[str]) -> Iterator[Rival | Command]:
    """All points of the formats and commands given with --against. Raises UsageError."""
    for text in against:
        if "{in" in text:
            yield from parse_command(text)
            continue
        for name in (part.strip() for part in text.split(",") if part.strip()):
            if name not in FORMATS:
                raise UsageError(f"unknown rival {name!r}; known: {', '.join(FORMATS)}, and 'NAME@Q,Q: COMMAND'")
            _load_plugin(name)
            for setting in FORMATS[name].settings:
                yield Rival(name, setting, FORMATS[name])


@functools.cache
def _load_plugin(name: str) -> None:
    chosen = FORMATS[name]
    if chosen.needs and not features.check(chosen.needs):
        raise UsageError(f"this Pillow cannot do {name}; install a build that can")
    if chosen.plugin:
        import importlib

        try:
            importlib.import_module(chosen.plugin[0])
        except ImportError:
            raise UsageError(f"{name} needs a plugin of Pillow's: pip install '{chosen.plugin[1]}'") from None

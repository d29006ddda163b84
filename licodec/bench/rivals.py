"""The codecs that Pillow can write and read, plain and tuned, as rivals."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import PIL
from PIL import Image, features

from licodec.bench.codecs import closest
from licodec.bench.commands import Command, parse_command
from licodec.errors import UsageError


@dataclass(frozen=True)
class Format:
    """A format that Pillow writes.

    Attributes:
        knob: from a setting to Pillow's options.
        settings: what is measured, about 0.1 to 2 bits per pixel on photographs.
        steps: all settings, in order of growing size.
        needs: a feature of Pillow.
        plugin: a module that adds the format to Pillow, and the extra that brings it.
        tunings: what --against may change, and the values there are.
        threads: module and name of the decoder's number of threads, and the encoder's option.
    """

    name: str
    knob: Callable[[float], dict[str, object]]
    settings: tuple[float, ...]
    steps: tuple[float, ...]
    options: dict[str, object]
    needs: str | None = None
    plugin: tuple[str, str] | None = None
    tunings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    threads: tuple[str, str, str] | None = None


def _quality(value: float) -> dict[str, object]:
    return {"quality": int(value)}


def _rates(value: float) -> dict[str, object]:
    return {"quality_mode": "rates", "quality_layers": [value]}


_WHOLE = tuple(float(q) for q in range(1, 100))
_FALLING = tuple(round(400 * 0.975**i, 2) for i in range(190))

_SUBSAMPLING = ("4:4:4", "4:2:2", "4:2:0")


def _numbers(low: int, high: int) -> tuple[str, ...]:
    return tuple(str(n) for n in range(low, high + 1))


# Effort is each format's usual best.
FORMATS = {
    "jpeg": Format(
        "JPEG", _quality, (10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 95), _WHOLE[:95],
        {"optimize": True, "subsampling": "4:2:0"}, tunings={"subsampling": _SUBSAMPLING, "progressive": ("0", "1")},
    ),
    "webp": Format(
        "WEBP", _quality, (1, 5, 10, 20, 30, 45, 60, 75, 85, 92), _WHOLE, {"method": 6}, "webp",
        tunings={"method": _numbers(0, 6)},
    ),
    "avif": Format(
        "AVIF", _quality, (10, 20, 30, 40, 50, 60, 70, 80, 85, 90), _WHOLE, {"speed": 4}, "avif",
        tunings={
            "speed": _numbers(0, 10), "subsampling": _SUBSAMPLING, "tune": ("psnr", "ssim", "iq", "ssimulacra2"),
        },
        threads=("PIL.AvifImagePlugin", "DEFAULT_MAX_THREADS", "max_threads"),
    ),
    "jxl": Format(
        "JXL", _quality, (10, 20, 30, 40, 50, 60, 70, 80, 90, 95), _WHOLE, {"effort": 7},
        plugin=("pillow_jxl", "licodec[jxl]"),
        tunings={"effort": _numbers(1, 10), "decoding_speed": _numbers(0, 4)},
        threads=("pillow_jxl.JpegXLImagePlugin", "DECODE_THREADS", "num_threads"),
    ),
    "jpeg2000": Format(
        "JPEG2000", _rates, (150, 100, 70, 50, 35, 25, 17, 12, 8), _FALLING,
        {"irreversible": True, "mct": 1},  # without mct Pillow leaves the colour transform out
        "jpg_2000",
    ),
}  # fmt: skip


@dataclass
class Rival:
    """A format that Pillow writes, at a setting; `options` are the format's own and the tuning."""

    name: str
    setting: float
    format: Format
    options: dict[str, object]
    in_process = True

    def __post_init__(self) -> None:
        version = PIL.__version__
        if self.format.plugin:
            import importlib.metadata

            version += "+" + importlib.metadata.version(self.format.plugin[0].replace("_jxl", "-jxl-plugin"))
        options = sorted((self.options | self.format.knob(self.setting)).items())
        self.identity = f"Pillow-{version}-{options}".replace(" ", "")

    def _encode(self, pixels: np.ndarray, setting: float) -> bytes:
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, self.format.name, **self.options, **self.format.knob(setting))
        return out.getvalue()

    def encode(self, pixels: np.ndarray) -> tuple[bytes, float | None]:
        return self._encode(pixels, self.setting), None

    def decode(self, data: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))

    def near(self, pixels: np.ndarray, size: int) -> tuple[float, bytes] | None:
        steps = self.format.steps
        step, data = closest(lambda step: self._encode(pixels, steps[step]), 0, len(steps) - 1, size)
        return steps[step], data


def split(text: str) -> list[str]:
    """`jpeg,avif:tune=psnr,speed=2,jxl` -> three names: after a colon, KEY=VALUE goes on with the name before it."""
    names: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if names and ":" in names[-1] and re.match(r"\w+=", part):
            names[-1] += f",{part}"
        elif part:
            names.append(part)
    return names


def rivals(against: list[str], threads: int = 0) -> Iterator[Rival | Command]:
    """All points of the formats and commands given with --against. Raises UsageError.

    Formats use `threads` CPU threads, 0 for what Pillow takes: all. It takes one for those without the choice.
    """
    for text in against:
        if "{in" in text:
            yield from parse_command(text)
            continue
        for name in split(text):
            kind, colon, tuning = name.partition(":")
            if kind not in FORMATS:
                raise UsageError(f"unknown rival {name!r}; known: {', '.join(FORMATS)}, and 'NAME@Q,Q: COMMAND'")
            _load_plugin(kind)
            options = FORMATS[kind].options | (_tuned(kind, tuning) if colon else {}) | _threads(kind, threads)
            points = [Rival(name, setting, FORMATS[kind], options) for setting in FORMATS[kind].settings]
            _try(points[0])
            yield from points


def _tuned(kind: str, tuning: str) -> dict[str, object]:
    """`tune=psnr,speed=2` -> Pillow's options. Raises UsageError."""
    known = FORMATS[kind].tunings
    options: dict[str, object] = {}
    for part in tuning.split(","):
        key, _, value = part.partition("=")
        if key not in known:
            there = ", ".join(known) or "nothing"
            raise UsageError(f"--against {kind}:{part}: {kind} has no {key!r} to tune; it has {there}")
        if value not in known[key]:
            raise UsageError(f"--against {kind}:{part}: {key} is one of {', '.join(known[key])}")
        if key == "tune":  # an option of the encoder inside, libaom
            options["advanced"] = {"tune": value}
        else:
            options[key] = int(value) if value.isdigit() else value
    return options


def _threads(kind: str, count: int) -> dict[str, object]:
    """Pillow's option for an encoder's threads; a decoder's are the process's."""
    place = FORMATS[kind].threads
    if not count or place is None:
        return {}
    import importlib

    setattr(importlib.import_module(place[0]), place[1], count)
    return {place[2]: count}


def _try(rival: Rival) -> None:
    """Whether this build of Pillow knows the tuning. Raises UsageError."""
    try:
        rival.encode(np.zeros((16, 16, 3), np.uint8))
    except (OSError, ValueError) as error:
        raise UsageError(f"{rival.name}: this build of Pillow cannot write it ({error})") from None


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

"""Any pair of commands as a rival."""

from __future__ import annotations

import hashlib
import io
import re
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from licodec.errors import InputError, UsageError

COMMAND_SECONDS = 3600
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
    """`NAME@Q,Q,...: ENCODER => DECODER` -> one codec per setting. Raises UsageError.

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

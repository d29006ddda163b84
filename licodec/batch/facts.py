"""What is told of a file once it is done: to people in a line, to programs as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(kw_only=True)
class Facts:
    """Of any job; tasks derive their own.

    Attributes:
        line: for people.
        warnings: one line each; None where there are none to speak of.
    """

    line: str = ""
    warnings: list[str] | None = None

    def document(self) -> dict[str, Any]:
        """What `--json` prints: the other attributes, but for those that are None."""
        return {key: value for key, value in vars(self).items() if key != "line" and value is not None}


@dataclass(kw_only=True)
class LicFacts(Facts):
    """Of a .lic that was made or read: sides in pixels, `bytes` of the file."""

    width: int
    height: int
    model: str
    quality: float
    bytes: int

    @property
    def bytes_in(self) -> int:
        return self.bytes

    @property
    def bytes_out(self) -> int:
        return self.bytes


@dataclass(kw_only=True)
class EncodeFacts(LicFacts):
    """Of a picture that was coded.

    Attributes:
        bpp: bits per pixel.
        source_bytes: of the picture's file.
        psnr: in dB, if it was verified.
        ideal_bits: what an ideal coder would need, if developers asked.
        deleted: the original was removed.
    """

    bpp: float
    source_bytes: int
    psnr: float | None = None
    ideal_bits: float | None = None
    deleted: bool | None = None

    @property
    def bytes_in(self) -> int:
        return self.source_bytes


@dataclass(kw_only=True)
class DecodeFacts(LicFacts):
    """Of a .lic that was decoded, to a file of `output_bytes`; sides are those of the part that was asked for."""

    output_bytes: int

    @property
    def bytes_out(self) -> int:
        return self.output_bytes


@dataclass(kw_only=True)
class VerifyFacts(LicFacts):
    """Of a .lic that is good; `weights` is their fingerprint, `checked` is "checksums" or "decoded"."""

    weights: str
    checked: str

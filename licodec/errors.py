"""Errors that a user can do something about. Each has the exit code the command line ends with.

LicodecError            1   base; also: a bug
|-- InputError          1   an input cannot be read, or an output cannot be written
|-- UsageError          2   the call makes no sense
|-- FormatError         3   not a .lic file, or of a version that this licodec does not know
|-- CorruptError        4   a damaged file, or a decoder out of step with the encoder
|-- WeightsError        5   weights are missing, damaged, or other ones
`-- OutOfMemoryError    6   memory does not suffice

Messages name arguments of functions in `backticks`; the command line says its options in their place.
"""

from __future__ import annotations

import re

__all__ = [
    "CorruptError",
    "FormatError",
    "InputError",
    "LicodecError",
    "OutOfMemoryError",
    "UsageError",
    "WeightsError",
]


class LicodecError(Exception):
    """Base. The message says what is wrong and what to do, in one line."""

    exit_code = 1


class InputError(LicodecError):
    """An input cannot be read, or an output cannot be written."""


class UsageError(LicodecError):
    """The call makes no sense: an unknown model, a quality out of range, clashing options."""

    exit_code = 2


class FormatError(LicodecError):
    """Not a .lic file, or one of a version or with parts that this licodec does not know."""

    exit_code = 3


class CorruptError(LicodecError):
    """A damaged or truncated .lic file, or a decoder that is out of step with the encoder."""

    exit_code = 4


class WeightsError(LicodecError):
    """Weights are missing, damaged, or not the ones a file was made with."""

    exit_code = 5


class OutOfMemoryError(LicodecError):
    """Memory, of the machine or of the GPU, does not suffice."""

    exit_code = 6


def with_options(message: str) -> str:
    """A message in one line, as the command line says it: its option --max-tile for the argument `max_tile`."""
    named = re.sub(r"`([a-z][a-z0-9_]*)`", lambda found: "--" + found[1].replace("_", "-"), message)
    return " ".join(named.split())


def as_ours(error: Exception) -> LicodecError:
    """Any exception as one with an exit code and a line; an unforeseen one is called a bug."""
    if isinstance(error, LicodecError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemoryError("memory does not suffice")
    ours = LicodecError(f"a bug in licodec: {type(error).__name__}: {error}; run again with -vv and report it")
    ours.__cause__ = error
    return ours

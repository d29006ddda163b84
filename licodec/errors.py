"""Errors that a user can do something about. Each has the exit code the command line ends with."""


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

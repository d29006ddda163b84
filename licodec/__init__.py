"""licodec: photographs compressed with neural networks.

import licodec
data = licodec.encode(image, quality=4)     # a Pillow picture, an array or a file -> bytes of a .lic file
image = licodec.decode(data)                # and back
lite = licodec.load("lite")                 # a codec to use often: lite.encode(image), lite.decode(data)
licodec.info(data)                          # what the header says
licodec.models()                            # the models there are, and where their weights are
licodec.errors                              # what can go wrong
"""

import importlib
from typing import TYPE_CHECKING

from licodec import errors
from licodec.api import Codec, decode, decode_array, encode, info, load

if TYPE_CHECKING:
    from licodec.models import ModelsPackage

    models: ModelsPackage

__version__ = "0.1.0"
__all__ = ["Codec", "__version__", "decode", "decode_array", "encode", "errors", "info", "load", "models"]


def __getattr__(name: str) -> object:
    if name == "models":  # a package that can be called, see there
        return importlib.import_module("licodec.models")
    raise AttributeError(f"module 'licodec' has no attribute {name!r}")

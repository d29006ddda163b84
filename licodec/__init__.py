"""licodec: photographs compressed with neural networks.

import licodec
data = licodec.encode(image, quality=4)     # a Pillow picture -> bytes of a .lic file
image = licodec.decode(data)                # and back
licodec.info(data)                          # what the header says; needs no torch
"""

from licodec.api import decode, decode_array, encode, info

__version__ = "0.1.0"
__all__ = ["__version__", "decode", "decode_array", "encode", "info"]

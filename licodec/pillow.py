"""Pillow plugin: after `import licodec.pillow`, Pillow opens and saves .lic files.

    import licodec.pillow
    from PIL import Image

    Image.open("photo.lic").show()
    Image.open("photo.png").save("photo.lic", quality=5)

Opening reads the header only; pixels are decoded when they are first needed.
`save` takes the keyword arguments of `licodec.encode`.
"""

from __future__ import annotations

from typing import IO, Any

from PIL import Image, ImageFile

from licodec import api, container
from licodec.errors import LicodecError

FORMAT = "LIC"


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(container.MAGIC)


class LicImageFile(ImageFile.ImageFile):
    """A .lic file as Pillow sees it."""

    format = FORMAT
    format_description = "licodec neural image"

    def _open(self) -> None:
        assert self.fp is not None  # Pillow has just opened it
        try:
            self.lic = self.fp.read()
            facts = api.info(self.lic)
        except LicodecError as error:
            raise SyntaxError(str(error)) from None
        grey16 = facts["bit_depth"] == 16 and facts["channels"] == "L"
        self._mode = "I;16" if grey16 else facts["channels"]
        self._size = facts["width"], facts["height"]
        self.info["lic"] = facts
        self.tile = []

    def load(self) -> Any:
        if self.lic:
            try:
                decoded = api.decode(self.lic)
            except LicodecError as error:
                raise OSError(str(error)) from None
            self.lic = b""
            self.im = decoded.im
            self.info.update(decoded.info)
        return super().load()


def _save(image: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    options = {k: v for k, v in image.encoderinfo.items() if k in ("model", "quality", "weights", "device", "strip")}
    try:
        fp.write(api.encode(image, **options))
    except LicodecError as error:
        raise OSError(str(error)) from None


Image.register_open(FORMAT, LicImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, ".lic")
Image.register_mime(FORMAT, "image/x-lic")

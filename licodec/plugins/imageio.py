"""imageio plugin: after `import licodec.plugins.imageio`, imageio reads and writes .lic files.

    import imageio.v3 as iio
    import licodec.plugins.imageio

    array = iio.imread("photo.lic")
    iio.imwrite("photo.lic", array, quality=5)

Arrays are uint8 or uint16, [H, W] or [H, W, 3], and [H, W, 2] or [H, W, 4] with alpha. imageio
looks for no entry points, hence the import; `iio.imread(file, plugin=LicPlugin)` does without.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from imageio.config import FileExtension, known_extensions, known_plugins
from imageio.config.plugins import PluginConfig
from imageio.core.request import URI_BYTES, InitializationError, IOMode, Request
from imageio.core.v3_plugin_api import ImageProperties, PluginV3

from licodec import api, codec, container
from licodec.inputs.arrays import array_of, picture_of


class LicPlugin(PluginV3):
    """Reads and writes one picture."""

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        if request.mode.io_mode == IOMode.read:
            self.data = request.get_file().read()
            if not self.data.startswith(container.MAGIC):
                raise InitializationError("not a .lic file")
        elif request.extension != ".lic":
            raise InitializationError("licodec writes .lic files only")

    def read(self, *, index: Any = 0) -> np.ndarray:
        """The picture; index ... gives it with a first axis of one."""
        if index not in (0, None, ...):
            raise IndexError(f"a .lic has one picture, not number {index}")
        parsed = container.read(self.data)
        array = array_of(codec.for_header(parsed.header).decode(parsed))
        return array[None] if index is ... else array

    def iter(self) -> Iterator[np.ndarray]:
        yield self.read()

    def write(self, ndimage: Any, *, model: str | None = None, quality: float | None = None) -> bytes | None:
        """Code one picture, quality as in `licodec.encode`. Raises UsageError, WeightsError."""
        chosen = codec.for_model(model, quality)
        file = self.request.get_file()
        file.write(chosen.encode(picture_of(np.asarray(ndimage)), quality).data)
        if self.request._uri_type != URI_BYTES:  # as imageio's own plugins do
            return None
        assert isinstance(file, io.BytesIO)
        return file.getvalue()

    def properties(self, index: int = 0) -> ImageProperties:
        facts = api.info(self.data)
        channels = len(facts["channels"])
        shape = (facts["height"], facts["width"]) + ((channels,) if channels > 1 else ())
        return ImageProperties(shape, np.dtype(f"uint{facts['bit_depth']}"), n_images=1)

    def metadata(self, index: int = 0, exclude_applied: bool = True) -> dict[str, Any]:
        """What `licodec info` shows."""
        return dict(api.info(self.data))


known_plugins["licodec"] = PluginConfig(name="licodec", class_name="LicPlugin", module_name=__name__)
known_extensions[".lic"] = [FileExtension(extension=".lic", name="licodec neural image", priority=["licodec"])]

"""Files of every version and kind decode for ever, to the pictures they were made with."""

import numpy as np
import pytest
from conftest import GOLDEN
from PIL import Image

from licodec import codec, container

FILES = sorted(GOLDEN.glob("*.lic"))


def test_they_are_here():
    assert len(FILES) >= 3


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_golden_file(path):
    weights = path.with_suffix(".safetensors")
    parsed = container.read(path.read_bytes())
    chosen = codec.for_header(parsed.header, weights if weights.exists() else None, "cpu")
    decoded = chosen.decode(parsed).to_pil()
    with Image.open(path.with_suffix(".png")) as expected:
        assert decoded.mode == expected.mode and decoded.size == expected.size
        assert np.abs(np.asarray(decoded, int) - np.asarray(expected, int)).max() <= 1


def test_golden_metadata():
    picture = codec.for_model("lite", 4, device="cpu").decode(
        container.read((GOLDEN / "lite-1-tiled.lic").read_bytes())
    )
    assert (picture.icc, picture.exif, picture.xmp) == (b"profile", b"Exif\0\0", b"<x/>")

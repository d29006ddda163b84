"""Files of every version and kind decode for ever, to the pictures they were made with."""

import numpy as np
import pytest
from conftest import GOLDEN
from golden import formula

from licodec import codec, container, imaging

FILES = sorted(GOLDEN.glob("*.lic"))


def test_they_are_here():
    assert len(FILES) >= 3


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_golden_file(path, tmp_path):
    weights = path.with_suffix(".safetensors")
    if path.with_suffix(".recipe").exists():
        weights = formula.weights(path.stem, tmp_path / "weights.safetensors")
    parsed = container.read(path.read_bytes())
    chosen = codec.for_header(parsed.header, weights if weights.exists() else None, "cpu")
    decoded, expected = chosen.decode(parsed), imaging.read(path.with_suffix(".png"))
    assert decoded.pixels.dtype == expected.pixels.dtype and decoded.pixels.shape == expected.pixels.shape
    level = 257 if decoded.bit_depth == 16 else 1  # of 8 bits
    assert np.abs(decoded.pixels.astype(int) - expected.pixels).max() <= level
    assert (decoded.alpha is None) == (expected.alpha is None)
    assert decoded.alpha is None or (decoded.alpha == expected.alpha).all()


def test_golden_metadata():
    parsed = container.read((GOLDEN / "lite-tiled.lic").read_bytes())
    picture = codec.for_header(parsed.header, None, "cpu").decode(parsed)
    assert (picture.icc, picture.exif, picture.xmp) == (b"profile", b"Exif\0\0", b"<x/>")

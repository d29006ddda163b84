"""The plugins, each through its host."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from conftest import render

from licodec.errors import UsageError


def near(a: np.ndarray, b: np.ndarray, levels: float = 6) -> bool:
    """Whether two pictures are the same but for the loss of coding: mean difference in levels of 8 bits."""
    scale = 257 if a.dtype == np.uint16 else 1
    return a.shape == b.shape and a.dtype == b.dtype and np.abs(a.astype(float) - b).mean() / scale < levels


def test_imageio_reads_and_writes(tmp_path):
    iio = pytest.importorskip("imageio.v3")
    import licodec.plugins.imageio

    picture = render(90, 70)
    path = tmp_path / "x.lic"
    alpha = np.dstack([picture, np.linspace(0, 255, 90 * 70).reshape(70, 90).astype(np.uint8)])
    for array in (picture, picture[:, :, 0], alpha, alpha[:, :, 2:], picture.astype(np.uint16) * 257):
        iio.imwrite(path, array, quality=7)
        assert near(iio.imread(path), array)
        facts = iio.improps(path)
        assert facts.shape == array.shape and facts.dtype == array.dtype
    assert (iio.imread(path, index=...)[0] == iio.imread(path)).all()
    assert iio.immeta(path)["quality"] == 7
    assert iio.imread(path.read_bytes(), plugin=licodec.plugins.imageio.LicPlugin).shape == picture.shape
    coded = iio.imwrite("<bytes>", picture, extension=".lic", quality=7)
    assert near(iio.imread(coded, extension=".lic"), picture)
    iio.imwrite(tmp_path / "x.png", picture)  # other formats are as they were
    assert (iio.imread(tmp_path / "x.png") == picture).all()


def cells(size: int, bits: int) -> np.ndarray:
    """A picture as a microscope takes it: bright round cells on a dark, noisy ground."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:size, :size]
    picture = rng.normal(0.05, 0.01, (size, size))
    for _ in range(30):
        (y, x), r = rng.uniform(0, size, 2), rng.uniform(4, 12)
        picture += 0.6 * np.exp(-(((row - y) ** 2 + (column - x) ** 2) / (2 * r * r)))
    return (np.clip(picture, 0, 1) * ((1 << bits) - 1)).astype(f"uint{bits}")


@pytest.mark.parametrize(("bits", "channels"), [(8, 0), (16, 1), (8, 3), (16, 3), (8, 4)])
def test_zarr_array(tmp_path, bits, channels):
    zarr = pytest.importorskip("zarr")
    from numcodecs.registry import get_codec, register_codec

    from licodec.plugins.numcodecs import Licodec

    register_codec(Licodec)  # the entry point, of which these tests have none, does this for an installed licodec
    data = cells(128, bits)
    if channels:
        data = np.stack([np.roll(data, 3 * c, 0) for c in range(channels)], 2)
    if channels == 4:
        data[:, :, 3] = np.iinfo(data.dtype).max  # opaque: must come back as four channels all the same
    chunks = (64, 64, *([channels] if channels else []))
    codec = get_codec({"id": "licodec", "quality": 8})
    array = zarr.create_array(tmp_path / "a.zarr", data=data, chunks=chunks, zarr_format=2, compressors=codec)
    again = zarr.open_array(tmp_path / "a.zarr", mode="r")
    assert near(again[:], data, 3)
    assert again.nbytes_stored() < array.nbytes / 5
    if channels == 4:
        assert (again[:, :, 3] == data[:, :, 3]).all()


def test_numcodecs_contract():
    pytest.importorskip("numcodecs")
    from licodec.plugins.numcodecs import Licodec

    codec = Licodec(quality=8)
    assert Licodec.from_config({k: v for k, v in codec.get_config().items() if k != "id"}) == codec
    chunk = cells(64, 8)
    coded = codec.encode(chunk[None, None])  # a chunk of a stack
    out = np.empty((1, 1, 64, 64), np.uint8)
    codec.decode(coded, out)
    assert (out[0, 0] == codec.decode(coded)).all() and near(out[0, 0], chunk, 3)
    for wrong in (chunk.astype(np.float32), chunk[0], np.zeros((8, 8, 2), np.uint8), np.zeros((2, 8, 8), np.uint8)):
        with pytest.raises(UsageError, match="uint16"):
            codec.encode(wrong)


def test_an_installed_licodec_is_found_by_numcodecs(tmp_path):
    """The entry point as pip writes it, beside the checkout."""
    pytest.importorskip("numcodecs")
    facts = tmp_path / "licodec-0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: licodec\nVersion: 0\n")
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    groups = project["entry-points"].items()
    lines = [f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in entries.items()) for group, entries in groups]
    (facts / "entry_points.txt").write_text("\n".join(lines))
    code = "import numcodecs; print(numcodecs.get_codec({'id': 'licodec', 'quality': 5}))"
    path = f"{tmp_path}:{Path(__file__).parents[1]}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path})
    assert "Licodec(model=None, quality=5)" in result.stdout, result.stderr

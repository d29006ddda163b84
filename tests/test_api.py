"""The Python interface: what it takes and gives, and the limits that a hostile file meets."""

import doctest
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import render
from PIL import Image

import licodec
from licodec import api, container
from licodec.errors import InputError, LicodecError, UsageError, WeightsError


@pytest.fixture(scope="module")
def tiny(tiny_weights):
    return licodec.load(weights=tiny_weights, device="cpu")


def test_the_examples_are_true():
    assert doctest.testmod(api).attempted >= 8 and doctest.testmod(api).failed == 0


@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_arrays_come_back_as_they_went(tiny, channels, dtype):
    array = render(90, 70).astype(dtype) * (257 if dtype == np.uint16 else 1)
    array = np.dstack([array, array[:, :, 0]])[:, :, : channels or 1]
    array = array[:, :, 0] if channels == 0 else array
    decoded = tiny.decode_array(tiny.encode(array, quality=8), alpha=True)
    assert decoded.dtype == dtype
    assert decoded.shape == ((70, 90) if channels == 1 else array.shape)
    error = np.abs(decoded.astype(float).reshape(array.shape) - array)
    assert error.mean() < 12 * np.iinfo(dtype).max / 255
    if channels in (2, 4):
        assert not error[:, :, -1].any()
        assert tiny.decode_array(tiny.encode(array)).shape == (70, 90, 3)[: 2 if channels == 2 else 3]


def test_paths_bytes_and_open_files_are_pictures_and_files(tiny, tmp_path):
    path, lic = tmp_path / "a.png", tmp_path / "a.lic"
    Image.fromarray(render(90, 70)).save(path)
    expected = tiny.encode(render(90, 70))
    with open(path, "rb") as file:
        assert {tiny.encode(given) for given in (path, str(path), path.read_bytes(), file, Image.open(path))} == {
            expected
        }
    lic.write_bytes(expected)
    pixels = tiny.decode(expected).tobytes()
    assert {tiny.decode(given).tobytes() for given in (lic, str(lic), io.BytesIO(expected))} == {pixels}
    for missing in (tmp_path / "none.png", tmp_path / "none.lic"):
        with pytest.raises(InputError):
            tiny.encode(missing)
        with pytest.raises(InputError):
            tiny.decode(missing)


@pytest.mark.parametrize(
    "array", [np.zeros((3, 3)), np.zeros((2, 2, 5), np.uint8), np.zeros((0, 2), np.uint8), np.zeros(4, np.uint8)]
)
def test_other_arrays_are_refused(tiny, array):
    with pytest.raises(UsageError, match="array"):
        tiny.encode(array)


def test_options_are_those_of_the_command_line(tiny):
    array = render(200, 130)
    full = tiny.encode(array, quality=8, verify=True)
    small = tiny.encode(array, target_size=len(full) // 2)
    assert len(small) <= len(full) // 2
    assert len(tiny.encode(array, target_bpp=4 * len(full) / array[:, :, 0].size)) <= len(full) // 2 + 1
    with pytest.raises(UsageError, match="exclude"):
        tiny.encode(array, quality=4, target_psnr=30)
    assert licodec.info(tiny.encode(array, tile=64))["tiles"] == 12
    assert tiny.decode(full, crop=(10, 20, 30, 40)).size == (30, 40)


def test_the_limits_hold_in_python_too(tiny):
    array = render(200, 130)
    data = tiny.encode(array)
    for limit in ({"max_pixels": 25_999}, {"max_side": 199}, {"max_tile": 100}):
        with pytest.raises(InputError):
            tiny.encode(array, **limit)
        with pytest.raises(InputError):
            tiny.decode(data, **limit)
    huge = container.write(container.Container(container.Header("lite", b"12345678", 4, 1 << 17, 1 << 17), {}, [b""]))
    with pytest.raises(InputError, match="pixels"):
        licodec.decode(huge)


def test_other_weights_are_refused(tiny):
    with pytest.raises(WeightsError):
        tiny.decode(licodec.load().encode(render(64, 64)))


def test_one_codec_serves_many_threads(tiny):
    pictures = [render(100 + 10 * i, 80, i) for i in range(8)]
    expected = [tiny.encode(picture, quality=5) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(lambda picture: tiny.encode(picture, quality=5), pictures))
        decoded = list(pool.map(tiny.decode_array, files))
    assert files == expected
    assert all((d == tiny.decode_array(f)).all() for d, f in zip(decoded, files, strict=True))


def test_models_lists_them_and_is_the_registry():
    program = (
        "import licodec; rows = licodec.models(); assert licodec.models.MODELS.keys() == {r['model'] for r in rows}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert issubclass(UsageError, LicodecError) and any(row["weights"] == "bundled" for row in licodec.models())

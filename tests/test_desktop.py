"""A clean user account: what `file`, `xdg-mime` and a file manager's thumbnailer make of a .lic."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import licodec, render
from PIL import Image


@pytest.fixture
def account(tmp_path) -> dict[str, str]:
    """The environment of a user who has nothing."""
    home = tmp_path / "home"
    home.mkdir()
    return {"HOME": str(home), "XDG_DATA_HOME": "", "XDG_CURRENT_DESKTOP": ""}


@pytest.fixture(scope="module")
def lic(tmp_path_factory) -> Path:
    """A .lic of 300x200."""
    folder = tmp_path_factory.mktemp("lic")
    Image.fromarray(render(300, 200)).save(folder / "a.png")
    assert licodec("encode", folder / "a.png").returncode == 0
    return folder / "a.lic"


def ask(env, *command) -> str:
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}).stdout.strip()


def test_install_and_uninstall(account, lic, tmp_path):
    home = Path(account["HOME"])
    (home / ".magic").write_text("0\tstring\tABCD\tmy own format\n")
    nameless = tmp_path / "nameless"
    shutil.copy(lic, nameless)
    result = licodec("desktop", "install", env=account)
    assert result.returncode == 0 and len(result.stdout.splitlines()) == 3, result.stderr
    assert licodec("desktop", "install", env=account).returncode == 0  # twice is once
    assert (home / ".magic").read_text().count("licodec: begin") == 1
    if shutil.which("file"):
        assert ask(account, "file", "-b", lic) == "licodec neural image, version 1"
        assert ask(account, "file", "-b", "--mime-type", nameless) == "image/x-lic"
        (tmp_path / "own").write_text("ABCD")
        assert ask(account, "file", "-b", tmp_path / "own") == "my own format"
    if shutil.which("xdg-mime") and shutil.which("update-mime-database"):
        assert ask(account, "xdg-mime", "query", "filetype", lic) == "image/x-lic"
    licodec("desktop", "uninstall", env=account)
    assert (home / ".magic").read_text() == "0\tstring\tABCD\tmy own format\n"
    assert not list(home.rglob("*licodec*"))
    if shutil.which("file"):
        assert ask(account, "file", "-b", "--mime-type", nameless) != "image/x-lic"


def test_the_thumbnailer_entry_makes_a_thumbnail(account, lic, tmp_path):
    """As a file manager does: the command of the entry, an output file that is there already."""
    assert licodec("desktop", "install", env=account).returncode == 0
    (path,) = Path(account["HOME"]).rglob("licodec.thumbnailer")
    entry = configparser.RawConfigParser()
    entry.read(path)
    entry = entry["Thumbnailer Entry"]
    assert entry["MimeType"] == "image/x-lic;" and os.access(entry["TryExec"], os.X_OK)
    out = tmp_path / "temporary"
    out.touch()
    words = {"%i": str(lic), "%s": "128", "%o": str(out)}
    command = [words.get(word, word) for word in entry["Exec"].split()]
    root = Path(__file__).parents[1]
    result = subprocess.run(command, env={**os.environ, **account, "PYTHONPATH": str(root)}, capture_output=True)
    assert result.returncode == 0, result.stderr
    with Image.open(out) as image:
        assert image.format == "PNG" and image.size == (128, 85)
        original = Image.fromarray(render(300, 200)).resize(image.size, Image.Resampling.LANCZOS)
        assert np.abs(np.asarray(image).astype(int) - np.asarray(original)).mean() < 6


def test_thumbnails_of_all_kinds(tmp_path):
    from licodec import imaging
    from licodec.output import Decoding
    from licodec.thumbnail import thumbnail

    pixels = render(640, 330)
    alpha = np.tile(np.linspace(0, 255, 640).astype(np.uint8), (330, 1))
    for deep in (False, True):
        for grey in (False, True):
            full = pixels[:, :, 0] if grey else pixels
            stored = full.astype(np.uint16) * 257 if deep else full
            picture = imaging.Picture(stored[:0], alpha.astype(np.uint16) * 257 if deep else alpha)
            bands = iter([stored[:100], stored[100:101], stored[101:]])
            small = thumbnail(Decoding((640, 330), grey, 16 if deep else 8, bands, picture), 64)
            assert small.size == (64, 33) and small.mode == ("LA" if grey else "RGBA")
            expected = Image.fromarray(full).resize((64, 33), Image.Resampling.LANCZOS)
            colour = np.asarray(small)[..., :-1].reshape(np.asarray(expected).shape)
            assert np.abs(colour.astype(int) - np.asarray(expected)).mean() < 3
    tiny = thumbnail(Decoding((20, 10), False, False, iter([pixels[:10, :20]])), 64)
    assert tiny.size == (20, 10)  # not made larger


def test_a_thumbnail_of_bad_input_is_one_line(tmp_path):
    (tmp_path / "x.lic").write_bytes(b"rubbish")
    result = licodec("thumbnail", tmp_path / "x.lic", "-o", tmp_path / "x.png")
    assert result.returncode == 3 and result.stderr.count(b"\n") == 1 and not (tmp_path / "x.png").exists()

"""`licodec view`: who may see the page, what it shows, and how it looks in a browser of two widths."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Page
from conftest import heed_interrupts, licodec, render
from PIL import Image

from licodec.errors import UsageError
from licodec.view.entries import Gallery, Viewed, pair
from licodec.view.server import Server


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """a.png, a.lic in tiles, and b.lic of another size."""
    folder = tmp_path_factory.mktemp("view")
    Image.fromarray(render(600, 400)).save(folder / "a.png")
    Image.fromarray(render(90, 60)).save(folder / "b.png")
    assert licodec("encode", folder / "a.png", "--tile", 128).returncode == 0
    assert licodec("encode", folder / "b.png").returncode == 0
    return folder


@pytest.fixture(scope="module")
def server(desk):
    files = [str(desk / name) for name in ("a.png", "a.lic", "b.lic")]
    with Server(Gallery([*pair(files[:2]), *pair(files[2:])])) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def get(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_originals_find_their_files():
    assert pair(["a.png", "a.lic", "b.lic"]) == [Viewed("a.lic", "a.png"), Viewed("b.lic", "a.png")]
    assert pair(["x/a.png", "b.tif", "a.lic"]) == [Viewed("a.lic", "x/a.png"), Viewed(None, "b.tif")]
    with pytest.raises(UsageError):
        pair(["x/a.png", "y/a.png", "a.lic"])


def test_only_who_has_the_token_sees_anything(server):
    outside = f"http://127.0.0.1:{server.server_port}/"
    for path in ("", "facts.json", "0/decoded.png", "wrong-token/", "wrong-token/facts.json"):
        assert get(outside + path)[0] == 404
    assert get(server.url, Host="evil.example")[0] == 403
    for path in ("9/decoded.png", "1/original.png", "1/psnr.json", "../../etc/passwd", "0/decoded.jpg"):
        assert get(server.url + path)[0] == 404
    assert server.server_address[0] == "127.0.0.1" and len(server.token) >= 20


def test_what_the_page_is_given(server, desk):
    status, body = get(server.url + "facts.json")
    first, second = json.loads(body)
    assert status == 200 and (first["width"], first["original"], second["original"]) == (600, "a.png", None)
    assert sum(t["width"] * t["height"] for t in first["tiles"]) == 600 * 400 and len(first["tiles"]) == 20
    bits = sum(t["bpp"] * t["width"] * t["height"] for t in first["tiles"])
    assert bits == pytest.approx(8 * first["info"]["payload_bytes"], rel=0.02)
    original = np.asarray(Image.open(io.BytesIO(get(server.url + "0/original.png")[1])))
    assert (original == render(600, 400)).all()
    decoded = np.asarray(Image.open(io.BytesIO(get(server.url + "0/decoded.png")[1]))).astype(float)
    mse = ((decoded - original) ** 2).mean()
    assert json.loads(get(server.url + "0/psnr.json")[1]) == pytest.approx(10 * np.log10(255**2 / mse), abs=0.01)


def test_what_cannot_be_shown_is_said(desk, tmp_path):
    (tmp_path / "bad.lic").write_bytes(b"rubbish")
    result = licodec("view", tmp_path / "bad.lic", "--no-browser")
    assert result.returncode == 3 and result.stderr.count(b"\n") == 1
    with Server(Gallery(pair([str(desk / "b.png"), str(desk / "a.lic")]))) as server:  # not its original
        threading.Thread(target=server.serve_forever, daemon=True).start()
        status, body = get(server.url + "0/psnr.json")
        assert status == 500 and b"another size" in body
        server.shutdown()


def test_the_command_says_where_and_ends_with_ctrl_c(desk):
    command = [sys.executable, "-m", "licodec", "view", desk / "b.lic", "--no-browser"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts)
    url = process.stderr.readline().split()[1]
    assert get(url)[0] == 200
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(20) == 130


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (400, 800)])
def test_in_a_browser(server, width, height, tmp_path):
    pytest.importorskip("aiohttp")
    page = Page(width, height)
    try:
        page.open(server.url)
        page.until("document.body?.dataset.ready === '0'")
        assert page.run("document.documentElement.scrollWidth") <= width  # nothing sticks out
        box = page.run("(({x, y, width, height}) => [x, y, width, height])(picture.getBoundingClientRect())")
        assert box[0] >= 0 and box[0] + box[2] <= width and box[2] > width / 2
        assert box[2] / box[3] == pytest.approx(1.5, abs=0.01)
        text = page.run("document.body.innerText")
        assert all(
            word in text for word in ("600 \N{MULTIPLICATION SIGN} 400", "lite", "PSNR", "a.png", "20 of 128 px")
        )
        middle = box[0] + box[2] / 2, box[1] + box[3] / 2
        page.drag(*middle, box[0] + box[2] / 4)  # the slider
        assert page.run("state.cut") == pytest.approx(25, abs=1)
        page.run("exact.click()")
        assert page.run("picture.getBoundingClientRect().width") == 600
        page.run("document.getElementById('bits').click()")
        assert page.run("document.querySelectorAll('#tiles rect').length") == 20
        page.screenshot(tmp_path / "page.png")
        page.run("files.value = 1, files.onchange()")
        page.until("document.body?.dataset.ready === '1'")
        assert "90 \N{MULTIPLICATION SIGN} 60" in page.run("document.body.innerText")
        assert page.run("getComputedStyle(handle).display") == "none"
        assert not page.problems, page.problems
    finally:
        page.close()

"""URLs wherever a path is taken: an S3 server and web servers on the loopback, archives, and servers that misbehave."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from conftest import licodec, render
from PIL import Image

from licodec import files
from licodec.batch import remote
from licodec.batch.jobs import plan
from licodec.batch.places import Local, of
from licodec.batch.ranged import opened, scanned
from licodec.errors import CorruptError, InputError, UsageError

pytest.importorskip("fsspec")


def picture(seed: int = 0, width: int = 64, height: int = 48) -> bytes:
    out = io.BytesIO()
    Image.fromarray(render(width, height, seed)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def tiled(tmp_path_factory) -> Path:
    """A .lic of 1024x768 in 12 tiles, with an alpha channel."""
    folder = tmp_path_factory.mktemp("tiled")
    pixels = np.dstack([render(1024, 768), np.tile(np.arange(1024) // 4, (768, 1)).astype(np.uint8)])
    rough = np.random.default_rng(0).normal(0, 40, pixels[:, :, :3].shape)  # tiles worth leaving out
    pixels[:, :, :3] = np.clip(pixels[:, :, :3] + rough, 0, 255)
    Image.fromarray(pixels).save(folder / "a.png")
    assert licodec("encode", folder / "a.png", "--tile", 256, "-q", 8).returncode == 0
    return folder / "a.lic"


class Web:
    """A web server with ranges. It counts requests and bytes, and can fail or hang."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.calls, self.sent = files, Counter(), 0
        self.failures, self.hang = 0, threading.Event()
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self):
                self.answer(body=False)

            def do_GET(self):
                self.answer(body=True)

            def answer(self, body: bool):
                web.calls[self.command] += 1
                if web.hang.is_set():
                    time.sleep(20)
                data, status, headers = web.files.get(self.path), 200, {}
                if web.failures:
                    web.failures -= 1
                    data, status = b"busy", 503
                elif data is None:
                    data, status = b"no", 404
                elif asked := self.headers.get("Range"):
                    first, last = asked.removeprefix("bytes=").split("-")
                    headers["Content-Range"] = f"bytes {first}-{last or len(data) - 1}/{len(data)}"
                    data, status = data[int(first) : int(last or len(data)) + 1], 206
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Accept-Ranges", "bytes")
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                if body:
                    web.sent += len(data)
                    self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def web(tiled):
    pytest.importorskip("aiohttp")
    server = Web({"/a.png": picture(), "/a.lic": tiled.read_bytes(), "/bad.png": b"no picture"})
    yield server
    server.server.shutdown()


def test_http_inputs_and_a_server_that_is_busy_now_and_then(web, tmp_path):
    web.failures = 2
    result = licodec("encode", f"{web.url}/a.png", "-o", tmp_path / "a.lic")
    assert result.returncode == 0, result.stderr
    (tmp_path / "a.png").write_bytes(web.files["/a.png"])
    assert licodec("encode", tmp_path / "a.png", "-o", tmp_path / "b.lic").returncode == 0
    assert (tmp_path / "a.lic").read_bytes() == (tmp_path / "b.lic").read_bytes()
    for name, word, code in (("none.png", b"no such file", 1), ("bad.png", b"not a picture", 1)):
        result = licodec("encode", f"{web.url}/{name}", "-o", tmp_path / "c.lic")
        assert result.returncode == code and word in result.stderr and result.stderr.count(b"\n") == 1
    beside = licodec("encode", f"{web.url}/a.png")
    assert beside.returncode == 2 and b"-o" in beside.stderr


def test_info_reads_the_beginning_and_a_crop_its_tiles(web, tiled, tmp_path):
    assert tiled.stat().st_size > 250_000
    facts = json.loads(licodec("info", f"{web.url}/a.lic", "--json").stdout)
    whole = json.loads(licodec("info", tiled, "--json").stdout)
    assert facts == {key: whole[key] for key in facts} and facts["tiles"] == 12
    assert web.sent < 70_000
    web.sent = 0
    result = licodec("decode", f"{web.url}/a.lic", "--crop", "900,300,60,60", "-o", tmp_path / "part.png")
    assert result.returncode == 0, result.stderr
    assert web.sent < whole["bytes"] * 0.6
    assert licodec("decode", tiled, "--crop", "900,300,60,60", "-o", tmp_path / "same.png").returncode == 0
    assert (tmp_path / "part.png").read_bytes() == (tmp_path / "same.png").read_bytes()


def test_a_hanging_server_and_none_at_all(web, monkeypatch):
    monkeypatch.setattr(remote, "SILENT_SECONDS", 1.0)
    remote._file_system(web.url + "/", ("http",))[0].clear_instance_cache()
    web.hang.set()
    began = time.time()
    with pytest.raises(InputError, match=r"silent|reached"):
        of(f"{web.url}/a.png").read()
    assert time.time() - began < 10
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    with pytest.raises(InputError):
        of("http://127.0.0.1:9/a.png").read()


def test_scanned_parts_are_checked(tiled):
    pytest.importorskip("fsspec")
    import fsspec

    data = tiled.read_bytes()
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/t/a.lic", data)
    whole, _ = opened(Local(str(tiled)))
    parts = scanned(of("memory://t/a.lic"), len(data))
    assert parts.header == whole.header and parts.metadata == whole.metadata
    assert len(parts.tiles) == 12 and [parts.tiles[i] for i in (11, 0, 7)] == [whole.tiles[i] for i in (11, 0, 7)]
    parts = scanned(of("memory://t/a.lic"), len(data))
    with ThreadPoolExecutor(8) as threads:  # as tiles are decoded
        assert list(threads.map(parts.tiles.__getitem__, range(12))) == list(whole.tiles)
    damaged = bytearray(data)
    damaged[-20] ^= 1
    fs.pipe_file("/t/a.lic", bytes(damaged))
    parts = scanned(of("memory://t/a.lic"), len(data))
    assert parts.tiles[3] == whole.tiles[3]
    with pytest.raises(CorruptError):
        parts.tiles[11]
    fs.pipe_file("/t/a.lic", data[:-5])
    with pytest.raises(CorruptError):
        scanned(of("memory://t/a.lic"), len(data) - 5).tiles[11]


def test_members_of_archives(tmp_path):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("deep/a.png", picture(0))
        archive.writestr("b.png", picture(1))
        archive.writestr("c.mov", b"x")
    result = licodec("encode", f"zip://::{path}", "-o", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.lic")} == {"b.lic", "deep/a.lic"}
    assert b"left out 1 file: 1 .mov" in result.stderr
    assert licodec("encode", f"zip://b.png::{path}", "-o", tmp_path / "one.lic").returncode == 0
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../evil.png", picture(0))
    result = licodec("encode", f"zip://::{path}", "-o", tmp_path / "out2")
    assert result.returncode == 2 and b"outside" in result.stderr and not (tmp_path / "evil.lic").exists()


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:xz"])
def test_members_of_tar_files(tmp_path, web, mode):
    """Members called ./x, as `tar cf x.tar .` makes them, in an order of their own; a name that says nothing."""
    path = tmp_path / "photos.archive"
    names = ["./deep/b.png", "./a.png", "./deep/a.png", "./a.jpg", "./.hidden.png", "./c.mov"]
    with tarfile.open(path, mode) as archive:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            data = picture(number)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name).write_bytes(data)
    result = licodec("encode", f"tar://::{path}", "-o", tmp_path / "out", "--jobs", 2)
    assert result.returncode == 0 and b"left out 1 file: 1 .mov" in result.stderr, result.stderr
    assert licodec("encode", tmp_path / "in", "-o", tmp_path / "same", "--jobs", 1).returncode == 0
    made, same = ({p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.lic")}
                  for folder in (tmp_path / "out", tmp_path / "same"))  # fmt: skip
    assert made == same and {str(name) for name in made} == {"deep/b.lic", "deep/a.lic", "a.png.lic", "a.jpg.lic"}
    order = [line.split(b" -> ")[0] for line in result.stderr.splitlines()[:4]]
    assert {order[0], order[1]} < {f"tar://{name}::{path}".encode() for name in ("deep/b.png", "a.png", "a.jpg")}
    web.files["/photos"] = path.read_bytes()
    assert licodec("encode", f"tar://deep/a.png::{web.url}/photos", "-o", tmp_path / "one.lic").returncode == 0
    assert (tmp_path / "one.lic").read_bytes() == (tmp_path / "same/deep/a.lic").read_bytes()


def test_a_tar_file_is_read_once_from_its_beginning_to_its_end(tmp_path, monkeypatch):
    """A compressed one cannot be entered in the middle: all that was read must be about all there is, twice."""
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        for number in range(60):
            member = tarfile.TarInfo(f"{(number * 37) % 60:03}.png")
            member.size = 20_000
            archive.addfile(member, io.BytesIO(np.random.default_rng(number).bytes(member.size)))
    size, read = (tmp_path / "x.tar.gz").stat().st_size, []
    real = gzip._GzipReader._read_gzip_header
    monkeypatch.setattr(gzip._GzipReader, "_read_gzip_header", lambda self, *a: read.append(1) or real(self, *a))
    jobs = list(plan([f"tar://::{tmp_path}/x.tar.gz"], tmp_path / "out", {".png"}, ".lic"))
    assert [job.source.name for job in jobs[:2]] == ["000.png", "037.png"] and size > 1_000_000
    assert all(len(job.source.read()) == 20_000 for job in jobs)
    assert len(read) <= 3  # the beginning, and again after the list of members was made


@pytest.mark.parametrize(
    "word, said",
    [
        ("{0}/photos.tar.gz", "is an archive; what it holds is tar://::"),
        ("tar://::{0}/bad.tar", "is not a tar file that can be read"),
        ("zip://::{0}/bad.tar", "is not a zip file that can be read"),
        ("tar://::{0}/none.tar", "none.tar: no such file"),
    ],
)
def test_archives_that_are_none_are_named(tmp_path, word, said):
    (tmp_path / "bad.tar").write_bytes(b"no archive, but long enough for a header " * 30)
    (tmp_path / "photos.tar.gz").touch()
    with pytest.raises((InputError, UsageError), match=said):
        plan([word.format(tmp_path)], tmp_path / "out", {".png"}, ".lic")


def test_nothing_is_begun_if_the_output_cannot_be_written(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    for out in ("https://127.0.0.1:9/out/", f"tar://::{tmp_path}/x.tar"):
        with pytest.raises(UsageError, match="cannot be written to"):
            plan([tmp_path / "a.png", tmp_path / "a.png"], out, {".png"}, ".lic")


def test_a_report_that_cannot_be_written_is_said_first(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    for url, word in (("https://127.0.0.1:9/run.jsonl", "cannot be written to"), ("nope://x/r.jsonl", "nope")):
        result = licodec("encode", tmp_path / "a.png", "-o", tmp_path / "a.lic", "--report", url)
        said = result.stderr.decode()
        assert result.returncode == 2 and said.count("\n") == 1 and word in said
        assert not (tmp_path / "a.lic").exists()


def test_file_systems_that_rename_keep_whole_files_and_no_others(tmp_path, monkeypatch):
    """Beside and renamed; what a failed write leaves goes at once, what a killed process left with the next."""
    import fsspec

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine = files.temporary_name("y.lic")
    left = mine.replace(f"-{os.getpid()}.", f"-{ended.pid}.")
    for name in (left, mine, ".other.tmp"):
        (tmp_path / name).touch()
    place = of(f"local://{tmp_path}/x.lic")
    place.write(b"whole", force=False)
    assert place.read() == b"whole" and {p.name for p in tmp_path.iterdir()} == {"x.lic", mine, ".other.tmp"}
    monkeypatch.setattr(type(fsspec.filesystem("local")), "mv", lambda *_: 1 / 0)
    with pytest.raises(InputError, match="division"):
        place.write(b"more", force=True)
    assert place.read() == b"whole" and len(list(tmp_path.iterdir())) == 3


def test_a_web_servers_folder_and_what_a_server_says(web):
    """Pages that link to pictures; a server that has no such file, is busy, or is not there, are told apart."""
    web.files["/p/"] = b'<a href="/p/x.png">x</a> <a href="q/">more</a> <a href="/">up</a>'
    web.files["/p/q/"] = b'<a href="y.png">y</a> <a href="../">up</a>'
    web.failures = 2
    assert list(of(f"{web.url}/p/").walk()) == ["x.png", "q/y.png"]
    web.failures = 2
    assert of(f"{web.url}/a.png").exists() and not of(f"{web.url}/none.png").exists()
    for action in ("exists", "read", "size"):
        with pytest.raises(InputError, match="onnect") as caught:
            getattr(of("http://127.0.0.1:9/a.png"), action)()
        assert not isinstance(caught.value, remote.NotThere)


def test_names_of_urls():
    place = of("s3://bucket/photos/a.b.PNG")
    assert (place.name, place.suffix) == ("a.b.PNG", ".png")
    assert place.with_name("c.lic").text == "s3://bucket/photos/c.lic"
    assert of("s3://bucket/photos/").child("x/y.png").text == "s3://bucket/photos/x/y.png"
    assert of("zip://::s3://bucket/all.zip").child("a.png").text == "zip://a.png::s3://bucket/all.zip"
    assert of("https://host/a.png?size=2").suffix == ".png"
    assert isinstance(of("C:\\photos"), Local) and isinstance(of("file:///tmp/x"), Local)
    with pytest.raises(UsageError, match="nonsense"):
        of("nonsense://a/b.png").read()


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """An S3 server on the loopback, and the environment of one who may use it."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    env = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    yield env
    server.stop()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


def bucket(name: str):
    import s3fs

    fs = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    fs.call_s3("create_bucket", Bucket=name)
    return fs


def test_an_archive_in_s3_survives_kills_and_equals_a_local_run(s3, tmp_path):
    count = int(os.environ.get("LICODEC_S3_PICTURES", "40"))
    fs = bucket("photos")
    (tmp_path / "in/deep").mkdir(parents=True)
    for number in range(count):
        place = f"{'deep/' if number % 2 else ''}{number:04}.png"
        data = picture(number, 48, 40)
        (tmp_path / "in" / place).write_bytes(data)
        fs.pipe_file(f"photos/in/{place}", data)
    fs.pipe_file("photos/in/deep/", b"")  # a console's folder
    command = ["encode", "s3://photos/in/", "-o", "s3://photos/out/", "--resume", "--jobs", "2"]
    chance, done = random.Random(0), [0]
    for _ in range(3):  # each at a random moment of its work
        process = subprocess.Popen(
            [sys.executable, "-m", "licodec", *command], stderr=subprocess.DEVNULL, start_new_session=True
        )
        enough = done[-1] + chance.uniform(0.03, 0.3) * count
        while len(fs.find("photos/out")) < enough and process.poll() is None:
            time.sleep(0.1)
        time.sleep(chance.uniform(0, 0.1))  # in the middle of something
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done.append(len(fs.find("photos/out")))
    print("done at each kill:", done[1:])
    assert 0 < done[1] < done[2] < done[3] < count
    done = done[3]
    report = "s3://photos/run.jsonl"
    result = licodec(*command, "--report", report, "--json", env=s3)
    assert result.returncode == 0, result.stderr
    made = [json.loads(line)["path"] for line in result.stdout.splitlines()]
    assert len(made) == len(set(made)) == count - done
    assert licodec("encode", tmp_path / "in", "-o", tmp_path / "out", "--jobs", 1, "-j", 1).returncode == 0
    local = {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").rglob("*.lic")}
    there = {name.removeprefix("photos/out/"): fs.cat_file(name) for name in fs.find("photos/out")}
    assert there == local and len(local) == count
    last = json.loads(fs.cat_file("photos/run.jsonl").splitlines()[-1])
    assert last["total"]["files"] == count and last["total"]["skipped"] == done
    assert licodec("verify", "s3://photos/out", "--fast", "--quiet", env=s3).returncode == 0
    assert licodec("decode", "s3://photos/out/0000.lic", "-o", tmp_path / "x.png", env=s3).returncode == 0


def test_the_benchmark_of_urls_is_that_of_files(s3, tmp_path):
    """Pictures and report in S3 by two processes, and files by one: the same bits. A second run adds nothing."""
    pytest.importorskip("bjontegaard")
    fs = bucket("bench")
    (tmp_path / "in/deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "deep/b.png", "c.png")):
        (tmp_path / "in" / name).write_bytes(picture(number, 120, 90) if name != "c.png" else b"no picture")
        fs.pipe_file(f"bench/in/{name}", (tmp_path / "in" / name).read_bytes())
    common = ("-q", "3,6", "--against", "jpeg", "--metrics", "psnr", "--crops", 2, "-j", 1)
    there = licodec("bench", "s3://bench/in/", "-o", "s3://bench/report", "--jobs", 2, *common, env=s3)
    here = licodec("bench", tmp_path / "in", "-o", tmp_path / "report", *common)
    assert there.returncode == here.returncode == 1
    assert there.stderr.splitlines() == [
        b"licodec: s3://bench/in/c.png: not a picture that Pillow can read", b"report: s3://bench/report/index.html"
    ]  # fmt: skip
    assert b"easured 2 side by side" in there.stdout and b"side by side" not in here.stdout
    files = {name.removeprefix("bench/report/"): fs.cat_file(name) for name in fs.find("bench/report")}
    assert set(files) == {path.name for path in (tmp_path / "report").iterdir()} and len(files) == 8
    ours, theirs = json.loads((tmp_path / "report/results.json").read_text()), json.loads(files["results.json"])
    same = ("image", "codec", "setting", "key", "bytes", "psnr")
    rows = [[tuple(row[name] for name in same) for row in document["results"]] for document in (ours, theirs)]
    assert rows[0] == rows[1] and len(rows[0]) == 2 * (2 + 11) and rows[0][1][0] == "deep/b.png"
    assert {row["side_by_side"] for row in theirs["results"]} == {2}
    assert "measured 2 side by side" in files["index.html"].decode().lower()
    pages = [re.findall(r'application/json">(.*?)</script>', text) for text in
             (files["index.html"].decode(), (tmp_path / "report/index.html").read_text())]  # fmt: skip
    assert pages[0] == pages[1] and len(pages[0]) == 2
    fs.pipe_file("bench/report/results.jsonl", files["results.jsonl"][:-9])  # cut by a kill
    again = licodec("bench", "s3://bench/in/", "-o", "s3://bench/report", *common, env=s3)
    assert again.returncode == 1
    lines = fs.cat_file("bench/report/results.jsonl").splitlines()
    assert lines[:-2] == files["results.jsonl"].splitlines()[:-1] and json.loads(lines[-1])["side_by_side"] == 1
    assert b"Some of it was measured 2 side by side" in again.stdout


@pytest.mark.parametrize(
    "inputs, out, word",
    [
        ("zip://::{0}/p.zip", "https://127.0.0.1:9/report", "cannot be written to"),
        ("zip://::{0}/p.zip", "zip://r::{0}/q.zip", "cannot be written to"),
        ("{0}/none", "{0}/r", "no such file or folder"),
        ("{0}/empty", "{0}/r", "no pictures found"),
        ("-", "{0}/r", "standard input"),
        ("{0}/p.zip", "-", "name one with -o"),
    ],
)
def test_what_the_benchmark_cannot_do_is_said_before_it_begins(tmp_path, inputs, out, word):
    pytest.importorskip("bjontegaard")
    (tmp_path / "empty").mkdir()
    for name in ("p.zip", "q.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("a.png", picture())
    result = licodec("bench", inputs.format(tmp_path), "-o", out.format(tmp_path), "--metrics", "psnr", "-q", 3)
    said = result.stderr.decode()
    assert result.returncode in (1, 2) and said.count("\n") == 1 and re.search(word, said), said
    assert not (tmp_path / "r").exists()


def test_listing_is_streamed(s3):
    """3000 objects come in three pages, and nothing keeps them."""
    fs = bucket("many")
    import boto3

    client = boto3.client("s3", endpoint_url=s3["AWS_ENDPOINT_URL"])
    for number in range(2500):
        client.put_object(Bucket="many", Key=f"p/{number:05}.png", Body=b"")
    pages = []
    place = of("s3://many/p/")
    real = type(fs).call_s3
    jobs = plan(["s3://many/p/"], "s3://many/out/", {".png"}, ".lic")
    try:
        type(fs).call_s3 = lambda self, *a, **k: pages.append(1) or real(self, *a, **k)
        taken = iter(jobs)
        first = next(taken)
        assert first.target.text == "s3://many/out/00000.lic" and len(pages) == 1
        assert sum(1 for _ in taken) == 2499 and len(pages) == 3
    finally:
        type(fs).call_s3 = real
    assert place.is_folder() and not of("s3://many/none/x.png").exists()


def test_an_object_store_that_is_busy_or_silent(s3, web, monkeypatch):
    """Every other two requests are answered by 503, which s3fs calls EBUSY; then nobody answers at all."""
    bucket("busy")
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    fs = remote._file_system("s3://busy/", ("s3",))[0]
    calls: list[str] = []

    def busy(name):
        """Of the class, which has a method for coroutines and one for others."""
        real = getattr(type(fs), name)

        def sometimes(self, *words, **more):
            calls.append(words[0])
            if len(calls) % 4 < 2:
                raise OSError(errno.EBUSY, "Please reduce your request rate.")
            return real(self, *words, **more)

        return sometimes

    with monkeypatch.context() as patch:
        for name in ("_call_s3", "call_s3"):
            patch.setattr(type(fs), name, busy(name))
        place = of("s3://busy/in/a.png")
        place.write(b"whole", force=True)
        assert place.exists() and place.read() == b"whole" and list(of("s3://busy/in/").walk()) == ["a.png"]
    assert len(calls) >= 8 and "list_objects_v2" in calls

    monkeypatch.setattr(remote, "SILENT_SECONDS", 0.3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
    fs.clear_instance_cache()
    web.hang.set()
    for action in (lambda: place.read(), lambda: list(of("s3://busy/in/").walk())):
        web.calls.clear()
        with pytest.raises(InputError, match="cannot be reached"):
            action()
        assert web.calls.total() == 2  # a minute each, and not twenty-five as the libraries have it
    fs.clear_instance_cache()


def test_google_cloud_storage(tmp_path):
    """Where gcsfs and an emulator of the store are installed: the same code, by another name."""
    pytest.importorskip("gcsfs")
    server = pytest.importorskip("gcp_storage_emulator.server").create_server("127.0.0.1", 0, True, "photos")
    server.start()
    try:
        host, port = server._api._httpd.server_address
        env = {"STORAGE_EMULATOR_HOST": f"http://{host}:{port}", "FSSPEC_GS_TOKEN": "anon"}
        env["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # that asks Google by gRPC
        for number in range(3):
            (tmp_path / f"{number}.png").write_bytes(picture(number))
        assert licodec("encode", tmp_path, "-o", "gs://photos/lic/", "--jobs", 2, env=env).returncode == 0
        again = licodec("encode", tmp_path, "-o", "gs://photos/lic/", "--resume", env=env)
        assert again.returncode == 0 and b"3 of 3 were done already" in again.stderr
        assert licodec("verify", "gs://photos/lic/", env=env).returncode == 0
        missing = licodec("decode", "gs://photos/none.lic", "-o", tmp_path / "x.png", env=env)
        assert missing.stderr == b"licodec: gs://photos/none.lic: no such file\n"
    finally:
        server.stop()


def test_wrong_credentials_and_buckets_are_one_clear_line(s3, tmp_path):
    for env in ({**s3, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, s3):
        result = licodec("encode", "s3://nobody/a.png", "-o", tmp_path / "a.lic", env=env)
        said = result.stderr.decode()
        assert result.returncode == 1 and said.count("\n") == 1 and "Traceback" not in said
        assert "credentials" in said or "no such" in said.lower()

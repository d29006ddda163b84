"""`-m NAME -q Q` without weights: fetched from the authors, against a Drive and a bucket on the loopback."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from cloud import QUOTA, Cloud
from conftest import licodec
from test_upstream import as_compressai, author_checkpoint, small_model
from test_weights import refused

from licodec.errors import WeightsError
from licodec.weights import drive
from licodec.weights.manifest import Entry

DRIVE = "1RyDmDDqrIwkVvVvH3HlPfwAoK4jmWY97"  # where licodec's manifest says that conv-hyperprior's checkpoint is
ENCODE = ("-m", "conv-hyperprior", "-q", "1", "-f")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("authors") / "c.pth.tar"
    author_checkpoint(path)
    return path.read_bytes()


@pytest.fixture
def cloud(tmp_path, checkpoint):
    cloud = Cloud(tmp_path)
    cloud.files = {DRIVE: checkpoint, "/zoo/its.pth.tar": checkpoint}
    cloud.env["LICODEC_HOME"] = str(tmp_path / "home")
    yield cloud
    cloud.close()


def manifest(cloud: Cloud, tmp_path: Path, **facts: object) -> None:
    """A manifest of the user's in which conv-hyperprior has these facts; by default it is in the bucket."""
    facts = {"quality": 1, "status": "unpublished", "url": "https://bucket.example/zoo/its.pth.tar"} | facts
    lines = [f"{key} = {json.dumps(value)}" for key, value in facts.items() if value is not None]
    path = tmp_path / "mine.toml"
    path.write_text("\n".join(["schema = 1", "[[models.conv-hyperprior.weights]]", *lines]))
    cloud.env["LICODEC_WEIGHTS"] = str(path)


def test_one_command_and_then_no_network(cloud, picture_file, checkpoint):
    """Drive, with its page of confirmation; what was seen is recorded and shown."""
    run = licodec("encode", picture_file, *ENCODE, env=cloud.env)
    assert run.returncode == 0, run.stderr.decode()
    line = run.stderr.decode().splitlines()[0]
    expected = ("conv-hyperprior -q 1", f"https://drive.google.com/file/d/{DRIVE}", "none given")
    assert all(word in line for word in expected) and f"{len(checkpoint) / 1e6:.1f} MB" in line
    assert cloud.calls["drive.usercontent.google.com/download"] == 2  # the page, and the file
    calls = dict(cloud.calls)
    cloud.close()
    assert licodec("encode", picture_file, *ENCODE, env=cloud.env).returncode == 0
    assert licodec("decode", picture_file.with_suffix(".lic"), "-f", env=cloud.env).returncode == 0
    assert dict(cloud.calls) == calls
    (row,) = json.loads(licodec("weights", "list", "conv-hyperprior", "--json", env=cloud.env).stdout)
    assert row["status"] == "installed" and row["checkpoint_size"] == len(checkpoint)
    assert row["checkpoint_sha256"] == hashlib.sha256(checkpoint).hexdigest()
    assert row["checkpoint_sha256"] in licodec("weights", "list", "conv-hyperprior", env=cloud.env).stdout.decode()


def test_decode_fetches_what_a_file_was_made_with(cloud, picture_file, tmp_path):
    assert licodec("encode", picture_file, *ENCODE, "--quiet", env=cloud.env).stderr == b""
    other = {**cloud.env, "LICODEC_HOME": str(tmp_path / "other")}
    lic = picture_file.with_suffix(".lic")
    refused(licodec("decode", lic, "-o", tmp_path / "d.png", "--offline", env=other), "none are installed")
    assert licodec("decode", lic, "-o", tmp_path / "d.png", env=other).returncode == 0
    assert cloud.calls["file"] == 2


@pytest.mark.parametrize("how", ["--offline", "LICODEC_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(how, cloud, picture_file):
    options = [how] if how.startswith("-") else []
    env = cloud.env if options else {**cloud.env, how: "1"}
    run = licodec("encode", picture_file, *ENCODE, *options, env=env)
    refused(run, "`licodec weights fetch-upstream conv-hyperprior -q 1`", "forbids")
    refused(
        licodec("weights", "fetch-upstream", "conv-hyperprior", env={**cloud.env, "LICODEC_OFFLINE": "1"}), "forbids"
    )
    assert not cloud.calls and len(run.stderr.splitlines()) == 1


def change(cloud: Cloud, how: str) -> None:
    cloud.page = {"quota": QUOTA, "page": "<html><head><title>Log in</title></head></html>"}.get(how)
    cloud.status = {"gone": 404, "denied": 403, "broken": 503}.get(how, 0)
    cloud.die_after = [70_000] * 9 if how == "short" else []
    cloud.ranges = how != "short"  # so that no try gets further


@pytest.mark.parametrize(
    ("from_drive", "how", "word"),
    [
        (True, "quota", "Too many users have viewed or downloaded this file recently. Please try again later."),
        (True, "page", "Google Drive does not give"),
        (True, "gone", "Cannot retrieve the public link"),
        (False, "quota", "came a page: Too many users"),
        (False, "page", "came a page: Log in"),
        (False, "gone", "404"),
        (False, "denied", "403"),
        (False, "broken", "503"),
    ],
)
def test_a_line_for_each_failure(from_drive, how, word, cloud, tmp_path, picture_file):
    if not from_drive:
        manifest(cloud, tmp_path)
    change(cloud, how)
    run = licodec("encode", picture_file, *ENCODE, env=cloud.env)
    refused(run, word, "with a browser and `licodec convert-upstream FILE -m conv-hyperprior -q 1`")
    change(cloud, "")
    if how == "page":  # nothing is left of it
        assert licodec("encode", picture_file, *ENCODE, env=cloud.env).returncode == 0


def test_nobody_there(cloud, tmp_path, picture_file):
    manifest(cloud, tmp_path, url="http://127.0.0.1:9/x.pth.tar")
    run = licodec("encode", picture_file, *ENCODE, env=cloud.env)
    refused(run, "cannot be downloaded (Failed to establish a new connection")
    assert b"Max retries" not in run.stderr


def test_a_server_that_falls_silent(tmp_path, monkeypatch):
    """It accepts the call, gives a part of the file and then nothing for ever."""

    class Silent(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.send_header("Content-Type", "application/octet-stream")
            self.end_headers()
            self.wfile.write(bytes(1000))
            over.wait()

        def log_message(self, *_: object) -> None:
            pass

    over = threading.Event()
    monkeypatch.delenv("LICODEC_OFFLINE")
    monkeypatch.setattr(drive, "PATIENCE", 0.4)
    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        entry = Entry("conv-hyperprior", "unpublished", 1, url=f"http://127.0.0.1:{server.server_port}/c.pth.tar")
        try:
            with pytest.raises(WeightsError, match="no data came for"):
                drive.download(entry, tmp_path)
        finally:
            over.set()
            server.shutdown()


def test_cut_short_and_gone_on_with(cloud, tmp_path, picture_file, checkpoint):
    manifest(cloud, tmp_path)
    cloud.die_after = [600_000, 1000, 1000]
    size = len(checkpoint)
    refused(licodec("encode", picture_file, *ENCODE, env=cloud.env), f"cut short after 524288 of {size} bytes")
    assert licodec("encode", picture_file, *ENCODE, env=cloud.env).returncode == 0
    assert cloud.asked == ["bytes=524288-"] * 3  # two more tries, then the second call


def test_half_a_file_that_cannot_be_gone_on_with(cloud, tmp_path, picture_file):
    manifest(cloud, tmp_path)
    cloud.die_after, cloud.ranges = [600_000], False
    refused(licodec("encode", picture_file, *ENCODE, env=cloud.env), "byte range")
    assert licodec("encode", picture_file, *ENCODE, env=cloud.env).returncode == 0  # thrown away, fetched whole
    assert not list((tmp_path / "home/downloads").iterdir())


def test_trust_on_first_use(cloud, tmp_path, picture_file, checkpoint):
    manifest(cloud, tmp_path)
    assert licodec("encode", picture_file, *ENCODE, env=cloud.env).returncode == 0
    assert licodec("weights", "remove", "conv-hyperprior", env=cloud.env).returncode == 0
    author_checkpoint(tmp_path / "other.pth.tar", lambda s: s["module.g_a.0.weight"].add_(1e-3))
    cloud.files["/zoo/its.pth.tar"] = other = (tmp_path / "other.pth.tar").read_bytes()
    first, second = (hashlib.sha256(data).hexdigest() for data in (checkpoint, other))
    refused(licodec("encode", picture_file, *ENCODE, env=cloud.env), first, second, "--accept-new")
    fetch = ("weights", "fetch-upstream", "conv-hyperprior", "-q", "1", "-f")
    refused(licodec(*fetch, env=cloud.env), first)
    run = licodec(*fetch, "--accept-new", env=cloud.env)
    assert run.returncode == 0 and f'checkpoint_sha256 = "{second}"' in run.stdout.decode()
    cloud.env["LICODEC_WEIGHTS"] = str(tmp_path / "printed.toml")  # the printed entry is one of a manifest
    (tmp_path / "printed.toml").write_text("schema = 1\n" + run.stdout.decode())
    cloud.files["/zoo/its.pth.tar"] = checkpoint
    refused(licodec(*fetch, "--accept-new", env=cloud.env), "the manifest says", second)
    manifest(cloud, tmp_path, checkpoint_size=5)
    refused(licodec(*fetch, "--accept-new", env=cloud.env), "the manifest says 5 bytes")


def test_another_model_and_a_wrong_name(cloud, tmp_path, picture_file, checkpoint):
    author_checkpoint(tmp_path / "x", lambda s: s.update({"module.charm_mean_transforms.0": s["module.g_a.0.bias"]}))
    cloud.files[DRIVE] = (tmp_path / "x").read_bytes()
    refused(licodec("encode", picture_file, *ENCODE, env=cloud.env), "not those of conv-hyperprior")
    assert not (tmp_path / "home/checkpoints.json").exists()
    digest = hashlib.sha256(checkpoint).hexdigest()
    cloud.files |= {f"/m-1-{name}.pth.tar": checkpoint for name in (digest[:8], "0123abcd")}
    manifest(cloud, tmp_path, url="https://bucket.example/m-1-0123abcd.pth.tar")
    refused(licodec("encode", picture_file, *ENCODE, env=cloud.env), "promises 0123abcd", digest)
    manifest(cloud, tmp_path, url=f"https://bucket.example/m-1-{digest[:8]}.pth.tar")
    assert licodec("encode", picture_file, *ENCODE, env=cloud.env).returncode == 0


def test_a_shared_folder(cloud, tmp_path, picture_file):
    """As SAAF's: the file is found by the names that its scheme implies, or a person names it."""
    folder = "1TZlDDxYhMyRKiQeCbDgtr6W-S-lm7tiz"
    names = {"mse_0.05.pth.tar": "0" * 28, "mse_0.0018.pth": "1" * 28}
    cloud.folders[folder] = names
    cloud.files["1" * 28] = cloud.files.pop(DRIVE)
    facts = {"url": None, "google_drive_folder": folder}
    manifest(cloud, tmp_path, **facts, checkpoint_names=["mse_0.0035.pth.tar"])
    refused(licodec("encode", picture_file, *ENCODE, env=cloud.env), "--file: mse_0.0018.pth, mse_0.05.pth.tar")
    manifest(cloud, tmp_path, **facts, checkpoint_names=["mse_0.0018.pth.tar", "mse_0.0018.pth"])
    assert licodec("encode", picture_file, *ENCODE, env=cloud.env).returncode == 0


def test_a_target_chooses_among_qualities(cloud, tmp_path, picture_file):
    """Of what can be fetched, and fetches what it tries only; offline, of what is installed."""
    name, lines = "bmshj2018-hyperprior", ["schema = 1"]
    for quality in (*range(1, 9), 11):
        model = small_model(name)
        model.g_a[-1].weight.data.mul_(3.0**quality)  # finer and finer
        torch.save({"state_dict": as_compressai(model)}, tmp_path / "zoo.pth.tar")
        cloud.files[f"/{quality}.pth.tar"] = (tmp_path / "zoo.pth.tar").read_bytes()
        metric = "ms-ssim" if quality > 10 else "mse"
        lines += [
            f"[[models.{name}.weights]]",
            f"quality = {quality}",
            "status = 'unpublished'",
            f"metric = '{metric}'",
        ]
        lines.append(f"url = 'https://bucket.example/{quality}.pth.tar'")
    (tmp_path / "mine.toml").write_text("\n".join(lines))
    env = cloud.env | {"LICODEC_WEIGHTS": str(tmp_path / "mine.toml")}
    command = ("encode", picture_file, "-m", name, "-f", "--json")

    def coded(*options: object) -> dict[str, object]:
        run = licodec(*command, *options, env=env)
        assert run.returncode == 0, run.stderr.decode()
        return json.loads(run.stdout)

    best = coded("--target-bpp", 1000)
    assert best["quality"] == 8  # not 11, which was trained for another metric
    assert cloud.calls["file"] == 4  # 4, 6, 7 and 8
    size = coded("-q", 6)["bytes"]
    assert coded("--target-size", size)["quality"] == 6 and cloud.calls["file"] == 4
    assert coded("--target-size", size - 1)["quality"] == 5 and cloud.calls["file"] == 5
    assert coded("--target-psnr", 1, "--verify")["quality"] == 1
    run = licodec(*command, "--target-size", "10", env=env)
    assert run.returncode == 1 and b"at the lowest quality" in run.stderr
    assert licodec("weights", "remove", f"{name}-8", env=env).returncode == 0
    assert coded("--target-bpp", 1000, "--offline")["quality"] == 7
    own = Path(env["LICODEC_HOME"]) / "own.safetensors"
    (own.parent / "weights" / f"{name}-1.safetensors").rename(own)
    run = licodec(*command, "--weights", own, "--target-size", "9k", env=env)
    assert run.returncode in (1, 2) and b"has one rate" in run.stderr


def test_compressais_zoo(cloud, tmp_path, picture_file):
    """The address is asked of compressai, the file's name promises its sha256, and the long name fits into a .lic."""
    model = small_model("bmshj2018-hyperprior")
    torch.save({"state_dict": as_compressai(model)}, tmp_path / "zoo.pth.tar")
    data = (tmp_path / "zoo.pth.tar").read_bytes()
    name = f"m-1-{hashlib.sha256(data).hexdigest()[:8]}.pth.tar"
    cloud.files[f"/models/v1/{name}"] = data
    code = (
        "import compressai.zoo.image as image; from licodec.cli import main\n"
        f"image.model_urls['bmshj2018-hyperprior']['mse'][3] = 'https://bucket.example/models/v1/{name}'\n"
        "main()"
    )
    options = ["encode", picture_file, "-m", "bmshj2018-hyperprior", "-q", "3"]
    run = subprocess.run([sys.executable, "-c", code, *options], env={**os.environ, **cloud.env}, capture_output=True)
    assert run.returncode == 0, run.stderr.decode()
    assert f"/models/v1/{name} (" in run.stderr.decode() and b"BSD-3-Clause-Clear" in run.stderr
    lic = picture_file.with_suffix(".lic")
    assert licodec("decode", lic, "-f", env=cloud.env).returncode == 0
    assert json.loads(licodec("info", "--json", lic).stdout)["model"] == "bmshj2018-hyperprior"


def test_a_seafile_share(cloud, tmp_path, picture_file):
    """As NJU Box's: the file is found by a pattern that exactly one matches."""
    cloud.folders["0123abcd"] = {"/mse/q1.pth.tar": DRIVE, "/mse/q2.pth.tar": "x", "/ms-ssim/q1.pth.tar": "x"}
    facts = {"url": None, "seafile_folder": "https://bucket.example/d/0123abcd/"}
    manifest(cloud, tmp_path, **facts, checkpoint_names=["q1*", "mse/q1*"])
    run = licodec("encode", picture_file, *ENCODE, env=cloud.env)
    assert run.returncode == 0 and "from https://bucket.example/d/0123abcd/ (" in run.stderr.decode(), run.stderr
    manifest(cloud, tmp_path, **facts, checkpoint_names=["q1*"])
    fetch = ("weights", "fetch-upstream", "conv-hyperprior", "-f")
    refused(licodec(*fetch, env=cloud.env), "--file: ms-ssim/q1.pth.tar, mse/q1.pth.tar, q2.pth.tar", code=2)
    assert licodec(*fetch, "--file", "mse/q1.pth.tar", env=cloud.env).returncode == 0
    cloud.page = "<html><title>Sign in</title></html>"
    refused(licodec(*fetch, env=cloud.env), "does not answer as a Seafile share does")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_of_all_qualities(kind, cloud, tmp_path, picture_file, checkpoint):
    """It is fetched once; what cannot be used of the others is left out."""
    packed = io.BytesIO()
    files = {"experiments/e_q1/checkpoints/best.pth.tar": checkpoint, "experiments/e_q2/best.pth.tar": b"damaged"}
    if kind == "zip":
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    cloud.files["/all"] = packed.getvalue()
    entry = "[[models.conv-hyperprior.weights]]\nquality = {q}\nstatus = 'unpublished'\n"
    entry += "url = 'https://bucket.example/all'\ncheckpoint_names = ['*e_q{q}/*best*']\n"
    (tmp_path / "mine.toml").write_text("schema = 1\n" + "".join(entry.format(q=q) for q in (1, 2)))
    cloud.env["LICODEC_WEIGHTS"] = str(tmp_path / "mine.toml")
    assert licodec("encode", picture_file, *ENCODE, env=cloud.env).returncode == 0
    assert cloud.calls["file"] == 1 and not list((tmp_path / "home/downloads").iterdir())
    rows = json.loads(licodec("weights", "list", "conv-hyperprior", "--json", env=cloud.env).stdout)
    assert [row["quality"] for row in rows if row["status"] == "installed"] == [1]
    assert rows[0]["checkpoint_sha256"] == hashlib.sha256(cloud.files["/all"]).hexdigest()
    cloud.files["/all"] = cloud.files["/all"][: len(checkpoint) // 3]  # and a damaged one
    run = licodec("weights", "fetch-upstream", "conv-hyperprior", "-q", "1", "-f", "--accept-new", env=cloud.env)
    refused(run, "archive")


def test_two_at_once_fetch_once(cloud, tmp_path):
    manifest(cloud, tmp_path)
    command = [sys.executable, "-m", "licodec", "weights", "pull", "conv-hyperprior-1"]
    runs = [subprocess.Popen(command, env={**os.environ, **cloud.env}) for _ in range(2)]
    assert [run.wait(120) for run in runs] == [0, 0]
    assert cloud.calls["file"] == 1

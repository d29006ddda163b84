"""The manifest, the local store, and the Hub: against a server of our own that speaks its protocol."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import GOLDEN, licodec
from hub import Hub
from PIL import Image
from test_upstream import author_checkpoint

from licodec.errors import UsageError, WeightsError
from licodec.models import MODELS
from licodec.weights import drive, file, manifest, paths

WEIGHTS = GOLDEN / "conv-hyperprior.safetensors"  # a tiny model of quality 1
REPO = "lab/weights"


@pytest.fixture
def hub():
    server = Hub()
    yield server
    server.close()


@pytest.fixture
def env(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """An empty home and cache, and our Hub for theirs."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "LICODEC_HOME": str(tmp_path / "home"),
        "HF_HUB_DOWNLOAD_TIMEOUT": "2",
        "HF_HUB_ETAG_TIMEOUT": "2",
        "LICODEC_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",  # the real Hub's way to upload large files; ours knows the older one
    }


def put(hub: Hub, env: dict[str, str], tmp_path: Path, data: bytes | None = None, **changes: object) -> manifest.Entry:
    """Put weights on the Hub (`data` in place of them), and an entry into a manifest of the user's."""
    real = WEIGHTS.read_bytes()
    commit = hub.commit(REPO, {"conv-hyperprior-1.safetensors": real if data is None else data})
    facts = {
        "model": "conv-hyperprior", "status": "published", "quality": 1, "repo": REPO,
        "file": "conv-hyperprior-1.safetensors", "commit": commit, "size": len(real),
        "sha256": hashlib.sha256(real).hexdigest(), "fingerprint": file.read_header(WEIGHTS).fingerprint.hex(),
    }  # fmt: skip
    entry = manifest.Entry(**{**facts, **changes})
    path = tmp_path / "mine.toml"
    path.write_text(manifest.dump({"conv-hyperprior": manifest.ManifestModel("conv-hyperprior", weights=(entry,))}))
    env["LICODEC_WEIGHTS"] = str(path)
    return entry


def encode(picture_file: Path, env: dict[str, str]):
    return licodec("encode", picture_file, "-m", "conv-hyperprior", "-q", "1", "-f", env=env)


def refused(run, *words: str, code: int = 5) -> None:
    """The run ended with one line that has these words, and this exit code."""
    lines = [line for line in run.stderr.decode().splitlines() if line.startswith("licodec:")]
    assert run.returncode == code and len(lines) == 1, run.stderr.decode()
    assert all(word in lines[0] for word in words), lines


# the manifest


def test_the_packages_manifest():
    ours = manifest.package()
    assert set(ours.models) == set(MODELS)
    for entry in ours.entries():
        info = MODELS[entry.model]
        assert info.variable_rate or entry.quality in info.qualities
        if entry.status == "bundled":
            path = paths.BUNDLED / entry.file
            assert path.stat().st_size == entry.size
            assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256
            assert file.read(path).fingerprint.hex() == entry.fingerprint
    listed = {e.file for e in ours.entries() if e.status == "bundled"}
    assert listed == {p.name for p in paths.BUNDLED.glob("*.safetensors")}
    specs = Path(__file__).parents[2] / "shared" / "upstream"
    for path in specs.glob("*/spec.json"):  # the checkpoints that the authors' READMEs list
        name = path.parent.name.removesuffix("-base")
        if name not in MODELS:
            continue
        released = json.loads(path.read_text())["released_checkpoints"]
        if isinstance(released, list):
            expected = [item["lambda"] for item in released]
        else:
            lists = [value for key, value in released.items() if key.startswith("lambdas")]
            expected = [value for values in lists if isinstance(values, list) for value in values]
        assert set(expected) <= {e.rate_lambda for e in ours.models[name].weights}, name


def test_a_manifest_survives_writing():
    models = manifest.package().models
    assert manifest.parse(manifest.dump(models), "again").models == models


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("schema = 2", "schema"),
        ("x =", "not a manifest"),
        ("schema = 1\nfiles = 3", "unknown: files"),
        ("schema = 1\nmodels = 3", "should be a table"),
        ("schema = 1\n[models.'A B']", "no model name"),
        ("schema = 1\n[models.tcm]\nlicense = 'MIT'", "unknown: license"),
        ("schema = 1\n[models.tcm]\npaper = 3", "should be a line of text"),
        ("schema = 1\n[models.tcm]\npaper = 'a\x1b[2Jb'", "not a manifest"),
        ("schema = 1\n[[models.tcm.weights]]\nquality = 1", "has no status"),
        ("schema = 1\n[[models.tcm.weights]]\nquality = true\nstatus = 'unpublished'", "out of range"),
        ("schema = 1\n[[models.tcm.weights]]\nstatus = 'published'\nrepo = 'a/b'", "has no file, commit"),
        ("schema = 1\n[[models.tcm.weights]]\nstatus = 'unpublished'\nsha256 = '" + "0" * 64 + "'", "but has sha256"),
        ("schema = 1\n[[models.tcm.weights]]\nstatus = 'unpublished'\nurl = 'file:///etc/passwd'", "right form"),
        ("schema = 1\n[[models.tcm.weights]]\nstatus = 'published'\nfile = '../x.safetensors'", "right form"),
        ("schema = 1\n[[models.tcm.weights]]\nstatus = 'published'\ncommit = 'main'", "right form"),
        ("schema = 1\n[[models.tcm.weights]]\nstatus = 'unpublished'\nkodak = { psnr = 3 }", "without bpp"),
        ("schema = 1" + "\n[[models.tcm.weights]]\nquality = 1\nstatus = 'unpublished'" * 2, "two entries"),
    ],
)
def test_manifests_are_not_believed(text: str, complaint: str):
    with pytest.raises(WeightsError, match=complaint):
        manifest.parse(text, "a manifest")


# the Hub


def test_first_use_downloads_later_ones_ask_nobody(hub, env, tmp_path, picture_file):
    put(hub, env, tmp_path)
    first = encode(picture_file, env)
    assert first.returncode == 0, first.stderr.decode()
    calls = dict(hub.calls)
    assert calls["download"] == 1
    assert encode(picture_file, env).returncode == 0
    assert licodec("decode", picture_file.with_suffix(".lic"), "-f", env=env).returncode == 0
    assert dict(hub.calls) == calls
    hub.close()  # and offline it works, with and without the variable
    assert encode(picture_file, env).returncode == 0
    assert encode(picture_file, {**env, "HF_HUB_OFFLINE": "1"}).returncode == 0
    listed = json.loads(licodec("weights", "list", "conv-hyperprior", "--json", env=env).stdout)
    assert [row["status"] for row in listed] == ["cached"]


def test_decode_fetches_what_the_file_names(hub, env, tmp_path, picture_file):
    lic = tmp_path / "golden.lic"
    shutil.copy(GOLDEN / "conv-hyperprior.lic", lic)
    refused(licodec("decode", lic, "--offline", env=env), "needs weights", "none are installed")
    put(hub, env, tmp_path)
    assert licodec("decode", lic, env=env).returncode == 0
    with Image.open(lic.with_suffix(".png")) as got, Image.open(GOLDEN / "conv-hyperprior.png") as expected:
        assert got.size == expected.size
    assert hub.calls["download"] == 1


def test_a_flipped_byte_is_refused_and_not_kept(hub, env, tmp_path, picture_file):
    data = bytearray(WEIGHTS.read_bytes())
    data[len(data) // 2] ^= 1
    put(hub, env, tmp_path, bytes(data))
    refused(encode(picture_file, env), "sha256", "removed from the cache")
    left = [p for p in Path(env["HF_HOME"]).rglob("*") if p.is_file() and p.stat().st_size > 1000]
    assert not left and not picture_file.with_suffix(".lic").exists()


def test_a_file_of_another_size_is_not_even_downloaded(hub, env, tmp_path, picture_file):
    put(hub, env, tmp_path, WEIGHTS.read_bytes() + b"more")
    refused(encode(picture_file, env), "manifest says")
    assert hub.calls["download"] == 0


def test_a_changed_cache_is_noticed(hub, env, tmp_path, picture_file):
    put(hub, env, tmp_path)
    assert licodec("weights", "pull", "conv-hyperprior-1", env=env).returncode == 0
    path = Path(licodec("weights", "path", "conv-hyperprior-1", env=env).stdout.decode().strip())
    blob = path.resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    refused(licodec("weights", "verify", env=env), "1 of")
    refused(encode(picture_file, env), "removed from the cache")
    assert encode(picture_file, env).returncode == 0  # and fetched anew
    assert hub.calls["download"] == 2


@pytest.mark.parametrize(("status", "word"), [(404, "404"), (401, "401"), (403, "403"), (500, "500"), (503, "503")])
def test_answers_that_are_errors(hub, env, tmp_path, picture_file, status, word):
    put(hub, env, tmp_path)
    hub.fail_status = status
    refused(encode(picture_file, env), word, REPO)


def test_a_missing_commit_and_a_token(hub, env, tmp_path, picture_file):
    put(hub, env, tmp_path, commit="0" * 40)
    refused(encode(picture_file, env), "404")
    put(hub, env, tmp_path)
    hub.token = "hf_secret"
    refused(encode(picture_file, env), "HF_TOKEN")
    assert encode(picture_file, {**env, "HF_TOKEN": "hf_secret"}).returncode == 0


def test_silence_and_nobody_there(hub, env, tmp_path, picture_file):
    put(hub, env, tmp_path)
    hub.hang.set()
    refused(encode(picture_file, {**env, "HF_HUB_ETAG_TIMEOUT": "1"}), "failed")
    hub.hang.clear()
    refused(encode(picture_file, {**env, "HF_HUB_OFFLINE": "1"}), "HF_HUB_OFFLINE")
    refused(encode(picture_file, {**env, "HF_ENDPOINT": "http://127.0.0.1:9"}), "failed")


def test_a_server_that_dies_midway(hub, env, tmp_path, picture_file):
    put(hub, env, tmp_path)
    hub.fail_after = [70_000] + [0] * 12
    refused(encode(picture_file, env), "failed")
    hub.fail_after = []
    assert encode(picture_file, env).returncode == 0  # resumed or begun again


def test_a_download_killed_midway(hub, env, tmp_path):
    """What is there of it is used or thrown away; the next call ends with the right file."""
    big = bytes(range(256)) * (40 << 12)
    put(hub, env, tmp_path, big, size=len(big), sha256=hashlib.sha256(big).hexdigest())
    hub.delay = 0.02
    command = [sys.executable, "-m", "licodec", "weights", "pull", "conv-hyperprior-1", "--quiet"]
    run = subprocess.Popen(command, env={**os.environ, **env})
    deadline = time.monotonic() + 60
    while not any(p.stat().st_size > 1 << 20 for p in Path(env["HF_HOME"]).rglob("*.incomplete")):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    run.kill()
    run.wait()
    hub.delay = 0.0
    assert licodec("weights", "pull", "conv-hyperprior-1", env=env).returncode == 0
    path = licodec("weights", "path", "conv-hyperprior-1", env=env).stdout.decode().strip()
    assert Path(path).read_bytes() == big


def test_two_downloads_at_once(hub, env, tmp_path, picture_file):
    put(hub, env, tmp_path)
    command = [sys.executable, "-m", "licodec", "weights", "pull", "conv-hyperprior-1"]
    runs = [subprocess.Popen(command, env={**os.environ, **env}, stderr=subprocess.PIPE) for _ in range(2)]
    assert [run.wait(60) for run in runs] == [0, 0]
    for run in runs:
        run.stderr.close()
    assert licodec("weights", "verify", "conv-hyperprior", env=env).returncode == 0
    assert encode(picture_file, env).returncode == 0


def test_pull_streams(hub, env, tmp_path):
    """300 MB pass through with a bounded peak of memory."""
    size = 300 << 20
    big = bytes(size)
    put(hub, env, tmp_path, big, size=size, sha256=hashlib.sha256(big).hexdigest())
    script = (
        "from licodec.cli import app\n"
        "try: app(['weights', 'pull', 'conv-hyperprior-1'])\n"
        "except SystemExit as e: code = e.code\n"
        "print(code, *[line.split()[1] for line in open('/proc/self/status') if 'VmHWM' in line])"
    )
    run = subprocess.run([sys.executable, "-c", script], env={**os.environ, **env}, capture_output=True, text=True)
    code, peak = map(int, run.stdout.split())
    assert code == 0, run.stderr
    assert peak < 200 << 10  # KiB


# the store


def test_import_path_remove(env, tmp_path, picture_file):
    env = {k: v for k, v in env.items() if k != "LICODEC_WEIGHTS"}
    refused(licodec("weights", "path", "conv-hyperprior", env=env), "licodec weights list")
    refused(encode(picture_file, env), "licodec weights fetch-upstream conv-hyperprior -q 1")
    assert licodec("weights", "import", WEIGHTS, env=env).returncode == 0
    assert licodec("weights", "import", WEIGHTS, env=env).returncode == 1
    path = licodec("weights", "path", "conv-hyperprior-1", env=env).stdout.decode().strip()
    assert Path(path).read_bytes() == WEIGHTS.read_bytes()
    assert encode(picture_file, env).returncode == 0
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(WEIGHTS.read_bytes()[:-5])
    refused(licodec("weights", "import", bad, env=env), "bad.safetensors")
    assert licodec("weights", "remove", "conv-hyperprior-1", env=env).returncode == 0
    refused(licodec("weights", "remove", "conv-hyperprior-1", env=env), "installed or cached")
    assert licodec("weights", "path", "nothing", env=env).returncode == 2


def test_the_wrong_weights_under_the_right_name(env, tmp_path):
    import torch

    lic = tmp_path / "golden.lic"
    shutil.copy(GOLDEN / "conv-hyperprior.lic", lic)
    weights = file.read(WEIGHTS)
    state = weights.float_state()
    name = next(iter(state))
    state[name] = state[name] + torch.ones_like(state[name])
    target = Path(env["LICODEC_HOME"]) / "weights" / "conv-hyperprior-1.safetensors"
    other = file.save(target, weights.metadata, state, weights.tables, weights.thresholds.astype("f4"))
    refused(licodec("decode", lic, env=env), weights.fingerprint.hex(), other.hex())
    assert not lic.with_suffix(".png").exists()


# publishing


def test_publish_then_pull_from_what_was_printed(hub, env, tmp_path, picture_file):
    env["HF_TOKEN"] = "hf_test"
    report = tmp_path / "results.json"
    key = f"0123 conv-hyperprior 1 {file.read_header(WEIGHTS).fingerprint.hex()}"
    results = [{"key": key, "setting": 1.0, "bpp": b, "psnr": 30.0} for b in (0.25, 0.75)]
    report.write_text(json.dumps({"results": results}))
    command = ("weights", "publish", WEIGHTS, "--repo-id", "me/made", "--report", report)
    without = licodec(*command, env=env)
    if file.read_header(WEIGHTS).metadata.licence in ("unknown", "none given"):
        assert without.returncode == 2 and b"--licence" in without.stderr
        assert not hub.commits
    run = licodec(*command, "--licence", "MIT", env=env)
    assert run.returncode == 0, run.stderr.decode()
    assert set(hub.files("me/made")) == {".gitattributes", WEIGHTS.name, "README.md", "weights.toml"}
    card = hub.files("me/made")["README.md"].decode()
    assert "license: mit" in card and hashlib.sha256(WEIGHTS.read_bytes()).hexdigest() in card
    assert "bpp 0.5, psnr 30.0" in card and "Transformer-based Transform Coding" in card

    mine = tmp_path / "printed.toml"  # the printed entry, pasted
    mine.write_text("schema = 1\n" + run.stdout.decode())
    empty = {**env, "HF_HOME": str(tmp_path / "empty"), "LICODEC_WEIGHTS": str(mine)}
    assert licodec("weights", "pull", "conv-hyperprior-1", env=empty).returncode == 0
    assert encode(picture_file, empty).returncode == 0

    other = {**env, "LICODEC_HOME": str(tmp_path / "other"), "HF_HOME": str(tmp_path / "other-hf")}  # or as a source
    assert encode(picture_file, other).returncode == 5
    assert licodec("weights", "add-source", "me/made", env=other).returncode == 0
    assert encode(picture_file, other).returncode == 0
    assert licodec("weights", "remove-source", "me/made", env=other).returncode == 0
    assert licodec("weights", "remove-source", "me/made", env=other).returncode == 5

    again = licodec(*command, "--licence", "MIT", env=env)  # publishing again replaces the entry
    assert again.returncode == 0
    pinned = manifest.parse(hub.files("me/made")["weights.toml"].decode(), "x").entries()
    assert len(pinned) == 1 and pinned[0].commit in again.stdout.decode()


def test_sources_are_searched_in_order(hub, env, tmp_path, picture_file):
    entry = put(hub, env, tmp_path)
    second = tmp_path / "second.toml"
    wrong = manifest.dump({"conv-hyperprior": manifest.ManifestModel("conv-hyperprior", weights=(entry,))})
    second.write_text(wrong.replace(REPO, "no/body"))
    env["LICODEC_WEIGHTS"] = f"{second}:{env['LICODEC_WEIGHTS']}"
    refused(encode(picture_file, env), "no/body")
    env["LICODEC_WEIGHTS"] = ":".join(reversed(env["LICODEC_WEIGHTS"].split(":")))
    assert encode(picture_file, env).returncode == 0
    refused(encode(picture_file, {**env, "LICODEC_WEIGHTS": "/nowhere.toml"}), "/nowhere.toml")
    assert licodec("weights", "add-source", "nonsense", env=env).returncode == 2
    refused(licodec("weights", "add-source", "no/body", env=env), "404")


# the authors' own checkpoints


def serve(folder: Path):
    """Files of a folder over HTTP; (server, url)."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}"


def test_fetch_upstream(env, tmp_path, picture_file):
    (tmp_path / "served").mkdir()
    checkpoint = tmp_path / "served" / "its.pth.tar"
    author_checkpoint(checkpoint)
    server, url = serve(tmp_path / "served")
    try:
        digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
        mine = tmp_path / "mine.toml"
        env["LICODEC_WEIGHTS"] = str(mine)
        text = "schema = 1\n[[models.conv-hyperprior.weights]]\nquality = 1\nstatus = 'unpublished'\n"
        text += f"url = '{url}/its.pth.tar'\n"
        mine.write_text(text + f"checkpoint_sha256 = '{'0' * 64}'")
        command = ("weights", "fetch-upstream", "conv-hyperprior", "-q", "1")
        offline = licodec("encode", picture_file, "-m", "conv-hyperprior", "-q", "1", "--offline", env=env)
        refused(offline, "licodec " + " ".join(command))
        refused(licodec(*command, env=env), "sha256", digest)
        mine.write_text(text + f"checkpoint_sha256 = '{digest}'")
        run = licodec(*command, env=env)
        assert run.returncode == 0, run.stderr.decode()
        assert licodec(*command, env=env).returncode == 2  # there already
        assert encode(picture_file, env).returncode == 0
        assert not list((Path(env["LICODEC_HOME"]) / "downloads").iterdir())
        mine.write_text(text.replace("its.pth.tar", "gone.pth.tar"))
        refused(licodec(*command, "-f", env=env), "with a browser", "gone.pth.tar")
    finally:
        server.shutdown()
        server.server_close()
    assert licodec("weights", "fetch-upstream", "tcm", env=env).returncode == 2  # which quality?
    refused(licodec("weights", "fetch-upstream", "wacnn", "-q", "4", env=env), "1, 2, 3, 5")


def test_fetch_upstream_from_google_drive(monkeypatch, tmp_path):
    """What gdown is asked for; Google Drive cannot be reached from the tests."""
    gdown = pytest.importorskip("gdown")
    asked = {}
    monkeypatch.setenv("LICODEC_OFFLINE", "0")

    def download(output, **options):
        asked.update(options)
        Path(output).write_bytes(b"checkpoint")

    listed = [SimpleNamespace(id="first", path="mse/mse_0.05.pth.tar"), SimpleNamespace(id="other", path="x.pth")]
    monkeypatch.setattr(gdown, "download", download)
    monkeypatch.setattr(gdown, "download_folder", lambda **_: listed)
    assert drive.download(drive.find("tcm", 7), tmp_path).read_bytes() == b"checkpoint"
    assert asked["id"] == "1TK-CPiD2QwtWJqZoT_OyCtnxdQ7UNP56"
    drive.download(drive.find("saaf", 6), tmp_path)
    assert asked["id"] == "first"
    with pytest.raises(UsageError, match=r"--file: mse_0.05.pth.tar, x.pth"):
        drive.download(drive.find("saaf", 1), tmp_path)
    drive.download(drive.find("saaf", 1), tmp_path, "x.pth")
    assert asked["id"] == "other"

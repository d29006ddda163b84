"""The command line as a user meets it, most of it in processes of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import PICTURES, licodec, render
from PIL import Image


def lines(result):
    return result.stderr.decode().strip().splitlines()


@pytest.fixture(scope="module")
def lic(tmp_path_factory):
    """A .lic of the shipped picture made with the shipped weights."""
    path = tmp_path_factory.mktemp("lic") / "a.lic"
    result = licodec("encode", PICTURES / "astronaut.png", "-o", path, "-q", 5)
    assert result.returncode == 0, result.stderr
    return path


def test_encode_and_decode_in_processes_that_differ(lic, tmp_path):
    outputs = []
    variants = ({}, {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}, {"OMP_NUM_THREADS": "1"})
    for i, env in enumerate(variants):
        target = tmp_path / f"{i}.png"
        result = licodec("decode", lic, "-o", target, "-j", 1 + i % 2, env=env)
        assert result.returncode == 0, result.stderr
        with Image.open(target) as image:
            outputs.append(image.convert("RGB"))
    from PIL import ImageChops

    for other in outputs[1:]:
        assert max(high for _, high in ImageChops.difference(outputs[0], other).getextrema()) <= 1


def test_formats_by_ending_and_streams(lic, tmp_path):
    for ending in ("jpg", "webp", "tif", "ppm", "bmp"):
        result = licodec("decode", lic, "-o", tmp_path / f"a.{ending}")
        assert result.returncode == 0, result.stderr
        with Image.open(tmp_path / f"a.{ending}") as image:
            assert image.size == (384, 384)
    result = licodec("decode", "-", stdin=lic.read_bytes())
    assert result.returncode == 0 and result.stdout.startswith(b"\x89PNG")
    result = licodec("encode", "-", "-o", "-", "-q", 5, stdin=(PICTURES / "astronaut.png").read_bytes())
    assert result.stdout == lic.read_bytes()
    assert not result.stderr
    result = licodec("decode", lic, "-o", tmp_path / "a.xyz")
    assert result.returncode == 1 and "xyz" in lines(result)[0]


def test_info_needs_no_torch_and_shows_the_header(lic):
    code = "import sys; sys.argv[1:] = {!r}; from licodec.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    for arguments in (["info", str(lic), "--json"], ["--help"], ["--version"], ["models"], ["encode", "--help"]):
        check = code.format(arguments) + "print('torch' in sys.modules, 'timm' in sys.modules, file=sys.stderr)"
        result = subprocess.run([sys.executable, "-c", check], capture_output=True)
        assert lines(result)[-1] == "False False", result.stderr
        assert result.stdout
    facts = json.loads(licodec("info", lic, "--json").stdout)
    assert (facts["width"], facts["height"], facts["model"], facts["quality"]) == (384, 384, "lite", 5)
    assert facts["bytes"] == lic.stat().st_size == facts["overhead_bytes"] + facts["payload_bytes"]
    assert facts["overhead_bytes"] <= 40 and facts["metadata_bytes"] == 0


def test_lite_imports_neither_timm_nor_compressai_nor_torchvision(lic, tmp_path):
    check = (
        "import sys, licodec; from PIL import Image\n"
        f"licodec.encode(licodec.decode(open({str(lic)!r}, 'rb').read()))\n"
        "print([m for m in ('timm', 'torchvision', 'compressai') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", check], capture_output=True).stdout.strip() == b"[]"


@pytest.mark.parametrize("arguments", [["models"], ["info", "missing.lic"]])
def test_the_end_is_not_spent_on_garbage(arguments):
    check = (
        "import atexit, gc, sys; atexit.register(lambda: print('frozen', gc.get_freeze_count() > 1000))\n"
        f"sys.argv = ['licodec', *{arguments}]\n"
        "from licodec.cli import main; main()"
    )
    assert b"frozen True" in subprocess.run([sys.executable, "-c", check], capture_output=True).stdout


@pytest.mark.parametrize("early", [False, True])
def test_the_end_is_quick_and_loses_nothing(early):
    """Threads, callbacks and buffered text come before it; objects are taken apart only where others are registered."""
    check = (
        "import atexit, threading, time, licodec.cli as cli\n"
        "class Object: __del__ = lambda self: print('taken apart')\n"
        "cli.left = Object()\n"
        "def app(**_):\n"
        "    atexit.register(print, 'callback')\n"
        "    threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\n"
        "    return 3\n"
        "cli.app = app\n"
        f"{early} and atexit.register(print, 'early')\n"
        "cli.main()"
    )
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert result.returncode == 3 and not result.stderr
    assert result.stdout.split("\n")[:-1] == ["thread", "callback", *(["early", "taken apart"] if early else [])]


def test_models_lists_the_bundled_one():
    (row,) = [r for r in json.loads(licodec("models", "--json").stdout) if r["model"] == "lite"]
    assert row["weights"] == "bundled" and row["parameters"] > 1_000_000 and row["licence"] == "Apache-2.0"
    assert b"lite" in licodec("models").stdout


def test_folders_json_and_partial_failure(tmp_path):
    source = tmp_path / "in"
    (source / "deep").mkdir(parents=True)
    Image.fromarray(render(80, 60)).save(source / "a.png")
    Image.fromarray(render(60, 80, 1)).save(source / "deep" / "b.jpg")
    (source / "bad.png").write_bytes(b"not a picture")
    (source / "note.txt").write_text("not for us")
    result = licodec("encode", source, "-o", tmp_path / "out", "--json", "--verify")
    assert result.returncode == 1
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    good = {r["path"]: r for r in rows if "error" not in r}
    assert len(rows) == 3 and len(good) == 2
    for row in good.values():
        assert row["bytes"] == os.path.getsize(row["output"])
        assert row["bpp"] == pytest.approx(8 * row["bytes"] / 4800, abs=1e-4)
        assert row["psnr"] > 20 and row["seconds"] > 0
    assert (tmp_path / "out" / "deep" / "b.lic").exists() and not (tmp_path / "out" / "bad.lic").exists()
    assert any("bad.png: not a picture" in line for line in lines(result))
    result = licodec("decode", tmp_path / "out", "-o", tmp_path / "back")
    assert result.returncode == 0
    with Image.open(tmp_path / "back" / "deep" / "b.png") as image:
        assert image.size == (60, 80)


def test_inputs_of_one_name_keep_their_endings(tmp_path):
    for name in ("a.png", "a.jpg", "b.png"):
        Image.fromarray(render(70, 60)).save(tmp_path / name)
    result = licodec("encode", tmp_path, "-o", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.jpg.lic", "a.png.lic", "b.lic"]


def test_nothing_is_overwritten_without_force(picture_file):
    target = picture_file.with_suffix(".lic")
    target.write_bytes(b"precious")
    result = licodec("encode", picture_file)
    assert result.returncode == 1 and "-f" in lines(result)[0] and target.read_bytes() == b"precious"
    assert licodec("encode", picture_file, "-f").returncode == 0 and target.read_bytes() != b"precious"


def test_targets(picture_file, tmp_path):
    sizes = {}
    for option, value in (("--target-size", "1.2k"), ("--target-bpp", "0.6"), ("--target-psnr", "25")):
        out = tmp_path / f"{option}.lic"
        result = licodec("encode", picture_file, option, value, "-o", out, "--json", "--verify")
        assert result.returncode == 0, result.stderr
        sizes[option] = json.loads(result.stdout)
    assert sizes["--target-size"]["bytes"] <= 1200 and sizes["--target-size"]["quality"] < 8
    assert sizes["--target-bpp"]["bpp"] <= 0.6 and sizes["--target-psnr"]["psnr"] >= 25


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["encode", "PICTURE", "-m", "nonsense"], "nonsense"),
        (["encode", "PICTURE", "-q", "11"], "out of range"),
        (["encode", "PICTURE", "-q", "3", "--target-bpp", "1"], "exclude"),
        (["encode", "PICTURE", "--target-size", "many"], "many"),
        (["encode", "PICTURE", "--device", "abacus"], "abacus"),
        (["encode", "PICTURE", "--json", "-o", "-"], "standard output"),
        (["encode", "PICTURE", "PICTURE", "-o", "-"], "folder"),
        (["encode", "PICTURE", "PICTURE"], "both be written"),
        (["encode"], "inputs"),
        (["frobnicate"], "frobnicate"),
        (["train", ".", "--optimizer", "magic"], "muon"),
    ],
)
def test_usage_errors(picture_file, arguments, word):
    result = licodec(*(picture_file if a == "PICTURE" else a for a in arguments))
    assert result.returncode == 2 and word in result.stderr.decode() and b"Traceback" not in result.stderr


def test_missing_and_wrong_weights(picture_file, lic, tmp_path):
    result = licodec("encode", picture_file, "--weights", tmp_path / "none.safetensors")
    assert result.returncode == 5 and len(lines(result)) == 1
    (tmp_path / "bad.safetensors").write_bytes(b"rubbish" * 100)
    result = licodec("decode", lic, "-o", tmp_path / "x.png", "--weights", tmp_path / "bad.safetensors")
    assert result.returncode == 5 and len(lines(result)) == 1


def test_decode_with_other_weights_names_both(lic, tiny_weights, tmp_path):
    result = licodec("decode", lic, "-o", tmp_path / "x.png", "--weights", tiny_weights)
    needed = json.loads(licodec("info", lic, "--json").stdout)["weights"]
    assert result.returncode == 5 and needed in lines(result)[0] and not (tmp_path / "x.png").exists()


def test_damage_gives_one_line_and_code_3_or_4(lic, tmp_path):
    data = lic.read_bytes()
    cases = {0: 3, 8: 3, 12: 4, 30: 4, len(data) // 2: 4, len(data) - 1: 4}
    for position, code in cases.items():
        damaged = bytearray(data)
        damaged[position] ^= 0x55
        (tmp_path / "d.lic").write_bytes(damaged)
        result = licodec("decode", tmp_path / "d.lic", "-o", tmp_path / "d.png")
        assert result.returncode == code and len(lines(result)) == 1, (position, result.stderr)
        assert "d.lic" in lines(result)[0] and not (tmp_path / "d.png").exists()
    for length in (0, 5, 20, len(data) - 1):
        result = licodec("decode", "-", stdin=data[:length])
        assert result.returncode in (3, 4) and len(lines(result)) == 1 and not result.stdout


def test_traceback_only_on_request(tmp_path):
    assert b"Traceback" not in licodec("decode", tmp_path / "none.lic").stderr
    assert b"Traceback" in licodec("decode", tmp_path / "none.lic", "-vv").stderr


def test_kill_leaves_no_half_file(tmp_path):
    """SIGKILL at many moments: the output is absent or whole."""
    source = tmp_path / "big.png"
    Image.fromarray(render(500, 400)).save(source)
    expected = tmp_path / "expected.lic"
    assert licodec("encode", source, "-o", expected).returncode == 0
    began = time.time()
    assert licodec("encode", source, "-o", expected, "-f").returncode == 0
    whole = time.time() - began
    for share in (0.7, 0.9, 0.97):
        out = tmp_path / f"{share}.lic"
        process = subprocess.Popen([sys.executable, "-m", "licodec", "encode", source, "-o", out, "--quiet"])
        time.sleep(whole * share)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not out.exists() or out.read_bytes() == expected.read_bytes()


def test_shell_completion_knows_commands_and_models():
    env = {"_LICODEC_COMPLETE": "complete_bash", "COMP_WORDS": "licodec encode -m li", "COMP_CWORD": "3"}
    code = "from licodec.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, env={**os.environ, **env})
    assert result.stdout.split() == [b"lite"], result.stderr


def test_a_bug_is_one_line_too(picture_file):
    """An exception nobody foresaw: one line that asks for a report, exit code 1."""
    code = (
        "import sys, licodec.imaging as imaging\n"
        "imaging.from_pil = lambda *a: 1 / 0\n"
        f"sys.argv[1:] = ['encode', {str(picture_file)!r}]\n"
        "from licodec.cli import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert result.returncode == 1 and len(lines(result)) == 1 and "ZeroDivisionError" in lines(result)[0]


def test_crop_and_frame(tmp_path, tiny_weights):
    Image.fromarray(render(300, 200)).save(tmp_path / "a.png")
    common = ("--weights", tiny_weights)
    assert licodec("encode", tmp_path / "a.png", "--tile", 128, *common).returncode == 0
    assert licodec("decode", tmp_path / "a.lic", "-o", tmp_path / "whole.png", *common).returncode == 0
    command = ("decode", tmp_path / "a.lic", "-o", tmp_path / "part.png", "--json", "--crop")
    result = licodec(*command, "100,50,120,80", *common)
    assert result.returncode == 0 and json.loads(result.stdout)["width"] == 120
    with Image.open(tmp_path / "whole.png") as whole, Image.open(tmp_path / "part.png") as part:
        expected = np.asarray(whole.crop((100, 50, 220, 130)), int)
        assert part.size == (120, 80) and np.abs(expected - np.asarray(part)).max() <= 1
    for wrong in ("1,2,3", "a,b,c,d", "0,0,301,1"):
        assert licodec(*command, wrong, "-f", *common).returncode == 2
    frames = [Image.fromarray(render(64, 64, seed)) for seed in range(2)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    moving = licodec("encode", tmp_path / "moving.gif", *common)
    assert moving.returncode == 1 and b"--frame 0" in moving.stderr
    assert licodec("encode", tmp_path / "moving.gif", "--frame", 1, *common).returncode == 0


def test_limits(tmp_path, tiny_weights):
    Image.fromarray(render(300, 20)).save(tmp_path / "a.png")
    common = ("--weights", tiny_weights)
    for option in ("--max-pixels", "--max-side"):
        result = licodec("encode", tmp_path / "a.png", option, 299, *common)
        assert result.returncode == 1 and option.encode() in result.stderr
    assert licodec("encode", tmp_path / "a.png", "--max-pixels", 6000, "--max-side", 300, *common).returncode == 0
    result = licodec("decode", tmp_path / "a.lic", "-f", "--max-side", 299, *common)
    assert result.returncode == 1 and b"--max-side" in result.stderr
    result = licodec("decode", tmp_path / "a.lic", "-f", "--max-tile", 64, *common)
    assert result.returncode == 1 and b"--max-tile" in result.stderr


def test_an_archive_is_resumed_and_shared(tmp_path, tiny_weights):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(12):
        Image.fromarray(render(64, 64, number)).save(photos / f"{number:02}.png")
    (photos / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    command = ("encode", photos, "-o", out, "--weights", tiny_weights, "--resume")
    whole = [sys.executable, "-m", "licodec", *map(str, command)]
    runs = [subprocess.Popen(whole, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [run.communicate()[1] for run in runs]
    codes = [run.returncode for run in runs]
    assert max(codes) == 1 and min(codes) >= 0
    made = [re.findall(r"(\d\d)\.png -> ", text) for text in said]
    assert sorted(made[0] + made[1]) == [f"{number:02}" for number in range(12)]  # each file once, by one of them
    complaint = said[codes.index(1)]
    assert "1 of 13 inputs failed:" in complaint and complaint.rstrip().endswith("bad.png")
    assert sorted(p.name for p in out.iterdir()) == [f"{number:02}.lic" for number in range(12)]  # no locks left
    (out / "03.lic").unlink()  # as if killed before it
    again = licodec(*command)
    assert b"12 of 13" not in again.stderr and b"11 of 13 were done already" in again.stderr
    assert again.stderr.count(b" -> ") == 1 and (out / "03.lic").exists()
    restored = licodec("decode", out, "-o", tmp_path / "restored", "--weights", tiny_weights, "--resume")
    assert restored.returncode == 0 and len(list((tmp_path / "restored").iterdir())) == 12


def test_the_fuzzer_finds_nothing_in_a_few_hundred_files(tmp_path):
    script = PICTURES.parent / "fuzz.py"
    run = subprocess.run([sys.executable, script, "400", "--seed", "7"], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "CorruptError" in run.stdout and "picture" in run.stdout

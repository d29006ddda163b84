"""Many files: plans, processes, limits, reports, and what is done with originals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import heed_interrupts, licodec, render
from odd_jobs import Odd
from PIL import Image, ImageCms

from licodec import files
from licodec.batch.jobs import Job, plan
from licodec.batch.places import Local
from licodec.batch.run import Caps, Pool, attempt
from licodec.errors import InputError, UsageError


def names(*stems: str) -> list[Job]:
    return [Job(Local(stem)) for stem in stems]


def kinds(outcomes) -> dict[str, str]:
    return {o.job.source.name: str(o.error) if o.error else "done" for o in outcomes}


def photos(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.fromarray(render(64, 48, number)).save(folder / f"{number:03}.png")
    return folder


def test_a_process_that_dies_has_its_job_done_again_and_bad_ones_stop_nothing(tmp_path):
    stems = ["a", "die-once", "b", "die-always", "bad", "bug", "c", "d"]
    results = kinds(Pool(Odd(folder=str(tmp_path)), 2).run(names(*stems)))
    assert set(results) == set(stems)
    assert all(results[stem] == "done" for stem in ("a", "b", "c", "d", "die-once"))
    assert "signal 9, 2 times" in results["die-always"] and results["bad"] == "is bad"
    assert "ZeroDivisionError" in results["bug"]


def test_time_and_memory_end_a_file_and_not_the_run(tmp_path):
    began = time.time()
    caps = Caps(seconds=1.5, memory=1 << 29 if sys.platform == "linux" else None)
    results = kinds(Pool(Odd(), 2, caps).run(names("a", "sleep", "eat", "b", "sleep2", "c")))
    assert time.time() - began < 30
    assert results["sleep"] == results["sleep2"] == "took longer than 1.5 s (--timeout)"
    if sys.platform == "linux":
        assert results["eat"] == "needs more memory than --max-memory allows"
    assert [results[stem] for stem in "abc"] == ["done"] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_too_little_memory_for_the_codec_is_said_before_any_file_is_touched(tmp_path):
    source = photos(tmp_path / "in", 6)
    assert licodec("encode", source, "-o", tmp_path / "good", "--jobs", 1, "--max-memory", "1G").returncode == 0
    for command in (("encode", source, "-o", tmp_path / "out"), ("verify", tmp_path / "good")):
        result = licodec(*command, "--jobs", 2, "--max-memory", "40M")
        said = result.stderr.decode()
        assert result.returncode == 2 and said.count("\n") == 1, said
        assert re.search(r"--max-memory 40M is too little: the codec alone takes \d{2,3}M", said)
        assert not (tmp_path / "out").exists()
    Image.new("P", (9000, 9000)).save(source / "large.png")  # 243 MB of pixels
    result = licodec("encode", source, "-o", tmp_path / "out", "--jobs", 1, "--max-memory", "220M")
    assert result.returncode == 1 and len(list((tmp_path / "out").iterdir())) == 6
    said = result.stderr.decode().splitlines()
    assert [line for line in said if not line.startswith(str(source))][:1] == [
        f"licodec: {source}/large.png: needs more memory than --max-memory allows"
    ]


def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path):
    """The names are those of a process that has ended, of one that runs, of another machine's, and of others."""
    source, out = photos(tmp_path / "in", 1), tmp_path / "out"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    out.mkdir()
    mine, here = files.temporary_name("x.lic"), files.temporary_name("")[2:10]
    gone = [f".000.lic.{here}-{ended.pid}.tmp", f".y.lic.{here}-{ended.pid}.tmp", ".old.lic.00000000-1.tmp"]
    stay = [mine, f".z.lic.{here}-{os.getppid()}.tmp", ".new.lic.00000000-1.tmp", ".a.tmp", "b.tmp", ".c.12.tmp"]
    for name in gone + stay:
        (out / name).touch()
    os.utime(out / ".old.lic.00000000-1.tmp", (1, 1))
    os.utime(out / ".a.tmp", (1, 1))
    assert licodec("encode", source, "-o", out).returncode == 0
    assert {path.name for path in out.iterdir()} == {*stay, "000.lic"}


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_run_is_tidied_up_by_the_next(tmp_path):
    """A process is killed while it writes; its file and its lock stay, and go with --resume."""
    source, out = photos(tmp_path / "in", 2), tmp_path / "out"
    script = (
        "import os, sys; from licodec.batch import tasks; from licodec.batch.places import of\n"
        "target = of(sys.argv[1])\n"
        "with tasks.claimed(target), target.writing(False) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)\n"
    )
    for name in ("000.lic", "gone.lic"):
        subprocess.run([sys.executable, "-c", script, out / name])
    assert len(list(out.iterdir())) == 3  # 000's was swept by the second process, its lock was not
    (out / ".001.lic.lock").touch()
    assert licodec("encode", source, "-o", out, "--resume").returncode == 0
    assert {path.name for path in out.iterdir()} == {"000.lic", "001.lic", ".gone.lic.lock"}


def test_what_cannot_be_prepared_ends_the_run():
    with pytest.raises(InputError, match="cannot prepare"):
        list(Pool(Odd(folder="unprepared"), 2).run(names("a", "b")))


def test_outcomes_can_be_sent():
    import pickle

    outcome = pickle.loads(pickle.dumps(attempt(Odd(), *names("bug"), lambda *_: None)))
    assert "ZeroDivisionError" in outcome.trace and "nobody knew" in str(outcome.error)


def test_processes_give_what_one_gives_with_a_report_that_resumes(tmp_path):
    source = photos(tmp_path / "in", 8)
    (source / "bad.png").write_bytes(b"no picture")
    report = tmp_path / "run.jsonl"
    assert licodec("encode", source, "-o", tmp_path / "one", "--jobs", 1).returncode == 1
    many = licodec("encode", source, "-o", tmp_path / "two", "--jobs", 2, "--report", report, "--json")
    assert many.returncode == 1 and b"1 of 9 inputs failed" in many.stderr
    for path in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / path.name).read_bytes() == path.read_bytes()
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert {json.dumps(row) for row in rows[:-1]} == {line.decode() for line in many.stdout.splitlines()}
    total = rows[-1]["total"]
    assert (total["files"], total["failed"]) == (9, 1)
    assert total["bytes_out"] == sum(p.stat().st_size for p in (tmp_path / "two").iterdir())
    assert total["bytes_in"] == sum(p.stat().st_size for p in source.glob("0*.png"))

    assert licodec("encode", source, "-o", tmp_path / "two", "--report", report).returncode == 1  # would overwrite it
    assert b"run.jsonl exists" in licodec("encode", source, "-o", tmp_path / "x", "--report", report).stderr
    report.write_text(report.read_text().rpartition('{"total"')[0] + '{"path": "cut')  # as a killed run leaves it
    Image.fromarray(render(64, 48)).save(source / "bad.png")
    (tmp_path / "two" / "003.lic").unlink()  # the report is believed
    again = licodec("encode", source, "-o", tmp_path / "two", "--report", report, "--resume", "--jobs", 2)
    assert again.returncode == 0 and b"8 of 9 were done already" in again.stderr
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert len([row for row in rows if "path" in row]) == 9 and rows[-1]["total"]["failed"] == 0


def test_verify_names_what_is_damaged(tmp_path):
    source = photos(tmp_path / "in", 3)
    assert licodec("encode", source, "-o", tmp_path / "out").returncode == 0
    assert licodec("verify", tmp_path / "out").returncode == 0
    assert not any((tmp_path / "out").glob("*.png"))
    damaged = bytearray((tmp_path / "out/001.lic").read_bytes())
    damaged[-3] ^= 1
    (tmp_path / "out/001.lic").write_bytes(damaged)
    for option in ("--fast", "--quiet"):
        result = licodec("verify", tmp_path / "out", option, "--json")
        assert result.returncode == 1 and b"001.lic: a checksum" in result.stderr
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        assert sorted("error" in row for row in rows) == [False, False, True]
    assert licodec("verify", tmp_path / "out/001.lic").returncode == 4


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_all_processes_and_leaves_no_half_file(tmp_path):
    source = photos(tmp_path / "in", 30)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "licodec", "encode", source, "-o", out, "--jobs", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=heed_interrupts)
    while not list(out.glob("*.lic")):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 130 and "Traceback" not in said
    assert said.rstrip().endswith("licodec: interrupted")
    assert {p.suffix for p in out.iterdir()} <= {".lic"}
    assert licodec("encode", source, "-o", out, "--resume").returncode == 0
    assert licodec("verify", out, "--fast", "--quiet").returncode == 0 and len(list(out.iterdir())) == 30


def test_plans_stream_and_tell_outputs_apart(tmp_path):
    for name in ("a.png", "a.jpg", "a.b.png", "deep/a.png", "deep/b.PNG", ".hidden/x.png", ".x.png", "z.mov"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    todo = plan([tmp_path / "in"], tmp_path / "out", {".png", ".jpg"}, ".lic", again=".lic")
    targets = [str(Path(job.target.text).relative_to(tmp_path / "out")) for job in todo]
    assert targets[:3] == ["a.b.lic", "a.jpg.lic", "a.png.lic"]
    assert {"deep/a.lic", "deep/b.lic"} <= set(targets) and "z.lic" not in targets
    assert len(targets) == 5 and todo.left == {".mov": 1} and len(list(todo.counted())) == len(targets)
    with pytest.raises(UsageError, match="no files to work on"):
        plan([tmp_path / "in"], None, {".tif"}, ".lic")
    photos(tmp_path / "more/deep", 0)
    (tmp_path / "more/deep/b.png").touch()
    twice = plan([tmp_path / "in", tmp_path / "more"], tmp_path / "out", {".png"}, ".lic")
    with pytest.raises(UsageError, match="two inputs"):
        list(twice)


def test_strip_takes_kinds_and_may_stand_alone(tmp_path):
    tags = Image.Exif()
    tags[0x010F] = "Acme"
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    path = tmp_path / "a.png"
    Image.fromarray(render(64, 48)).save(path, exif=tags, icc_profile=icc.tobytes())
    for words, kept in (((), {"icc", "exif"}), (("--strip", "exif,xmp"), {"icc"}), (("--strip=icc",), {"exif"})):
        assert licodec("encode", path, "-f", *words).returncode == 0
        facts = json.loads(licodec("info", tmp_path / "a.lic", "--json").stdout)
        assert set(facts["metadata"]) == kept
    assert licodec("encode", "--strip", path, "-f").returncode == 0
    assert json.loads(licodec("info", tmp_path / "a.lic", "--json").stdout)["metadata"] == {}
    wrong = licodec("encode", path, "-f", "--strip=thumbs")
    assert wrong.returncode == 2 and b"thumbs" in wrong.stderr


def test_preserve_keeps_times_and_mode(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(render(64, 48)).save(path)
    os.utime(path, ns=(10**18, 10**18 + 5))
    path.chmod(0o640)
    assert licodec("encode", path, "--preserve").returncode == 0
    assert licodec("decode", tmp_path / "a.lic", "-o", tmp_path / "b.png", "--preserve").returncode == 0
    for made in ("a.lic", "b.png"):
        stat = (tmp_path / made).stat()
        assert stat.st_mtime_ns == 10**18 + 5 and stat.st_mode & 0o777 == 0o640
    assert licodec("decode", tmp_path / "a.lic", "-o", tmp_path / "c.png").returncode == 0
    assert (tmp_path / "c.png").stat().st_mtime_ns > 10**18 + 10**9


def test_originals_are_deleted_after_verification_only(tmp_path, monkeypatch):
    from licodec.batch import tasks

    source = photos(tmp_path / "in", 3)
    (source / "bad.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((40, 40), np.float32)).save(source / "deep.tif")  # cannot be coded as it is
    result = licodec("encode", source, "-o", tmp_path / "out", "--delete-source", "--json")
    assert result.returncode == 1
    assert sorted(p.name for p in source.iterdir()) == ["bad.png", "deep.tif"]
    assert b"the original is kept" in result.stderr and len(list((tmp_path / "out").iterdir())) == 4
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert all(row["psnr"] > 20 for row in rows if row.get("deleted")) and sum("deleted" in row for row in rows) == 3
    assert licodec("encode", source / "deep.tif", "-o", "-", "--delete-source").returncode == 2
    assert licodec("encode", source / "deep.tif", "--frame", 0, "--delete-source").returncode == 2

    path = photos(tmp_path / "more", 1) / "000.png"  # a disk that does not keep what was written
    monkeypatch.setattr(Local, "read", lambda self: b"something else")
    outcome = attempt(tasks.Encode(delete_source=True), Job(Local(str(path)), Local(str(tmp_path / "x.lic"))), print)
    assert "the original is kept" in str(outcome.error) and path.exists()


def test_help_is_in_groups_with_what_matters_first():
    text = licodec("encode", "--help", env={"COLUMNS": "100", "TERM": "dumb"}).stdout.decode()
    first, *groups = [part.split("─")[0].strip() for part in text.split("╭─")[2:]]
    assert first == "Options" and groups[0].startswith("Targets") and len(groups) >= 5
    options = text.split("╭─ Options")[1].split("╰")[0]
    assert {w for w in options.split() if w.startswith("--")} >= {"--output", "--quality", "--model", "--verify"}
    assert options.count("--") <= 8 and "[default: 5]" in text

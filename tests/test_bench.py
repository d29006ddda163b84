"""The benchmark: its numbers are those of the files, it resumes, and BD is what it should be."""

import base64
import csv
import io
import json
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import licodec, render
from PIL import Image, features

from licodec.bench import bd, report, table
from licodec.bench.codecs import models
from licodec.bench.commands import parse_command
from licodec.bench.page import ends, rank
from licodec.bench.points import averages
from licodec.bench.rivals import rivals, split
from licodec.bench.run import Result
from licodec.cli.bench import check_curves, choose_anchors, parse_numbers
from licodec.errors import UsageError


def test_report_of_a_mixed_folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(render(200, 180)).save(folder / "a.png")
    Image.fromarray(render(90, 120, 1)).convert("L").save(folder / "b.png")
    (folder / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "report"
    command = ("bench", folder, "-q", "1,3,6,8", "--against", "jpeg,webp,webp:method=0", "-o", out, "-j", 1)
    result = licodec(*command)
    assert result.returncode == 1 and b"bad.png" in result.stderr and b"lite" in result.stdout
    document = json.loads((out / "results.json").read_text())
    rows = {(r["codec"], r["setting"], r["image"]): r for r in document["results"]}
    assert len(rows) == 2 * (4 + 11 + 10 + 10) and document["environment"]["torch"]
    with open(out / "results.csv") as file:
        assert len(list(csv.DictReader(file))) == len(rows)
    # one number of each kind, found independently
    buffer = io.BytesIO()
    pixels = np.asarray(Image.open(folder / "a.png"))
    Image.fromarray(pixels).save(buffer, "JPEG", quality=50, optimize=True, subsampling=2)
    decoded = np.asarray(Image.open(buffer))
    row = rows["jpeg", 50, "a.png"]
    assert row["bytes"] == len(buffer.getvalue()) and row["bpp"] == 8 * row["bytes"] / 36000
    assert row["psnr"] == pytest.approx(10 * np.log10(255**2 / np.mean((decoded.astype(float) - pixels) ** 2)))
    assert row["ms_ssim"] > 0.8 and rows["jpeg", 50, "b.png"]["ms_ssim"] is None
    assert licodec("encode", folder / "a.png", "-q", 6, "-o", tmp_path / "a.lic").returncode == 0
    assert rows["lite", 6, "a.png"]["bytes"] == (tmp_path / "a.lic").stat().st_size
    assert row["ssimulacra2"] < 90 and row["lpips"] is None and row["estimated_bits"] is None
    lite = rows["lite", 6, "a.png"]
    assert lite["estimated_bits"] == pytest.approx(8 * (lite["bytes"] - 40), rel=0.05)
    assert sys.platform != "linux" or lite["encode_memory"] > 1e6
    for name in ("rd-psnr.svg", "rd-psnr.png", "rd-ms-ssim.svg", "rd-ssimulacra2.svg"):
        assert (out / name).stat().st_size > 1000
    assert {r["bytes"] for r in document["results"] if r["codec"] == "webp"} != {
        r["bytes"] for r in document["results"] if r["codec"] == "webp:method=0"
    }
    pairs = {(d["codec"], d["anchor"]) for d in document["differences"]}
    assert len(pairs) == 3 * 3 and ("lite", "webp:method=0") in pairs and ("webp", "jpeg") in pairs
    with open(out / "bd-rates.csv") as file:
        rates = {(r["codec"], r["anchor"]): r for r in csv.DictReader(file)}
    lines = (out / "table.md").read_text().splitlines()
    assert lines[0] == "| lite against | SSIMULACRA 2 | MS-SSIM | PSNR | encode s | decode s |"
    assert [line.split(" | ")[0] for line in lines[2:6]] == ["| jpeg", "| webp", "| webp:method=0", "| lite itself"]
    for cell in (f"{float(rates['lite', 'webp']['ssimulacra2']):+.1f} %", "at equal quality", "2 pictures"):
        assert cell in "\n".join(lines)
    page = (out / "index.html").read_text()
    assert all(cell.strip() in page for line in lines[2:6] for cell in line.split("|"))
    assert not re.search(r'(?:src|href)="(?!data:)', page)  # nothing from elsewhere
    crops = [json.loads(text) for text in re.findall(r'application/json">(.*?)</script>', page)]
    assert [len(shots) for shots in crops] == [5, 5]  # two pictures; the original and four codecs
    original = Image.open(io.BytesIO(base64.b64decode(crops[0][0].partition(",")[2])))
    assert original.size in {(200, 180), (90, 120)}
    rates = [float(rate) for rate in re.findall(r"([\d.]+) bpp, ", page)]
    assert len(rates) == 2 * 2 * 4 and max(rates[:4]) / min(rates[:4]) < 1.3  # at about equal rate
    # a second run measures nothing; a half line left by a kill does no harm
    kept = (out / "results.jsonl").read_bytes()
    (out / "results.jsonl").write_bytes(kept[:-40])
    assert licodec(*command, "--quiet").returncode == 1
    lines = (out / "results.jsonl").read_bytes().splitlines()
    assert len(lines) == len(kept.splitlines()) + 1 and lines[:-2] == kept.splitlines()[:-1]


def test_a_command_as_rival(tmp_path):
    """An encoder and a decoder of our own, that keep every second pixel."""
    (tmp_path / "half.py").write_text(
        "import sys; from PIL import Image\n"
        "mode, source, target, quality = sys.argv[1:]\n"
        "image = Image.open(source)\n"
        "if mode == 'e': image.resize((image.width // 2, image.height // 2)).save(target, quality=int(quality))\n"
        "else: image.resize((image.width * 2, image.height * 2)).save(target)\n"
    )
    (tmp_path / "in").mkdir()
    Image.fromarray(render(200, 180)).save(tmp_path / "in/a.png")
    run = f"{sys.executable} {tmp_path}/half.py"
    template = f"half@20,80: {run} e {{in.ppm}} {{out.jpg}} {{q}} => {run} d {{in}} {{out}} 0"
    report_folder = tmp_path / "report"
    common = ("bench", tmp_path / "in", "-q", "4", "-o", report_folder, "--metrics", "psnr", "--crops", 1)
    result = licodec(*common, "--against", template)
    assert result.returncode == 0, result.stderr.decode()
    rows = json.loads((report_folder / "results.json").read_text())["results"]
    half = {r["setting"]: r for r in rows if r["codec"] == "half"}
    small = io.BytesIO()
    Image.fromarray(render(200, 180)).resize((100, 90)).save(small, "JPEG", quality=80)
    assert half[80]["bytes"] == len(small.getvalue()) > half[20]["bytes"]
    assert half[80]["psnr"] > half[20]["psnr"] and half[80]["ms_ssim"] is None
    failing = licodec(*common, "--against", f"half@-1: {run} e {{in}} {{out.nothing}} {{q}}")
    assert failing.returncode != 0 and b"unknown file extension" in failing.stderr
    missing = licodec(*common, "--against", "none: /no/such/program {in} {out}")
    assert missing.returncode == 2 and b"/no/such/program" in missing.stderr


@pytest.mark.parametrize(
    "text", ["x: a {in}", "x: a {in} {out} {q}", "x@1: a {in} {out}", "a b: c {in} {out}", "x@z: a {in} {out} {q}"]
)
def test_templates_that_make_no_sense(text):
    with pytest.raises(UsageError):
        parse_command(text)


def test_worst_and_best_first():
    assert ends([1, 2, 3, 4, 5], 4) == [1, 5, 2, 4]
    assert ends([1, 2, 3], 9) == [1, 3, 2]
    results = curve("new") + curve("old", 1.5) + curve("new", image="b") + curve("old", 3, "b")
    assert [image for image, _, _ in rank(results, "new", "old")] == ["a", "b"]


def test_metrics_that_are_not_there(tmp_path):
    Image.fromarray(render(70, 70)).save(tmp_path / "a.png")
    result = licodec("bench", tmp_path, "--metrics", "vibes")
    assert result.returncode == 2 and b"vibes" in result.stderr


def test_published_points_are_marked_on_kodak_only():
    results = [replace(r, width=768, height=512) for r in curve("new")]
    kodak = [replace(r, image=f"{i:02}", width=512, height=768) for r in results for i in range(24)]
    assert report.is_kodak(kodak) and not report.is_kodak(results) and not report.is_kodak(kodak + results)
    assert {"wacnn", "stf", "tcm", "cca", "dcae", "saaf"} <= set(report._published())


def curve(codec, factor=1.0, image="a", shift=0.0):
    return [
        Result(f"{codec}{s}{image}", image, codec, s, 100, 100, 1, factor * 0.1 * 1.5**s, 28 + 1.3 * s + shift, 1, 1)
        for s in range(6)
    ]


def test_bd_of_a_curve_at_80_percent_of_the_rate():
    results = curve("old") + curve("new", 0.8) + curve("old", image="b") + curve("new", 0.6, "b")
    (difference,) = bd.differences(results, ["old"])
    assert difference.at_equal == {"psnr": pytest.approx(-30, abs=0.2), "ms_ssim": None, "ssimulacra2": None}
    assert difference.psnr_per_image == pytest.approx(-30, abs=0.1) and difference.bd_psnr > 0


def test_bd_is_bjontegaards():
    """And at equal SSIMULACRA 2 and MS-SSIM it is of those curves, not of PSNR's."""
    import bjontegaard

    rng = np.random.default_rng(3)
    results = []
    for codec in ("old", "new"):
        steps = np.cumsum(rng.uniform(1, 2, (3, 6)), 1)
        for i, r in enumerate(curve(codec, rng.uniform(0.5, 2))):
            scores = {"ssimulacra2": 20 + 8 * steps[0, i], "ms_ssim": 1 - 10 ** (-steps[1, i] / 10)}
            results.append(replace(r, psnr=28 + steps[2, i], **scores))
    (difference,) = bd.differences(results, ["old"])
    points = averages(results)
    for key, (_, value) in bd.AT_EQUAL.items():
        axes = [[f(p) for p in points if p.codec == c] for c in ("old", "new") for f in (lambda p: p.bpp, value)]
        expected = bjontegaard.bd_rate(*axes, method="akima", min_overlap=0)
        assert difference.at_equal[key] == pytest.approx(expected) and abs(expected) > 0.1
    assert len(set(difference.at_equal.values())) == 3


def test_bd_over_a_part_of_a_curve():
    """New saves a fifth at the upper settings of old, and nothing at the lower."""
    old = curve("old")
    new = [replace(r, codec="new", bpp=r.bpp * (1 if r.setting < 3 else 0.8)) for r in old]
    rates = {
        text: bd.differences(old + new, ["old"], bd.Over.parse(text))[0].at_equal["psnr"]
        for text in ("old", "old@0-1", "old@4-5", "new@4-5")
    }
    assert rates["old@0-1"] == pytest.approx(0, abs=0.01) and rates["old@4-5"] == pytest.approx(-20, abs=0.01)
    assert -15 < rates["old"] < -5 and rates["new@4-5"] == pytest.approx(-20, abs=0.01)
    assert bd.differences(old + new, ["old"])[0].at_equal["psnr"] == rates["old"]
    assert str(bd.Over.parse("a:x=1,y=2@30-85")) == "a:x=1,y=2@30-85"
    for text in ("avif@", "avif@85-30", "avif@3", "avif@a-b"):
        with pytest.raises(UsageError, match="avif@30-85"):
            bd.Over.parse(text)


def test_bd_of_curves_apart_is_not_made_up():
    (difference,) = bd.differences(curve("old") + curve("new", shift=40), ["old"])
    assert difference.at_equal["psnr"] is None and difference.bd_psnr is None


def test_table_shows_losses_and_seconds():
    results = [replace(r, encode_seconds=0.25) for r in curve("ours", 1.2)] + curve("x:y=1") + curve("z", 2)
    made = report.Report(results, ["ours"], ["x:y=1", "z"])
    assert table.markdown(made.tables).splitlines() == [
        "| ours against | PSNR | encode s | decode s |",
        "| --- | ---: | ---: | ---: |",
        "| x:y=1 | +20.0 % | 1.000 | 1.000 |",
        "| z | -40.0 % | 1.000 | 1.000 |",
        "| ours itself |  | 0.250 | 1.000 |",
    ]


def test_tunings_of_rivals():
    names = split("jpeg, avif,avif:tune=psnr,subsampling=4:4:4,jxl:effort=7,webp")
    assert names == ["jpeg", "avif", "avif:tune=psnr,subsampling=4:4:4", "jxl:effort=7", "webp"]
    pixels = render(96, 80)
    points = {(r.name, r.setting): r for r in rivals(["webp,webp:method=0,jpeg,jpeg:subsampling=4:4:4,progressive=1"])}
    tuned = points["jpeg:subsampling=4:4:4,progressive=1", 50]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=50, optimize=True, subsampling="4:4:4", progressive=True)
    assert tuned.encode(pixels)[0] == buffer.getvalue() != points["jpeg", 50].encode(pixels)[0]
    assert tuned.identity != points["jpeg", 50].identity
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=60, method=0)
    assert points["webp:method=0", 60].encode(pixels)[0] == buffer.getvalue()


@pytest.mark.skipif(not features.check("avif"), reason="a Pillow without AVIF")
def test_tune_of_avif():
    pixels = render(96, 80)
    (tuned,) = (r for r in rivals(["avif:tune=psnr,subsampling=4:4:4,speed=8"]) if r.setting == 50)
    buffer = io.BytesIO()
    options = {"quality": 50, "speed": 8, "subsampling": "4:4:4", "advanced": {"tune": "psnr"}}
    Image.fromarray(pixels).save(buffer, "AVIF", **options)
    assert tuned.encode(pixels)[0] == buffer.getvalue() and "psnr" in tuned.identity


@pytest.mark.skipif(not features.check("avif"), reason="a Pillow without AVIF")
def test_threads_of_rivals(monkeypatch):
    """AVIF uses all cores unless told otherwise, which would make the seconds of one thread a lie."""
    from PIL import AvifImagePlugin

    monkeypatch.setattr(AvifImagePlugin, "DEFAULT_MAX_THREADS", 0)
    assert all("threads" not in r.identity for r in rivals(["avif"])) and AvifImagePlugin.DEFAULT_MAX_THREADS == 0
    assert all(r.options["max_threads"] == 1 for r in rivals(["avif"], 1)) and AvifImagePlugin.DEFAULT_MAX_THREADS == 1


@pytest.mark.parametrize(
    "text, reason",
    [
        ("betamax", "betamax"),
        ("webp:quality=3", "it has method"),
        ("webp:method=9", "one of 0, 1, 2"),
        ("webp:", "it has method"),
        ("jpeg2000:x=1", "nothing"),
        ("webp,method=4", "unknown rival 'method=4'"),
        ("jpeg:subsampling=4:4", "4:4:4, 4:2:2"),
    ],
)
def test_unknown_rivals_and_tunings(text, reason):
    with pytest.raises(UsageError, match=reason):
        list(rivals([text]))


def test_efforts_are_curves_of_their_own():
    plain, searched = models(["lite"], [3], [1, 2], "cpu")
    assert (plain.name, searched.name) == ("lite", "lite:effort=2") and plain.identity != searched.identity
    pixels = render(128, 128)
    files = [m.encode(pixels)[0] for m in (plain, searched)]
    assert files[0] != files[1] and all(plain.decode(data).shape == pixels.shape for data in files)
    for names, efforts in ((["lite"], [12]), (["lite"], [1.5]), (["tcm"], [7])):
        with pytest.raises(UsageError, match="effort"):
            list(models(names, [3], efforts, "cpu"))


def test_qualities():
    assert parse_numbers("1-3,4.5", "-q") == [1, 2, 3, 4.5]
    for text in ("", "a", "1-b"):
        with pytest.raises(UsageError):
            parse_numbers(text, "-q")


def test_unknown_rival(tmp_path):
    Image.fromarray(render(70, 70)).save(tmp_path / "a.png")
    result = licodec("bench", tmp_path, "-o", tmp_path / "report", "--against", "betamax")
    assert result.returncode == 2 and b"betamax" in result.stderr and not (tmp_path / "report").exists()


def test_anchors_and_ranges_are_of_measured_curves():
    own, others = list(models(["lite"], [3, 4], [1], "cpu")), list(rivals(["jpeg,webp"]))
    assert choose_anchors([], own, own + others) == ["jpeg", "webp"]
    assert choose_anchors(["webp", "lite"], own, own + others) == ["webp", "lite"]
    assert choose_anchors([], own, own) == []
    with pytest.raises(UsageError, match="there are lite jpeg webp"):
        choose_anchors(["avif"], own, own + others)
    check_curves(own + others, bd.Over.parse("jpeg@80-90"))
    with pytest.raises(UsageError, match="fewer than two"):
        check_curves(own + others, bd.Over.parse("jpeg@85-90"))
    with pytest.raises(UsageError, match="jpeg at 10 is named twice"):
        check_curves([*others, *rivals(["jpeg"])], None)


def test_compare(tmp_path):
    pixels = render(200, 180)
    changed = pixels.copy()
    changed[10, 20] ^= 4
    for name, picture in (("a.png", pixels), ("b.png", changed), ("c.png", pixels[:100])):
        Image.fromarray(picture).save(tmp_path / name)
    result = licodec("compare", tmp_path / "a.png", tmp_path / "b.png", "--json", "-o", tmp_path / "d.png")
    facts = json.loads(result.stdout)
    error = np.mean((pixels.astype(float) - changed) ** 2)
    assert facts["psnr"] == pytest.approx(10 * np.log10(255**2 / error))
    assert facts["largest_difference"] == 4 and facts["samples_that_differ"] == pytest.approx(3 / pixels.size)
    assert facts["ms_ssim"] > 0.999
    with Image.open(tmp_path / "d.png") as difference:
        assert difference.getpixel((20, 10)) == (32, 32, 32) and difference.getpixel((0, 0)) == (0, 0, 0)
    assert b"equal" in licodec("compare", tmp_path / "a.png", tmp_path / "a.png").stdout
    assert licodec("compare", tmp_path / "a.png", tmp_path / "c.png").returncode == 2
    result = licodec("compare", tmp_path / "a.png", tmp_path / "none.png")
    assert result.returncode == 1 and b"none.png" in result.stderr

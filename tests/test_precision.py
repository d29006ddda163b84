"""bf16 for g_a and g_s: files stay compatible, pictures stay close, and slow processors refuse."""

import numpy as np
import pytest
import torch
from conftest import GOLDEN, licodec, render
from golden import formula

import licodec as library
from licodec import codec, container, imaging
from licodec.errors import UsageError
from licodec.runtime import torch as runtime


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return formula.weights("tcm", tmp_path_factory.mktemp("w") / "tcm.safetensors")


def psnr(a, b):
    return -10 * np.log10(np.mean((a.astype(float) - b) ** 2) / 255**2)


def test_bf16_and_float32_decode_each_others_files(weights, monkeypatch):
    """Here on any processor: autocast works everywhere, if slowly."""
    monkeypatch.setattr(runtime, "has_bf16", lambda device: True)
    plain, fast = codec.Codec(weights, "cpu"), codec.Codec(weights, "cpu", "bf16")
    picture = imaging.Picture(render(130, 70))
    decoded = {}
    for encoder in (plain, fast):
        parsed = container.read(encoder.encode(picture, 1).data)
        for decoder in (plain, fast):
            decoded[encoder is fast, decoder is fast] = decoder.decode(parsed).pixels
    reference = decoded[False, False]
    assert 35 < psnr(decoded[False, True], reference) < 70  # close, and not the same: it was bf16 that ran
    assert 20 < psnr(decoded[True, False], reference) < 70  # y differs too
    parsed = container.read((GOLDEN / "tcm.lic").read_bytes())
    expected = imaging.read(GOLDEN / "tcm.png").pixels
    assert psnr(fast.decode(parsed).pixels, expected) > 35


def test_bf16_is_refused_where_it_is_slower(weights, monkeypatch):
    monkeypatch.setattr(runtime, "has_bf16", lambda device: False)
    with pytest.raises(UsageError, match="slower than float32 here"):
        codec.Codec(weights, "cpu", "bf16")
    with pytest.raises(UsageError, match="use float32 or bf16"):
        library.load(weights=weights, precision="half")
    result = licodec("encode", "--precision", "half", "none.png")
    assert result.returncode == 2 and b"use float32 or bf16" in result.stderr


@pytest.mark.parametrize(
    ("flags", "expected"), [("fpu avx2 avx512f", False), ("avx512f avx512_bf16", True), ("amx_bf16", True)]
)
def test_processors_with_bf16_are_known_by_their_flags(flags, expected, monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    monkeypatch.setattr(runtime, "CPU_FLAGS", tmp_path / "cpuinfo")
    assert runtime.has_bf16(torch.device("cpu")) is expected

"""`lite` in ONNX Runtime: no torch, the same integers as torch, whatever the optimiser and the threads."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PICTURES, torch_model
from PIL import Image

from licodec import codec, container, imaging, runtime
from licodec.errors import CorruptError, WeightsError
from licodec.parallel import in_order
from licodec.runtime.onnx import OnnxModel, graphs_for
from licodec.weights import file, store

WEIGHTS = store.bundled("lite")[0]


def photograph(width=256, height=192):
    return imaging.from_pil(Image.open(PICTURES / "astronaut.png").convert("RGB").resize((width, height)))


@pytest.fixture(scope="module")
def reference():
    return torch_model(WEIGHTS)


@pytest.fixture(scope="module")
def harsh(tmp_path_factory):
    """Weights whose entropy networks are driven to their limits: every clamp is met, sums are as large as allowed."""
    rng = np.random.default_rng(1)
    weights = file.read(WEIGHTS)
    state = weights.float_state()
    for name, tensor in state.items():
        if name.startswith("entropy.") and name.endswith("multiplier"):
            tensor *= 2.0 ** rng.integers(-1, 3, len(tensor)) * (1 + 0.3 * rng.random(len(tensor)))
        elif name.startswith("entropy.") and tensor.ndim == 4 and tensor[0].numel() < 600:
            tensor[::3] = 127  # one channel in three
        elif name in ("entropy.tables.row", "entropy.tables.start"):
            tensor += rng.integers(-300, 300, tensor.shape)
    path = tmp_path_factory.mktemp("harsh") / "w.safetensors"
    file.save(path, weights.metadata, state, weights.tables, weights.thresholds.astype("f4"))
    return path


def walked(model, z, symbols, quality):
    """All means and rows of a walk in which the decoder is given these symbols."""
    context = model.context(z, quality)
    seen = []
    for step, part in enumerate(symbols):
        seen += context.params(step)
        context.push(step, part)
    return [*seen, context.y_hat()]


def hostile(rng, geometry, width=4, height=3):
    """z and symbols of every size, as no encoder would send them."""
    z = rng.integers(-127, 128, (1, geometry.hyper_channels, height, width)).astype(np.int32)
    shape = (1, 448, 2 * height, 2 * width)
    exponents = [rng.integers(0, 24, shape) for _ in range(geometry.steps)]
    symbols = [(rng.uniform(-1, 1, shape) * 2.0**e).astype(np.int32) for e in exponents]
    symbols[0][:, :100] = 0
    symbols[1][:, ::2] = np.sign(symbols[1][:, ::2])
    return z, symbols


@pytest.mark.parametrize("kind", ["trained", "harsh"])
def test_every_runtime_gives_the_same_integers(kind, harsh, reference):
    path = WEIGHTS if kind == "trained" else harsh
    weights = file.read(path)
    torch_side = reference if kind == "trained" else torch_model(path)
    rng = np.random.default_rng(0)
    cases = [(q, *hostile(rng, torch_side.geometry)) for q in (1, 3.37, 7.995, 10)]
    expected = [walked(torch_side, z, symbols, q) for q, z, symbols in cases]
    assert len(np.unique(np.concatenate([case[1].ravel() for case in expected]))) > 20  # of the 64 rows
    for threads, optimised in ((1, None), (1, True), (2, True), (4, True), (1, False), (3, False)):
        model = OnnxModel(weights, graphs_for(weights), threads, optimised)
        for (q, z, symbols), wanted in zip(cases, expected, strict=True):
            assert (model.z_rows(q) == torch_side.z_rows(q)).all()
            for mine, theirs in zip(walked(model, z, symbols, q), wanted, strict=True):
                assert np.array_equal(mine, theirs)


def test_torch_itself_agrees_on_any_number_of_threads(harsh):
    program = """
import sys, numpy as np, torch
sys.path.insert(0, "tests")
from pathlib import Path
from conftest import torch_model
from test_runtime import hostile, walked
torch.set_num_threads(int(sys.argv[2]))
model = torch_model(Path(sys.argv[1]))
print([hash(a.tobytes()) for a in walked(model, *hostile(np.random.default_rng(5), model.geometry), 4.5)])
"""
    results = set()
    for threads, capability in ((1, "default"), (2, "avx512")):
        env = {"PYTHONHASHSEED": "0", "ATEN_CPU_CAPABILITY": capability, "PATH": ""}
        arguments = [sys.executable, "-c", program, str(harsh), str(threads)]
        root = Path(__file__).parents[1]
        results.add(subprocess.run(arguments, cwd=root, env=env, capture_output=True, text=True, check=True).stdout)
    assert len(results) == 1


def test_transforms_agree_and_files_are_exchanged(reference):
    chosen, other = codec.Codec(WEIGHTS), codec.Codec(WEIGHTS)
    assert isinstance(chosen.model, OnnxModel)
    other.model = reference
    picture = photograph()
    for q in (1.5, 9):
        files = [c.encode(picture, q).data for c in (chosen, other)]
        assert abs(len(files[0]) - len(files[1])) <= 8
        for data in files:
            pixels = [c.decode(container.read(data)).pixels.astype(int) for c in (chosen, other)]
            assert np.abs(pixels[0] - pixels[1]).max() <= 1


def test_graphs_are_of_the_bundled_weights_and_made_from_the_module(tmp_path):
    """A fresh export of a small configuration runs, and needs exactly the tensors that its weights file has."""
    import torch

    from licodec.models.export import export
    from licodec.models.lite import Lite, LiteConfig
    from licodec.runtime.export import export as export_graphs

    assert graphs_for(file.read(WEIGHTS)) is not None
    torch.manual_seed(0)
    config = LiteConfig(N=16, M=32, C=16, Z=8, blocks=1)
    path = tmp_path / "small.safetensors"
    export(Lite(config), path, {}, "test")
    assert graphs_for(file.read(path)) is None
    export_graphs(tmp_path / "small", config)
    model = runtime.open_model(file.read(path))
    assert isinstance(model, OnnxModel)
    window = np.random.default_rng(0).random((1, 3, 192, 128), dtype=np.float32)
    y = model.analyse(window, 2.25)
    theirs = torch_model(path)
    assert np.abs(y - theirs.analyse(window, 2.25)).max() < 1e-3
    z = model.hyper_analyse(y, 2.25).astype(np.int32)
    symbols = [np.rint(part).astype(np.int32) for part in model.split(y)]
    for mine, other in zip(walked(model, z, symbols, 2.25), walked(theirs, z, symbols, 2.25), strict=True):
        assert np.array_equal(mine, other)


@pytest.mark.parametrize("over", [0, 1, 1 << 24])
def test_weights_whose_sums_are_not_exact_are_refused(over, tmp_path):
    weights = file.read(WEIGHTS)
    state = weights.float_state()
    sums = 127 * state["entropy.inputs.0.weight"][0].int().abs().sum()
    state["entropy.inputs.0.bias"][0] = -((1 << 24) - 1 - sums + over)
    file.save(tmp_path / "w.safetensors", weights.metadata, state, weights.tables, weights.thresholds.astype("f4"))
    if not over:
        codec.load(tmp_path / "w.safetensors")
        return
    with pytest.raises(WeightsError, match="exactly"):
        codec.load(tmp_path / "w.safetensors")


PROGRAMS = {
    "encode": ["-m", "licodec", "encode", "{png}", "-o", "{new}"],
    "decode": ["-m", "licodec", "decode", "{lic}", "-o", "{new}.png"],
    "thumbnail": ["-m", "licodec", "thumbnail", "{lic}", "-o", "{new}.png"],
    "info": ["-m", "licodec", "info", "{lic}"],
    "pillow": ["-c", "import licodec.pillow, sys; from PIL import Image; Image.open(sys.argv[1]).load()", "{lic}"],
    "python": ["-c", "import licodec, sys; licodec.encode(licodec.decode_array(sys.argv[1]))", "{lic}"],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_torch_is_imported(name, tmp_path):
    png, lic = tmp_path / "a.png", tmp_path / "a.lic"
    picture = photograph()
    Image.fromarray(picture.pixels).save(png)
    lic.write_bytes(codec.load(WEIGHTS).encode(picture, 4).data)
    words = [word.format(png=png, lic=lic, new=tmp_path / "new.lic") for word in PROGRAMS[name]]
    done = subprocess.run([sys.executable, "-X", "importtime", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "licodec" in imported
    assert not {
        m for m in imported if m.split(".")[0] in ("torch", "timm", "compressai", "matplotlib", "scipy", "onnx")
    }
    if name == "info":
        assert "onnxruntime" not in imported


def test_little_pictures_take_one_thread_unless_told_otherwise():
    weights = file.read(WEIGHTS)
    free, told = OnnxModel(weights, graphs_for(weights)), OnnxModel(weights, graphs_for(weights), threads=3)
    free.threads = 2  # as on two cores
    for model, little, large in ((free, 1, 2), (told, 3, 3)):
        for side in (512, 1088):
            model.analyse(np.zeros((1, 3, side, 512), np.float32), 5)
            model.context(np.zeros((1, 64, side // 64, 8), np.int32), 5)
        made = {tuple(wanted) for wanted in model.loaded if wanted.name != "tables"}
        analysed = {("analysis", little, True), ("analysis", large, True)}
        assert made == {*analysed, ("step0", little, False), ("step0", large, True)}


def test_tiles_side_by_side_give_the_same_file_and_pixels():
    one, many = codec.Codec(WEIGHTS), codec.Codec(WEIGHTS)
    one.model.side_by_side, many.model.side_by_side = 1, 4
    picture = photograph(420, 300)
    files = [c.encode(picture, 4, tile=128).data for c in (one, many)]
    assert files[0] == files[1]
    told = []
    pixels = [c.decode(container.read(files[0]), report=lambda *now: told.append(now)).pixels for c in (one, many)]
    assert np.array_equal(*pixels) and told == 2 * [(i, 12) for i in range(1, 13)]
    parsed = container.read(files[0])
    damaged = [*parsed.tiles[:6], parsed.tiles[6][:-8] + b"\1" * 8, *parsed.tiles[7:]]
    with pytest.raises(CorruptError, match="tile at 256,128"):
        many.decode(container.Container(parsed.header, {}, damaged))


def test_work_in_order_is_bounded_and_ends_with_the_first_error():
    begun, taken = [], []

    def work(item):
        begun.append(item)
        if item == 7:
            raise ZeroDivisionError
        return item * item

    with pytest.raises(ZeroDivisionError):
        for result in in_order(work, range(100), 3):
            taken.append(result)
            assert len(begun) <= len(taken) + 3
    assert taken == [i * i for i in range(7)] and len(begun) <= 10

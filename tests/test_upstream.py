"""The published models: round trips of small ones, conversion, and the authors' numbers where `shared` is there."""

import functools
import importlib
import json
import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import SHARED, licodec, render
from PIL import Image

from licodec import codec, container, imaging
from licodec.coding import EntropyTables, encode_latent
from licodec.entropy.tables import gaussian_tables
from licodec.errors import CorruptError, InputError, UsageError, WeightsError
from licodec.models import MODELS
from licodec.models.base import CompressionModel, walk
from licodec.models.export import export
from licodec.models.skeleton import skeleton
from licodec.runtime.torch import TorchModel
from licodec.tiling import coding_steps
from licodec.train.loop import TrainConfig
from licodec.train.loss import training_loss
from licodec.upstream.convert import LAYOUTS, convert, load_state

SMALL = {
    "wacnn": {"N": 16, "M": 32, "slices": 4},
    "stf": {"embed": 16, "depths": [1, 2, 2], "slices": 2},
    "tcm": {"N": 32, "M": 40, "slices": 2},
    "tcm-auxt": {"N": 32, "M": 40, "slices": 2},
    "cca": {"dims": [8, 16, 16], "depth": 1, "slice_sizes": [8, 12, 20], "naf_dim": 16, "naf_depth": 1},
    "dcae": {"N": 32, "M": 32, "dims": [32, 32, 32], "depths": [1, 2, 1], "slices": 2, "words": 8},
    "saaf": {"N": 32, "M": 32, "dims": [32, 32, 32], "depths": [1, 1, 1], "slices": 2, "words": 8},
    "swint-charm": {"dims": [16, 16, 32, 64], "depths": [1, 2, 1, 1], "hyper_dims": [16, 16], "hyper_depths": [1, 1]},
    "conv-charm": {"M": 64, "Z": 16},
    "conv-hyperprior": {"M": 32, "Z": 16},
    "tic": {"N": 16, "M": 32, "depths": [1, 2, 1]},
    "invcompress": {"N": 32, "couplings": 1, "features": 4, "growth": 4},
    "mambavc": {"N": 8, "M": 32, "slices": 2, "depths": [1, 1, 1, 1], "up_depths": [1, 1, 1]},
    "tinylic": {"N": 32, "M": 80, "depths": [1, 1, 1, 1]},
    "shiftlic-small": {"widths": [16, 16, 16], "N": 16, "M": 32},
    "shiftlic-middle": {"widths": [16, 32, 32], "N": 16, "M": 32},
    "shiftlic-large": {"widths": [16, 32, 32], "N": 16, "M": 32},
    "mlicpp": {"N": 16, "M": 64, "slices": 2},
    "hpcm": {
        "M": 32,
        "Z": 16,
        "dims": [8, 16, 16],
        "depths": [1, 1, 1],
        "shared_depths": [1, 1],
        "fine_depths": [1, 1],
    },
    "glic": {"N": 16, "dims": [16, 16, 16], "heads": 1, "depth": 2, "groups": [8, 8, 16]},
}
SMALL["swint-hyperprior"] = SMALL["swint-charm"]
SMALL |= {
    name: {"N": 16, "M": 24} for name in ("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "mbt2018")
}
SMALL |= {name: {"N": 16} for name in ("cheng2020-anchor", "cheng2020-attn")}
SMALL |= {f"{name}-vbr": SMALL[name] for name in ("bmshj2018-hyperprior", "mbt2018-mean", "mbt2018")}
PUBLISHED = [name for name in MODELS if name != "lite"]


def small_model(name):
    torch.manual_seed(0)
    model = MODELS[name].build(SMALL[name])
    if name == "stf":  # three stages end at 1/8; a fourth is needed for a latent at 1/16
        model = MODELS[name].build({**SMALL[name], "depths": [1, 2, 1, 1]})
    return model


@pytest.mark.parametrize("name", PUBLISHED)
def test_small_one_codes_any_size(name, tmp_path):
    """Also sizes that the authors' code cannot do, such as a side of 128 after padding."""
    path = tmp_path / "w.safetensors"
    export(small_model(name), path, {}, "test", 1)
    chosen = codec.load(path, "cpu")
    for size in ((70, 50), (260, 130)):
        picture = imaging.Picture(render(*size))
        data = chosen.encode(picture, 1).data
        assert chosen.decode(container.read(data)).size == size
    tiled = chosen.encode(imaging.Picture(render(600, 300)), 1, tile=256).data
    assert chosen.decode(container.read(tiled)).size == (600, 300)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_the_decoder_must_reproduce_is_float64(name):
    """Every mean and scale, and every tensor on the way to them."""
    model = small_model(name).prepare()
    seen = []
    for part in (getattr(model, part) for part in model.exact):
        for module in part.modules() if isinstance(part, torch.nn.Module) else ():
            module.register_forward_hook(lambda module, args, out: seen.append((type(module).__name__, out)))
    side = model.stride // model.hyper_stride
    z_hat = torch.zeros(1, model.hyper_channels, side, side, dtype=torch.float64)
    pairs = []

    def code(step, mean, scale):
        pairs.append((mean, scale))
        return mean.round()

    with torch.inference_mode():
        y_hat = walk(model, z_hat, torch.ones(1), code).y_hat()
    maps = [tensor for pair in pairs for tensor in pair] + [y_hat]
    sides = 2 * [side * model.hyper_stride // model.latent_stride]
    assert len(pairs) == coding_steps(model.steps, model.row_delay, *sides) and all(
        tensor.dtype == torch.float64 for tensor in maps
    )
    assert (seen or not pairs) and {
        kind for kind, out in seen if torch.is_tensor(out) and out.dtype != torch.float64
    } == set()


@pytest.mark.parametrize("name", ["tcm", "conv-hyperprior"])
def test_a_decoder_with_other_scales_is_out_of_step(name, tmp_path):
    path = tmp_path / "w.safetensors"
    export(small_model(name), path, {}, "test", 1)
    parsed = container.read(codec.load(path, "cpu").encode(imaging.Picture(render(130, 70)), 1).data)
    other = codec.Codec(path, "cpu")
    module = other.model.module
    for parameter in (module.scale_heads[0] if name == "tcm" else module.h_s).parameters():
        parameter.data.mul_(1.3).add_(0.1)
    with pytest.raises(CorruptError, match="out of step"):
        other.decode(parsed)


@pytest.fixture
def threads():
    """Sets torch's threads; they are put back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["tcm", "dcae"])
def test_files_decode_with_any_number_of_threads(name, tmp_path, threads):
    path = tmp_path / "w.safetensors"
    export(small_model(name), path, {}, "test", 1)
    chosen = codec.load(path, "cpu")
    threads(3)
    parsed = container.read(chosen.encode(imaging.Picture(render(200, 136)), 1).data)
    many = chosen.decode(parsed).pixels.astype(int)
    threads(1)
    alone = chosen.decode(parsed).pixels.astype(int)
    assert np.abs(alone - many).max() <= 1 and (alone != many).mean() < 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_models_keep_their_contract(name):
    with skeleton():
        model = MODELS[name].build(SMALL.get(name, {}))
    assert model.name == name


def test_a_model_that_breaks_the_contract_is_refused():
    class Half(CompressionModel):
        def analyse(self, x, quality):
            return x

    with pytest.raises(TypeError, match="abstract"):
        Half()
    model = small_model("conv-hyperprior")
    model.exact, model.overlap = ("h_s", "no_such_part"), None
    with pytest.raises(TypeError, match=r"overlap.*no_such_part"):
        model.check_contract()


@pytest.mark.parametrize("name", PUBLISHED)
def test_training_reaches_every_parameter_and_lowers_the_loss(name):
    """Of a small model, with the paper's own terms; the parts for training are not exported."""
    model = small_model(name)
    model.add_training_parts()
    model.train()
    if hasattr(model, "z_prior"):
        model.z_prior.quantiles.data[:, 0, 1] = 0.3  # so that z_hat is not all zeros
    for parameter in model.parameters():
        if not parameter.abs().sum():
            parameter.data.normal_(std=0.05)  # a scale of zero would hide what it scales
    if name.startswith(("bmshj", "mbt")):
        model.g_a[-1].weight.data.mul_(30)  # so that y_hat is not either
    config = TrainConfig(model=name, rate_lambda=1.0 if name == "cca" else 0.01)
    side = 128 if name.startswith("shiftlic") else model.stride  # shifts leave nothing of a z of one position
    x = torch.from_numpy(render(side, side)).permute(2, 0, 1)[None].float() / 255
    if name in ("shiftlic-small", "shiftlic-middle"):  # whose means are zero: y must not round to that
        model.g_a[-1].weight.data.mul_(30)
    learned = [p for n, p in model.named_parameters() if not n.endswith("quantiles")]
    optimizer = torch.optim.Adam(learned, 3e-4)
    losses = []
    for _ in range(6):
        torch.manual_seed(1)
        out = model(x, torch.ones(1))
        loss = training_loss(model, out, x, torch.ones(1), config)
        model.zero_grad()
        loss.total.backward()
        if not losses:
            without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        optimizer.step()
        aux = model.aux_loss()
        losses.append(loss.total.item() - (0 if aux is None else aux.item()))
    # what adds the same to all logits of a softmax has no gradient but rounding noise
    assert not [n for n in without if not n.endswith((".key.bias", ".keys.1.bias"))]
    assert losses[-1] < losses[0]
    assert (out.extra is not None) == (name in ("cca", "tcm-auxt", "saaf", "glic"))


def test_training_command_for_a_published_model(tmp_path):
    """The same command as for `lite`, on a small model; its weights code pictures."""
    for seed in range(2):
        Image.fromarray(render(200, 180, seed)).save(tmp_path / f"{seed}.png")
    config = SMALL["conv-charm"]
    code = (
        "import licodec.models.tbtc as tbtc\n"
        f"tbtc.ConvChARMConfig.__init__.__defaults__ = ({config['M']}, {config['Z']})\n"
        "from licodec.cli import main; main()"
    )
    out = tmp_path / "run"
    options = ["-m", "conv-charm", "--lambda", "0.013", "-q", "1", "--steps", "4", "--batch", "2"]
    options += ["--crop", "64", "-j", "1"]
    result = subprocess.run([sys.executable, "-c", code, "train", tmp_path, "-o", out, *options], capture_output=True)
    assert result.returncode == 0, result.stderr
    trained = out / "weights.safetensors"
    result = licodec("encode", tmp_path / "0.png", "-m", "conv-charm", "--weights", trained)
    assert result.returncode == 0, result.stderr
    assert licodec("train", tmp_path, "-m", "conv-charm").returncode == 2  # no lambda


def as_compressai(model):
    """The parameters of a model whose names are CompressAI's but for the z prior's."""
    state = {}
    for key, value in model.state_dict().items():
        for ours, theirs in (("matrices.", "_matrix"), ("biases.", "_bias"), ("factors.", "_factor")):
            key = key.replace(f"z_prior.{ours}", f"entropy_bottleneck.{theirs}")
        state[key.replace("z_prior.", "entropy_bottleneck.")] = value
    return state


def author_checkpoint(path, change=None):
    """A small Conv-Hyperprior as its author's training script would save it."""
    model = small_model("conv-hyperprior")
    state = {f"module.{key}": value for key, value in as_compressai(model).items()}
    for name in ("_offset", "_quantized_cdf", "_cdf_length"):
        state[f"module.entropy_bottleneck.{name}"] = torch.zeros(0, dtype=torch.int32)
        state[f"module.gaussian_conditional.{name}"] = torch.zeros(0, dtype=torch.int32)
    state["module.gaussian_conditional.scale_table"] = torch.zeros(0)
    if change:
        change(state)
    torch.save({"epoch": 3, "state_dict": state, "optimizer": {"state": {0: {"step": 1}}, "lr": float("inf")}}, path)
    return model


def test_convert_installs_and_encode_finds(tmp_path, picture_file):
    env = {"LICODEC_HOME": str(tmp_path / "home")}
    author_checkpoint(tmp_path / "c.pth.tar")
    result = licodec("encode", picture_file, "-m", "conv-hyperprior", env=env)
    assert result.returncode == 5 and b"licodec weights fetch-upstream conv-hyperprior -q 1" in result.stderr
    result = licodec("convert-upstream", tmp_path / "c.pth.tar", env=env)
    assert result.returncode == 0, result.stderr
    assert licodec("convert", tmp_path / "c.pth.tar", env=env).returncode == 1  # nothing is overwritten
    own = tmp_path / "own.safetensors"  # elsewhere: as the hint says, `--weights` alone tells the model
    result = licodec("convert", tmp_path / "c.pth.tar", "-o", own, env=env)
    assert f"licodec encode PICTURE --weights {own}" in result.stderr.decode()
    result = licodec("encode", picture_file, "--weights", own, "-o", tmp_path / "own.lic", env=env)
    assert result.returncode == 0, result.stderr
    result = licodec("encode", picture_file, "-m", "lite", "--weights", own, "-o", tmp_path / "not.lic", env=env)
    assert result.returncode == 2 and b"holds weights of conv-hyperprior" in result.stderr
    assert licodec("convert", tmp_path / "c.pth.tar", "-f", env=env).returncode == 0
    result = licodec("encode", picture_file, "-m", "conv-hyperprior", "-q", 1, "--json", env=env)
    assert result.returncode == 0, result.stderr
    lic = json.loads(result.stdout)["output"]
    assert licodec("decode", lic, "-o", tmp_path / "out.png", env=env).returncode == 0
    assert licodec("decode", lic, "-o", tmp_path / "x.png", env={"LICODEC_HOME": str(tmp_path)}).returncode == 5
    rows = {r["model"]: r for r in json.loads(licodec("models", "--json", env=env).stdout)}
    assert rows["conv-hyperprior"]["weights"] == "installed: 1" and rows["tcm"]["weights"] == "unpublished"


def test_conversion_is_exact_and_ignores_wrappers(tmp_path):
    model = author_checkpoint(tmp_path / "a.pth")
    converted = convert(tmp_path / "a.pth")
    assert converted.model.name == "conv-hyperprior" and converted.quality == 1
    for key, value in model.state_dict().items():
        assert torch.equal(converted.model.state_dict()[key], value), key
    fingerprint = converted.save(tmp_path / "a.safetensors")
    state = torch.load(tmp_path / "a.pth", weights_only=True)["state_dict"]
    torch.save({k.removeprefix("module."): v for k, v in state.items()}, tmp_path / "bare.pth")
    assert convert(tmp_path / "bare.pth").save(tmp_path / "b.safetensors") == fingerprint
    author_checkpoint(tmp_path / "c.pth", lambda s: s["module.g_a.0.weight"].add_(1e-3))
    assert convert(tmp_path / "c.pth").save(tmp_path / "c.safetensors") != fingerprint


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda s: s.pop("module.g_s.2.bias"), "missing: g_s.2.bias"),
        (lambda s: s.update({"module.g_s.2.bios": s.pop("module.g_s.2.bias")}), "unknown: g_s.2.bios"),
        (lambda s: s.update({"module.g_s.2.bias": torch.zeros(3)}), "of another shape: g_s.2.bias"),
        (lambda s: s["module.g_s.2.bias"].fill_(float("nan")), "not finite numbers: g_s.2.bias"),
        (
            lambda s: s["module.entropy_bottleneck.quantiles"].fill_(1e9).mul_(torch.tensor([-1.0, 0, 1])),
            "no usable range",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, change, word):
    author_checkpoint(tmp_path / "c.pth", change)
    with pytest.raises(WeightsError, match=word):
        convert(tmp_path / "c.pth").save(tmp_path / "w.safetensors")
    assert not (tmp_path / "w.safetensors").exists()


class Trap:
    """Pickles to a call of os.system."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path):
    torch.save(
        {"state_dict": {"g_a.0.weight": torch.zeros(1)}, "x": Trap(f"touch {tmp_path}/ran")}, tmp_path / "evil.pth"
    )
    result = licodec("convert-upstream", tmp_path / "evil.pth", env={"LICODEC_HOME": str(tmp_path)})
    assert result.returncode == 5 and not (tmp_path / "ran").exists() and not (tmp_path / "weights").exists()
    assert (
        b"not executed" in result.stderr and b"Traceback" not in result.stderr and len(result.stderr.splitlines()) == 1
    )


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        convert(tmp_path / "none.pth")
    (tmp_path / "bad.pth").write_bytes(b"\x80\x02rubbish")
    with pytest.raises(WeightsError):
        convert(tmp_path / "bad.pth")
    torch.save({"weights": [1, 2]}, tmp_path / "empty.pth")
    with pytest.raises(InputError, match="holds no model"):
        convert(tmp_path / "empty.pth")
    torch.save({"layer.weight": torch.zeros(2)}, tmp_path / "foreign.pth")
    with pytest.raises(UsageError, match=r"layer\.weight"):
        convert(tmp_path / "foreign.pth")
    author_checkpoint(tmp_path / "c.pth")
    with pytest.raises(UsageError, match="look like conv-hyperprior"):
        convert(tmp_path / "c.pth", "tcm")


GOLDEN = sorted(p.parent.name for p in SHARED.glob("upstream/*/golden.safetensors") if p.parent.name in MODELS)


@pytest.fixture(scope="session")
def author(tmp_path_factory):
    """Makes the authors' checkpoint of a model from the formula in `shared`, once for all tests."""
    folder = SHARED / "upstream"
    sys.path.insert(0, str(folder))
    try:
        maker = importlib.import_module("make_checkpoint")
    finally:
        sys.path.remove(str(folder))

    @functools.cache
    def make(name, **options):
        path = tmp_path_factory.mktemp("author") / f"{name}.pth.tar"
        torch.save(maker.build_checkpoint(*maker.load_spec(folder / name), **options), path)
        return path

    return make


def recorded(name):
    from safetensors.numpy import load_file

    golden = load_file(SHARED / "upstream" / name / "golden.safetensors")
    names = {"x_u8": "x", "mean": "mu", "scale": "sigma"}
    return {names.get(key, key): value for key, value in golden.items()}


def whole(model, parts, shape):
    """The map [1, M, H, W] that a model splits into these parts."""
    places = torch.cat([part.flatten() for part in model.split(torch.arange(math.prod(shape)).view(shape))])
    values = torch.cat([part.flatten() for part in parts])
    return torch.empty_like(values).index_copy(0, places, values).view(shape)


FED = ("tinylic", "invcompress")  # whose integers have no margins: see test_followups.py
HALVED = ("mlicpp",)  # recorded in float16: see test_hierarchies.py


@pytest.mark.parametrize("name", [name for name in GOLDEN if name not in FED + HALVED])
def test_the_authors_numbers(name, author):
    """Stage by stage, with the tolerances of shared/upstream/README.md; all integers equal."""
    golden = recorded(name)
    model = convert(author(name)).model.prepare()
    q = torch.zeros(1)

    def worst(value, key):
        return np.abs(value.numpy().astype(np.float64) - golden[key].reshape(value.shape)).max()

    with torch.inference_mode():
        x = torch.from_numpy(golden["x"]).float().div(255).view(1, 3, *golden["x"].shape[-2:])
        y = model.analyse(x.contiguous(memory_format=torch.channels_last), q)
        z = model.hyper_analyse(y, q)
        assert worst(y, "y") < 2e-4 and worst(z, "z") < 2e-4
        z_symbols = (z.double() - model.z_offset(q)).round()
        if "z_symbols" in golden:
            assert worst(z_symbols, "z_symbols") == 0
        assert worst(z_symbols + model.z_offset(q), "z_hat") < 1e-5
        parts = model.split(torch.from_numpy(golden["y"]).double().view(y.shape))
        steps = []

        def code(step, mean, scale):
            steps.append((mean, scale, (parts[step] - mean).round()))
            return steps[-1][2] + mean

        y_hat = walk(model, z_symbols + model.z_offset(q), q, code).y_hat()
        mean, scale, symbols = (whole(model, values, y.shape) for values in zip(*steps, strict=True))
        golden.setdefault("mu", np.zeros(mean.shape))  # not recorded where it always is
        assert worst(mean, "mu") < 1e-4 and worst(scale, "sigma") < 1e-4 and worst(y_hat, "y_hat") < 1e-4
        assert worst(symbols, "symbols") == 0
        thresholds = torch.from_numpy(model.thresholds()).double()
        assert worst(torch.bucketize(scale.contiguous(), thresholds), "indexes") == 0
        x_hat = model.synthesise(torch.from_numpy(golden["y_hat"]).view(y.shape), q)
        assert worst(x_hat, "x_hat") < 2e-5
        tables = EntropyTables(gaussian_tables(), model.z_tables()["z"])
        runs = TorchModel(model, thresholds.numpy(), torch.device("cpu"))
        size = len(encode_latent(runs, tables, y.numpy(), 0).payload)
    assert abs(size - official_bytes(name)) < 0.01 * official_bytes(name) + 64


def official_bytes(name):
    import base64

    strings = json.loads((SHARED / "upstream" / name / "strings.json").read_text())
    if "bytes_y" in strings:
        return sum(strings["bytes_y"]) + sum(strings["bytes_z"])
    groups = [group if isinstance(group, list) else [group] for group in strings["strings"]]
    return sum(len(base64.b64decode(text)) for group in groups for text in group)


@pytest.mark.skipif("tcm" not in GOLDEN, reason="shared/upstream is not here")
@pytest.mark.parametrize(("name", "quality"), [("tcm", 3), ("conv-hyperprior", 1)])
def test_the_authors_picture_through_files_and_processes(name, quality, author, tmp_path):
    golden = recorded(name)
    Image.fromarray(golden["x"].reshape(3, *golden["x"].shape[-2:]).transpose(1, 2, 0)).save(tmp_path / "x.png")
    env = {"LICODEC_HOME": str(tmp_path)}
    for arguments in (
        ("convert-upstream", author(name, prefix="module.", updated=True), "-q", quality),
        ("encode", tmp_path / "x.png", "-m", name, "-q", quality),
        ("decode", tmp_path / "x.lic", "-o", tmp_path / "y.png"),
    ):
        result = licodec(*arguments, env=env)
        assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "y.png") as image:
        decoded = np.asarray(image).transpose(2, 0, 1).astype(int)
    expected = np.rint(np.clip(golden["x_hat"].reshape(decoded.shape), 0, 1) * 255).astype(int)
    assert np.abs(decoded - expected).max() <= 1 and (decoded == expected).mean() > 0.999


def compressai_layout(name, state):
    """The authors' tensors as CompressAI's own converters lay them out (the way there; ours is the way back)."""
    renames = [
        (r"^(z_)?entropy_bottleneck\.", "latent_codec.z.entropy_bottleneck."),
        (r"^h_a\.", "latent_codec.h_a."),
        (r"^h_z_s1\.", "latent_codec.h_s.h_scale_s."),
        (r"^h_z_s2\.", "latent_codec.h_s.h_mean_s."),
        (r"^(h_(?:mean|scale)_s)\.", r"latent_codec.h_s.\1."),
        (r"^cc_(mean|scale)_transforms\.(\d+)\.", r"latent_codec.y.channel_context.y\2.\1_cc."),
        (r"^(mean|scale)_cc_transforms\.(\d+)\.", r"latent_codec.y.channel_context.y\2.\1_cc."),
        (r"^atten_(mean|scale)\.(\d+)\.0\.", r"latent_codec.y.channel_context.y\2.\1_support_transform."),
        (r"^(mean|scale)_NAF_transforms\.(\d+)\.", r"latent_codec.y.channel_context.y\2.\1_support_transform."),
        (r"^dt_cross_attention\.(\d+)\.", r"latent_codec.y.channel_context.y\1.cross_attention."),
        (r"^lrp_transforms\.(\d+)\.", r"latent_codec.y.latent_codec.y\1.lrp_transform."),
        (r"^gaussian_conditional\.", "latent_codec.y.latent_codec.y0.gaussian_conditional."),
        (r"^aux_entropymodel\.", "aux_entropy_model."),
        (r"^dt$", "shared_dictionary.dt"),
    ]
    if name == "cca":
        renames += [
            (r"\.dwconv\.", ".pointwise_depthwise."),
            (r"\.sca\.", ".channel_attention."),
            (r"\.FFN\.", ".feed_forward."),
        ]
        renames += [(r"\.in_conv\.", ".input_projection."), (r"\.out_conv\.", ".output_projection.")]
    if name in ("tcm", "wacnn"):
        renames += [(r"\.ln([12])\.", r".norm\1."), (r"\.mlp\.0\.", ".mlp.fc1."), (r"\.mlp\.2\.", ".mlp.fc2.")]
        renames += [(r"\.msa\.embedding_layer\.", ".msa.attn.qkv."), (r"\.msa\.linear\.", ".msa.output_proj.")]
        renames += [(r"(conv_b\.0)\.attn\.", r"\1.attn.attn.")]
    m = state["h_a.0.conv.weight"].shape[1] if "dt" in state else 0
    out = {}
    for key, value in state.items():
        key = key.removeprefix("module.")
        naf = name == "cca" and f"{key.rpartition('.conv1.')[0]}.beta" in state
        for pattern, new in renames + ([(r"\.conv1\.", ".project.")] if naf else []):
            key = re.sub(pattern, new, key)
        if key.endswith(".msa.relative_position_params") and name == "tcm":
            key = key.replace(".relative_position_params", ".attn.relative_position_bias_table")
            value = value.permute(1, 2, 0).reshape(-1, value.shape[0])
        if key.endswith(".msa.output_proj.weight"):
            out[key.replace("output_proj", "attn.proj")] = torch.eye(len(value))
        if key.endswith(".msa.output_proj.bias"):
            out[key.replace("output_proj", "attn.proj")] = torch.zeros_like(value)
        if m and re.search(r"(_cc|lrp_transform)\.0\.weight$|x_trans\.weight$", key):
            value = torch.cat([value[:, m : 2 * m], value[:, :m], value[:, 2 * m :]], 1)
        out[key] = value
    return out


@pytest.mark.parametrize("name", [n for n in ("wacnn", "stf", "tcm", "cca", "dcae", "saaf") if n in GOLDEN])
def test_compressai_layout_converts_to_the_same(name, author, tmp_path):
    path = author(name)
    expected = convert(path).model.state_dict()
    state = compressai_layout(name, load_state(path))
    assert not any(k.startswith(("h_a.", "h_mean_s.", "lrp_transforms.", "entropy_bottleneck.")) for k in state)
    torch.save(state, tmp_path / "compressai.pth")
    converted = convert(tmp_path / "compressai.pth")
    assert converted.model.name == name
    for key, value in converted.model.state_dict().items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.skipif("cca" not in GOLDEN, reason="shared/upstream is not here")
def test_the_authors_training_terms_of_cca(author):
    """Its auxiliary model, which coding drops, loaded by hand; in eval mode, as recorded."""
    golden = recorded("cca")
    path = author("cca")
    model = convert(path).model.eval()
    model.add_training_parts()
    prefix = "aux_entropymodel."
    state = {k.removeprefix(prefix): v for k, v in load_state(path).items() if k.startswith(prefix)}
    layout = next(layout for layout in LAYOUTS if layout.model == "cca")
    renamed = layout.translate({k.replace("y_entropy_bottleneck.", "entropy_bottleneck."): v for k, v in state.items()})
    model.auxiliary.load_state_dict({k.replace("z_prior.", "y_prior."): v for k, v in renamed.items()})
    model.auxiliary.eval()
    with torch.no_grad():
        y, z_hat = torch.from_numpy(golden["y"]), torch.from_numpy(golden["z_hat"])
        bits, prior_bits = model.auxiliary(y, *model.hyper_synthesise(z_hat))
        extra = model.extra_loss(y, z_hat, torch.tensor([float(golden["forward_bits_y"].item())]))
    assert bits.sum().item() == pytest.approx(golden["forward_bits_y_cca"].item(), rel=1e-4)
    assert prior_bits.sum().item() == pytest.approx(golden["forward_bits_y_aux"].item(), rel=1e-4)
    expected = golden["training_cca_loss"].item() + golden["training_aux2_loss"].item()
    assert extra.item() == pytest.approx(expected, rel=1e-4)

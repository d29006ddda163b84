"""MLIC++, HPCM and GLIC: what the tests of test_upstream.py do not fit, and the rules their papers leave to code."""

import itertools
import json
import math
import re

import numpy as np
import pytest
import torch
from conftest import SHARED
from test_followups import excess
from test_upstream import SMALL, author, official_bytes, recorded, small_model  # noqa: F401

from licodec.coding import EntropyTables, encode_latent
from licodec.entropy.coder import Encoder
from licodec.entropy.tables import gaussian_tables
from licodec.layers.checkerboard import keep, squeeze, unsqueeze
from licodec.models import MODELS, hpcm_schedule
from licodec.models import hpcm_generalised as generalised
from licodec.models.base import walk
from licodec.models.glic_graph import GraphAggregation, complexity, from_nodes, neighbours, nodes, samples
from licodec.models.skeleton import skeleton
from licodec.runtime.torch import TorchModel
from licodec.upstream.convert import convert, recognise

needs_shared = pytest.mark.skipif(not (SHARED / "upstream/mlicpp").exists(), reason="shared/upstream is not here")
Q = torch.zeros(1)


def transforms(model, golden):
    """y and z_hat of the recorded picture, compared with what is recorded of them."""
    x = torch.from_numpy(golden["x"]).float().div(255)
    y = model.analyse(x.contiguous(memory_format=torch.channels_last), Q)
    z = model.hyper_analyse(y, Q)
    assert excess(y, golden["y"], 2e-4) < 0 and excess(z, golden["z"], 2e-4) < 0
    z_hat = (z.double() - model.z_offset(Q)).round() + model.z_offset(Q)
    assert excess(z_hat, golden["z_hat"], 1e-5) < 0
    return y, z_hat


def coded_size(model, y, tables):
    runs = TorchModel(model, model.thresholds().astype(np.float64), torch.device("cpu"))
    return len(encode_latent(runs, tables, y.numpy(), 0).payload)


@needs_shared
def test_the_authors_numbers_of_mlicpp(author):  # noqa: F811
    """Stage by stage, all integers equal; the large tensors are recorded in float16."""
    golden = recorded("mlicpp")
    model = convert(author("mlicpp", updated=True)).model.prepare()
    with torch.inference_mode():
        y, z_hat = transforms(model, golden)
        parts, steps = model.split(y.double()), []

        def code(step, mean, scale):
            steps.append((mean, scale, (parts[step] - mean).round()))
            return steps[-1][2] + mean

        y_hat = walk(model, z_hat, Q, code).y_hat()
        mean, scale, symbols = (torch.cat(values) for values in zip(*steps, strict=True))
        assert excess(mean, golden["mu"], 1e-4) < 0 and excess(scale, golden["sigma"], 1e-4) < 0
        assert excess(y_hat, golden["y_hat"], 1e-4) < 0
        assert (symbols.numpy() == golden["symbols"]).all()
        rows = torch.bucketize(scale.contiguous(), torch.from_numpy(model.thresholds()).double())
        assert (rows.numpy() == golden["indexes"]).all()
        assert excess(model.synthesise(y_hat.float(), Q), golden["x_hat"], 2e-5) < 0
        size = coded_size(model, y, EntropyTables(gaussian_tables(), model.z_tables()["z"]))
    assert abs(size - official_bytes("mlicpp")) < 0.01 * official_bytes("mlicpp") + 64


@needs_shared
def test_the_authors_numbers_of_hpcm(author):  # noqa: F811
    """Stage by stage, the recorded symbols in the place of a decoder; next to none of the table rows may differ."""
    golden = recorded("hpcm-base")
    model = convert(author("hpcm-base")).model.prepare()
    thresholds = torch.from_numpy(model.thresholds()).double()
    others = []
    with torch.inference_mode():
        y, z_hat = transforms(model, golden)
        parts = model.split(y.double())

        def code(step, mean, scale):
            assert excess(mean, golden[f"mean.{step}"], 1e-4) < 0 and excess(scale, golden[f"scale.{step}"], 1e-4) < 0
            symbols = torch.from_numpy(golden[f"symbols.{step}"]).double()
            rows = torch.bucketize(scale.contiguous(), thresholds)
            others.append(int((rows.numpy() != golden[f"indexes.{step}"]).sum()))
            others.append(int(((parts[step] - mean).round() != symbols).sum()))
            return symbols + mean

        y_hat = walk(model, z_hat, Q, code).y_hat()
        assert len(others) == 2 * 11 and sum(others) <= 4
        assert excess(y_hat, golden["y_hat"], 1e-4) < 0
        assert excess(model.synthesise(y_hat.float(), Q), golden["x_hat"], 2e-5) < 0
        tables = EntropyTables(**model.z_tables())
        size = coded_size(model, y, tables)
    assert abs(size - official_bytes("hpcm-base")) < 0.01 * official_bytes("hpcm-base") + 64
    for name, table in (("y", tables.y), ("z", tables.z)):  # the same range; frequencies shared out a little better
        assert (table.minima == golden[f"tables.offset_{name}"]).all()
        assert (table.lengths == golden[f"tables.cdf_length_{name}"] - 1).all()
        for row, length in enumerate(table.lengths):
            theirs = np.diff(golden[f"tables.quantized_cdf_{name}"][row, : length + 1])
            assert np.abs(theirs - table.row(row).astype(int)).max() < 0.01 * 65536
    assert np.allclose(generalised.scales(), golden["tables.scale_table"], rtol=1e-6)


@needs_shared
def test_the_authors_graphs_of_glic(author):  # noqa: F811
    """Every neighbour of every node, bit for bit."""
    golden = recorded("glic")
    model = convert(author("glic")).model.prepare()
    inputs = {}
    for name, module in model.named_modules():
        if isinstance(module, GraphAggregation):
            module.register_forward_pre_hook(lambda module, args, name=name: inputs.update({name: args[0]}))
    with torch.inference_mode():
        model.analyse(torch.from_numpy(golden["x"]).float().div(255), Q)
        model.synthesise(torch.from_numpy(golden["y_hat"]), Q)
        for ours, theirs in {"g_a.3": "g_a.g2", "g_a.5": "g_a.g3", "g_s.1": "g_s.g1", "g_s.3": "g_s.g2"}.items():
            x = inputs[ours].permute(0, 2, 3, 1).contiguous()
            for spread, kind in ((False, "local"), (True, "global")):
                graph = np.packbits(neighbours(x, complexity(x), spread).numpy(), axis=-1)
                assert (graph == golden[f"graph/{theirs}/{kind}"]).all()


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "config", "count"),
    [
        ("mlicpp", {}, 83_501_408),
        ("mlicpp", {"edition": 2023}, 116_716_928),
        ("hpcm", {}, 68_505_299),
        ("glic", {}, 69_367_113),
    ],
)
def test_published_sizes(name, config, count):
    with skeleton():
        assert parameters(MODELS[name].build(config)) == count


def implied(state):
    """The model that a checkpoint's names and shapes imply; all of its tensors have a place there."""
    layout = recognise(state, None)
    tensors = layout.translate(state)
    with skeleton():
        model = MODELS[layout.model].build(layout.config(tensors))
    assert {k: v.shape for k, v in model.state_dict().items()} == {k: v.shape for k, v in tensors.items()}
    return model


def names_and_shapes(name):
    spec = json.loads((SHARED / "upstream" / name / "spec.json").read_text())
    return {tensor["key"]: torch.empty(tensor["shape"], device="meta") for tensor in spec["tensors"]}


def longer(state, sequence, index, more):
    """The same with `more` copies of a module of a sequence put in after it."""
    out = {}
    for key, tensor in state.items():
        match = re.fullmatch(rf"{re.escape(sequence)}\.(\d+)\.(.*)", key)
        if match is None:
            out[key] = tensor
            continue
        position = int(match[1])
        places = range(index, index + more + 1) if position == index else [position + more * (position > index)]
        out |= {f"{sequence}.{place}.{match[2]}": tensor for place in places}
    return out


@needs_shared
def test_glic_of_an_older_compressai_is_the_same():
    """Up to 1.2.6 the density's matrices have other names."""
    state = names_and_shapes("glic")
    older = {re.sub(r"\.(matri|bias|factor)(?:c?es|s)\.(\d)$", r"._\1\2", key): t for key, t in state.items()}
    older = {key.replace("._matri", "._matrix"): tensor for key, tensor in older.items()}
    assert "latent_codec.hyper.entropy_bottleneck._matrix0" in older
    assert implied(older).config == implied(state).config


@needs_shared
def test_variants_of_hpcm_are_read_off_their_checkpoints():
    base = names_and_shapes("hpcm-base")
    phi = implied({key: tensor for key, tensor in base.items() if not key.startswith("attn_s")})
    assert phi.config.windows == [] and parameters(phi) == parameters(implied(base)) - 3 * 4 * (640 * 640 + 640)
    large = longer(longer(base, "g_a.branch", 10, 4), "g_s.branch", 4, 4)
    large = longer(large, "y_spatial_prior_s1_s2.branch_1", 1, 1)
    large = implied(longer(longer(large, "y_spatial_prior_s3.branch_1", 2, 1), "y_spatial_prior_s3.branch_2", 1, 1))
    assert (large.config.depths, large.config.shared_depths, large.config.fine_depths) == ([2, 2, 8], [3, 1], [4, 3])


@needs_shared
def test_the_first_edition_of_mlicpp_is_read_off_its_checkpoint():
    state = {}
    for key, tensor in names_and_shapes("mlicpp").items():
        match = re.fullmatch(r"lrp_(?:non)?anchor\.(\d)\.lrp_transform\.0\.weight", key)
        if match:
            widths = [352 + 32 * int(match[1]), 0, 0, 0, 32]
            drop = widths[0] - 32
            widths[1:4] = [widths[0] - drop // 4, widths[0] - drop // 2, widths[0] - drop * 3 // 4]
            for i, (before, after) in enumerate(itertools.pairwise(widths)):
                state[key.replace(".0.weight", f".{2 * i}.weight")] = torch.empty(after, before, 3, 3, device="meta")
                state[key.replace(".0.weight", f".{2 * i}.bias")] = torch.empty(after, device="meta")
        elif not key.startswith(("lrp_", "g_s.synthesis_transform.0.", "g_s.synthesis_transform.1.")):
            state[key] = tensor
    narrower = {"conv1": (192, 320, 3, 3), "conv2": (192, 192, 3, 3), "skip": (192, 320, 1, 1)}
    for layer, shape in narrower.items():
        state[f"g_s.synthesis_transform.0.{layer}.weight"] = torch.empty(shape, device="meta")
        state[f"g_s.synthesis_transform.0.{layer}.bias"] = torch.empty(shape[0], device="meta")
    third = {key: tensor for key, tensor in state.items() if key.startswith("g_s.synthesis_transform.3.")}
    state |= {key.replace("transform.3.", "transform.1."): tensor for key, tensor in third.items()}
    model = implied(state)
    assert model.config.edition == 2023 and parameters(model) == 116_716_928


@pytest.mark.parametrize(("name", "reach"), [("mlicpp", 104), ("hpcm", 47), ("hpcm-large", 79)])
def test_how_far_the_synthesis_sees(name, reach):
    """Which positions of y have a gradient from one pixel at the corner of four of them."""
    name, *large = name.split("-")
    config = SMALL[name] | ({"depths": [2, 2, 8 if large else 4]} if name == "hpcm" else {})
    torch.manual_seed(0)
    model = MODELS[name].build(config)
    assert model.overlap_is_all and reach <= model.overlap
    y = torch.randn(1, model.latent_channels, 20, 20, requires_grad=True)
    model.synthesise(y, Q)[..., 160, 160].sum().backward()
    seen = y.grad.abs().sum((0, 1)).double()
    rows = torch.nonzero(seen.sum(1)).flatten()
    assert 160 - 16 * int(rows[0]) in range(reach, reach + 16) and int(rows[-1]) < 10 + -(-reach // 16)


@pytest.mark.parametrize("parity", [0, 1])
def test_halves_of_a_checkerboard(parity):
    x = torch.arange(1.0, 1 + 2 * 3 * 4 * 6).view(2, 3, 4, 6)
    row, column = torch.meshgrid(torch.arange(4), torch.arange(6), indexing="ij")
    inside = (row + column) % 2 == parity
    assert torch.equal(keep(x, parity), x * inside)
    assert torch.equal(squeeze(x, parity), x[:, :, inside].view(2, 3, 4, 3))
    assert torch.equal(unsqueeze(squeeze(x, 0), 0) + unsqueeze(squeeze(x, 1), 1), x)


def test_hpcm_codes_each_channel_of_each_position_once():
    y = torch.arange(1.0, 1 + 16 * 8 * 8).view(1, 16, 8, 8)
    parts = small_model("hpcm").split(y)
    assert torch.equal(torch.cat([part.flatten() for part in parts]).sort().values, y.flatten())
    middle = hpcm_schedule.pick(y, hpcm_schedule.TO_MIDDLE)
    for step, map_ in ((0, hpcm_schedule.pick(middle, hpcm_schedule.TO_COARSE)), (3, middle), (7, y)):
        part = hpcm_schedule.fold(map_, step)
        unfolded = hpcm_schedule.unfold(part, step)
        assert torch.equal(part, parts[step]) and torch.equal(unfolded, torch.where(unfolded > 0, map_, 0))


def test_hpcm_moves_the_hyper_parameters_as_the_authors_masks_do():
    """Their two boolean masks, written down from their patterns of 4x4 positions."""
    h = w = 8
    hyper = torch.randn(2, 16, h, w)
    first = ((0, 0), (1, 1), (0, 1), (1, 0), (0, 2), (1, 3), (0, 3), (1, 2))  # what "the coarse scale has", by group
    seen, free = torch.zeros(2, 16, h, w, dtype=torch.bool), torch.ones(2, 16, h // 2, w // 2, dtype=torch.bool)
    for group, (i, j) in enumerate(first):
        channels = slice(2 * group, 2 * group + 2)
        seen[:, channels, i % 2 :: 2, j % 2 :: 2] = True
        seen[:, channels, i::4, j::4] = False
        k, m = hpcm_schedule.TO_COARSE[group // 2]
        free[:, channels, k::2, m::2] = False
    expected = torch.zeros(2, 16, h // 2, w // 2)
    expected[free] = hyper[seen]
    assert torch.equal(hpcm_schedule.middle_hyper(hyper), expected)


def test_generalised_gaussian_is_its_integral():
    points = torch.linspace(-0.5, 0.5, 20001, dtype=torch.float64)
    for value, given in itertools.product((0.0, 1.0, -3.0), (0.05, 0.12, 1.0, 7.0)):
        scale = max(given, 0.12)  # its lower bound
        density = torch.exp(-(((points + value).abs() / scale) ** 1.5)) / (2 * scale * math.gamma(5 / 3))
        mass = max(torch.trapezoid(density, points).item(), 1e-9)
        bits = generalised.bits(torch.tensor(value), 0.0, torch.tensor(given))
        assert bits.item() == pytest.approx(-math.log2(mass), abs=2e-3)
    table = generalised.tables(np.array([1.0, 7.0]))
    symbols = np.array([0, 1, -2, 5])
    ideal = generalised.bits(torch.from_numpy(symbols), 0.0, torch.tensor(7.0)).sum().item()
    encoder = Encoder()
    encoder.push(symbols, np.ones(4, int), table)
    assert encoder.bits() == pytest.approx(ideal, abs=0.02)


def test_generalised_gaussian_has_its_gradient():
    value, scale = torch.tensor([0.0, 0.3, 2.0]), torch.tensor([1.0, 2.0, 0.8])
    given = [tensor.clone().requires_grad_() for tensor in (value, scale)]
    generalised.bits(given[0], 0.1, given[1]).sum().backward()
    for i, step in itertools.product(range(3), ((0.01, 0.0), (0.0, 0.01))):
        moved = torch.zeros(3)
        moved[i] = 1
        up = generalised.bits(value + step[0] * moved, 0.1, scale + step[1] * moved).sum()
        down = generalised.bits(value - step[0] * moved, 0.1, scale - step[1] * moved).sum()
        gradient = given[0 if step[0] else 1].grad[i].item()
        assert gradient == pytest.approx((up - down).item() / 0.02, rel=0.02, abs=5e-3)


@pytest.mark.parametrize("spread", [False, True])
def test_graph_windows_and_samples(spread):
    """Windows tile the map; each sees 256 samples, its own nodes among them."""
    x = torch.arange(1.0, 1 + 32 * 48).view(1, 32, 48, 1)
    windows, seen = nodes(x, spread), samples(x, spread)
    assert windows.shape == (24, 64, 1) and seen.shape == (24, 256, 1)
    assert torch.equal(from_nodes(windows, x, spread), x)
    for window, sampled in zip(windows, seen, strict=True):
        assert set(window.flatten().tolist()) <= set(sampled.flatten().tolist())
    x = torch.randn(1, 32, 48, 4)
    graph = neighbours(x, complexity(x), spread)
    assert graph.shape == (24, 64, 256) and 16 < graph.sum(2).float().mean() < 128

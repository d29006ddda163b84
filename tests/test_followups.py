"""Models whose numbers the tests of test_upstream.py do not fit, and what some models say of themselves."""

import numpy as np
import pytest
import torch
from test_upstream import FED, GOLDEN, author, official_bytes, recorded, small_model  # noqa: F401

from licodec.coding import EntropyTables, encode_latent
from licodec.entropy.tables import gaussian_tables
from licodec.models import mambavc_scan as scan
from licodec.models.base import walk
from licodec.models.multistage import STEPS
from licodec.models.tinylic_attention import NeighbourhoodAttention
from licodec.runtime.torch import TorchModel
from licodec.upstream.convert import convert


@pytest.mark.parametrize("name", ["shiftlic-small", "shiftlic-large"])
def test_nothing_beyond_the_overlap_matters(name):
    """Of models that say so: a window of y with the overlap around it gives the same pixels as all of y."""
    model = small_model(name).eval()
    for parameter in [p for p in model.g_s.parameters() if p.ndim > 1]:
        parameter.data.mul_(2)  # so that what lies far still counts
    q, reach = torch.ones(1), model.overlap // model.latent_stride
    y = torch.randn(1, model.latent_channels, 2 * reach + 8, 2 * reach + 4)
    with torch.inference_mode():
        whole = model.synthesise(y, q)
        part = model.synthesise(y[:, :, 4:, :-4], q)  # two sides end elsewhere
        near = model.synthesise(y[:, :, 8:, :-4], q)
    inner = whole[:, :, model.overlap + 64 :, : -model.overlap - 64]
    assert torch.allclose(inner, part[:, :, model.overlap :, : -model.overlap], atol=1e-5)
    edge = model.overlap // 4  # the test would see a difference
    assert not torch.allclose(whole[:, :, 128 + edge :, : -64 - edge], near[:, :, edge:, :-edge], atol=1e-5)


def excess(value, recorded, tolerance):
    """How far the worst difference is beyond the tolerance and the rounding of what is recorded in float16."""
    recorded = recorded.astype(np.float64)
    return (np.abs(value.numpy() - recorded.reshape(value.shape)) - tolerance - np.abs(recorded) * 2.0**-11).max()


def scan_arguments(length, batch, groups, states, channels):
    """u, dt, a, b, c, state of a selective scan, float64."""
    shapes = [(length, batch, groups, channels)] * 2 + [(groups, states, channels)]
    shapes += [(length, batch, groups, states)] * 2 + [(batch, groups, states, channels)]
    values = [torch.rand(shape, dtype=torch.float64) for shape in shapes]
    values[2] *= -1
    return values


@pytest.mark.parametrize("chunk", [1 << 19, 100])
def test_selective_scan_is_its_recurrence_and_has_its_gradient(chunk, monkeypatch):
    monkeypatch.setattr(scan, "CHUNK_VALUES", chunk)
    torch.manual_seed(0)
    u, dt, a, b, c, state = arguments = scan_arguments(7, 2, 3, 5, 4)
    with torch.inference_mode():
        out, last = scan.selective_scan(*arguments)
        for t in range(7):
            state = torch.exp(dt[t, :, :, None] * a) * state + (dt[t] * u[t])[:, :, None] * b[t, ..., None]
            assert torch.allclose(out[t], (state * c[t, ..., None]).sum(2), atol=1e-12)
    assert torch.allclose(last, state, atol=1e-12)
    few = [value.requires_grad_() for value in scan_arguments(4, 1, 2, 3, 2)]
    assert torch.autograd.gradcheck(scan.selective_scan, few)


@pytest.mark.skipif("mambavc" not in GOLDEN, reason="shared/upstream is not here")
def test_selective_scan_of_the_authors():
    """One call of the official code, as recorded."""
    golden = {key: torch.from_numpy(value) for key, value in recorded("mambavc").items() if key.startswith("scan/")}
    u, delta, b, c = (golden[f"scan/{key}"][0] for key in ("u", "delta", "B", "C"))
    groups, length = len(b), u.shape[1]
    dt = torch.nn.functional.softplus(delta + golden["scan/delta_bias"][:, None])
    u, dt = (t.view(groups, -1, length).permute(2, 0, 1)[:, None] for t in (u, dt))
    b, c = (t.permute(2, 0, 1)[:, None] for t in (b, c))
    a = golden["scan/A"].view(groups, -1, b.shape[3]).mT
    with torch.inference_mode():
        out, _ = scan.selective_scan(u, dt, a, b, c, torch.zeros(1, *a.shape))
    out = out + golden["scan/D"].view(groups, -1) * u
    expected = golden["scan/out"][0].view(groups, -1, length).permute(2, 0, 1)
    assert (out[:, 0] - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("height", "width", "kernel"), [(8, 8, 7), (20, 13, 7), (5, 9, 3)])
def test_neighbourhood_attention_sees_the_square_around(height, width, kernel):
    """Position by position; at the edges the square stays within the map."""
    torch.manual_seed(0)
    attention = NeighbourhoodAttention(8, 2, kernel).eval()
    x = torch.randn(2, height, width, 8)
    with torch.inference_mode():
        q, k, v = attention.qkv(x).unflatten(3, (3, 2, 4)).unbind(3)
        expected = torch.empty_like(q)
        for i in range(height):
            for j in range(width):
                top, left = (min(max(p - kernel // 2, 0), n - kernel) for p, n in ((i, height), (j, width)))
                square = slice(None), slice(top, top + kernel), slice(left, left + kernel)
                bias = attention.rpb[:, top - i + kernel - 1 :, left - j + kernel - 1 :][:, :kernel, :kernel]
                logits = torch.einsum("bhd,byxhd->bhyx", q[:, i, j], k[square]) / 2 + bias
                weights = logits.flatten(2).softmax(-1).view_as(logits)
                expected[:, i, j] = torch.einsum("bhyx,byxhd->bhd", weights, v[square])
        assert torch.allclose(attention(x), attention.proj(expected.flatten(3)), atol=1e-5)


@pytest.mark.parametrize(
    "name", [name for name in ("shiftlic-small", "shiftlic-middle", "shiftlic-large") if name in GOLDEN]
)
def test_the_authors_bits(name, author):  # noqa: F811
    """The estimate in eval mode, where forward() of the authors' code does what its compress() does."""
    golden = recorded(name)
    with torch.inference_mode():
        bits = convert(author(name)).model.eval()(torch.from_numpy(golden["x"]).float().div(255), torch.zeros(1)).bits
    assert bits.item() == pytest.approx(golden["forward.bits"].sum(), rel=1e-5)


@pytest.mark.skipif("tic" not in GOLDEN, reason="shared/upstream is not here")
def test_the_authors_forward_of_tic(author):  # noqa: F811
    """It rounds y without the means, as training does with noise, and sees all positions at once."""
    golden = {key: torch.from_numpy(value) for key, value in recorded("tic").items()}
    model = convert(author("tic")).model.eval()
    y_hat = golden["forward.y_hat"].float()
    with torch.inference_mode():
        mean, scale = model.entropy_params(model.h_s(golden["z_hat"]), model.context_prediction(y_hat))
        x_hat = model.synthesise(y_hat, torch.zeros(1))
    assert (mean - golden["forward.mean"]).abs().max() < 1e-4
    assert (scale - golden["forward.scale"]).abs().max() < 1e-4
    assert (x_hat - golden["forward.x_hat"]).abs().max() < 2e-5


@pytest.mark.parametrize("name", [name for name in FED if name in GOLDEN])
def test_the_authors_numbers_with_their_symbols(name, author):  # noqa: F811
    """Stage by stage; the recorded symbols take the place of a decoder; of the table rows next to none may differ."""
    golden = recorded(name)
    model = convert(author(name)).model.prepare()
    q = torch.zeros(1)
    thresholds = torch.from_numpy(model.thresholds()).double()
    other_rows = []

    with torch.inference_mode():
        x = torch.from_numpy(golden["x"]).float().div(255)
        y = model.analyse(x.contiguous(memory_format=torch.channels_last), q)
        z = model.hyper_analyse(y, q)
        assert excess(y, golden["y"], 2e-4) < 0 and np.abs(z.numpy() - golden["z"]).max() < 2e-4
        z_hat = (z.double() - model.z_offset(q)).round() + model.z_offset(q)
        assert np.abs(z_hat.numpy() - golden["z_hat"]).max() < 1e-5

        def of_step(key, step):
            if key in golden:
                return model.split(torch.from_numpy(golden[key]))[step].numpy()
            parts = golden[f"{key}.{step}"]
            channels = model.slice_sizes[STEPS[step].slice]  # the phases are one after another along the channels
            return np.concatenate(np.split(parts, parts.shape[1] // channels, 1), 2)

        def code(step, mean, scale):
            assert (
                excess(mean, of_step("mu" if "mu" in golden else "mean", step), 1e-4) < 0
                and excess(scale, of_step("sigma" if "sigma" in golden else "scale", step), 1e-4) < 0
            )
            rows = torch.bucketize(scale.contiguous(), thresholds)
            other_rows.append((rows.numpy() != of_step("indexes", step)).sum())
            return torch.from_numpy(of_step("symbols", step)).double() + mean

        y_hat = walk(model, z_hat, q, code).y_hat()
        assert sum(other_rows) <= 2
        assert excess(y_hat, golden["y_hat"], 1e-4) < 0
        x_hat = model.synthesise(y_hat.float(), q)
        assert np.abs(x_hat.numpy() - golden["x_hat"]).max() < (1e-4 if name == "invcompress" else 2e-5)
        tables = EntropyTables(gaussian_tables(), model.z_tables()["z"])
        runs = TorchModel(model, thresholds.numpy(), torch.device("cpu"))
        size = len(encode_latent(runs, tables, y.numpy(), 0).payload)
    assert abs(size - official_bytes(name)) < 0.01 * official_bytes(name) + 64

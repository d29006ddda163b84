"""Models whose numbers the tests of test_upstream.py do not fit, and what some models say of themselves."""

import numpy as np
import pytest
import torch
from test_upstream import FED, GOLDEN, author, official_bytes, recorded, small_model  # noqa: F401

from licodec.coding import EntropyTables, encode_latent
from licodec.entropy.tables import gaussian_tables
from licodec.models.base import walk
from licodec.models.multistage import STEPS
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
            parts = golden[f"{key}.{step}"]
            channels = model.slice_sizes[STEPS[step][0]]  # the phases are one after another along the channels
            return np.concatenate(np.split(parts, parts.shape[1] // channels, 1), 2)

        def code(step, mean, scale):
            assert excess(mean, of_step("mean", step), 1e-4) < 0 and excess(scale, of_step("scale", step), 1e-4) < 0
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

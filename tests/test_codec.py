"""Picture to file and back through the Python interface, with a tiny model."""

import dataclasses
import io
import struct
import zlib

import numpy as np
import pytest
from conftest import PICTURES, render
from PIL import Image

import licodec
import licodec.pillow
from licodec import codec, container, imaging, search
from licodec.errors import CorruptError, FormatError, InputError, OutOfMemoryError, UsageError, WeightsError
from licodec.weights import store


@pytest.fixture(scope="module")
def tiny(tiny_weights):
    return codec.load(tiny_weights, "cpu")


def picture(width, height, seed=0):
    return imaging.Picture(render(width, height, seed))


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (64, 64), (65, 63), (200, 130)])
def test_any_size_comes_back(tiny, size):
    data = tiny.encode(picture(*size), 6).data
    assert tiny.decode(container.read(data)).size == size


def test_quality_orders_rate_and_distortion(tiny):
    image = picture(256, 192)
    files = [tiny.encode(image, q) for q in (1, 2.5, 4, 6.25, 8)]
    sizes = [len(f.data) for f in files]
    psnrs = [search.psnr(tiny, image, f.data) for f in files]
    assert sizes == sorted(set(sizes)) and psnrs == sorted(set(psnrs))
    assert psnrs[-1] > 28


def test_real_bits_are_the_estimated_bits(tiny):
    for q in (1, 8):
        encoded = tiny.encode(picture(256, 192), q)
        assert 8 * (encoded.payload_bytes - 4) == pytest.approx(encoded.ideal_bits, rel=0.01, abs=64)


def test_training_estimate_in_eval_mode_is_the_coded_rate():
    import torch

    from licodec.models import model_info
    from licodec.models.base import estimate
    from licodec.train.export import load_state

    chosen = codec.for_model("lite", 4, device="cpu")
    model = model_info("lite").build(chosen.metadata.config).eval()
    load_state(model, store.find(model_info("lite"), 4))
    pixels = np.array(Image.open(PICTURES / "astronaut.png"))
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        bits = estimate(model, x, torch.tensor([4.0])).bits.item()
    encoded = chosen.encode(imaging.Picture(pixels), 4)
    assert 8 * len(encoded.data) == pytest.approx(bits, rel=0.01)


def test_tiles_give_the_same_picture_as_the_whole(tiny):
    """The overlap covers the receptive field, so only the entropy coding of the tiles differs."""
    image = picture(400, 300)
    whole = tiny.decode(container.read(tiny.encode(image, 7).data)).pixels.astype(int)
    tiled_file = tiny.encode(image, 7, tile=128).data
    assert licodec.info(tiled_file)["tiles"] == 12
    tiled = tiny.decode(container.read(tiled_file)).pixels.astype(int)
    # y - mean is rounded with other means at the borders: small differences, everywhere alike
    error = [np.abs(p - image.pixels).mean() for p in (whole, tiled)]
    assert error[1] == pytest.approx(error[0], rel=0.02)
    seams = np.abs(tiled - image.pixels).mean(2)[:, [127, 128, 255, 256]].mean()
    assert seams < 1.25 * np.abs(tiled - image.pixels).mean()


def test_synthesis_of_tiles_is_seamless(tiny):
    import torch

    from licodec.tiling import Grid

    y = torch.randn(1, 48, 24, 32)
    q = torch.tensor([4.0], dtype=torch.float64)
    with torch.inference_mode():
        whole = tiny._synthesise(y, Grid(384, 512, 0, 0), q)
        tiled = tiny._synthesise(y, Grid(384, 512, 128, 64), q)
    assert np.abs(whole.astype(int) - tiled).max() <= 1


def modes():
    rgb = Image.fromarray(render(90, 70))
    alpha = Image.fromarray(np.tile(np.arange(90, dtype=np.uint8), (70, 1)))
    transparent = rgb.copy()
    transparent.putalpha(alpha)
    return {
        "RGB": rgb,
        "L": rgb.convert("L"),
        "1": rgb.convert("1"),
        "P": rgb.quantize(32),
        "RGBA": transparent,
        "LA": transparent.convert("LA"),
        "CMYK": rgb.convert("CMYK"),
        "I;16": Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257),
    }


@pytest.mark.parametrize("mode", modes())
def test_every_mode_keeps_its_look(tiny, mode):
    image = modes()[mode]
    taken = imaging.from_pil(image)
    decoded = tiny.decode(container.read(tiny.encode(taken, 8).data)).to_pil()
    assert decoded.mode == {"RGBA": "RGBA", "LA": "LA"}.get(mode, "L" if mode in "L1I;16" else "RGB")
    limit = {"1": 110, "P": 30}.get(mode, 12)  # dithering is beyond the tiny model, which knows smooth pictures
    expected = image.convert("RGB") if mode != "I;16" else modes()["L"].convert("RGB")
    assert np.abs(np.asarray(decoded.convert("RGB"), int) - np.asarray(expected, int)).mean() < limit
    if mode in ("RGBA", "LA"):
        assert decoded.getchannel("A").tobytes() == image.getchannel("A").tobytes()


def test_metadata_is_kept_and_orientation_applied_once(tiny):
    image = Image.fromarray(render(90, 70))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Maker"
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif, icc_profile=b"p" * 200, quality=95)
    source = out.getvalue()
    decoded = tiny.decode(container.read(tiny.encode(imaging.read(source), 8).data)).to_pil()
    assert decoded.size == (70, 90)
    assert decoded.getexif().get(0x0112, 1) == 1 and decoded.getexif()[0x010F] == "Maker"
    assert decoded.info["icc_profile"] == b"p" * 200
    assert imaging.read(source, strip=True).exif is None


def test_16_bit_colour_is_not_cut_silently():
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + bytes(range(48)) for _ in range(8))  # 8 pixels a row, 3 samples of 2 bytes
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    taken = imaging.read(data)
    assert taken.warnings == ["16-bit samples are reduced to 8 bits"]
    assert taken.pixels[0, 1].tolist() == [6, 8, 10]


def test_animation_is_refused():
    out = io.BytesIO()
    frames = [Image.fromarray(render(20, 20, seed)) for seed in range(3)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="3 frames"):
        imaging.read(out.getvalue())


def test_damaged_payload_with_right_checksum_is_out_of_step(tiny):
    """As if the decoder computed other scales: the integers' own checksum must tell."""
    parsed = container.read(tiny.encode(picture(128, 128), 5).data)
    payload = bytearray(parsed.tiles[0])
    payload[len(payload) // 2] ^= 16
    forged = container.write(container.Container(parsed.header, {}, [bytes(payload)]))
    with pytest.raises(CorruptError, match="out of step"):
        tiny.decode(container.read(forged))


def test_other_weights_are_refused(tiny):
    parsed = container.read(tiny.encode(picture(64, 64), 5).data)
    header = container.Header("lite", b"12345678", 5, 64, 64)
    with pytest.raises(WeightsError, match="3132333435363738"):
        tiny.decode(container.Container(header, {}, parsed.tiles))
    data = container.write(container.Container(header, {}, parsed.tiles))
    with pytest.raises(WeightsError, match="3132333435363738"):
        licodec.decode(data)


@pytest.mark.parametrize("quality", [0.99, 8.01, -1, float("nan")])
def test_quality_out_of_range(tiny, quality):
    with pytest.raises(UsageError, match="out of range"):
        tiny.encode(picture(64, 64), quality)


def test_targets_are_met_and_not_wasted(tiny):
    image = picture(200, 150)
    full = len(tiny.encode(image, 8).data)
    used, encoded = search.at_most(tiny, image, full // 2, None)
    assert len(encoded.data) <= full // 2 < len(tiny.encode(image, used + 0.02).data) + 60
    wanted = search.psnr(tiny, image, tiny.encode(image, 6).data)
    used, encoded = search.at_least(tiny, image, wanted, None)
    assert used <= 6 and search.psnr(tiny, image, encoded.data) >= wanted
    assert search.psnr(tiny, image, tiny.encode(image, used - 0.01).data) < wanted
    with pytest.raises(InputError, match="lowest quality"):
        search.at_most(tiny, image, 10, None)


def test_python_interface_and_pillow_plugin(tiny_weights, tmp_path):
    image = Image.fromarray(render(100, 80))
    data = licodec.encode(image, quality=6, weights=tiny_weights)
    assert licodec.info(data)["quality"] == 6 and licodec.info(data)["width"] == 100
    decoded = licodec.decode(data, weights=tiny_weights)
    assert np.abs(np.asarray(decoded, int) - np.asarray(image, int)).mean() < 8
    path = tmp_path / "x.lic"
    image.save(path, quality=6)
    with Image.open(path) as opened:
        assert (opened.format, opened.mode, opened.size) == ("LIC", "RGB", (100, 80))
        assert opened.copy().tobytes() == licodec.decode(path.read_bytes()).tobytes()
    with pytest.raises(FormatError):
        licodec.decode(b"no")
    (tmp_path / "bad.lic").write_bytes(path.read_bytes()[:-3])
    with pytest.raises(OSError), Image.open(tmp_path / "bad.lic") as opened:
        opened.load()


def test_out_of_memory_is_told_apart(tiny, monkeypatch):
    """torch's CPU allocator raises a plain RuntimeError; others must not be taken for it."""

    def fail(message):
        def analyse(x, quality):
            raise RuntimeError(message)

        return analyse

    monkeypatch.setattr(tiny.model, "analyse", fail("DefaultCPUAllocator: can't allocate memory: you tried"))
    with pytest.raises(OutOfMemoryError):
        tiny.encode(picture(64, 64))
    monkeypatch.setattr(tiny.model, "analyse", fail("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        tiny.encode(picture(64, 64))


@pytest.mark.parametrize(
    "config", [{"N": 10**9}, {"blocks": 10**9}, {"N": 0}, {"N": "many"}, {"nonsense": 1}, {"M": 64}]
)
def test_weights_that_lie_about_their_size_are_refused_at_once(tiny, tiny_weights, tmp_path, config):
    from licodec.weights import file

    weights = file.read(tiny_weights)
    lying = file.Metadata("lite", {**weights.metadata.config, **config})
    file.save(tmp_path / "w.safetensors", lying, weights.state, {"y": tiny.tables.y}, tiny.model.thresholds())
    with pytest.raises(WeightsError, match="does not fit"):
        codec.load(tmp_path / "w.safetensors", "cpu")


@pytest.mark.parametrize("seed", range(60))
def test_forged_files_end_in_an_error_of_ours(tiny, seed):
    """Damage behind valid checksums, as an attacker would make it: noticed, and never a crash."""
    rng = np.random.default_rng(seed)
    parsed = container.read(tiny.encode(imaging.Picture(render(90, 70), alpha=render(90, 70)[:, :, 0]), 5).data)
    header, tile, alpha = parsed.header, bytearray(parsed.tiles[0]), bytearray(parsed.metadata["A"])
    match seed % 4:
        case 0:
            tile[rng.integers(len(tile))] ^= rng.integers(1, 256)
        case 1:
            header = dataclasses.replace(
                header, width=int(rng.choice([1, 500, 3000])), height=int(rng.choice([1, 200]))
            )
        case 2:
            tile = tile[: rng.integers(len(tile))] if seed % 8 == 2 else tile + rng.bytes(8)
        case 3:
            alpha[rng.integers(len(alpha))] ^= rng.integers(1, 256)
    forged = container.Container(header, {"A": bytes(alpha)}, [bytes(tile)])
    with pytest.raises(CorruptError):
        tiny.decode(container.read(container.write(forged)))

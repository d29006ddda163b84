"""Picture to file and back through the Python interface, with a tiny model."""

import dataclasses
import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from conftest import PICTURES, render, torch_model
from PIL import Image

import licodec
import licodec.pillow
from licodec import codec, container, finding, imaging, output, search
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
    from licodec.models.export import load_state

    chosen = codec.for_model("lite", 4, device="cpu")
    model = model_info("lite").build(chosen.metadata.config).eval()
    load_state(model, finding.find(model_info("lite"), 4))
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


def test_synthesis_of_tiles_is_seamless(tiny, monkeypatch):
    y = np.random.default_rng(0).normal(size=(1, 48, 24, 32)).astype(np.float32)
    monkeypatch.setattr(tiny, "_decode_tile", lambda box, payload, quality: y[(..., *box.scaled(16).slices())])
    whole, tiled = (
        container.Container(container.Header("lite", tiny.fingerprint, 4, 500, 380, False, *tile), {}, [b""] * count)
        for tile, count in (((), 1), ((128, 64), 12))
    )
    expected = tiny.decode(whole).pixels.astype(int)
    assert np.abs(tiny.decode(tiled).pixels - expected).max() <= 1
    for crop in ((0, 0, 500, 380), (130, 120, 1, 1), (100, 5, 77, 300), (499, 379, 1, 1), (128, 128, 128, 128)):
        left, top, width, height = crop
        for file in (whole, tiled):  # less than all is computed, and gives the same
            part = tiny.decode(file, crop).pixels
            assert np.abs(part - expected[top : top + height, left : left + width]).max() <= 1


def test_a_crop_decodes_only_the_tiles_it_needs(tiny):
    image = imaging.Picture(render(500, 380), alpha=render(500, 380)[:, :, 0])
    parsed = container.read(tiny.encode(image, 4, tile=128).data)
    whole = tiny.decode(parsed)
    seen = []
    part = tiny.decode(parsed, (130, 120, 60, 60), lambda done, total: seen.append((done, total)))
    assert np.abs(part.pixels.astype(int) - whole.pixels[120:180, 130:190]).max() <= 1
    assert (part.alpha == image.alpha[120:180, 130:190]).all()
    assert seen[-1] == (len(seen), len(seen)) and len(seen) <= 9 < 12
    damaged = [*parsed.tiles[:-1], parsed.tiles[-1][:-8] + b"\1" * 8]  # elsewhere
    tiny.decode(container.Container(parsed.header, {}, damaged), (0, 0, 60, 60))
    with pytest.raises(CorruptError, match="tile at 384,256"):
        tiny.decode(container.Container(parsed.header, {}, damaged))
    for crop in ((-1, 0, 5, 5), (0, 0, 0, 5), (0, 0, 501, 5), (499, 0, 2, 1)):
        with pytest.raises(UsageError, match="not within"):
            tiny.decode(parsed, crop)


def test_no_more_than_three_rows_of_tiles_are_in_memory(tiny, monkeypatch):
    import weakref

    made = []
    real = tiny._decode_tile

    def decode_tile(box, payload, quality):
        latent = real(box, payload, quality)
        made.append(weakref.ref(latent))
        return latent

    def living():
        return sum(latent() is not None for latent in made)

    monkeypatch.setattr(tiny, "_decode_tile", decode_tile)
    parsed = container.read(tiny.encode(picture(256, 1500), 4, tile=128).data)
    assert max(living() for _ in tiny.open(parsed).bands) <= 2 * 3


def test_large_tiles_are_not_believed(tiny):
    header = container.Header("lite", tiny.fingerprint, 4, 9000, 9000)
    with pytest.raises(InputError, match="`max_tile` 9024"):
        tiny.open(container.Container(header, {}, [b"0000"]))
    with pytest.raises(InputError, match="`max_tile`"):
        tiny.encode(picture(300, 300), tile=0, max_tile=200)
    assert tiny.geometry.tile_sizes(200_000, 1, None)[0] == tiny.geometry.tile  # long and thin is large, once padded


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
    assert decoded.mode == {"RGBA": "RGBA", "LA": "LA", "I;16": "I;16"}.get(mode, "L" if mode in "L1" else "RGB")
    if mode == "I;16":
        decoded = Image.fromarray(imaging.to_eight_bit(np.asarray(decoded)))
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


def deep_pictures():
    """Colour and grey of 16 bits, with and without alpha."""
    rgb = np.minimum(render(90, 70), 254).astype(np.uint16) * 257 + np.arange(90, dtype=np.uint16)[None, :, None]
    alpha = np.tile(np.arange(90, dtype=np.uint16) * 700, (70, 1))
    grey = np.ascontiguousarray(rgb[:, :, 0])
    return [(rgb, None), (rgb, alpha), (grey, None), (grey, alpha)]


@pytest.mark.parametrize("number", range(4))
def test_16_bits_come_back_as_16_bits(tiny, number):
    pixels, alpha = deep_pictures()[number]
    png = output.to_bytes(imaging.Picture(pixels, alpha), "PNG")
    taken = imaging.read(png)
    assert (taken.pixels == pixels).all() and not taken.warnings  # written and read without loss
    assert alpha is None or (taken.alpha == alpha).all()
    file = tiny.encode(taken, 8).data
    assert licodec.info(file)["bit_depth"] == 16
    decoded = tiny.decode(container.read(file))
    assert decoded.pixels.dtype == np.uint16 and decoded.pixels.shape == pixels.shape
    assert len(np.unique(decoded.pixels % 257)) > 100  # the lower bits are not an echo of the upper ones
    assert np.abs(decoded.pixels.astype(float) - pixels).mean() < 12 * 257
    assert alpha is None or (decoded.alpha == alpha).all()
    again = imaging.read(output.to_bytes(decoded, "PNG"))
    assert (again.pixels == decoded.pixels).all()


def test_16_bit_colour_of_other_writers():
    """PNG as its standard says, with and without interlacing and a transparent colour; TIFF in both byte orders."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    samples = np.arange(8 * 8 * 3, dtype=np.uint16).reshape(8, 8, 3) * 331
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    colour = chunk(b"tRNS", samples[2, 3].astype(">u2").tobytes())
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert (imaging.read(head + end).pixels == samples).all()
    taken = imaging.read(head + colour + end)
    assert (taken.pixels == samples).all() and taken.alpha[2, 3] == 0 and (taken.alpha > 0).sum() == 63
    for order in "<>":
        entries = [(256, 3, 8), (257, 3, 8), (258, 3, 16), (259, 3, 1), (262, 3, 2), (273, 4, 8), (277, 3, 3),
                   (278, 3, 8), (279, 4, 384)]  # fmt: skip
        data = samples.astype(order + "u2").tobytes()
        tiff = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data)) + data
        bits = 8 + len(data) + 2 + 12 * len(entries) + 4
        tiff += struct.pack(order + "H", len(entries))
        for tag, kind, value in entries:
            count, value = (3, bits) if tag == 258 else (1, value)
            code = "I" if kind == 4 or tag == 258 else "H2x"
            tiff += struct.pack(order + "HHI" + code, tag, kind, count, value)
        tiff += struct.pack(order + "IHHH", 0, 16, 16, 16)
        assert (imaging.read(tiff).pixels == samples).all()


def test_float_samples_are_16_bits_and_clipping_is_said():
    out = io.BytesIO()
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(out, "TIFF")
    taken = imaging.read(out.getvalue())
    assert taken.pixels.dtype == np.uint16 and taken.pixels.max() == 65535 and len(taken.warnings) == 1
    out = io.BytesIO()
    Image.fromarray(np.linspace(-1, 4, 64, dtype=np.float32).reshape(8, 8)).save(out, "TIFF")
    assert "clipped" in imaging.read(out.getvalue()).warnings[1]


def test_cmyk_by_its_profile():
    """The profile decides, not a formula; a broken or missing one gives a warning."""
    cmyk = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert "guess" in imaging.from_pil(cmyk).warnings[0]
    cmyk.info["icc_profile"] = b"\0" * 16 + b"CMYK" + b"\0" * 200
    assert "cannot be used" in imaging.from_pil(cmyk).warnings[0]
    cmyk.info["icc_profile"] = strange_cmyk_profile()
    taken = imaging.from_pil(cmyk)
    assert not taken.warnings and taken.icc is None
    red, green, blue = taken.pixels[5, 5].tolist()
    assert red > 100 > max(green, blue) + 60  # by formula it would be cyan


def strange_cmyk_profile() -> bytes:
    """An ICC profile of a press whose cyan ink is red and whose other inks are clear (ICC.1:2001, lut8)."""
    white, red = (255, 128, 128), (136, 208, 195)  # Lab, L from 0 to 255, a and b around 128
    ramp = bytes(range(256))
    grid = b"".join(bytes(red if corner & 8 else white) for corner in range(16))
    unit = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + unit + ramp * 4 + grid + ramp * 3
    text = b"desc\0\0\0\0\0\0\0\x08strange\0" + b"\0" * 78
    white_point = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags, data = [], b""
    for name, body in ((b"desc", text), (b"wtpt", white_point), (b"A2B0", lut)):
        body += b"\0" * (-len(body) % 4)
        tags.append(struct.pack(">4sII", name, 128 + 4 + 36 + len(data), len(body)))
        data += body
    head = struct.pack(">I4sI4s4s4s12s4s", 128 + 40 + len(data), b"none", 0x02400000, b"prtr", b"CMYK", b"Lab ",
                       struct.pack(">6H", 2026, 1, 1, 0, 0, 0), b"acsp")  # fmt: skip
    head += b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", 3) + b"".join(tags) + data


def test_hdr_is_noted_and_kept(tiny):
    png = bytearray(output.to_bytes(imaging.Picture(render(70, 70)), "PNG"))
    body = b"cICP" + bytes([9, 16, 0, 1])  # BT.2100 PQ
    png[33:33] = b"\0\0\0\4" + body + struct.pack(">I", zlib.crc32(body))
    taken = imaging.read(bytes(png))
    assert taken.cicp == bytes([9, 16, 0, 1])
    decoded = tiny.decode(container.read(tiny.encode(taken, 4).data))
    assert body in output.to_bytes(decoded, "PNG")
    assert imaging.read(bytes(png), strip=True).cicp is None


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 5), (200, 131, 3), (130, 7)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_and_pnm_are_exact_band_by_band(shape, dtype):
    rng = np.random.default_rng(0)
    pixels = np.clip(rng.normal(0, 40, shape).cumsum(0) + 128, 0, 255).astype(dtype) * (
        257 if dtype == np.uint16 else 1
    )
    picture = imaging.Picture(pixels, icc=b"i" * 99, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0", xmp=b"<x/>")
    for kind in ("PNG", "PPM"):
        out = io.BytesIO()
        cuts = np.array_split(pixels, 3) if len(pixels) > 2 else [pixels]
        output.write(output.Decoding(picture.size, pixels.ndim == 2, picture.bit_depth, iter(cuts), picture), kind, out)
        if kind == "PNG":
            read = imaging.read(out.getvalue())
            assert (read.pixels == pixels).all()
            assert (read.icc, read.xmp) == (picture.icc, picture.xmp) and read.exif.endswith(picture.exif[6:])
        else:
            body = out.getvalue().partition(b"\n")[2]
            assert (np.frombuffer(body, ">u2" if picture.bit_depth == 16 else np.uint8).reshape(shape) == pixels).all()


def test_animation_is_refused():
    out = io.BytesIO()
    frames = [Image.fromarray(render(20, 20, seed)) for seed in range(3)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="3 frames"):
        imaging.read(out.getvalue())
    second = imaging.read(out.getvalue(), frame=1).pixels
    assert np.abs(second.astype(int) - render(20, 20, 1)).mean() < 12
    with pytest.raises(InputError, match="no frame 3"):
        imaging.read(out.getvalue(), frame=3)


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


@pytest.mark.parametrize("quality", [0.99, 10.01, -1, float("nan")])
def test_quality_out_of_range(tiny, quality):
    with pytest.raises(UsageError, match="out of range"):
        tiny.encode(picture(64, 64), quality)


def test_targets_are_met_and_not_wasted(tiny):
    image = picture(200, 150)
    full = len(tiny.encode(image, 8).data)
    used, encoded = search.at_most(tiny, image, full // 2, None)
    assert len(encoded.data) <= full // 2 < len(tiny.encode(image, used + 0.02).data) + 60
    wanted = search.psnr(tiny, image, tiny.encode(image, 6).data)
    used, encoded = search.at_least(tiny, image, wanted, search.psnr, "dB", None)
    assert used <= 6.2 and search.psnr(tiny, image, encoded.data) >= wanted
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

    monkeypatch.setattr(tiny.model.module, "analyse", fail("DefaultCPUAllocator: can't allocate memory: you tried"))
    with pytest.raises(OutOfMemoryError):
        tiny.encode(picture(64, 64))
    monkeypatch.setattr(tiny.model.module, "analyse", fail("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes"):
        tiny.encode(picture(64, 64))


@pytest.mark.parametrize(
    "config", [{"N": 10**9}, {"blocks": 10**9}, {"N": 0}, {"N": "many"}, {"nonsense": 1}, {"M": 64}]
)
def test_weights_that_lie_about_their_size_are_refused_at_once(tiny, tiny_weights, tmp_path, config):
    from licodec.weights import file

    weights = file.read(tiny_weights)
    lying = file.Metadata("lite", {**weights.metadata.config, **config})
    file.save(
        tmp_path / "w.safetensors", lying, weights.float_state(), {"y": tiny.tables.y}, tiny.model.module.thresholds()
    )
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


class Noisy:
    """A context whose means and scales are off by a relative `size`, as on a machine that rounds differently."""

    def __init__(self, context, size, seed):
        import torch

        self.context, self.size = context, size
        self.random = torch.Generator().manual_seed(seed)

    def params(self, step):
        import torch

        def off(x):
            return x * (1 + self.size * torch.randn(x.shape, generator=self.random, dtype=torch.float64))

        return tuple(map(off, self.context.params(step)))

    def __getattr__(self, name):
        return getattr(self.context, name)


@pytest.mark.parametrize(("size", "fails"), [(1e-12, False), (1e-5, False), (0.1, True)])
def test_a_decoder_that_rounds_differently(monkeypatch, size, fails):
    """Integers stand far from where noise could change them; what does change them is noticed, never shown."""
    chosen = codec.Codec(store.bundled("lite")[-1], "cpu")
    chosen.model = torch_model(store.bundled("lite")[-1])
    pixels = np.array(Image.open(PICTURES / "astronaut.png"))[:256, :256]
    parsed = container.read(chosen.encode(imaging.Picture(pixels), 5).data)
    expected = chosen.decode(parsed).pixels.astype(int)
    real = chosen.model.module.context
    seeds = iter(range(99))
    monkeypatch.setattr(
        chosen.model.module, "context", lambda z_hat, quality: Noisy(real(z_hat, quality), size, next(seeds))
    )
    for _ in range(4):
        if fails:
            with pytest.raises(CorruptError, match=r"tile at 0,0: .*out of step"):
                chosen.decode(parsed)
        else:
            assert np.abs(chosen.decode(parsed).pixels - expected).max() <= 1


def test_loading_imports_no_compiler_and_leaves_nothing_without_values():
    """torch's compiler takes longer to import than a picture takes; some operations on the meta device ask for it."""
    program = """
import sys
from licodec.models import MODELS, model_info
from licodec.models.skeleton import skeleton
for name in MODELS:
    with skeleton():
        model = model_info(name).build({})
    assert all(p.is_meta for p in model.parameters()), name
from licodec.runtime.torch import TorchModel
from licodec.weights import file, store
model = TorchModel.load(file.read(store.bundled("lite")[0]), "cpu")
assert not any(t.is_meta for t in model.module.state_dict().values())
print({"torch._dynamo", "sympy"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

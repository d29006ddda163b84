"""Fuzzing, a command of its own: `python tests/fuzz.py COUNT [--atheris] [--bundled] [--seed N]`.

Files derived from good ones are decoded in this process. Anything but a picture
or an error of ours is a finding: it is written to fuzz-NAME.lic and ends the
run. `--atheris` uses the coverage-guided fuzzer of that name (pip install
atheris) for the container and the entropy decoder, else a plain mutator whose
files have, half of the time, valid checksums again. `--bundled` takes the bundled `lite` in ONNX
Runtime in place of a tiny one in torch. Not run by pytest.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
import conftest

SECONDS = 20.0  # of CPU for one file
MEMORY = 3 << 30  # bytes in all


def tiny_codec(folder: Path):
    """As the tests' `tiny_weights`."""
    from licodec import codec

    class Factory:
        def mktemp(self, name: str) -> Path:
            return folder

    return codec.load(conftest.tiny_weights.__wrapped__(Factory()), "cpu")


def bundled_codec():
    """The default model as a user has it."""
    from licodec import codec

    return codec.for_model(None, None, device="cpu")


def seeds(chosen) -> list[bytes]:
    """Good files of every kind: grey, alpha, metadata, 16 bits, tiles."""
    from licodec.imaging import Picture

    rgb, deep = conftest.render(90, 70), conftest.render(70, 66).astype(np.uint16) * 257
    extras = {"icc": b"icc" * 40, "exif": b"Exif\0\0MM\0*" + b"\0" * 30, "xmp": b"<x/>", "cicp": b"\1\2\3\4"}
    pictures = [Picture(rgb), Picture(rgb[:, :, 0]), Picture(rgb, rgb[:, :, 1], **extras), Picture(deep, deep[:, :, 0])]
    return [chosen.encode(p, q).data for p in pictures for q in (1, 8)] + [
        chosen.encode(Picture(conftest.render(200, 140)), 3, tile=64).data
    ]


def mutate(data: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """Flips, cuts, insertions, repetitions, splices, and numbers at the edges of their range."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(len(out) + 1))
        match rng.integers(7):
            case 0 if out:
                out[at % len(out)] ^= 1 << rng.integers(8)
            case 1:
                del out[at : at + int(rng.integers(1, 30))]
            case 2:
                out[at:at] = rng.bytes(int(rng.integers(1, 30)))
            case 3:
                out[at:at] = out[at : at + int(rng.integers(1, 60))]
            case 4:
                other = others[rng.integers(len(others))]
                out[at:] = other[min(at, len(other)) :]
            case 5:
                out[at : at + 4] = rng.choice(
                    [b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\x80\x80\x80\x80", b"\xff\xff\xff\xff"]
                )
            case 6:
                del out[at:]
    return bytes(out)


def forge(data: bytes, rng: np.random.Generator) -> bytes:
    """A file with valid checksums whose header, tiles or chunks are wrong."""
    from licodec import container

    parsed = container.read(data)
    header = parsed.header
    sides = [1, 2, 63, 64, 65, 500, 4000, 65535, container.MAX_SIDE]
    match rng.integers(5):
        case 0:
            header = dataclasses.replace(header, width=int(rng.choice(sides)), height=int(rng.choice(sides)))
        case 1:
            header = dataclasses.replace(header, grey=not header.grey, bit_depth=8 << rng.integers(2))
        case 2:
            header = dataclasses.replace(header, quality=float(rng.integers(0, 65535)) / 100)
        case 3:
            tile, overlap = (int(v) for v in rng.choice([0, 64, 65, 128, 192, 1 << 20], 2))
            header = dataclasses.replace(header, tile=tile, overlap=overlap if tile else 0)
    tiles = [mutate(t, parsed.tiles, rng) if rng.random() < 0.5 else t for t in parsed.tiles]
    metadata = {k: mutate(v, [v], rng) if rng.random() < 0.3 else v for k, v in parsed.metadata.items()}
    tiles = (tiles * header.tiles())[: header.tiles()] if header.tiles() < 500 else tiles
    return container.write(container.Container(header, metadata, tiles))


def try_one(chosen, data: bytes) -> str:
    """ "picture", or the name of our error. Anything else comes through."""
    from licodec import container, imaging
    from licodec.errors import LicodecError

    try:
        parsed = container.read(data)
        imaging.check_pixels(parsed.header.width, parsed.header.height, 2_000_000)
        chosen.decode(parsed)
    except LicodecError as error:
        return type(error).__name__
    return "picture"


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", action="store_true")
    parser.add_argument("--bundled", action="store_true")
    options = parser.parse_args()
    chosen = bundled_codec() if options.bundled else tiny_codec(Path(tempfile.mkdtemp()))
    good = seeds(chosen)
    if options.atheris:
        return guided(chosen, good, options)
    rng = np.random.default_rng(options.seed)
    outcomes: dict[str, int] = {}
    slowest = 0.0
    for number in range(options.count):
        base = good[rng.integers(len(good))]
        data = mutate(base, good, rng) if number % 2 else forge(base, rng)
        began = time.process_time()
        try:
            outcome = try_one(chosen, data)
            if time.process_time() - began > SECONDS:
                raise TimeoutError(f"took {time.process_time() - began:.0f} s")
        except Exception:
            name = f"fuzz-{hashlib.sha256(data).hexdigest()[:12]}.lic"
            Path(name).write_bytes(data)
            print(f"file {number} is a finding: {name}", file=sys.stderr)
            raise
        slowest = max(slowest, time.process_time() - began)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(f"{options.count} files: {outcomes}; slowest {slowest:.2f} s, peak {peak >> 20} MiB")
    assert peak < MEMORY


def guided(chosen, good: list[bytes], options: argparse.Namespace) -> None:
    """Coverage-guided, over our own Python code."""
    import atheris

    corpus = Path(tempfile.mkdtemp())
    for number, data in enumerate(good):
        (corpus / str(number)).write_bytes(data)
    from licodec import codec, coding, container
    from licodec.entropy import coder

    for module in (container, coding, coder, codec):
        for name, value in list(vars(module).items()):
            if callable(value) and getattr(value, "__module__", "") == module.__name__ and hasattr(value, "__code__"):
                setattr(module, name, atheris.instrument_func(value))

    def repair(data: bytes) -> bytes:
        """The same with valid checksums, as far as it can be parsed: else nothing behind them is reached."""
        import zlib

        with_checks = bytearray()
        try:
            reader = container._Reader(data)
            container._read_header(reader)
            with_checks += data[: reader.position]
            crc = zlib.crc32(data[: reader.position])
            while reader.position < len(data):
                start = reader.position
                reader.take(1)
                reader.take(reader.varint())
                body = data[start : reader.position]
                with_checks += body + zlib.crc32(body, crc).to_bytes(4, "little")
                reader.take(4)
        except Exception:
            return data
        return bytes(with_checks)

    def one(data: bytes) -> None:
        try_one(chosen, repair(data))

    atheris.Setup(
        [sys.argv[0], f"-runs={options.count}", f"-seed={options.seed + 1}", "-max_len=4000", str(corpus)], one
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()

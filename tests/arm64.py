"""Decoding and encoding on an emulated 64-bit ARM, a command of its own: `python tests/arm64.py [FOLDER]`.

Needs Debian (apt-get, dpkg, qemu-aarch64-static of the package qemu-user-static) and the registries.
Into FOLDER go Debian's Python for arm64 and the wheels for aarch64; both are kept for the next
time. A file made here must decode there to the same symbols (its checksum says so) and to
pixels within one level, and back. Takes some minutes, ends with 77 if a tool is missing. Not run by pytest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
from conftest import render  # noqa: E402

DEBS = [
    "python3.11",
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "zlib1g",
    "libexpat1",
    "libssl3",
    "libffi8",
    "libbz2-1.0",
    "liblzma5",
    "libuuid1",
    "libcrypt1",
]
# the oldest ONNX Runtime that licodec takes; 1.32 does not start under qemu 7.2. constriction has no such wheels.
WHEELS = [
    "numpy<2",
    "onnxruntime==1.20.1",
    "pillow<13",
    "safetensors",
    "flatbuffers",
    "packaging",
    "protobuf",
    "filelock",
]
GLIBC = (17, 27, 28)
PROGRAM = """
import platform, sys, numpy as np, licodec
from licodec import codec, container
from licodec.entropy import ans, coder
assert platform.machine() == "aarch64" and coder.AnsCoder is ans.AnsCoder
data = open(sys.argv[1], "rb").read()
assert type(codec.for_header(container.read(data).header).model).__name__ == "OnnxModel"
pixels = licodec.decode_array(data)
np.save(sys.argv[2], pixels)
open(sys.argv[3], "wb").write(licodec.encode(pixels, quality=6.37))
"""


def run(*words: object, **options) -> None:
    subprocess.run([*map(str, words)], check=True, **options)


def prepare(folder: Path) -> None:
    """Debian's Python below `root`, the wheels in `site`."""
    if not (folder / "root/usr/bin/python3.11").exists():
        debs = folder / "debs"
        debs.mkdir(parents=True, exist_ok=True)
        run("dpkg", "--add-architecture", "arm64")
        run("apt-get", "update", "-qq")
        run("apt-get", "download", "-qq", *(f"{name}:arm64" for name in DEBS), cwd=debs)
        for deb in debs.glob("*.deb"):
            run("dpkg", "-x", deb, folder / "root")
    if not (folder / "site/onnxruntime").exists():
        platforms = [word for minor in GLIBC for word in ("--platform", f"manylinux_2_{minor}_aarch64")]
        options = [
            "--platform",
            "manylinux2014_aarch64",
            "--python-version",
            "3.11",
            "--only-binary=:all:",
            "--no-deps",
        ]
        run(sys.executable, "-m", "pip", "install", "-q", "--target", folder / "site", *platforms, *options, *WHEELS)


def main() -> int:
    """Run."""
    emulator = shutil.which("qemu-aarch64-static")
    if not emulator or not shutil.which("apt-get"):
        print("needs apt-get and qemu-aarch64-static (package qemu-user-static)", file=sys.stderr)
        return 77
    import licodec

    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()).resolve()
    prepare(folder)
    files = [folder / name for name in ("here.lic", "there.npy", "there.lic")]
    picture = render(200, 136)
    files[0].write_bytes(licodec.encode(picture, quality=6.37, tile=128))
    here = licodec.decode_array(files[0])
    paths = os.pathsep.join(map(str, (folder / "site", ROOT)))
    python = [emulator, "-cpu", "cortex-a72", "-L", folder / "root", folder / "root/usr/bin/python3.11", "-S"]
    run(*python, "-c", PROGRAM, *files, env={"PYTHONPATH": paths, "HOME": str(folder)})
    there = np.load(files[1])
    difference = np.abs(there.astype(int) - here)
    assert difference.max() <= 1, difference.max()
    again = licodec.decode_array(files[2])
    assert np.abs(again.astype(int) - picture).mean() < 1.5 * np.abs(here.astype(int) - picture).mean() + 1
    same = files[2].read_bytes() == licodec.encode(there, quality=6.37)
    print(f"arm64: same symbols, {(difference > 0).mean():.1e} of the samples differ by one level; files equal: {same}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

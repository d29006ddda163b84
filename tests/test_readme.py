"""Every command of the README, in the order in which it stands there, on real files."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PICTURES, render
from PIL import Image
from test_upstream import author_checkpoint, small_model

from licodec.models.export import export

README = (Path(__file__).parents[1] / "README.md").read_text()
COMMANDS = re.findall(r"`(licodec [a-z][^`]*)`", README.split("## Use")[1].split("`-q` runs")[0])
# what would take long, or needs a large download, on a small scale
SMALLER = {"--steps 20000": "--steps 2 -j 1", "checkpoint.pth.tar -q 3": "checkpoint.pth.tar -q 1"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A folder with the files that the README talks of, and a store with a small TCM."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copy(PICTURES / "astronaut.png", folder / "photo.png")
    for place, name in ((".", "a.png"), (".", "b.jpg"), ("photos", "c.png"), ("pictures", "d.png")):
        (folder / place).mkdir(exist_ok=True)
        Image.fromarray(render(300, 280)).save(folder / place / name)
    author_checkpoint(folder / "checkpoint.pth.tar")
    export(small_model("tcm"), folder / "home/weights/tcm-3.safetensors", {}, "test", 3)
    return folder


def test_commands_are_found():
    assert len(COMMANDS) == 24


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, desk):
    for long, short in SMALLER.items():
        command = command.replace(long, short)
    if " -o " not in command:  # the README starts from a folder without the result
        written = {"encode": "photo.lic", "decode": "photo.png"}.get(command.split()[1])
        if written:
            (desk / written).unlink(missing_ok=True)
    env = {
        **os.environ,
        "LICODEC_HOME": str(desk / "home"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    result = subprocess.run(command, shell=True, cwd=desk, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr

"""The house rules that a program can check: style, and documents that tell the truth."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]])
def test_ruff(arguments):
    result = subprocess.run([sys.executable, "-m", "ruff", *arguments, ROOT], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_ci_runs_the_readme_commands():
    first, tests = re.findall(r"^    (pip install .*)$", README, re.M)[:2]
    script = (ROOT / ".ci/run").read_text()
    assert tests in script.splitlines()
    install, encode, decode = first.split(" && ")
    for command in (install, encode, decode):
        assert command.split(" -o ")[0].replace("pip install", "pip install --quiet").split(" astronaut")[0] in script


def test_every_readme_command_exists_with_its_options():
    from typer.main import get_command

    from licodec.cli import app

    root = get_command(app)
    commands = re.findall(r"`(licodec [a-z][^`]*)`", README)
    assert len(commands) >= 12
    for text in commands:
        words = text.split("<")[0].split(" ")
        command, words = root.commands[words[1]], words[2:]
        while hasattr(command, "commands"):
            command, words = command.commands[words[0]], words[1:]
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {w for w in words if re.fullmatch(r"--?[a-z-]+", w)} <= known, text


def test_changelog_and_version_agree():
    import licodec

    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()
    assert re.fullmatch(r"\d+\.\d+\.\d+", licodec.__version__)

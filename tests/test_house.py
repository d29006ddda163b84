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


def test_the_page_on_models_by_following_it(tmp_path, monkeypatch):
    """The example of licodec/models/README.md becomes a model that codes a picture."""
    import numpy as np
    from conftest import render

    from licodec import codec, container, imaging, models
    from licodec.train.export import export

    page = (ROOT / "licodec/models/README.md").read_text()
    (tmp_path / "example.py").write_text(re.search(r"```python\n(.*?)```", page, re.S)[1])
    monkeypatch.setattr("licodec.models.__path__", [*models.__path__, str(tmp_path)])
    name, target, title, parameters = re.search(r'"(\w+)": \("(.*?)", "(.*?)", ([\d_]+)\)', page).groups()
    facts = models.MODELS["wacnn"].facts
    info = models.ModelInfo(name, f"licodec.models.{target}", title, facts, (1,), int(parameters))
    monkeypatch.setitem(models.MODELS, name, info)
    model = info.build({})
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(info.parameters, rel=0.05)
    export(model, tmp_path / "w.safetensors", {}, "test", 1)
    chosen = codec.load(tmp_path / "w.safetensors", "cpu")
    data = chosen.encode(imaging.Picture(render(70, 50)), 1).data
    assert chosen.decode(container.read(data)).pixels.shape == np.shape(render(70, 50))
    for word in re.findall(r"`(licodec/[\w/.]+|tests/[\w/.]+|weights\.toml)`", page):
        assert word == "licodec/models/NAME.py" or (ROOT / word).exists(), word


def test_the_tree_of_errors_is_the_truth():
    from licodec import errors

    drawn = re.findall(r"(\w+Error)\s+(\d)", errors.__doc__)
    classes = [getattr(errors, name) for name in errors.__all__]
    assert {(c.__name__, str(c.exit_code)) for c in classes} == set(drawn)
    assert all(issubclass(c, errors.LicodecError) for c in classes)


def test_types_are_told_to_other_programs():
    assert (ROOT / "licodec/py.typed").exists()

"""The house rules that a program can check: style, and documents that tell the truth."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]])
def test_ruff(arguments):
    result = subprocess.run([sys.executable, "-m", "ruff", *arguments, ROOT], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_types(tmp_path):
    """mypy, as pyproject.toml has it: strict, without an exemption for any file of ours."""
    words = [sys.executable, "-m", "mypy", "--cache-dir", tmp_path]
    result = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert settings["strict"] and not any(
        name.startswith("licodec") for o in settings["overrides"] for name in o["module"]
    )
    program = tmp_path / "program.py"
    program.write_text(
        "import licodec\n"
        "data: bytes = licodec.encode('a.png', quality=4, verify=True)\n"
        "rate: float = licodec.info(data)['bpp']\n"
        "paths: list[str] = licodec.models()[0]['paths']\n"
        "licodec.load('lite').encode('a.png', qualty=3)\n"
    )
    result = subprocess.run([*words, program], capture_output=True, text=True, cwd=ROOT)
    assert re.findall(r"program.py:(\d+): error", result.stdout) == ["5"], result.stdout + result.stderr
    assert not [path for path in ROOT.glob("licodec/**/*.py") if "type: ignore" in path.read_text(encoding="utf-8")]


def test_threads_and_c_are_not_ours():
    """concurrent.futures does what threads are for; only the command line tunes its process through ctypes."""
    found = {
        (alias.name, path.relative_to(ROOT / "licodec").as_posix())
        for path in ROOT.glob("licodec/**/*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name in ("threading", "_thread", "ctypes")
    }
    assert found == {("ctypes", "cli/process.py")}


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
        command, words = root.get_command(None, words[1]), words[2:]
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
    from licodec.models.export import export

    page = (ROOT / "licodec/models/README.md").read_text()
    (tmp_path / "example.py").write_text(re.search(r"```python\n(.*?)```", page, re.S)[1])
    monkeypatch.setattr("licodec.models.__path__", [*models.__path__, str(tmp_path)])
    name, target, title, parameters = re.search(r'"(\w+)": \("(.*?)", "(.*?)", ([\d_]+)\)', page).groups()
    info = models.ModelInfo(name, f"licodec.models.{target}", title, int(parameters))
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


def test_messages_name_arguments_and_the_command_line_its_options():
    from licodec.errors import with_options

    assert with_options("a  `max_tile` 7, or `licodec models`\n") == "a --max-tile 7, or `licodec models`"
    below = [
        *ROOT.glob("licodec/*.py"),
        *(p for k in ("runtime", "inputs", "models") for p in (ROOT / "licodec" / k).glob("*.py")),
    ]
    flags = re.compile(r"Error\((?:[^()]|\([^()]*\))*[ (]--[a-z]")
    assert not [path.name for path in below if flags.search(path.read_text(encoding="utf-8"))]


def test_types_are_told_to_other_programs():
    assert (ROOT / "licodec/py.typed").exists()


def imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports of a module, those inside functions too, but for what only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for other in node.orelse:
                yield from imports(ast.Module([other], []))
        else:
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield node
            yield from imports(node)


def import_graph(root: Path) -> dict[str, set[str]]:
    """Each module of the package at `root` with the modules of it that it imports, now or in a function.

    The packages around an imported module count, since they run before it, except those that the importing
    module is in itself: they run already. Of these it counts what is imported by name.
    """
    files = {}
    for path in root.rglob("*.py"):
        parts = path.relative_to(root.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    graph = {}
    for name, path in files.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        named: set[str] = set()
        for node in imports(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                named |= {alias.name for alias in node.names}
                continue
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            inner = {f"{base}.{alias.name}" for alias in node.names}
            named |= {one if one in files else base for one in inner}
        around = {p for n in named for p in [n.rpartition(".")[0], n.rpartition(".")[0].rpartition(".")[0]]}
        around = {p for p in around if not f"{name}.".startswith(f"{p}.")}
        graph[name] = (named | around) & set(files) - {name}
    return graph


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle in a graph, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def folded(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The graph of the parts of the package: what lies directly in it, files and folders."""

    def part(name: str) -> str:
        return ".".join(name.split(".")[:2])

    parts: dict[str, set[str]] = {part(name): set() for name in graph}
    for name, others in graph.items():
        parts[part(name)] |= {part(other) for other in others} - {part(name)}
    return parts


def test_imports_go_one_way():
    graph = import_graph(ROOT / "licodec")
    assert "licodec.models.base" in graph["licodec.runtime.refine"]  # the graph is not empty
    assert "licodec.upstream.convert" in graph["licodec.upstream.authors"]  # nor blind for imports in functions
    assert not circle(graph)
    assert not circle(folded(graph))
    below = {"licodec.weights": "licodec.models licodec.upstream", "licodec.runtime": "licodec.train licodec.codec"}
    for lower, uppers in below.items():
        reached, left = set(), {name for name in graph if f"{name}.".startswith(f"{lower}.")}
        while left:
            reached |= left
            left = {other for name in left for other in graph[name]} - reached
        assert not [name for name in reached for upper in uppers.split() if f"{name}.".startswith(f"{upper}.")]


def test_circles_of_imports_are_found(tmp_path):
    files = {
        "__init__.py": "from p.a import x",
        "a.py": "def f():\n    from p import b",
        "b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import p.a\n",
        "c/__init__.py": "import p.c.d",
        "c/d.py": "import p.b",
    }
    (tmp_path / "p/c").mkdir(parents=True)
    for name, text in files.items():
        (tmp_path / "p" / name).write_text(text)
    assert not circle(import_graph(tmp_path / "p"))
    for name, text in (("b.py", "from . import a"), ("c/d.py", "from p.c import x"), ("b.py", "import p.c.d, p.a")):
        (tmp_path / "p" / name).write_text(text)
        assert circle(import_graph(tmp_path / "p")), text
        (tmp_path / "p" / name).write_text(files[name])
    (tmp_path / "p/b.py").write_text("import p.c.e")
    (tmp_path / "p/c/e.py").write_text("")
    (tmp_path / "p/c/d.py").write_text("import p.b")
    assert circle(import_graph(tmp_path / "p"))  # by way of the package of e

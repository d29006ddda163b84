"""The command line in processes of its own that begin with torch imported.

The tests run it some two hundred times; torch takes three seconds to import.
A server imports it once and forks. What a process prints goes through files.
"""

from __future__ import annotations

import functools
import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext

POSSIBLE = "forkserver" in multiprocessing.get_all_start_methods()
_STREAMS = ("stdin", "stdout", "stderr")


def _command(arguments: list[str], env: dict[str, str], folder: Path) -> None:
    for number, name in enumerate(_STREAMS):
        stream = os.open(folder / name, os.O_RDONLY if name == "stdin" else os.O_WRONLY | os.O_APPEND)
        os.dup2(stream, number)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["licodec", *arguments]
    from licodec.cli import main

    main()


@functools.cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    return context


def run(arguments: list[str], stdin: bytes, env: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    """What `python -m licodec` with these arguments gives."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for stream in _STREAMS:
            (folder / stream).write_bytes(stdin if stream == "stdin" else b"")
        process = _server().Process(target=_command, args=(arguments, env, folder))
        process.start()
        process.join()
        outputs = [(folder / stream).read_bytes() for stream in _STREAMS[1:]]
    return subprocess.CompletedProcess(arguments, process.exitcode, *outputs)

"""Where a benchmark's report goes: results as they come, so that a killed run goes on, and the report's files."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO

from licodec.batch.place import Place
from licodec.batch.places import Local, Stream
from licodec.bench.run import Result
from licodec.errors import InputError, UsageError

RESULTS = "results.jsonl"
PUT_SECONDS = 30.0  # between two puts of the results: an object store takes a file whole


class Kept:
    """The report's folder. Of a URL it is a temporary one, whose files are put there.

    Attributes:
        path: to write the report's files to.
        results: what was measured, by key, earlier runs included.
    """

    def __init__(self, place: Place, path: Path) -> None:
        """Raises InputError and UsageError if the place cannot be written to."""
        self.place, self.path = place, path
        if not isinstance(place, Local):
            place.check_writable()
            results = place.child(RESULTS)
            known = results.read() if results.exists() else b""
            (path / RESULTS).write_bytes(known)
            results.write(known, force=True)  # what cannot be written shall be known now, not after hours
        self.results = load_results(path)
        self.file = open(path / RESULTS, "a+b")  # noqa: SIM115  closed in `close`
        _end_line(self.file)
        self.fresh, self.put_at = False, time.monotonic()

    def add(self, result: Result) -> None:
        """Keep a result. Raises InputError."""
        self.results[result.key] = result
        self.file.write(json.dumps(asdict(result)).encode() + b"\n")
        self.file.flush()
        self.fresh = True
        if time.monotonic() - self.put_at > PUT_SECONDS:
            self._put()

    def publish(self) -> None:
        """Put the report's files in their place. Raises InputError."""
        if isinstance(self.place, Local):
            return
        for path in sorted(self.path.iterdir()):
            if path.name != RESULTS:
                self.place.child(path.name).write(path.read_bytes(), force=True)

    def close(self) -> None:
        """Raises InputError."""
        self.file.close()
        self._put()

    def _put(self) -> None:
        if self.fresh and not isinstance(self.place, Local):
            self.place.child(RESULTS).write((self.path / RESULTS).read_bytes(), force=True)
        self.fresh, self.put_at = False, time.monotonic()


@contextlib.contextmanager
def opened(place: Place) -> Iterator[Kept]:
    """The report's folder, made if it is not there. Raises InputError, UsageError."""
    if isinstance(place, Stream):
        raise UsageError("the report is a folder of files; name one with -o")
    with contextlib.ExitStack() as stack:
        if isinstance(place, Local):
            path = place.path
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f"{path} cannot be written ({error.strerror or error})") from None
        else:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="licodec-")))
        try:
            kept = Kept(place, path)
        except (InputError, UsageError) as error:
            raise type(error)(f"{place}: {error}") from None
        stack.callback(kept.close)
        yield kept


def load_results(folder: Path) -> dict[str, Result]:
    """What an earlier run measured, by key. A half line at the end, left by a kill, is ignored."""
    results = {}
    with contextlib.suppress(FileNotFoundError), open(folder / RESULTS, encoding="utf-8") as file:
        for line in file:
            try:
                row = json.loads(line)
                result = Result(**(row | {"metrics": tuple(row.get("metrics", ()))}))
            except (ValueError, TypeError, AttributeError):
                continue
            results[result.key] = result
    return results


def _end_line(file: IO[bytes]) -> None:
    """Close a line that a kill left half written, so that the next one is not lost with it."""
    if file.tell():
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")

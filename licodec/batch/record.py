"""What came of each file, and of all."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import IO, Any

from licodec.batch.facts import Facts, LicFacts
from licodec.batch.jobs import Job
from licodec.batch.place import Place, naming
from licodec.batch.places import Local
from licodec.errors import InputError, LicodecError, with_options


@dataclass(frozen=True)
class Outcome:
    """Of one job: facts, or an error, or neither if it was done already.

    Attributes:
        seconds: of work.
        trace: the error's traceback.
    """

    job: Job
    facts: Facts | None = None
    error: LicodecError | None = None
    seconds: float = 0.0
    trace: str = ""

    def document(self) -> dict[str, Any]:
        """What `--json` prints and `--report` keeps; not for skipped ones."""
        path = {"path": str(self.job.source)}
        if self.error is not None:
            return path | {"error": with_options(str(self.error)), "exit_code": self.error.exit_code}
        target = {"output": str(self.job.target)} if self.job.target is not None else {}
        facts = self.facts.document() if self.facts else {}
        return path | target | facts | {"seconds": round(self.seconds, 4)}


@dataclass
class Totals:
    """Of a run. `bytes_in` and `bytes_out` are of the files that were done in it."""

    files: int = 0
    failed: int = 0
    skipped: int = 0
    megapixels: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        self.files += 1
        self.failed += outcome.error is not None
        self.skipped += outcome.error is None and outcome.facts is None
        if isinstance(facts := outcome.facts, LicFacts):
            self.megapixels += facts.width * facts.height / 1e6
            self.bytes_in += facts.bytes_in
            self.bytes_out += facts.bytes_out

    def document(self) -> dict[str, Any]:
        rounded = {"megapixels": round(self.megapixels, 3), "seconds": round(self.seconds, 3)}
        return {"total": asdict(self) | rounded}


class Report:
    """A file of JSON lines: one per file as it is done, the totals last.

    A local file grows line by line, so that a killed run's lines are there; an
    object store gets it whole at the end.

    Attributes:
        done: the sources that an earlier run has done.
    """

    def __init__(self, place: Place, resume: bool, force: bool) -> None:
        """Raises InputError if it is there and neither resumed nor overwritten."""
        with naming(place):
            place.check_writable()
            there = place.exists()
        if there and not (resume or force):
            raise InputError(f"{place} exists; -f overwrites it, --resume continues it")
        self.place = place
        known = place.read().decode(errors="replace") if there and resume else ""
        kept = {row["path"]: line for line, row in _rows(known)}
        self.done = frozenset(kept)
        self.file: IO[str]
        if isinstance(place, Local):
            with place.writing(force=True) as file:
                file.writelines(line.encode() + b"\n" for line in kept.values())
            self.file = open(place.path, "a")  # noqa: SIM115  closed in `close`
        else:
            self.file = tempfile.TemporaryFile("w+")  # noqa: SIM115
            self.file.writelines(line + "\n" for line in kept.values())

    def add(self, outcome: Outcome) -> None:
        if outcome.facts is not None or outcome.error is not None:
            self._write(outcome.document())

    def close(self, totals: Totals) -> None:
        """Write the totals and put a remote report in its place. Raises InputError."""
        self._write(totals.document())
        if not isinstance(self.place, Local):
            self.file.seek(0)
            with naming(self.place):
                self.place.write(self.file.read().encode(), force=True)
        self.file.close()

    def _write(self, row: dict[str, Any]) -> None:
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()


def _rows(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Lines of an earlier run, less its failures and totals; the last may be cut."""
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("path"), str) and "error" not in row:
                yield line, row

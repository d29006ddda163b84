"""Tasks that misbehave, for the processes that do them."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from licodec.batch.facts import LicFacts
from licodec.batch.tasks import Task
from licodec.errors import InputError


@dataclass(frozen=True)
class Odd(Task):
    """Does what a file's name says."""

    folder: str = ""

    def prepare(self) -> None:
        if self.folder == "unprepared":
            raise InputError("cannot prepare")

    def work(self, job, tiles):
        kind = Path(job.source.name).stem
        if kind.startswith("sleep"):
            time.sleep(60)
        if kind.startswith("nap"):
            time.sleep(0.4)
        if kind.startswith("die"):
            marker = Path(self.folder, kind)
            if kind.startswith("die-always") or not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        if kind.startswith("eat"):
            bytearray(1 << 30)
        if kind.startswith("bad"):
            raise InputError("is bad")
        if kind.startswith("bug"):
            raise ZeroDivisionError("nobody knew")
        line = f"by {os.getpid()}"
        return LicFacts(line=line, width=1000, height=1000, model="none", quality=0, bytes=10)

"""What is to be done: a stream of jobs from the inputs that were named, without a list of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, groupby
from pathlib import PurePosixPath

from licodec.batch.archives import kind_of
from licodec.batch.place import Place, naming, stem_of
from licodec.batch.places import Stream, of
from licodec.errors import UsageError

MANY_ENDINGS = 8  # which nobody wants to read


@dataclass(frozen=True)
class Job:
    """One input and where its result goes; None if it has none."""

    source: Place
    target: Place | None = None

    @property
    def output(self) -> Place:
        """Where the result goes. Raises ValueError for a job that has none."""
        if self.target is None:
            raise ValueError(f"{self.source} is only read")
        return self.target


@dataclass
class Plan:
    """All jobs. Iterating gives them as they are found; it can be done more than once.

    Attributes:
        inputs: files and folders.
        out: an output file or folder, None for beside the inputs.
        suffixes: endings of the files that are picked out of folders, lower case.
        ending: of the outputs' names; None if there are no outputs.
        again: an ending to look for in a folder that has none of `suffixes`.
        left: endings of what folders have besides, after iterating.
    """

    inputs: list[Place]
    out: Place | None
    suffixes: frozenset[str]
    ending: str | None
    again: str | None = None
    left: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Raises UsageError where the outputs cannot be meant."""
        self.folders = {}
        for place in self.inputs:
            _refuse_archive(place)
            with naming(place):
                if place.is_folder():
                    self.folders[place] = self._wanted(place)
        self.several = len(self.inputs) > 1 or bool(self.folders)
        streams = [place for place in self.inputs if isinstance(place, Stream)]
        if self.several and streams:
            raise UsageError("standard input can only be the one input")
        out = self.out
        if out is not None:
            with naming(out):
                out.check_writable()
        if self.several and isinstance(out, Stream):
            raise UsageError("several inputs cannot go to standard output; name a folder with -o")
        self.into: Place | None = None  # the folder that the outputs go to
        if out is not None and not isinstance(out, Stream):
            named_so = out.text.endswith(("/", "\\"))
            self.into = out if self.several or named_so or out.is_folder() else None
        if self.into and not self.into.text.endswith("/") and not self.into.is_folder() and self.into.exists():
            raise UsageError(f"{out} is a file; for several inputs -o must name a folder")
        self.named = self._apart([(place, place.name) for place in self.inputs if place not in self.folders])
        self._refuse_twice(self.named)

    def __iter__(self) -> Iterator[Job]:
        self.left.clear()
        yield from self.named
        seen = {hash(job.target) for job in self.named} if self.several and self.ending else set()
        for folder, wanted in self.folders.items():
            for job in self._below(folder, wanted):
                if job.source == job.target:
                    raise UsageError(f"{job.source} would be written over itself; name another place with -o")
                if len(self.inputs) > 1 and self.ending:  # of one folder all places differ
                    if (key := hash(job.target)) in seen:
                        raise UsageError(f"two inputs would be written to {job.target}, one is {job.source}")
                    seen.add(key)
                yield job

    def streams(self) -> bool:
        """Whether a result goes to standard output."""
        return any(isinstance(job.target, Stream) for job in self.named)

    def counted(self) -> Iterator[None]:
        """Once for each job, without making any; `left` stays as it is."""
        yield from (None for _ in self.named)
        for folder, wanted in self.folders.items():
            yield from (None for name in folder.walk() if PurePosixPath(name).suffix.lower() in wanted)

    def _wanted(self, folder: Place) -> frozenset[str]:
        """The endings to pick out of a folder. Raises UsageError if it has nothing."""
        found = False
        for name in folder.walk():
            ending = PurePosixPath(name).suffix.lower()
            if ending in self.suffixes:
                return self.suffixes
            found = found or ending == self.again
        if found and self.again is not None:
            return frozenset({self.again})
        some = f" ({', '.join(sorted(self.suffixes))})" if len(self.suffixes) < MANY_ENDINGS else ""
        raise UsageError(f"{folder}: no files to work on{some}")

    def _below(self, folder: Place, wanted: frozenset[str]) -> Iterator[Job]:
        def chosen() -> Iterator[str]:
            for name in folder.walk():
                if (ending := PurePosixPath(name).suffix.lower()) in wanted:
                    yield _safe(name, folder)
                else:
                    self.left[ending] += 1

        # names that differ in what follows their first dot, a.png and a.jpg, come one after the other
        for _, names in groupby(_named(folder, chosen()), stem_of):
            yield from self._apart([(folder.child(name), name) for name in names])

    def _apart(self, found: list[tuple[Place, str]]) -> list[Job]:
        """Jobs of places and their names below the output folder.

        Inputs that would share an output, a.png and a.jpg, keep their endings: a.png.lic, a.jpg.lic.
        """
        targets = [self._target(source, name, keep=False) for source, name in found]
        shared = Counter(targets)
        return [
            Job(source, self._target(source, name, keep=True) if target is not None and shared[target] > 1 else target)
            for (source, name), target in zip(found, targets, strict=True)
        ]

    def _target(self, source: Place, name: str, keep: bool) -> Place | None:
        if self.ending is None:
            return None
        if isinstance(source, Stream):
            return self.into.child("stdin" + self.ending) if self.into else self.out or source
        path = PurePosixPath(name)
        renamed = path.name + self.ending if keep else path.with_suffix(self.ending).name
        if self.into:
            return self.into.child(str(path.with_name(renamed)))
        return self.out or source.with_name(renamed)

    def _refuse_twice(self, jobs: Iterable[Job]) -> None:
        seen: dict[Place, Place] = {}
        for job in jobs:
            if job.target is None or isinstance(job.target, Stream):
                continue
            if job.source == job.target:
                raise UsageError(f"{job.source} would be written over itself; name another place with -o")
            if job.target in seen:
                raise UsageError(f"{seen[job.target]} and {job.source} would both be written to {job.target}")
            seen[job.target] = job.source


def _named(folder: Place, names: Iterator[str]) -> Iterator[str]:
    """Errors of the listing say of which folder."""
    with naming(folder):
        yield from names


def _safe(name: str, folder: Place) -> str:
    """A name from a listing; members of archives can be called `../../etc/passwd`. Raises UsageError."""
    if name.startswith("/") or "\\" in name or ".." in name.split("/"):
        raise UsageError(f"{folder} has a file called {name!r}, which would be written outside of the output folder")
    return name


def _refuse_archive(place: Place) -> None:
    """Raises UsageError that says how the pictures in an archive are named."""
    kind = kind_of(place.name)
    if kind and not place.is_folder() and not place.text.startswith(f"{kind}://"):
        raise UsageError(f"{place} is an archive; what it holds is {kind}://::{place}")


def plan(
    inputs: Iterable[object],
    out: object,
    suffixes: Iterable[str],
    ending: str | None,
    again: str | None = None,
) -> Plan:
    """A plan from words of the command line, see `Plan`. Raises UsageError, InputError."""
    places = [of(str(word)) for word in inputs]
    return Plan(places, None if out is None else of(str(out)), frozenset(suffixes), ending, again)


def first_of(jobs: Iterable[Job], count: int) -> tuple[list[Job], Iterator[Job]]:
    """The first jobs, and all of them."""
    rest = iter(jobs)
    head = []
    for job in rest:
        head.append(job)
        if len(head) == count:
            break
    return head, chain(head, rest)

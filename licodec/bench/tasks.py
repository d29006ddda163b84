"""Measuring as a task of `batch`: in this process, in several, or on a cluster."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from licodec import runtime
from licodec.batch.facts import Facts
from licodec.batch.jobs import Job
from licodec.batch.place import Place
from licodec.batch.run import Doing
from licodec.batch.tasks import Task, Tiles
from licodec.bench import page, pictures, rivals, run
from licodec.bench.codecs import Measured, models
from licodec.bench.memory import keep
from licodec.errors import UsageError


@dataclass(frozen=True)
class Wanted:
    """What the command line asks to be measured; every process makes its own codecs of it."""

    models: tuple[str, ...]
    qualities: tuple[float, ...]
    efforts: tuple[float, ...]
    against: tuple[str, ...]
    device: str = "auto"
    precision: str = "float32"
    threads: int = 0

    def codecs(self) -> tuple[list[Measured], list[Measured]]:
        """Our models and the rivals. Raises UsageError, WeightsError."""
        return _codecs(self)


@functools.lru_cache(maxsize=1)
def _codecs(wanted: Wanted) -> tuple[list[Measured], list[Measured]]:
    steps = list(wanted.qualities), list(wanted.efforts)
    own: list[Measured] = list(models(list(wanted.models), *steps, wanted.device, wanted.precision))
    return own, list(rivals.rivals(list(wanted.against), wanted.threads))


@dataclass(frozen=True)
class Pair(Job):
    """A picture to show side by side, see `page.side_by_side`."""

    name: str = ""
    rate: float = 0.0
    gain: float | None = None
    rates: tuple[tuple[str, float, float], ...] = ()


@dataclass(kw_only=True)
class Shown(Facts):
    """What came of a `Pair`."""

    comparison: page.Comparison


@dataclass(frozen=True)
class Measure(Task):
    """Does `run.Trial`s and `Pair`s.

    Attributes:
        repeat: times are medians of so many.
        metrics: besides PSNR.
        return_memory: see `memory.PeakMemory`.
    """

    wanted: Wanted = field(default_factory=lambda: Wanted((), (), (), ()))
    repeat: int = 1
    metrics: tuple[str, ...] = ()
    return_memory: Callable[[], None] = keep

    label = "measuring"

    def prepare(self) -> None:
        super().prepare()
        self.wanted.codecs()

    def processes(self, head: list[Job]) -> int:
        """One: measurements side by side disturb each other."""
        return 1

    def work(self, job: Job, tiles: Tiles) -> Facts:
        codecs = [codec for part in self.wanted.codecs() for codec in part]
        pixels = pictures.pixels(job.source)
        if isinstance(job, Pair):
            shown = page.side_by_side(pixels, codecs, job.name, job.rate, job.gain, list(job.rates))
            return Shown(comparison=shown)
        assert isinstance(job, run.Trial)
        codec = codecs[job.index]
        if run.key_of(job.key.split(" ", 1)[0], codec) != job.key:
            raise UsageError(
                f"a worker has other versions than this machine: {codec.identity} of {codec.name} in place of {job.key}"
            )
        _warm(codec, job)
        cuda = _is_cuda(self.device)
        result = run.measure(
            pixels, job.name, job.key, codec, self.repeat, list(self.metrics), cuda, self.return_memory
        )
        threads = runtime.threads() or os.cpu_count()
        return run.Measurement(
            result=replace(result, side_by_side=self.side_by_side, threads=threads, processor=_processor(cuda))
        )


_used: set[str] = set()


def _warm(codec: Measured, job: run.Trial) -> None:
    """The first call of a codec is slower: it loads weights."""
    key = run.key_of("", codec)
    if key not in _used:
        codec.decode(codec.encode(pictures.pixels(job.source))[0])
        _used.add(key)


def _processor(cuda: bool) -> str:
    """On which the seconds depend."""
    if not cuda:
        return run.processor()
    import torch

    return f"{run.processor()} with {torch.cuda.get_device_name()}"


def _is_cuda(device: str) -> bool:
    from licodec.runtime.torch import pick_device

    return pick_device(device).type == "cuda"


def compare(
    places: dict[str, Place],
    results: list[run.Result],
    first: str,
    anchor: str,
    count: int,
    do: Doing,
    report: Callable[[str], None],
) -> list[page.Comparison]:
    """The worst and best pictures side by side at about the rate of the codec `first`, see `page.rank`.

    Args:
        places: of the pictures, by their names.
        do: does jobs of `Measure`.
        report: told which picture is done.

    Raises:
        LicodecError: a picture cannot be read or coded any more.
    """
    pairs = []
    for name, rate, gain in page.ends(page.rank(results, first, anchor), count):
        rates = tuple((r.codec, r.setting, r.bpp) for r in results if r.image == name)
        pairs.append(Pair(places[name], None, name, rate, gain, rates))
    shown: dict[str, page.Comparison] = {}
    with contextlib.closing(do(iter(pairs))) as outcomes:
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
            assert isinstance(outcome.facts, Shown)
            comparison = outcome.facts.comparison
            shown[comparison.image] = comparison
            report(comparison.image)
    return [shown[pair.name] for pair in pairs]

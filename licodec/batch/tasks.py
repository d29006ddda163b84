"""What is done with one file. Tasks can be sent to other processes; they load what they need there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from licodec.batch.facts import DecodeFacts, EncodeFacts, Facts, VerifyFacts
from licodec.batch.jobs import Job, Plan
from licodec.batch.place import Place
from licodec.batch.places import Local, Stream
from licodec.errors import InputError, LicodecError, UsageError, with_options
from licodec.models import LITE

if TYPE_CHECKING:
    from licodec.codec import Codec
    from licodec.imaging import Picture
    from licodec.search import Target

MEMORY_EACH = 1_500_000_000  # bytes for one process with `lite`, which a picture of 100 megapixels needs
Tiles = Callable[[int, int], None]


@dataclass(frozen=True)
class Limits:
    """Pictures beyond these are refused; None for the defaults."""

    pixels: int | None = None
    side: int | None = None
    tile: int | None = None

    def check(self, width: int, height: int) -> None:
        """Raises InputError."""
        from licodec import imaging

        imaging.check_pixels(width, height, self.pixels or imaging.MAX_PIXELS, self.side or imaging.MAX_SIDE)


@dataclass(frozen=True)
class Task:
    """What all tasks have in common.

    Attributes:
        threads: of the CPU, for each process; 0 for one per core.
        precision: of g_a and g_s, see `runtime.open_model`.
        resume: leave out what is done, and what another process is at.
        side_by_side: how many processes do the jobs; whoever starts them says so.
    """

    weights: Path | None = None
    device: str = "auto"
    threads: int = 0
    limits: Limits = field(default_factory=Limits)
    force: bool = False
    resume: bool = False
    precision: str = "float32"
    side_by_side: int = field(default=1, kw_only=True)

    label = ""

    def prepare(self) -> None:
        """Once in each process that will do jobs. Raises what a wrong model, quality or device does."""
        from licodec import runtime

        runtime.use_threads(self.threads)

    def processes(self, head: list[Job]) -> int:
        """How many processes shall share many files, of which `head` are the first, where the user does not say.

        One per core for `lite` on the CPU, as far as memory goes; a GPU and the large models serve one at a time.
        """
        if self.device.startswith("cuda") or self.precision != "float32" or not self.is_small(head):
            return 1
        return max(1, min(os.cpu_count() or 1, _available_memory() // MEMORY_EACH))

    def is_small(self, head: list[Job]) -> bool:
        """Whether the model is `lite`, as far as the first jobs tell."""
        return self.weights is None

    def rehearse(self, first: Job) -> None:
        """Load all that a job like `first` needs besides its picture. Raises what a job does."""

    def __call__(self, job: Job, tiles: Tiles) -> Facts | None:
        """Do a job; None if it was done already. Raises LicodecError."""
        with claimed(job.target) if self.resume else contextlib.nullcontext(True) as mine:
            return self.work(job, tiles) if mine else None

    def work(self, job: Job, tiles: Tiles) -> Facts:
        raise NotImplementedError


@dataclass(frozen=True)
class Encode(Task):
    """Code a picture, by a quality or a target.

    Attributes:
        strip: kinds of metadata to leave out.
        verbose: facts that are for developers.
        preserve: the result gets the original's time stamps and mode.
        delete_source: remove the original after a verified write.
        effort: of the encoder, see `codec.ROUNDS`.
    """

    model: str | None = None
    quality: float | None = None
    target: Target | None = None
    tile: int | None = None
    strip: tuple[str, ...] = ()
    frame: int | None = None
    verify: bool = False
    verbose: bool = False
    preserve: bool = False
    delete_source: bool = False
    effort: int = 1

    label = "encoding"

    def prepare(self) -> None:
        super().prepare()
        self._codec().quality(self.quality)
        self._codec().check_effort(self.effort)

    def is_small(self, head: list[Job]) -> bool:
        return self._codec().info.name == LITE

    def rehearse(self, first: Job) -> None:
        chosen, target = self._codec(), self.target and self.target.given()
        _code_nothing(chosen, self.quality, self.effort, decode=bool(self.verify or self.delete_source or target))

    def _codec(self) -> Codec:
        from licodec import codec

        target = bool(self.target and self.target.given())
        return codec.for_model(self.model, self.quality, self.weights, self.device, self.precision, target)

    def work(self, job: Job, tiles: Tiles) -> Facts:
        from licodec import codec, imaging, inputs, search

        refuse_existing(job.target, self.force)
        chosen, source = self._codec(), job.source.source()
        limits = self.limits
        picture = inputs.read(
            source, limits.pixels or imaging.MAX_PIXELS, self.strip, self.frame,
            limits.side or imaging.MAX_SIDE, job.source.name,
        )  # fmt: skip
        found = search.encode(
            chosen, picture, self.quality, self.target or search.Target(), self.tile,
            verify=self.verify or self.delete_source, report=tiles, max_tile=limits.tile or codec.MAX_TILE,
            effort=self.effort,
        )  # fmt: skip
        encoded = found.encoded
        (width, height), size = picture.size, len(encoded.data)
        bpp = 8 * size / (width * height)
        facts = EncodeFacts(
            line=f"{width}x{height}  q {found.quality:g}  {size} bytes  {bpp:.3f} bpp",
            warnings=[with_options(warning) for warning in picture.warnings] or None,
            width=width, height=height, model=chosen.info.name, quality=found.quality, bytes=size, bpp=round(bpp, 5),
            source_bytes=len(source) if isinstance(source, bytes) else source.stat().st_size,
        )  # fmt: skip
        if found.psnr is not None:
            facts.psnr = round(found.psnr, 4)
            facts.line += f"  {facts.psnr:.2f} dB"
        if self.verbose:
            facts.ideal_bits = round(encoded.ideal_bits, 1)
            facts.line += f"  payload {encoded.payload_bytes} (ideal {encoded.ideal_bits / 8:.0f})"
        with job.output.writing(self.force, job.source if self.preserve else None) as file:
            file.write(encoded.data)
        if self.delete_source:
            self._delete(job, picture, encoded.data, facts)
        return facts

    def _delete(self, job: Job, picture: Picture, data: bytes, facts: EncodeFacts) -> None:
        """Remove the original once what lies at the target is what was verified, and stands for all of it."""
        from licodec.inputs import RAW_SUFFIXES

        assert isinstance(job.source, Local)
        if job.output.read() != data:
            raise InputError(f"{job.target} does not hold what was written; the original is kept")
        why = "a raw file holds more than its picture" if job.source.suffix in RAW_SUFFIXES else ""
        if picture.warnings:
            why = "not all of it could be coded"
        if why:
            facts.warnings = [*(facts.warnings or []), f"the original is kept: {why}"]
            return
        if isinstance(job.target, Local):
            _sync(job.target.path)
        job.source.path.unlink()
        facts.deleted = True


@dataclass(frozen=True)
class Decode(Task):
    """Restore a picture, or the part that `crop` (left, top, width, height) names."""

    crop: tuple[int, int, int, int] | None = None
    preserve: bool = False

    label = "decoding"

    def is_small(self, head: list[Job]) -> bool:
        return self.weights is None and _is_lite(head[0].source)

    def rehearse(self, first: Job) -> None:
        _decode_nothing(self, first)

    def work(self, job: Job, tiles: Tiles) -> Facts:
        from licodec import codec, output
        from licodec.batch.ranged import opened

        refuse_existing(job.target, self.force)
        format_name = "PNG" if isinstance(job.output, Stream) else output.format_of(Path(job.output.name))
        parsed, size = opened(job.source, parts=self.crop is not None)
        header = parsed.header
        self.limits.check(header.width, header.height)
        chosen = codec.for_header(header, self.weights, self.device, self.precision)
        decoding = chosen.open(parsed, self.crop, tiles, self.limits.tile or codec.MAX_TILE)
        with job.output.writing(self.force, job.source if self.preserve else None) as file:
            warnings = output.write(decoding, format_name, file)
            written = file.tell()
        width, height = decoding.size
        return DecodeFacts(
            line=f"{width}x{height}  {written} bytes", warnings=warnings, width=width, height=height,
            model=header.model, quality=header.quality, bytes=size, output_bytes=written,
        )  # fmt: skip


@dataclass(frozen=True)
class Verify(Task):
    """Find out whether a .lic can be decoded; `fast` looks at its checksums only."""

    fast: bool = False

    label = "verifying"

    def is_small(self, head: list[Job]) -> bool:
        return self.fast or (self.weights is None and _is_lite(head[0].source))

    def rehearse(self, first: Job) -> None:
        if not self.fast:
            _decode_nothing(self, first)

    def work(self, job: Job, tiles: Tiles) -> Facts:
        from licodec import codec, container

        data = job.source.read()
        parsed = container.read(data)
        header = parsed.header
        if not self.fast:
            self.limits.check(header.width, header.height)
            chosen = codec.for_header(header, self.weights, self.device, self.precision)
            for _ in chosen.open(parsed, None, tiles, self.limits.tile or codec.MAX_TILE).bands:
                pass
        return VerifyFacts(
            line=f"{header.width}x{header.height}  {header.model}  q {header.quality:g}  good",
            width=header.width, height=header.height, model=header.model, weights=header.fingerprint.hex(),
            quality=header.quality, bytes=len(data), checked="checksums" if self.fast else "decoded",
        )  # fmt: skip


def _decode_nothing(task: Decode | Verify, first: Job) -> None:
    """Load what the decoding of a file takes."""
    from licodec import codec
    from licodec.batch.ranged import opened

    header = opened(first.source, parts=True)[0].header
    chosen = codec.for_header(header, task.weights, task.device, task.precision)
    _code_nothing(chosen, header.quality if chosen.info.variable_rate else None, effort=1, decode=True)


def _code_nothing(chosen: Codec, quality: float | None, effort: int, decode: bool) -> None:
    """Code a small picture: models load their parts when they are first used."""
    import numpy as np

    from licodec import container, imaging

    picture = imaging.Picture(np.zeros((64, 64, 3), np.uint8))
    data = chosen.encode(picture, quality, effort=effort).data
    if decode:
        chosen.decode(container.read(data))


def _is_lite(place: Place) -> bool:
    """Whether a .lic was made by `lite`; not, if it cannot be read."""
    from licodec import container

    try:
        data = place.read() if isinstance(place, Local) else b""
        return container.read_header(data).model == LITE
    except LicodecError:
        return False


def _available_memory() -> int:
    """Bytes that programs can have now; where the system does not say, much."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return 1 << 62


def refuse_existing(target: Place | None, force: bool) -> None:
    """Find out before the work is done that its result could not be written. Raises InputError."""
    if target is not None and not force and target.exists():
        raise InputError(f"{target} exists; -f overwrites it")


def _sync(path: Path) -> None:
    with open(path, "rb") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def claimed(target: Place | None) -> Iterator[bool]:
    """Whether a result is still to be made, and by this process alone. A killed process's claim ends with it.

    Object stores have no locks: there two processes can do the same file, with the same result.
    """
    if target is None or not isinstance(target, Local):
        yield target is None or not target.exists()
        return
    from filelock import FileLock, Timeout

    path = target.path.with_name(f".{target.name}.lock")
    if target.exists():
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # of a process that was killed; with the result there it protects nothing
        yield False
        return
    target.path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield not target.exists()
    finally:
        path.unlink(missing_ok=True)  # before the release: who waits for it then finds the result
        lock.release()


def check_deletion(task: Encode, plan: Plan) -> None:
    """Raises UsageError where originals cannot be deleted safely."""
    if task.frame is not None:
        raise UsageError("--delete-source would lose the other frames; leave out --frame")
    if plan.streams() or not all(isinstance(place, Local) for place in plan.inputs):
        raise UsageError("--delete-source deletes files, whose results must be files or objects")

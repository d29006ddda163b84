"""`lite` run by ONNX Runtime on the CPU, without torch, for the codec.

The graphs are made by `export.py`; their weights come from the weights file. What the
decoder must reproduce are whole numbers that float32 holds exactly, so that every
processor, thread count and optimiser gives the same (see `layers/integer.py`).
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import numpy as np

from licodec.errors import OutOfMemoryError, WeightsError
from licodec.runtime import settings
from licodec.runtime.protocol import Geometry
from licodec.weights import paths
from licodec.weights.file import Weights

if TYPE_CHECKING:
    import onnxruntime

    _Loaded = tuple[onnxruntime.InferenceSession, dict[str, np.ndarray]]

INDEX = "graphs.json"
BYTE, EXACT = 127, 1 << 24  # see layers/integer.py, which imports torch
SIDE_BY_SIDE = 4  # tiles at once at most: they share the threads well, and each takes some 200 MB
SMALL = {"tables", "split", "join"}  # graphs that gain nothing from several threads
# Of pictures with up to so many pixels several threads take a fifth more of the processor than they give back, and
# only these graphs gain more from ONNX Runtime's optimiser than it takes.
LITTLE = 1 << 19
TRANSFORMS = {"analysis", "hyper", "synthesis"}
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
}


class Index(TypedDict):
    """What `export.py` writes beside the graphs.

    facts: the model's `Geometry`. weights: of each graph, the names of its `kernels` and of its `inputs`.
    """

    model: str
    config: dict[str, object]
    facts: dict[str, Any]
    weights: dict[str, dict[str, list[str]]]


@functools.cache
def _index(folder: Path) -> Index:
    return json.loads((folder / INDEX).read_text(encoding="utf-8"))


def _folders(weights: Weights) -> Iterator[Path]:
    """Where there may be graphs: beside the weights, and in the package."""
    for folder in (weights.path.with_suffix(""), *sorted(paths.BUNDLED.glob("*/"))):
        if (folder / INDEX).is_file():
            yield folder


def graphs_for(weights: Weights) -> Path | None:
    """The folder of the graphs of a weights file's configuration, if there is one."""
    wanted = weights.metadata.model, weights.metadata.config
    return next((f for f in _folders(weights) if (_index(f)["model"], _index(f)["config"]) == wanted), None)


def _vector(quality: float) -> np.ndarray:
    return np.array([quality], np.float64)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class OnnxContext:
    """The walk's state: the stream, and the means of the current step (see `licodec.runtime.protocol.Context`)."""

    def __init__(self, model: OnnxModel, z_symbols: np.ndarray, quality: float) -> None:
        self.model = model
        self.tables = tables = model.tables(quality)
        self.parts: list[np.ndarray] = []
        z = z_symbols.astype(np.float32)
        self.stream, self.mean, self.rows = model.run(
            "step0", z=z, start=tables["start"], row=tables["row"], factor=tables["factor0"]
        )

    def params(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        return self.mean, self.rows

    def push(self, step: int, symbols: np.ndarray) -> None:
        part = symbols.astype(np.float32) + self.mean
        self.parts.append(part)
        if (following := step + 1) < self.model.geometry.steps:
            factor = self.tables[f"factor{following}"]
            self.stream, self.mean, self.rows = self.model.run(
                f"step{following}", before=self.stream, part=part, row=self.tables["row"], factor=factor
            )

    def y_hat(self) -> np.ndarray:
        return self.model.run("join", **{f"part{step}": part for step, part in enumerate(self.parts)})[0]


class _Wanted(NamedTuple):
    """A session: of a graph, run by so many threads, and rewritten by ONNX Runtime's optimiser or not."""

    name: str
    threads: int
    rewritten: bool


class OnnxModel:
    """`lite` as graphs and their weights; a graph is loaded when first used (see `licodec.runtime.protocol.Model`)."""

    def __init__(
        self, weights: Weights, folder: Path, threads: int | None = None, optimised: bool | None = None
    ) -> None:
        """Take weights and the folder of their configuration's graphs.

        Args:
            threads: of ONNX Runtime; None for what `use_threads` was told, and if that is nothing: one for
                little pictures, else one per core.
            optimised: let ONNX Runtime rewrite the graphs; None for where that pays.
        """
        self.path, self.folder, self.optimised = weights.path, folder, optimised
        self.geometry = Geometry(**_index(folder)["facts"])
        self.state = weights.state
        told = threads or settings.threads()
        self.threads = told or _cores()
        self.threads_for_little = told or 1
        latent = self.geometry.latent_stride
        self.strides = {f"step{step}": 2 * latent for step in range(self.geometry.steps)}  # of what a graph is given
        self.strides |= {"analysis": 1, "hyper": latent, "step0": self.geometry.hyper_stride, "synthesis": latent}
        self.side_by_side = min(self.threads, SIDE_BY_SIDE)
        self.loaded: dict[_Wanted, Future[_Loaded]] = {}
        self._check_sums()
        self.tables = functools.lru_cache(maxsize=4)(self._tables)

    def _weight(self, name: str, kind: type, shape: list[int] | None = None) -> np.ndarray:
        array = self.state.get(name)
        if array is None or (shape is not None and list(array.shape) != shape):
            raise WeightsError(f"{self.path}: does not fit the model lite ({name})")
        return np.ascontiguousarray(array, kind)

    def _check_sums(self) -> None:
        """Raises WeightsError if an integer network could add up to what float32 does not hold exactly."""
        for name, weight in self.state.items():
            if weight.dtype != np.int8:
                continue
            bias = np.abs(self._weight(f"{name.removesuffix('weight')}bias", np.float64, [len(weight)]))
            if bias.max(initial=0) + math.prod(weight.shape[1:]) * 128 * BYTE < EXACT:  # whatever the weights are
                continue
            sums = np.abs(weight.reshape(len(weight), -1).astype(np.int16)).sum(1, dtype=np.int64) * BYTE
            if not (sums + bias < EXACT).all():  # also if it is not a number
                raise WeightsError(f"{self.path}: {name} has sums that float32 does not hold exactly")

    def _wanted(self, name: str, first: np.ndarray) -> _Wanted:
        """The session for a graph, by the size of the picture that its first input stands for."""
        if name in SMALL:
            return _Wanted(name, 1, bool(self.optimised))
        little = math.prod(first.shape[2:]) * self.strides[name] ** 2 <= LITTLE
        rewritten = not little or name in TRANSFORMS if self.optimised is None else self.optimised
        return _Wanted(name, self.threads_for_little if little else self.threads, rewritten)

    def _load(self, wanted: _Wanted) -> _Loaded:
        """A session, and those of its inputs that are weights."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = wanted.threads
        options.inter_op_num_threads = 1
        if not wanted.rewritten:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4  # what goes wrong is raised
        options.enable_cpu_mem_arena = False  # it keeps what the largest tile ever took
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others want to work too
        needed = _index(self.folder)["weights"][wanted.name]
        kernels = needed["kernels"]
        arrays = [self._weight(kernel, np.float32) for kernel in kernels]
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays]
        options.add_external_initializers(kernels, values)
        try:
            session = onnxruntime.InferenceSession(
                str(self.folder / f"{wanted.name}.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no base of their own
            if "alloc" in str(error):
                raise OutOfMemoryError("memory does not suffice") from None
            raise WeightsError(f"{self.path}: does not fit the model lite ({' '.join(str(error).split())})") from None
        fed = [given for given in session.get_inputs() if given.name in needed["inputs"]]
        return session, {given.name: self._weight(given.name, _TYPES[given.type], given.shape) for given in fed}

    def _session(self, wanted: _Wanted) -> _Loaded:
        """What `_load` gives; of several threads that ask for it first, one loads it and the others wait."""
        if loaded := self.loaded.get(wanted):
            return loaded.result()
        mine: Future[_Loaded] = Future()
        if (loaded := self.loaded.setdefault(wanted, mine)) is mine:
            try:
                mine.set_result(self._load(wanted))
            except BaseException as error:
                del self.loaded[wanted]  # the next call tries again
                mine.set_exception(error)
        return loaded.result()

    def run(self, name: str, **inputs: np.ndarray) -> list[np.ndarray]:
        """The outputs of a graph. Raises OutOfMemoryError."""
        session, weights = self._session(self._wanted(name, next(iter(inputs.values()))))
        wanted = {given.name for given in session.get_inputs()}
        try:
            return session.run(None, {k: v for k, v in inputs.items() if k in wanted} | weights)
        except Exception as error:
            if "alloc" not in str(error):
                raise
            raise OutOfMemoryError("memory does not suffice; use a smaller `tile`") from None

    def _tables(self, quality: float) -> dict[str, np.ndarray]:
        names = ["start", "row", "z_rows", *(f"factor{step}" for step in range(self.geometry.steps))]
        return dict(zip(names, self.run("tables", quality=_vector(quality)), strict=True))

    def analyse(self, window: np.ndarray, quality: float) -> np.ndarray:
        return self.run("analysis", x=window, quality=_vector(quality))[0]

    def hyper_analyse(self, y: np.ndarray, quality: float) -> np.ndarray:
        return self.run("hyper", y=y, quality=_vector(quality))[0]

    def z_rows(self, quality: float) -> np.ndarray:
        return self.tables(quality)["z_rows"]

    def context(self, z_symbols: np.ndarray, quality: float) -> OnnxContext:
        return OnnxContext(self, z_symbols, quality)

    def split(self, y: np.ndarray) -> list[np.ndarray]:
        return self.run("split", y=y)

    def synthesise(self, y_hat: np.ndarray, quality: float) -> np.ndarray:
        return self.run("synthesis", y=y_hat, quality=_vector(quality))[0]

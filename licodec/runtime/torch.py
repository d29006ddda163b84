"""Models of `licodec.models` run by torch, on CPU or CUDA, for the codec."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from licodec.errors import OutOfMemoryError, UsageError, WeightsError
from licodec.models import base, model_info
from licodec.models.skeleton import skeleton
from licodec.runtime import settings
from licodec.runtime.protocol import Geometry
from licodec.weights.file import Weights

CPU_FLAGS = Path("/proc/cpuinfo")  # elsewhere than on Linux nobody has measured bf16
P = ParamSpec("P")
Result = TypeVar("Result")


def pick_device(name: str = "auto") -> torch.device:
    """`auto`, `cpu` or `cuda[:N]`. Raises UsageError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"unknown device {name!r}; use auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name!r} is not there (CUDA devices found: {torch.cuda.device_count()})")
    return device


def check_precision(precision: str, device: torch.device) -> None:
    """Raises UsageError if there is no such precision, or if it would be slower than float32."""
    if precision not in ("float32", "bf16"):
        raise UsageError(f"unknown precision {precision!r}; use float32 or bf16")
    if precision == "bf16" and not has_bf16(device):
        raise UsageError(
            f"precision bf16 would be slower than float32 here: {device.type} has no instructions for it"
            + (" (avx512_bf16 or amx_bf16)" if device.type == "cpu" else "")
        )


def has_bf16(device: torch.device) -> bool:
    """Whether products in bf16 are faster than in float32: with their own instructions, else 3 to 200 times slower."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    words = set(CPU_FLAGS.read_text().split()) if CPU_FLAGS.exists() else set()
    return bool(words & {"avx512_bf16", "amx_bf16"})


def use_threads(count: int) -> None:
    """Limit torch and numpy to `count` threads; 0 leaves them as they are."""
    if count:
        from threadpoolctl import ThreadpoolController

        torch.set_num_threads(count)
        ThreadpoolController().limit(limits=count, user_api="blas")


def _is_out_of_memory(error: Exception) -> bool:
    """torch's CPU allocator raises a plain RuntimeError."""
    return "can't allocate memory" in str(error)


@contextlib.contextmanager
def memory_guard() -> Iterator[None]:
    """Turn torch's out-of-memory errors into ours."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise OutOfMemoryError("the GPU's memory does not suffice; use another `device` or a smaller `tile`") from None
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        raise OutOfMemoryError("memory does not suffice; use a smaller `tile`") from None


class _OnDevice(Protocol):
    device: torch.device


Runner = TypeVar("Runner", bound=_OnDevice)


def _running(method: Callable[Concatenate[Runner, P], Result]) -> Callable[Concatenate[Runner, P], Result]:
    """For a method that runs the module."""

    @functools.wraps(method)
    def run(self: Runner, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        with memory_guard(), torch.inference_mode():
            return method(self, *args, **kwargs)

    return run


def _numpy(x: Tensor) -> np.ndarray:
    return x.cpu().contiguous().numpy()


def geometry_of(module: base.CompressionModel) -> Geometry:
    """What the codec must know of a module."""
    return Geometry(**{field.name: getattr(module, field.name) for field in fields(Geometry)})


class TorchContext:
    """A module's context; scales become table rows by the frozen thresholds."""

    def __init__(self, context: base.Context, thresholds: Tensor) -> None:
        self.context, self.thresholds, self.device = context, thresholds, thresholds.device
        self.mean: Tensor | None = None

    @_running
    def params(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        self.mean, scale = self.context.params(step)
        rows = torch.bucketize(scale.contiguous(), self.thresholds, out_int32=True)
        return _numpy(self.mean), _numpy(rows)

    @_running
    def push(self, step: int, symbols: np.ndarray) -> None:
        assert self.mean is not None  # `params` comes first
        part = torch.from_numpy(symbols).to(self.device, torch.float64, memory_format=torch.channels_last)
        self.context.push(step, part + self.mean)

    @_running
    def y_hat(self) -> np.ndarray:
        return _numpy(self.context.y_hat().float())


class TorchModel:
    """A prepared module, and the thresholds that came with its weights (see `licodec.runtime.protocol.Model`).

    Tiles are worked on one after the other: torch's threads share each operation on a map of that
    size well, and a published model takes a gigabyte or two for each.
    """

    side_by_side = 1

    def __init__(
        self,
        module: base.CompressionModel,
        thresholds: np.ndarray,
        device: torch.device,
        precision: str = "float32",
    ) -> None:
        """Take a module that is prepared and on the device; thresholds are float64 [R - 1]."""
        self.module, self.device, self.precision = module, device, precision
        self.thresholds = torch.from_numpy(thresholds).to(device)
        self.geometry = geometry_of(module)

    @classmethod
    @memory_guard()
    def load(cls, weights: Weights, device: str, precision: str = "float32") -> TorchModel:
        """From a weights file. Raises UsageError, WeightsError, OutOfMemoryError."""
        use_threads(settings.threads())
        chosen = pick_device(device)
        check_precision(precision, chosen)
        info = model_info(weights.metadata.model)
        info.load_class()  # now, so that tensors of the modules it imports are real
        try:
            with skeleton():  # nothing is allocated or initialised before the shapes are known to fit
                module = info.build(weights.metadata.config, coding=True)
            module.load_state_dict(weights.float_state(), assign=True)
        except (RuntimeError, TypeError, ValueError) as error:
            if _is_out_of_memory(error):
                raise
            line = str(error).splitlines()[0]
            raise WeightsError(f"{weights.path}: does not fit the model {info.name} ({line})") from None
        module.prepare()
        return cls(module.to(chosen), weights.thresholds, chosen, precision)

    def _tensor(self, quality: float) -> Tensor:
        return torch.tensor([quality], dtype=torch.float64, device=self.device)

    def _map(self, x: np.ndarray) -> Tensor:
        return torch.from_numpy(x).to(self.device, memory_format=torch.channels_last)

    def _transform(self) -> torch.autocast:
        """For g_a and g_s alone: never for what the entropy coder depends on."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @_running
    def analyse(self, window: np.ndarray, quality: float) -> np.ndarray:
        with self._transform():
            y = self.module.analyse(self._map(window), self._tensor(quality))
        return _numpy(y.float())

    @_running
    def hyper_analyse(self, y: np.ndarray, quality: float) -> np.ndarray:
        q = self._tensor(quality)
        z = self.module.hyper_analyse(torch.from_numpy(y).to(self.device), q).double()
        return _numpy((z - self.module.z_offset(q).double()).round())

    @_running
    def z_rows(self, quality: float) -> np.ndarray:
        return _numpy(self.module.z_rows(self._tensor(quality), self.thresholds))

    @_running
    def context(self, z_symbols: np.ndarray, quality: float) -> TorchContext:
        q = self._tensor(quality)
        z_hat = torch.from_numpy(z_symbols).to(self.device).double() + self.module.z_offset(q).double()
        return TorchContext(self.module.context(z_hat, q), self.thresholds)

    @_running
    def split(self, y: np.ndarray) -> list[np.ndarray]:
        return [_numpy(part) for part in self.module.split(torch.from_numpy(y))]

    @_running
    def synthesise(self, y_hat: np.ndarray, quality: float) -> np.ndarray:
        with self._transform():
            x = self.module.synthesise(self._map(y_hat), self._tensor(quality))
        return _numpy(x.float())

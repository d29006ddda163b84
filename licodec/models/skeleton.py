"""Models without memory: the shapes of all parameters before any weight is believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

ELEMENTWISE = ("add", "sub", "mul", "sqrt", "clone")  # what the models compute their initial values with


class _NoValues(TorchFunctionMode):
    """Initial values are neither drawn nor computed.

    On the meta device torch finds the shapes of such results by code that imports
    its compiler: two seconds, more than coding a picture with `lite` takes.
    """

    def __torch_function__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> object:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if given and all(tensor.is_meta for tensor in given):
            if name.endswith("_") and not name.endswith("__") and name != "requires_grad_":  # normal_, copy_, ...
                return given[0]
            if name in ELEMENTWISE:
                return torch.empty(np.broadcast_shapes(*(tensor.shape for tensor in given)))
        if name == "eye":
            return torch.empty(args[0], args[0])
        if name in ("rand", "randn"):
            return torch.empty(*args)
        return func(*args, **kwargs)


@contextmanager
def skeleton() -> Iterator[None]:
    """Modules made within get parameters with shapes and without memory or values, to be assigned."""
    with torch.device("meta"), _NoValues():
        yield

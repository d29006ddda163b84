"""Linear maps at the speed the processor has.

torch's own `linear` asks MKL. oneDNN with a weight packed once is more than
twice as fast on some processors, see `products`, and can apply an activation
before the result leaves the cache; but its GELU takes 3.4 ns a value with AVX2,
torch's 1.1.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.layers.activation import gelu, relu
from licodec.layers.parallel import STRIP, each, pieces, threads
from licodec.layers.products import coding, matmul, quickest

LEAST_SHARED = 1 << 23  # products that are worth a second thread, which takes 0.1 ms to join
ACTIVATIONS = {"none": lambda y: y, "gelu": gelu, "relu": relu}


def _offered() -> bool:
    """Whether this torch has the operators; they are not part of its documented interface."""
    try:
        return torch.backends.mkldnn.is_available() and bool(
            torch.ops.mkldnn._linear_pointwise and torch.ops.mkldnn._reorder_linear_weight
        )
    except (AttributeError, RuntimeError):
        return False


OFFERED = _offered()


def _packed(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)


def _onednn(x: Tensor, packed: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    algorithm = "none" if activation == "gelu" else ""
    return torch.ops.mkldnn._linear_pointwise(x, packed, bias, activation, [], algorithm)


@functools.cache
def _way(activation: str) -> str:
    """The fastest way to a linear map with an activation, by a trial of some 30 ms."""
    if not OFFERED:
        return "plain"
    x, weight, bias = torch.ones(2048, 96), torch.ones(192, 96), torch.ones(192)
    packed, activate = _packed(weight), ACTIVATIONS[activation]
    ways = {
        "fused": lambda: _onednn(x, packed, bias, activation),
        "plain": lambda: activate(F.linear(x, weight, bias)),
    }
    if activation != "none":  # without one it is the same as fused
        ways["packed"] = lambda: activate(_onednn(x, packed, bias, "none"))
    return quickest(ways)


def linear(
    owner: nn.Module,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str = "none",
    part: str = "packed",
) -> Tensor:
    """x [..., in] and weight [out, in] -> [..., out].

    In inference on the CPU the packed weight is kept with its `owner`, whose
    weight must not change any more.

    Args:
        activation: applied to the result; one of ACTIVATIONS.
        part: tells the packed weights apart where an owner has several.
    """
    activate = ACTIVATIONS[activation]
    way = _way(activation) if coding(x) and x.dtype == torch.float32 else "plain"
    if way != "plain" and part not in owner.__dict__:
        owner.__dict__[part] = _packed(weight)

    def map_rows(x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            return exactly(x)
        if way == "fused":
            return _onednn(x, owner.__dict__[part], bias, activation)
        return activate(F.linear(x, weight, bias) if way == "plain" else _onednn(x, owner.__dict__[part], bias, "none"))

    def exactly(x: Tensor, out: Tensor | None = None) -> Tensor:
        y = matmul(x, weight.T, out=out)
        return activate(y if bias is None else y.add_(bias))

    rows = x.reshape(-1, x.shape[-1])
    if threads() == 1 or x.numel() * len(weight) < LEAST_SHARED:
        return map_rows(rows).view(*x.shape[:-1], -1)
    out = x.new_empty(len(rows), len(weight))

    def piece(part: slice) -> None:
        if x.dtype == torch.float64 and coding(x):
            exactly(rows[part], out[part])
        else:
            out[part] = map_rows(rows[part])

    each(piece, pieces(len(rows), STRIP))
    return out.view(*x.shape[:-1], -1)


class Linear(nn.Linear):
    """torch's, by `linear`."""

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        return linear(self, x, self.weight, self.bias, activation)


class MLP(nn.Sequential):
    """Two linear maps with GELU between them, [..., dim] -> [..., dim]."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__(Linear(dim, hidden), nn.GELU(), Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        return self[2](self[0](x, "gelu"))

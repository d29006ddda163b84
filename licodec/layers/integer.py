"""Integer networks: convolutions whose results are the same on every machine.

Sums of integers below 2^24 are exact in float32 in any order, with or without FMA,
TF32 or bf16 products of 8 bits; one IEEE multiplication and a rounding are the same
everywhere. So activations are integers of 8 bits at the entrance of every product
(and of 16 in the residual stream), weights are integers of 8 bits with one scale per output
channel, and a result is `round(sum * multiplier)` with one float32 multiplier per channel.

Integers stand for fixed-point numbers: an activation of value v is the integer v / unit.
`TrainableConv` computes the integers from float weights at every step, with straight-through
gradients; `IntegerConv` holds them. Both run the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BYTE = 127  # largest magnitude of an activation that enters a product, and of a weight
WORD = 32767  # of the residual stream
EXACT = 1 << 24  # float32 holds every integer below it
UNIT = 1 / 32  # of 8-bit activations: they reach 4
STREAM_UNIT = 1 / 256  # of the residual stream: it reaches 128


def rounded(x: Tensor, limit: int) -> Tensor:
    """x rounded half to even and clamped to +-limit; the gradient passes within the limits."""
    x = x.clamp(-limit, limit)
    return x + (x.round() - x).detach() if torch.is_grad_enabled() else x.round()


def convolve(x: Tensor, weight: Tensor, bias: Tensor, multiplier: Tensor) -> Tensor:
    """The product of integers times its multiplier, not yet rounded: [B, in, H, W] -> [B, out, H, W].

    1x1, or 3x3 of each channel with zeros around, as the weight's shape says.
    """
    kernel = weight.shape[-1]
    with torch.autocast(x.device.type, enabled=False):
        total = F.conv2d(x, weight, bias, padding=kernel // 2, groups=len(weight) if kernel > 1 else 1)
        return total * multiplier.view(-1, 1, 1)


class IntegerConv(nn.Module):
    """A convolution with frozen integers.

    Buffers: weight [out, in or 1, k, k] within +-127 and bias [out], both whole; multiplier [out], float32.
    """

    weight: Tensor
    bias: Tensor
    multiplier: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1) -> None:
        super().__init__()
        fan_in = in_channels if kernel == 1 else 1
        self.register_buffer("weight", torch.zeros(out_channels, fan_in, kernel, kernel, dtype=torch.int8))
        self.register_buffer("bias", torch.zeros(out_channels, dtype=torch.int32))
        self.register_buffer("multiplier", torch.ones(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, self.weight, self.bias, self.multiplier)

    def prepare(self) -> None:
        """Make the integers float32. Raises ValueError if float32 would not add them exactly."""
        weight, bias = self.weight.double(), self.bias.double()
        largest = weight.abs().flatten(1).sum(1) * BYTE + bias.abs()
        whole = bool((weight == weight.round()).all() and (bias == bias.round()).all())
        if not whole or not bool((largest < EXACT).all()) or not bool(self.multiplier.isfinite().all()):
            raise ValueError("an integer network has numbers that float32 does not add exactly")
        self.weight, self.bias, self.multiplier = weight.float(), bias.float(), self.multiplier.float()


class TrainableConv(nn.Module):
    """What becomes an `IntegerConv`: float weights, rounded at each use.

    Args:
        unit: of the integers that enter.
        unit_out: of the integers that leave.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        unit: float = UNIT,
        unit_out: float = UNIT,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.unit, self.unit_out = unit, unit_out
        fan_in = in_channels if kernel == 1 else 1
        self.weight = nn.Parameter(torch.randn(out_channels, fan_in, kernel, kernel) * gain * fan_in**-0.5)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def integers(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weight and bias as whole numbers, and the multiplier."""
        scale = self.weight.detach().abs().flatten(1).amax(1).clamp(min=1e-6) / BYTE
        weight = rounded(self.weight / scale[:, None, None, None], BYTE)
        bias = rounded(self.bias / (scale * self.unit), EXACT // 8)
        return weight, bias, scale * (self.unit / self.unit_out)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(x, *self.integers())

    def room(self) -> IntegerConv:
        """An `IntegerConv` of the same shape."""
        out_channels, fan_in, kernel, _ = self.weight.shape
        return IntegerConv(fan_in, out_channels, kernel)

    @torch.no_grad()
    def freeze(self) -> IntegerConv:
        """The convolution of the same integers."""
        weight, bias, multiplier = self.integers()
        frozen = self.room()
        frozen.weight, frozen.bias = weight.to(torch.int8), bias.to(torch.int32)
        frozen.multiplier = multiplier.float().clone()
        return frozen

    @torch.no_grad()
    def thaw(self, frozen: IntegerConv) -> None:
        """Take the values that frozen integers stand for."""
        scale = frozen.multiplier.float() * (self.unit_out / self.unit)
        self.weight.copy_(frozen.weight.float() * scale[:, None, None, None])
        self.bias.copy_(frozen.bias.float() * scale * self.unit)


class Entrance(nn.Module):
    """From the residual stream to 8 bits: one multiplier per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.multiplier = nn.Parameter(torch.full((channels,), STREAM_UNIT / UNIT))

    def forward(self, stream: Tensor) -> Tensor:
        return rounded(stream * self.multiplier.view(-1, 1, 1), BYTE)


class IntegerBlock(nn.Module):
    """A residual block on the stream: depthwise 3x3, expansion to 2C, LeakyReLU of slope 1/8, reduction.

    [B, C, H, W] -> the same, whole numbers within +-32767.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.entrance = Entrance(channels)
        self.depthwise: nn.Module = TrainableConv(channels, channels, 3)
        self.expand: nn.Module = TrainableConv(channels, 2 * channels, gain=1.4)
        self.reduce: nn.Module = TrainableConv(2 * channels, channels, unit_out=STREAM_UNIT, gain=0.1)
        with torch.no_grad():  # near the identity
            self.depthwise.weight.mul_(0.15)
            self.depthwise.weight[:, 0, 1, 1] += 1.0

    def forward(self, stream: Tensor) -> Tensor:
        local = rounded(self.depthwise(self.entrance(stream)), BYTE)
        wide = self.expand(local)
        wide = rounded(torch.maximum(wide, wide * 0.125), BYTE)  # a power of two: exact
        return rounded(stream + rounded(self.reduce(wide), WORD), WORD)


def replace(module: nn.Module, make: Callable[[TrainableConv], IntegerConv]) -> None:
    """Replace every `TrainableConv` below a module by what `make` gives for it."""
    for name, child in module.named_children():
        if isinstance(child, TrainableConv):
            setattr(module, name, make(child))
        else:
            replace(child, make)

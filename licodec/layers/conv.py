"""Convolutions, GDN and the residual blocks of the published models.

The blocks are those of Cheng et al. (CVPR 2020) as CompressAI names their parts,
so that checkpoints fit; they are here because importing CompressAI takes longer
than coding a picture.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from licodec.layers import winograd
from licodec.layers.activation import GELU, leaky_relu
from licodec.layers.bound import lower_bound
from licodec.layers.linear import ACTIVATIONS, linear
from licodec.layers.parallel import STRIP, by_rows, pieces, positionwise_nchw, rows_between
from licodec.layers.products import coding
from licodec.layers.winograd import Shared, side_by_side

LEAST_CHANNELS = 64  # of a convolution that Winograd's algorithm makes faster in float32


class Conv(nn.Conv2d):
    """torch's; in inference on the CPU some rows at a time."""

    def forward(self, x: Tensor) -> Tensor:
        if not coding(x):
            return super().forward(x)
        sizes = self.padding, self.kernel_size, self.stride
        (padding, beside), (kernel, _), (stride, _) = sizes
        x = x.permute(0, 2, 3, 1).contiguous()
        height, width = ((side + 2 * p - k) // s + 1 for side, p, k, s in zip(x.shape[1:3], *sizes, strict=True))

        def band(rows: slice) -> Tensor:
            first, last = rows.start * stride - padding, (rows.stop - 1) * stride - padding + kernel
            seen = rows_between(x, first, last).permute(0, 3, 1, 2)
            return F.conv2d(seen, self.weight, self.bias, self.stride, (0, beside), 1, self.groups).permute(0, 2, 3, 1)

        return by_rows(band, pieces(height, STRIP // width)).permute(0, 3, 1, 2)


class Deconv(nn.ConvTranspose2d):
    """torch's, which multiplies the size by its stride; in inference on the CPU some rows at a time."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, kernel, stride, kernel // 2, stride - 1)

    def forward(self, x: Tensor) -> Tensor:
        if not coding(x):
            return super().forward(x)
        (padding, beside), (kernel, _), (stride, _) = self.padding, self.kernel_size, self.stride
        # row i of the input adds to `kernel` rows of the output, from i * stride - padding on
        above, below = -((padding - kernel + 1) // stride), (stride - 1 + padding) // stride

        def band(rows: slice) -> Tensor:
            first = max(0, rows.start - above)
            seen = x[:, :, first : rows.stop + below]
            extra = 0, self.output_padding[1]
            out = F.conv_transpose2d(seen, self.weight, self.bias, self.stride, (0, beside), extra)
            start = (rows.start - first) * stride + padding
            return out[:, :, start : start + (rows.stop - rows.start) * stride].permute(0, 2, 3, 1)

        return by_rows(band, pieces(x.shape[2], x.shape[2]), stride).permute(0, 3, 1, 2)


class _Fast(nn.Module):
    """A convolution that Winograd's algorithm computes in inference on the CPU, if that is faster.

    Its kernels are kept: the weight must not change any more.
    """

    kind: str  # see `winograd.Convolution`

    def forward(self, x: Tensor) -> Tensor:
        if not coding(x) or not self._faster(x):
            return super().forward(x)
        fast = self.__dict__.get("winograd")
        if fast is None or fast.bias.dtype != x.dtype:
            conv = self[0] if isinstance(self, nn.Sequential) else self
            fast = self.__dict__["winograd"] = winograd.Convolution(self.kind, conv.weight, conv.bias)
        return fast(x)

    def _faster(self, x: Tensor) -> bool:
        if self.kind == "strided" and (x.shape[2] % 2 or x.shape[3] % 2):
            return False
        if x.dtype == torch.float64:
            return self.kind != "shuffled"  # its 3x3 convolution sees to itself
        return self._least_channels() >= LEAST_CHANNELS

    def _least_channels(self) -> int:
        return min(self.in_channels, self.out_channels)


class Conv3x3(_Fast, Conv):
    """A 3x3 convolution that keeps the size; in float64, which torch does slowly, always by Winograd's algorithm."""

    kind = "same"

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)
        self.register_buffer("kernels", None, persistent=False)

    def freeze(self) -> None:
        """Transform the weights once; done when a model is made ready to code (see `CompressionModel.prepare`).

        They are not kept beside their kernels, which are four times as large.
        """
        self.kernels = winograd.transform(self.weight.detach())
        self.weight.data = self.weight.new_empty(0)

    def forward(self, x: Tensor | list[Shared]) -> Tensor:
        """`x` may be maps side by side along the channels."""
        if self.weight.dtype != torch.float64 or torch.is_grad_enabled():
            return super().forward(side_by_side(x).to(self.weight.dtype) if isinstance(x, list) else x)
        kernels = winograd.transform(self.weight) if self.kernels is None else self.kernels
        return winograd.conv3x3(x, kernels, self.bias)


class Conv5x5(_Fast, Conv):
    """A 5x5 convolution that halves the size."""

    kind = "strided"

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 5, 2, 2)


class Deconv5x5(_Fast, Deconv):
    """The transposed 5x5 convolution, which doubles the size."""

    kind = "transposed"

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 5, 2)


class SubpelConv(_Fast, nn.Sequential):
    """A 3x3 convolution and a pixel shuffle, which doubles the size, Shi et al. (CVPR 2016)."""

    kind = "shuffled"

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(Conv3x3(in_channels, 4 * out_channels), nn.PixelShuffle(2))

    def _least_channels(self) -> int:
        return min(self[0].in_channels, self[0].out_channels // 4)


class Conv1x1(nn.Conv2d):
    """A 1x1 convolution, as a matrix product over the channels of a channels_last map."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, x: Tensor, activation: str = "none") -> Tensor:
        return self.at(x.permute(0, 2, 3, 1), activation).permute(0, 3, 1, 2)

    def at(self, x: Tensor, activation: str = "none") -> Tensor:
        """The same of [B, H, W, C]."""
        return linear(self, x, self.weight[:, :, 0, 0], self.bias, activation)

    def finish(self, x: Tensor, skip: Tensor, before: str = "none", after: str = "none") -> Tensor:
        """after(self(before(x)) + skip); in inference what lies between stays in the cache, and x is lost."""
        first, last = ACTIVATIONS[before], ACTIVATIONS[after]
        out = x if self.in_channels == self.out_channels else None
        return positionwise_nchw(lambda x, skip: last(self.at(first(x)).add_(skip)), x, skip, out=out)


def conv(in_channels: int, out_channels: int, kernel: int = 5, stride: int = 2) -> nn.Conv2d:
    """A convolution that keeps the size but for its stride."""
    if (kernel, stride) == (3, 1):
        return Conv3x3(in_channels, out_channels)
    if (kernel, stride) == (5, 2):
        return Conv5x5(in_channels, out_channels)
    return Conv(in_channels, out_channels, kernel, stride, kernel // 2)


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """`conv` with a 3x3 kernel."""
    return conv(in_channels, out_channels, 3, stride)


def deconv(in_channels: int, out_channels: int, kernel: int = 5, stride: int = 2) -> nn.ConvTranspose2d:
    """The transposed convolution that multiplies the size by its stride."""
    if (kernel, stride) == (5, 2):
        return Deconv5x5(in_channels, out_channels)
    return Deconv(in_channels, out_channels, kernel, stride)


def hyper_analysis(widths: list[int]) -> nn.Sequential:
    """From y at 1/16 to z at 1/64 as in WACNN and STF: five 3x3 convolutions, the third and fifth strided."""
    layers: list[nn.Module] = []
    for (before, after), stride in zip(itertools.pairwise(widths), (1, 1, 2, 1, 2), strict=True):
        layers += [conv3x3(before, after, stride), GELU()]
    return nn.Sequential(*layers[:-1])


def hyper_synthesis(widths: list[int]) -> nn.Sequential:
    """The way back: the second and fourth double the size; the means and the scales have one each."""
    layers: list[nn.Module] = []
    for (before, after), factor in zip(itertools.pairwise(widths), (1, 2, 1, 2, 1), strict=True):
        layers += [SubpelConv(before, after) if factor == 2 else conv3x3(before, after), GELU()]
    return nn.Sequential(*layers[:-1])


def head(widths: list[int], activation: type[nn.Module] = GELU) -> nn.Sequential:
    """3x3 convolutions of the given widths with activations between them."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [conv3x3(before, after), activation()]
    return nn.Sequential(*layers[:-1])


class GDN(nn.Module):
    """Generalised divisive normalisation (Balle et al., ICLR 2016), or its inverse.

    beta and gamma are kept as square roots, bounded below, as all checkpoints have them.
    """

    PEDESTAL = 2.0**-36
    BETA_MIN = 1e-6

    def __init__(self, channels: int, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.beta = nn.Parameter((torch.ones(channels) + self.PEDESTAL).sqrt())
        self.gamma = nn.Parameter((0.1 * torch.eye(channels) + self.PEDESTAL).sqrt())

    def forward(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """`plus` is added to the result. In inference x is lost."""
        beta = lower_bound(self.beta, (self.BETA_MIN + self.PEDESTAL) ** 0.5) ** 2 - self.PEDESTAL
        gamma = lower_bound(self.gamma, self.PEDESTAL**0.5) ** 2 - self.PEDESTAL

        def normalised(x: Tensor, *plus: Tensor) -> Tensor:
            norm = linear(self, x * x, gamma, beta)
            out = x * (norm.sqrt() if self.inverse else norm.rsqrt())
            return out.add_(*plus) if plus else out

        return positionwise_nchw(normalised, x, *([] if plus is None else [plus]), out=x)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with LeakyReLU, and a skip."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.skip = Conv1x1(in_channels, out_channels) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return leaky_relu(self.conv2(leaky_relu(self.conv1(x))), plus=self.skip(x))


class ResidualBlockWithStride(nn.Module):
    """Halves the size; GDN after the second convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 2) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.gdn = GDN(out_channels)
        self.skip = Conv(in_channels, out_channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.gdn(self.conv2(leaky_relu(self.conv1(x))), plus=self.skip(x))


class ResidualBlockUpsample(nn.Module):
    """Doubles the size; inverse GDN after the second convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.subpel_conv = SubpelConv(in_channels, out_channels)
        self.conv = conv3x3(out_channels, out_channels)
        self.igdn = GDN(out_channels, inverse=True)
        self.upsample = SubpelConv(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.igdn(self.conv(leaky_relu(self.subpel_conv(x))), plus=self.upsample(x))


class ResidualUnit(nn.Module):
    """1x1, 3x3, 1x1 at half the width, activated ("gelu" or "relu") after the sum too."""

    def __init__(self, channels: int, activation: str = "relu") -> None:
        super().__init__()
        half = channels // 2
        self.activation = activation
        self.conv = nn.ModuleDict(
            {"0": Conv1x1(channels, half), "2": conv3x3(half, half), "4": Conv1x1(half, channels)}
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv["2"](self.conv["0"](x, self.activation))
        return self.conv["4"].finish(out, x, before=self.activation, after=self.activation)


class GatedAttention(nn.Module):
    """x + a(x) * sigmoid(b(...)): the simplified attention of Cheng et al. (CVPR 2020).

    `before` is put in front of the gate's branch: window attention, in these models.
    """

    def __init__(self, channels: int, before: nn.Module, activation: str = "relu") -> None:
        super().__init__()
        self.before = before
        self.conv_a = nn.Sequential(*(ResidualUnit(channels, activation) for _ in range(3)))
        self.conv_b = nn.Sequential(
            *(ResidualUnit(channels, activation) for _ in range(3)), Conv1x1(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        gated, gate = self.conv_a(x), self.conv_b(self.before(x))
        return positionwise_nchw(lambda x, a, b: torch.addcmul(x, a, torch.sigmoid(b)), x, gated, gate)

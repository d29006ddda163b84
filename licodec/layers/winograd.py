"""Convolutions with fewer products: Winograd's F(m x m, 3 x 3).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
section 4.3; the matrices are Toom's and Cook's. `conv3x3` is for float64, for
which torch has no fast convolution, and for maps that several convolutions read.
`convolve` is for the float32 transforms, whose maps are large: strip by strip,
and for strided and transposed 5x5 convolutions too.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from licodec.layers.parallel import computed_once, each, pieces, rows_between, threads
from licodec.layers.products import matmul


class Scheme:
    """Tiles of m x m outputs, from the values of polynomials at m + 1 points and at infinity.

    Attributes:
        m: side of a tile of outputs.
        n: side of the patch of inputs that it needs, m + 2.
        input, kernel, output: what transforms n inputs, 3 taps and n products: [n, n], [n, 3] and [m, n].
    """

    def __init__(self, *points: float) -> None:
        self.m, self.n = len(points) - 1, len(points) + 1
        others = [[q for q in points if q != p] for p in points]
        self.input = torch.zeros(self.n, self.n, dtype=torch.float64)
        for row, roots in zip(self.input, [*others, points], strict=True):
            row[: len(roots) + 1] = torch.from_numpy(np.poly(roots)[::-1].copy())
        kernel = [[p**k / np.prod([p - q for q in qs]) for k in range(3)] for p, qs in zip(points, others, strict=True)]
        self.kernel = torch.tensor([*kernel, [0.0, 0.0, 1.0]], dtype=torch.float64)
        output = [[*(p**k for p in points), float(k == self.m - 1)] for k in range(self.m)]
        self.output = torch.tensor(output, dtype=torch.float64)

    def transform(self, weight: Tensor) -> Tensor:
        """Weights [O, C, 3, 3] -> kernels [n, n, C, O], transposed in memory."""
        matrix = torch.kron(self.kernel, self.kernel).to(weight.device)
        kernels = matrix @ weight.double().reshape(-1, 9).T
        return kernels.view(self.n, self.n, *weight.shape[:2]).transpose(2, 3).to(weight.dtype)

    def tiles(self, side: int) -> int:
        """How many tiles cover a side."""
        return -(-side // self.m)

    def patches(self, x: Tensor, tiles: slice, out: Tensor | None = None) -> Tensor:
        """The inputs of some rows of tiles, transformed; x [B, H, W, C] -> [B, rows, columns, n, n, C].

        Zeros lie around the map. A tile's vectors lie side by side in memory: planes of one
        position each would be multiples of 4096 bytes apart, which caches do not tell from
        one another. `out`: where the result goes, if it is given.
        """
        right = self.m * self.tiles(x.shape[2]) + 1 - x.shape[2]
        x = rows_between(x, self.m * tiles.start - 1, self.m * tiles.stop + 1, 1, right)
        width, channels = x.shape[2:]
        matrix = self.input.to(x)
        x = matrix @ x.flatten(2).unfold(1, self.n, self.m).transpose(2, 3)  # every column, [B, rows, n, W * C]
        x = x.unflatten(3, (width, channels)).unfold(3, self.n, self.m).permute(0, 1, 3, 2, 5, 4)
        shape = *x.shape[:3], self.n, self.n, channels
        out = None if out is None else out.view(-1, self.n, channels)
        return torch.matmul(matrix, x.reshape(-1, self.n, channels), out=out).view(shape)

    def outputs(self, products: Tensor, rows: slice, columns: slice, bias: Tensor, out: Tensor) -> None:
        """Sum up products.

        Args:
            products: [r, c, B * rows * columns, O], those of rows and columns of tiles' positions
                that are given; the others are zero.
            bias: [O].
            out: [B, rows, m, columns, m, O], where the result goes.
        """
        matrix = self.output.to(products)
        lines = matrix[:, rows] @ products.flatten(2).transpose(0, 1)
        sums = matrix[:, columns] @ lines.transpose(0, 1)
        sums = sums.unflatten(2, (*out.shape[:2], out.shape[3], -1))
        torch.add(sums.permute(2, 3, 0, 4, 1, 5), bias, out=out)


EXACT = Scheme(0, 1, -1, 2, -2)  # for float64: a quarter of the products

# For float32: points between whose powers there is less to lose. Root mean square error, relative to
# the outputs, for 192 channels: 1.2e-6, as oneDNN's of a 5x5 kernel (1.0e-6); 2.6e-6 at EXACT's points.
FAST = Scheme(0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)


class Shared:
    """A float64 map [B, C, H, W] that several convolutions read: its patches are cut and transformed once."""

    def __init__(self, x: Tensor) -> None:
        self.map, self.shape = x, x.shape

    @computed_once
    def patches(self) -> Tensor:
        """As `Scheme.patches`, of the whole map with zeros around it."""
        x, n = self.map.permute(0, 2, 3, 1), EXACT.n
        rows, columns = map(EXACT.tiles, x.shape[1:3])
        if threads() == 1 or len(x) > 1:
            return EXACT.patches(x, slice(0, rows))
        out = x.new_empty(1, rows, columns, n, n, x.shape[3])
        each(lambda tiles: EXACT.patches(x, tiles, out[:, tiles]), pieces(rows, rows))
        return out


class Joined(Shared):
    """Maps side by side along the channels, as one."""

    def __init__(self, parts: list[Shared]) -> None:
        self.parts = parts
        batch, _, *size = parts[0].shape
        self.shape = torch.Size([batch, sum(part.shape[1] for part in parts), *size])

    @computed_once
    def map(self) -> Tensor:
        """The maps as one tensor; convolutions in float64 do without."""
        return side_by_side(self.parts)

    @computed_once
    def patches(self) -> Tensor:
        return torch.cat([part.patches for part in self.parts], -1)


def side_by_side(parts: list[Shared]) -> Tensor:
    """The maps as one tensor."""
    return parts[0].map if len(parts) == 1 else torch.cat([part.map for part in parts], 1)


def transform(weight: Tensor) -> Tensor:
    """What `conv3x3` takes in place of a weight [O, C, 3, 3]: [36, C, O], four times as large."""
    return EXACT.transform(weight).flatten(0, 1)


def conv3x3(x: Tensor | list[Shared], kernels: Tensor, bias: Tensor) -> Tensor:
    """Convolution with zeros around, [B, C, H, W] and `transform(weight)` -> [B, O, H, W], all float64.

    `x` may be maps side by side along the channels; they are never joined, which would take
    as long as a third of the products. channels_last maps are taken and given without a
    copy: whole vectors of channels move at a time.
    """
    parts = x if isinstance(x, list) else [Shared(x)]
    height, width = parts[0].shape[2:]
    products, first = None, 0
    for part in parts:
        last = first + part.shape[1]
        positions = part.patches.flatten(0, 2).flatten(1, 2).transpose(0, 1)
        products = matmul(positions, kernels[:, first:last], plus=products)
        first = last
    batch, rows, columns = parts[0].patches.shape[:3]
    out = products.new_empty(batch, rows, EXACT.m, columns, EXACT.m, products.shape[2])
    products = products.view(EXACT.n, EXACT.n, batch, rows, columns, -1)
    whole = slice(None)

    def strip(tiles: slice) -> None:
        EXACT.outputs(products[:, :, :, tiles].flatten(2, 4), whole, whole, bias, out[:, tiles])

    each(strip, pieces(rows, rows))
    out = out.view(batch, rows * EXACT.m, columns * EXACT.m, -1)
    return out[:, :height, :width].contiguous().permute(0, 3, 1, 2)


STRIP = 256  # tiles that `Convolution` takes at a time; what they are transformed to stays near the core


class Convolution:
    """A convolution [B, C, H, W] -> [B, O, H', W'] for inference, by 3x3 convolutions of phases.

    Each takes every `down`-th row and column of the input and gives every `up`-th of the
    output. 5x5 kernels have three taps in the first phase of an axis and two in the other,
    which does without one of the n products.

    Args:
        kind: "same", a 3x3 convolution; "shuffled", one with a pixel shuffle by two after it;
            "strided", a 5x5 convolution with stride 2; "transposed", its transpose, with an
            output padding of 1. All are padded so that they keep the size but for the stride.
        weight: as torch has it for this kind.
    """

    def __init__(self, kind: str, weight: Tensor, bias: Tensor) -> None:
        self.scheme = EXACT if weight.dtype == torch.float64 else FAST
        self.down, self.up = 1 + (kind == "strided"), 1 + (kind in ("shuffled", "transposed"))
        if kind == "same":
            taps = weight[None, None, None, None]
        elif kind == "shuffled":
            taps = weight.unflatten(0, (-1, 2, 2)).permute(1, 2, 0, 3, 4, 5)[:, :, None, None]
            bias = bias.unflatten(0, (-1, 2, 2)).permute(1, 2, 0)
        else:  # tap 2 * t + phase, or 2 * (2 - t) + phase, is tap t of the 3x3 kernel
            taps = F.pad(weight, (0, 1, 0, 1)).unflatten(3, (3, 2)).unflatten(2, (3, 2))
            if kind == "strided":
                taps = taps.permute(3, 5, 0, 1, 2, 4)[None, None]
            else:
                taps = taps.flip(2, 4).permute(3, 5, 1, 0, 2, 4)[:, :, None, None]
        self.bias = bias.expand(self.up, self.up, -1)
        # the third tap of an input's second phase is zero, and with it the kernel at infinity;
        # the first of an output's second phase, and with it the kernel at the point zero
        n = self.scheme.n
        self.spans_in = [slice(0, n - (kind == "strided" and phase)) for phase in range(self.down)]
        self.spans_out = [slice(int(kind == "transposed" and phase), n) for phase in range(self.up)]
        self.kernels = {}
        for phases in itertools.product(*map(range, taps.shape[:4])):
            kernels = self.scheme.transform(taps[phases])
            self.kernels[phases] = kernels[self._span(*phases[::2]), self._span(*phases[1::2])]

    def _span(self, phase_out: int, phase_in: int) -> slice:
        """The products of an axis that are not zero."""
        return slice(self.spans_out[phase_out].start, self.spans_in[phase_in].stop)

    def __call__(self, x: Tensor) -> Tensor:
        m = self.scheme.m
        x = x.permute(0, 2, 3, 1)
        batch, height, width = x.shape[0], x.shape[1] // self.down, x.shape[2] // self.down
        rows, columns = self.scheme.tiles(height), self.scheme.tiles(width)
        out = x.new_empty(batch, rows, m, self.up, columns, m, self.up, self.bias.shape[2])
        phases = itertools.product(range(self.down), repeat=2)
        parts = {phase: x[:, phase[0] :: self.down, phase[1] :: self.down] for phase in phases}

        def strip(tiles: slice) -> None:
            patches = {phase: self.scheme.patches(part, tiles).flatten(0, 2) for phase, part in parts.items()}
            for row, column in itertools.product(range(self.up), repeat=2):
                products = self._products(patches, row, column)
                place = out[:, tiles, :, row, :, :, column]
                spans = self.spans_out[row], self.spans_out[column]
                self.scheme.outputs(products, *spans, self.bias[row, column], place)

        each(strip, pieces(rows, STRIP // (batch * columns)))
        out = out.view(batch, rows * m * self.up, columns * m * self.up, -1)
        if out.shape[1:3] != (height * self.up, width * self.up):
            out = out[:, : height * self.up, : width * self.up].contiguous()
        return out.permute(0, 3, 1, 2)

    def _products(self, patches: dict[tuple[int, int], Tensor], row: int, column: int) -> Tensor:
        """Those of a phase of the output, [r, c, T, O], summed over the phases of the input."""
        products = None
        for phase, part in patches.items():
            kernels = self.kernels[row, column, *phase]
            seen = part[:, self._span(row, phase[0]), self._span(column, phase[1])].permute(1, 2, 0, 3)
            if products is None:
                products = part.new_empty(*kernels.shape[:2], len(part), kernels.shape[3])
            result = products[: kernels.shape[0], : kernels.shape[1]]
            if kernels.shape[1] == self.scheme.n:  # all at once, else line by line
                seen, kernels, result = (t.flatten(0, 1)[None] for t in (seen, kernels, result))
            for a, b, out in zip(seen, kernels, result, strict=True):
                matmul(a, b, out=out) if phase == (0, 0) else matmul(a, b, plus=out)
        return products

"""Big pictures: which part of a picture, and of its latent, each tile holds.

The picture is padded to the model's stride and cut into tiles. The latent of a
tile is entropy coded on its own; but the transforms see `overlap` pixels around
it: g_a of the picture, g_s of the neighbours' latents. Where the overlap covers
the transforms' receptive field (`lite`: 64 pixels) the result is that of the
whole picture at once, and no seam can be seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


def coding_steps(steps: int, row_delay: int, height: int, width: int) -> int:
    """How many steps code a latent of height x width: `steps`, or its diagonals.

    On a diagonal each row is `row_delay` positions behind the row above it; 0 stands for a fixed number of steps.
    """
    return width + row_delay * (height - 1) if row_delay else steps


@dataclass(frozen=True)
class Box:
    """A rectangle: [top, bottom) x [left, right)."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left

    def grown(self, margin: int, height: int, width: int) -> Box:
        """Grown by `margin` on all sides, within a picture of height x width."""
        return Box(
            max(0, self.top - margin),
            max(0, self.left - margin),
            min(height, self.bottom + margin),
            min(width, self.right + margin),
        )

    def snapped(self, stride: int) -> Box:
        """Grown to multiples of `stride`."""
        top, left = self.top // stride * stride, self.left // stride * stride
        return Box(top, left, padded(self.bottom, stride), padded(self.right, stride))

    def common(self, other: Box) -> Box | None:
        """What two rectangles share, None if nothing."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Box(top, left, bottom, right) if top < bottom and left < right else None

    def within(self, outer: Box) -> Box:
        """The same rectangle in the coordinates of `outer`."""
        return Box(self.top - outer.top, self.left - outer.left, self.bottom - outer.top, self.right - outer.left)

    def scaled(self, divisor: int) -> Box:
        """In the coordinates of a map that is `divisor` times smaller."""
        return Box(*(v // divisor for v in (self.top, self.left, self.bottom, self.right)))

    def slices(self) -> tuple[slice, slice]:
        """Index of the rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


@dataclass(frozen=True)
class Grid:
    """The tiles of a padded picture of height x width; tile 0 is one tile for all."""

    height: int
    width: int
    tile: int
    overlap: int

    @property
    def step(self) -> int:
        """Side of a tile, also where there is one for all."""
        return self.tile or max(self.height, self.width)

    def boxes(self) -> list[Box]:
        """The tiles, row by row, without their overlap."""
        return [box for _, box in self.touching(Box(0, 0, self.height, self.width))]

    def touching(self, area: Box) -> list[tuple[int, Box]]:
        """The tiles that share something with an area of the picture, each with its place in the file."""
        step = self.step
        across = -(-self.width // step)
        return [
            (row * across + column, Box(row * step, column * step,
                                        min(row * step + step, self.height), min(column * step + step, self.width)))
            for row in range(area.top // step, -(-area.bottom // step))
            for column in range(area.left // step, -(-area.right // step))
        ]  # fmt: skip

    def rows(self, box: Box) -> Iterator[Box]:
        """The parts of `box` in each row of tiles."""
        for top in range(box.top // self.step * self.step, box.bottom, self.step):
            yield Box(max(top, box.top), box.left, min(top + self.step, box.bottom), box.right)

    def grown(self, box: Box) -> Box:
        """What the transforms see of a tile."""
        return box.grown(self.overlap, self.height, self.width)


def padded(length: int, stride: int) -> int:
    """`length` rounded up to a multiple of `stride`."""
    return -(-length // stride) * stride

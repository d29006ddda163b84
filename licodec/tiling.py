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

    def boxes(self) -> Iterator[Box]:
        """The tiles, row by row, without their overlap."""
        step = self.tile or max(self.height, self.width)
        for top in range(0, self.height, step):
            for left in range(0, self.width, step):
                yield Box(top, left, min(top + step, self.height), min(left + step, self.width))

    def grown(self, box: Box) -> Box:
        """What the transforms see of a tile."""
        return box.grown(self.overlap, self.height, self.width)


def padded(length: int, stride: int) -> int:
    """`length` rounded up to a multiple of `stride`."""
    return -(-length // stride) * stride

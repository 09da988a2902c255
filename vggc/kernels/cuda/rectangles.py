"""Rectangles of pixels that the tiles of a convolution lay over its images."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from vggc.kernels.cuda.index import Position, at_most, both
from vggc.kernels.workloads import Conv


@dataclass(frozen=True)
class RectangleTile:
    """A panel of columns, and a rectangle by its first pixel, of an image or some from it on."""

    panel: Position
    image: Position
    top: Position
    left: Position


@dataclass(frozen=True)
class Rectangles:
    """The tiles of a convolution: rectangles of so many pixels, with so many columns each; the same
    rectangle of so many images is a tile.
    """

    conv: Conv
    height: int
    width: int
    cols: int
    images: int = 1

    @property
    def grid(self) -> tuple[int, int, int]:
        """The rectangles that cover an image, down and across, and the panels of columns."""
        height, width = self.conv.grid
        channels = self.conv.output.channels
        return ceil(height / self.height), ceil(width / self.width), ceil(channels / self.cols)

    @property
    def count(self) -> int:
        """The tiles of all images."""
        return ceil(self.conv.output.batch / self.images) * prod(self.grid)

    @property
    def results(self) -> int:
        """The results that all tiles have room for."""
        return self.count * self.images * self.height * self.width * self.cols

    @property
    def patch(self) -> tuple[int, int]:
        """The rows and columns of pixels that the windows of a rectangle cover in an image."""
        (kernel_h, kernel_w), (down, right) = self.conv.kernel, self.conv.stride
        return (self.height - 1) * down + kernel_h, (self.width - 1) * right + kernel_w

    def tile(self, number: Position) -> RectangleTile:
        """The tile of a number; those of a rectangle follow one another."""
        down, across, panels = self.grid
        rectangle = number // panels
        return RectangleTile(
            panel=number % panels,
            image=rectangle // (across * down) * self.images,
            top=rectangle // across % down * self.height,
            left=rectangle % across * self.width,
        )

    def source(
        self, tile: RectangleTile, y: Position, x: Position, image: Position | int = 0
    ) -> Position:
        """Which pixel of the input's buffer is one of a tile's patch, of one of its images. For one
        beyond the map, which no result depends on, it is any of the map.
        """
        source, padding = self.conv.input, self.conv.padding
        _, height, width, _ = source.shape
        top, left = tile.top * self.conv.stride[0], tile.left * self.conv.stride[1]
        row = at_most(top + y + (source.halo - padding[0]), height - 1)
        column = at_most(left + x + (source.halo - padding[1]), width - 1)
        return (self._known(tile.image + image) * height + row) * width + column

    def _known(self, image: Position) -> Position:
        batch = self.conv.output.batch
        return at_most(image, batch - 1) if batch % self.images else image

    def place(
        self, tile: RectangleTile, y: Position, x: Position, image: Position | int = 0
    ) -> tuple[Position, Position]:
        """Where in the output's buffer a pixel of the rectangle begins, in one of the tile's
        images, and whether it is one; with a pool, that of its pooled pixel.
        """
        target = self.conv.output
        _, height, width, stored = target.shape
        y, x = tile.top + y, tile.left + x
        if self.conv.pool:
            y, x = y // 2, x // 2
        image = tile.image + image
        at = ((image * height + y + target.halo) * width + x + target.halo) * stored
        inside = both(y < target.height, x < target.width)
        return at, both(inside, image < target.batch) if target.batch % self.images else inside

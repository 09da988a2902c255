"""Which bytes of its buffers a kernel reads and writes, block by block, without running it.

Places are told by the same functions of indices that the kernels' own addresses come from
(`index.py`), for as many blocks at once as one likes. Tests hold them to what an emulated kernel
touches. `memory.py` makes of them what a card's memory gives and takes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod

import numpy as np

from vggc.kernels.cuda.emit import (
    BLOCK,
    element_of,
    halo_pieces,
    halo_place,
    inside_map,
)
from vggc.kernels.cuda.index import IndexArray, at_most, both
from vggc.kernels.cuda.mma_tile import TensorTile, part_of
from vggc.kernels.cuda.operands import SEGMENT_BYTES
from vggc.kernels.cuda.rectangles import Rectangles, RectangleTile
from vggc.kernels.cuda.windows import WindowRows
from vggc.kernels.workloads import Conv, Map, Packing

SCRATCH = "parts"
"""The buffer of sums that blocks share, as `mma_tile.SharedTiles` names it."""


@dataclass(frozen=True)
class Touched:
    """Bytes of a buffer that are read, or written: from each of some places on so many."""

    buffer: str
    starts: IndexArray
    size: int
    written: bool = False


@dataclass(frozen=True)
class TileShares:
    """How blocks, which have numbers in the order of their launch, share a kernel's tiles.

    Each tile is a group of rows and a panel of columns; those of a group follow one another. Each
    is in `splits` parts, of which there is one item each (`mma_tile.part_of`). A block has one
    item, or where there are fewer blocks goes on to the one as many further as there are blocks.
    """

    blocks: int
    groups: int
    panels: int
    splits: int

    @property
    def items(self) -> int:
        """The parts of all tiles."""
        return self.groups * self.panels * self.splits

    def of(self, items: IndexArray) -> tuple[IndexArray, IndexArray]:
        """The tile of each item, and which part of it the item is."""
        return part_of(items, self.splits)


@dataclass(frozen=True)
class Accesses(ABC):
    """What the blocks of a kernel touch: when they begin, in each of so many steps of an item, and
    at its end. What several of the blocks touch is told once where that is easily seen.

    The card has room for `at_once` blocks at a time.
    """

    shares: TileShares
    steps: int
    at_once: int

    @property
    @abstractmethod
    def buffers(self) -> dict[str, int]:
        """The bytes of each buffer."""

    def begin(self, blocks: IndexArray) -> Iterator[Touched]:
        """What some blocks touch before their first item."""
        return iter(())

    @abstractmethod
    def step(self, items: IndexArray, step: int) -> Iterator[Touched]:
        """What is touched in a step of some items."""

    @abstractmethod
    def end(self, items: IndexArray) -> Iterator[Touched]:
        """What is touched at the end of some items."""


@dataclass(frozen=True)
class ConvAccesses(Accesses):
    """What a convolution's blocks touch that have tiles of a product: `threads` of each clear the
    halo, and the sums of `sums_bytes` of a block are shared.
    """

    conv: Conv
    packing: Packing
    cols: int
    threads: int
    sums_bytes: int

    @property
    def buffers(self) -> dict[str, int]:
        found = conv_buffers(self.conv, self.packing)
        if self.shares.splits > 1:
            found[SCRATCH] = self.shares.items * self.sums_bytes
        return found

    def begin(self, blocks: IndexArray) -> Iterator[Touched]:
        target = self.conv.output
        if target.halo == 0:
            return
        total, size = self.shares.blocks * self.threads, np.dtype(target.storage).itemsize
        threads = (blocks[:, None] * self.threads + np.arange(self.threads)).ravel()
        for share in range(ceil(halo_pieces(target) / total)):
            index = share * total + threads
            places = halo_place(target, index[index < halo_pieces(target)])
            yield Touched("y", places * size, target.vector * size, written=True)

    def step(self, items: IndexArray, step: int) -> Iterator[Touched]:
        tiles, parts = self.shares.of(items)
        for part in np.unique(parts):
            mine = tiles[parts == part]
            yield from self.rows(np.unique(mine // self.shares.panels), int(part), step)
            yield self.columns(np.unique(mine % self.shares.panels), int(part), step)

    @abstractmethod
    def rows(self, groups: IndexArray, part: int, step: int) -> Iterator[Touched]:
        """What is read of the input for some groups of rows, in a step of a part of their tiles."""

    @abstractmethod
    def columns(self, panels: IndexArray, part: int, step: int) -> Touched:
        """What is read of the weight for some panels."""

    @abstractmethod
    def pixels(self, groups: IndexArray) -> IndexArray:
        """Where in the output the pixels of groups begin, which are written, in numbers."""

    def end(self, items: IndexArray) -> Iterator[Touched]:
        tiles, parts = self.shares.of(items)
        if self.shares.splits > 1:
            slots = tiles * self.shares.splits + parts
            yield Touched(SCRATCH, slots * self.sums_bytes, self.sums_bytes, written=True)
            tiles = tiles[parts == self.shares.splits - 1]
            all_parts = self.shares.splits * self.sums_bytes
            yield Touched(SCRATCH, tiles * all_parts, all_parts)
        for panel in np.unique(tiles % self.shares.panels):
            groups = tiles[tiles % self.shares.panels == panel] // self.shares.panels
            first = int(panel) * self.cols
            target = self.conv.output
            there = min(self.cols, target.channels - first)
            yield from channels_read(self.conv, np.array([first]), there)
            size = np.dtype(target.storage).itemsize
            count = min(self.cols, target.shape[-1] - first)
            yield Touched("y", (self.pixels(groups) + first) * size, count * size, written=True)


def map_bytes(map: Map) -> int:
    """The bytes of a map's buffer."""
    return prod(map.shape) * np.dtype(map.storage).itemsize


def conv_buffers(conv: Conv, packing: Packing) -> dict[str, int]:
    """The bytes of each argument of a convolution's kernel."""
    found = {name: 4 * prod(shape) for name, shape in conv.weights.items()}
    found["weight"] = prod(packing.packed_shape) * np.dtype(packing.packed_type).itemsize
    return {"x": map_bytes(conv.input), **found, "y": map_bytes(conv.output)}


def channels_read(conv: Conv, firsts: IndexArray, count: int) -> Iterator[Touched]:
    """What is read for the results of output channels: `count` from each of some on."""
    for name in conv.weights:
        if name == "out_scale":
            yield Touched(name, np.array([0]), 4)
        elif name != "weight":
            yield Touched(name, 4 * firsts, 4 * count)


@dataclass(frozen=True)
class PatchAccesses(ConvAccesses):
    """What blocks touch whose rows are rectangles of pixels: in each step `patch_bytes` of channels
    of each pixel of a patch, and `panel_bytes` of the weight. The pixels of a patch that are read
    may be more than windows cover: `pitch` in each row.
    """

    rectangles: Rectangles
    pitch: int
    patch_bytes: int
    panel_bytes: int

    def rows(self, groups: IndexArray, part: int, step: int) -> Iterator[Touched]:
        tile = self._tile(groups)
        image, y, x = pixels_of(self.rectangles.images, self.rectangles.patch[0], self.pitch)
        pixels = self.rectangles.source(tile, y, x, image)
        source = self.conv.input
        pixel_bytes = source.shape[-1] * np.dtype(source.storage).itemsize
        first = (part * self.steps + step) * self.patch_bytes
        yield Touched("x", (pixels * pixel_bytes + first).ravel(), self.patch_bytes)

    def columns(self, panels: IndexArray, part: int, step: int) -> Touched:
        _, *panel = self.packing.packed_shape
        packed = prod(panel) * np.dtype(self.packing.packed_type).itemsize
        first = (part * self.steps + step) * self.panel_bytes
        return Touched("weight", panels * packed + first, self.panel_bytes)

    def pixels(self, groups: IndexArray) -> IndexArray:
        by = 2 if self.conv.pool else 1
        rectangles = self.rectangles
        image, y, x = pixels_of(rectangles.images, rectangles.height, rectangles.width, by)
        at, inside = rectangles.place(self._tile(groups), y, x, image)
        return at[inside]

    def _tile(self, groups: IndexArray) -> RectangleTile:
        return self.rectangles.tile(groups[:, None] * self.shares.panels)


def shares_of(rectangles: Rectangles, blocks: int, splits: int) -> TileShares:
    """How blocks share the tiles of rectangles."""
    panels = rectangles.grid[2]
    return TileShares(blocks, groups=rectangles.count // panels, panels=panels, splits=splits)


def pixels_of(
    images: int, height: int, width: int, by: int = 1
) -> tuple[IndexArray, IndexArray, IndexArray]:
    """The images, rows and columns of the pixels of a rectangle of each of some images, of every
    second row and column `by` 2.
    """
    image, y, x = np.mgrid[0:images, 0:height:by, 0:width:by]
    return image.ravel(), y.ravel(), x.ravel()


@dataclass(frozen=True)
class WindowAccesses(ConvAccesses):
    """What blocks touch whose rows are windows of pixels: in each step so many of the steps that
    the kernel has (`together`) of all `kernel_steps` of a part.
    """

    windows: WindowRows
    tile: TensorTile
    kernel_steps: int
    together: int

    def rows(self, groups: IndexArray, part: int, step: int) -> Iterator[Touched]:
        rows = (groups[:, None] * self.tile.rows + np.arange(self.tile.rows)).ravel()
        corners = self.windows.corner(rows)
        for first, count in self._runs(part, step):
            yield Touched("x", (corners + first) * SEGMENT_BYTES, count * SEGMENT_BYTES)

    def columns(self, panels: IndexArray, part: int, step: int) -> Touched:
        first, last = (each * self.tile.row_segments for each in self._range(part, step))
        _, steps, planes, width, _ = self.packing.packed_shape
        run = min(width, self.cols)
        cols = (panels[:, None] * self.cols + np.arange(0, self.cols, run)).ravel()
        starts = cols // width * (steps * planes * width) + cols % width
        if run == width:  # planes that follow one another
            size = (last - first) * width
            return Touched("weight", (starts + first * width) * SEGMENT_BYTES, size * SEGMENT_BYTES)
        places = (starts[:, None] + np.arange(first, last) * width).ravel()
        return Touched("weight", places * SEGMENT_BYTES, run * SEGMENT_BYTES)

    def pixels(self, groups: IndexArray) -> IndexArray:
        count = self.tile.rows // (4 if self.conv.pool else 1)
        at, inside = self.windows.place((groups[:, None] * count + np.arange(count)).ravel())
        return at[inside]

    def _range(self, part: int, step: int) -> tuple[int, int]:
        """The first of the kernel's steps that are a step, and that after the last."""
        first = step * self.together
        last = min(first + self.together, self.kernel_steps)
        return part * self.kernel_steps + first, part * self.kernel_steps + last

    def _runs(self, part: int, step: int) -> Iterator[tuple[int, int]]:
        """The segments of a window that are read in a step, counted from its corner: where those
        begin that follow one another, and how many they are.
        """
        first, last = (each * self.tile.row_segments for each in self._range(part, step))
        index = np.arange(first, min(last, self.windows.num_segments))
        behind = self.windows.behind(index)
        for run in np.split(behind, np.flatnonzero(np.diff(behind) != 1) + 1):
            if len(run):
                yield int(run[0]), len(run)


@dataclass(frozen=True)
class RowAccesses(Accesses):
    """What blocks touch that have some outputs of a dense layer each: rows of the weight, and the
    whole input.
    """

    conv: Conv
    packing: Packing
    outputs: int

    @property
    def buffers(self) -> dict[str, int]:
        return conv_buffers(self.conv, self.packing)

    def step(self, items: IndexArray, step: int) -> Iterator[Touched]:
        yield Touched("x", np.array([0]), map_bytes(self.conv.input))
        rows, length = self.packing.packed_shape
        size = length * np.dtype(self.packing.packed_type).itemsize
        yield Touched("weight", np.unique(at_most(self._outputs(items), rows - 1)) * size, size)

    def end(self, items: IndexArray) -> Iterator[Touched]:
        outputs, target = self._outputs(items), self.conv.output
        stored = target.shape[-1]
        yield from channels_read(self.conv, outputs[outputs < target.channels], 1)
        size = np.dtype(target.storage).itemsize
        images = np.arange(target.batch)[:, None] * stored
        yield Touched("y", (images + outputs[outputs < stored]).ravel() * size, size, written=True)

    def _outputs(self, items: IndexArray) -> IndexArray:
        return (items[:, None] * self.outputs + np.arange(self.outputs)).ravel()


@dataclass(frozen=True)
class PlanesAccesses(Accesses):
    """What blocks touch that write a map in order, element by element, and read planes of float32,
    `(N, C, H, W)`.
    """

    output: Map

    @property
    def buffers(self) -> dict[str, int]:
        return {"x": 4 * prod(self.output.planes), "y": map_bytes(self.output)}

    def step(self, items: IndexArray, step: int) -> Iterator[Touched]:
        index = (items[:, None] * BLOCK + np.arange(BLOCK)).ravel()
        n, y, x, c = element_of(self.output, index[index < prod(self.output.shape)])
        inside = both(inside_map(self.output, y, x), c < self.output.channels)
        _, channels, height, width = self.output.planes
        yield Touched("x", 4 * (((n * channels + c) * height + y) * width + x)[inside], 4)

    def end(self, items: IndexArray) -> Iterator[Touched]:
        size = BLOCK * np.dtype(self.output.storage).itemsize
        whole = map_bytes(self.output) // size
        yield Touched("y", items[items < whole] * size, size, written=True)
        if whole in items:
            rest = map_bytes(self.output) % size
            yield Touched("y", np.array([whole * size]), rest, written=True)

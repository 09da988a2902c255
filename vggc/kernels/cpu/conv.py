"""Direct convolution: a tile of pixels by channels stays in registers for the whole reduction.

A tile is `images·rows·columns` output pixels by `vectors` vector registers of output
channels. For every kernel row it walks the `kw·C` floats of the input that lie side by
side in NHWC order, multiplies one broadcast float per pixel with the packed weights and
accumulates. A long reduction is summed in pieces: the rounding error of a sum grows with
the square root of its length, and a piece costs one addition per element. Loops run over
blocks of channels outermost, so that one block of weights (590 KB for 3×3 over 512
channels) serves every tile from the L2 cache. Where a block would fill it, a row of tiles is summed
together, tap by tap, so that the weights of a tap are read from L1 and L2 for all of them: 3×3 over
512 channels took 1.8 times the time otherwise (Zen 5).

Where channels are in groups, a tile lies in one of them and a kernel row falls into `kw`
pieces of the `C/groups` floats of that group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import reduce
from itertools import product
from math import ceil, prod
from typing import TypeAlias

import numpy as np
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.activation import activate
from vggc.kernels.algorithm import Buffers, Cost
from vggc.kernels.builder import Buffer, parallel, serial, when
from vggc.kernels.cpu.algorithm import CpuAlgorithm
from vggc.kernels.cpu.loops import (
    clear_halo,
    elements,
    finished,
    in_block,
    inside,
    prefetch,
    registers,
    scratch,
    tile_origin,
)
from vggc.kernels.cpu.machine import FLOAT, LINE, Machine
from vggc.kernels.workloads import Conv, by_panels

MULTIPLY_ADDS_IN_FLIGHT = 10
"""Independent multiply-adds that keep two units busy, five cycles deep on older CPUs."""
MAX_VECTORS = 8
"""Vectors of channels of a tile at most; wider ones would pad common widths for no gain."""
PIECE = 512
"""Terms of a partial sum: the error of 4608 terms becomes that of 520."""
MIN_PART, MAX_PART = 8, 32
"""Steps of a sum between two times that weights are asked for: more lines at once than a core can
await would stall it.
"""
MAX_TILES_AHEAD = 32
"""Tiles of a block of channels at most where the weights of the next are asked for: of more tiles
the first one alone would wait for them.
"""
MAX_ROWS = 8
"""Rows of a tile at most: they are often a multiple of 4 KiB apart and then share one set of an
eight-way L1 cache.
"""


@dataclass(frozen=True)
class ConvKnobs:
    """The register tile: `images·rows·columns` output pixels by `vectors` of channels."""

    images: int
    rows: int
    columns: int
    vectors: int

    @property
    def pixels(self) -> int:
        """The output pixels of a tile."""
        return self.images * self.rows * self.columns


def tiles(conv: Conv, machine: Machine) -> Iterator[ConvKnobs]:
    """Tiles that fit the map and leave registers for the operands; whole windows of a pool."""
    group = conv.output.channels // conv.groups
    height, width = conv.grid
    side = 2 if conv.pool else 1
    for vectors in range(1, min(ceil(group / machine.lanes), MAX_VECTORS) + 1):
        pixels = (machine.registers - 1) // vectors - 1
        for images in range(1, min(conv.output.batch, pixels, MAX_ROWS) + 1):
            most_rows = min(height, pixels // images, MAX_ROWS // images)
            for rows in range(side, most_rows + 1, side):
                most_columns = min(width, pixels // (images * rows))
                for columns in range(side, most_columns + 1, side):
                    yield ConvKnobs(images, rows, columns, vectors)


def is_depthwise(conv: Conv) -> bool:
    """Whether each group of `conv` is one input channel."""
    return conv.groups == conv.input.channels > 1


def num_tasks(conv: Conv, machine: Machine, knobs: ConvKnobs) -> int:
    """The rows of tiles that cover the output, in all groups: what cores divide among them."""
    out = conv.output
    return (
        conv.groups
        * ceil(out.channels // conv.groups / (machine.lanes * knobs.vectors))
        * ceil(out.batch / knobs.images)
        * ceil(conv.grid[0] / knobs.rows)
    )


def count(conv: Conv, machine: Machine, knobs: ConvKnobs) -> int:
    """The tiles that cover the output, in all groups."""
    return num_tasks(conv, machine, knobs) * ceil(conv.grid[1] / knobs.columns)


def macs(conv: Conv, machine: Machine, knobs: ConvKnobs) -> int:
    """The multiply-adds of all tiles, padded and overlapping as they are."""
    sums = count(conv, machine, knobs) * knobs.pixels * knobs.vectors * machine.lanes
    return sums * prod(conv.weight_shape[1:])


def cost(conv: Conv, machine: Machine, knobs: ConvKnobs) -> Cost:
    """The order of preference of tiles, least first.

    First the half cycles that all cores spend on the reductions of tiles until the last is
    done, each core one that starts two multiply-adds and two loads a cycle and gets a vector of
    weights from L2 every other cycle. Then the weights read, then the pixels read. Then tall
    tiles go first: those that follow one another in a row share more of their input.
    """
    num_tiles = count(conv, machine, knobs)
    rounds = ceil(num_tasks(conv, machine, knobs) / machine.cores)
    columns = ceil(conv.grid[1] / knobs.columns)
    multiply_adds = knobs.pixels * knobs.vectors
    loads = knobs.pixels + knobs.vectors
    step = max(multiply_adds, loads, 4 * knobs.vectors, MULTIPLY_ADDS_IN_FLIGHT)
    sizes = zip((knobs.rows, knobs.columns), conv.stride, conv.kernel, strict=True)
    pixels_read = prod((size - 1) * stride + window for size, stride, window in sizes)
    return (
        machine.cores * rounds * columns * step * prod(conv.weight_shape[1:]),
        num_tiles * knobs.vectors,
        num_tiles * knobs.images * pixels_read,
        -knobs.rows,
    )


@dataclass(frozen=True)
class BlockedWeight:
    """Packs a weight `(K, C, kh, kw)` as `(K/block, kh, kw, C, block)`, group by group.

    The last block of each group is padded with zeros; C counts the channels of one group.
    """

    shape: tuple[int, ...]
    block: int
    groups: int = 1

    packed_type = "float32"

    @property
    def packed_shape(self) -> tuple[int, ...]:
        k, c, kh, kw = self.shape
        return (self.groups * ceil(k // self.groups / self.block), kh, kw, c, self.block)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        k, c, kh, kw = self.shape
        blocks, group = self.packed_shape[0], k // self.groups
        padded = np.zeros(
            (self.groups, blocks // self.groups * self.block, c, kh, kw), weight.dtype
        )
        padded[:, :group] = weight.reshape(self.groups, group, c, kh, kw)
        blocked = padded.reshape(blocks, self.block, c, kh, kw)
        return np.ascontiguousarray(blocked.transpose(0, 3, 4, 2, 1))

    def pieces(self, weight: np.ndarray) -> Iterator[np.ndarray]:
        if self.groups > 1:
            return iter([self.pack(weight)])
        return by_panels(self, self.block, weight)

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        _, c, kh, kw = self.shape
        blocked = packed.transpose(0, 4, 3, 1, 2)
        padded = blocked.reshape(self.groups, -1, c, kh, kw)
        return padded[:, : self.shape[0] // self.groups].reshape(self.shape)


def has_row_runs(conv: Conv) -> bool:
    """Whether a kernel row of input and weight lies side by side."""
    return conv.groups == 1 and conv.dilation[1] == 1


WindowRun: TypeAlias = tuple[Expr, Expr, Expr | int]
"""A run of input and weight that lie side by side: its index in the window, its row and column."""


TileSums: TypeAlias = Mapping[tuple[int, ...], Buffer]
"""The sums of a tile's channels in registers, by the image, row and column in the tile."""


@contextmanager
def runs(conv: Conv) -> Iterator[WindowRun]:
    """Loops over the runs of input and weight that lie side by side in a window: index in it, row,
    column.

    That is a kernel row or, where the channels of a group are a part of all or columns are apart,
    one pixel.
    """
    kh, kw = conv.kernel
    if has_row_runs(conv):
        with serial("dy", kh) as dy:
            yield dy, dy, 0
    else:
        with serial("dy", kh) as dy, serial("dx", kw) as dx:
            yield dy * kw + dx, dy, dx


@dataclass(frozen=True)
class ConvTile:
    """Where a tile lies: its block of channels, its number among the tiles of that block, and the
    image, row and column of pixels where it begins.
    """

    block: Expr
    number: Expr
    origin: tuple[Expr, Expr, Expr]


@dataclass(frozen=True)
class WeightsAhead:
    """Asks for the weights of the next block of channels while the tiles of one are summed.

    Otherwise the first tile of a block waits for the memory: 1×1 over 2048 channels took 1.2 times
    the time (Zen 5). Each part of each tile's sum asks for as many lines.
    """

    weight: Buffer
    """The packed weight as one row of elements."""
    block: int
    """The elements of a block of channels."""
    parts: int
    """The parts of the sums of all tiles of a block."""

    def fetch(self, block: Expr, part: Expr) -> None:
        """Ask for a part's share of what follows a block, whether or not that is another."""
        line = LINE // FLOAT
        lines = ceil(self.block / line)
        share = ceil(lines / self.parts)
        with when(part * share < lines) if share * self.parts > lines else nullcontext():
            for index in range(share):
                first = (block + 1) * self.block
                prefetch(self.weight.address(first + (part * share + index) * line))


def part_of(steps: int) -> int:
    """Into parts of how many steps a sum is cut, before each of which weights are asked for."""
    sizes = (size for size in range(MIN_PART, MAX_PART + 1) if steps % size == 0)
    return max(sizes, default=steps)


@dataclass(frozen=True)
class RowOfTiles:
    """Tiles side by side: their block of channels, the number of the row among those of that block,
    the image and row of pixels where they begin, and how many they are.
    """

    conv: Conv
    knobs: ConvKnobs
    block: Expr
    number: Expr
    image: Expr
    top: Expr

    @property
    def num_tiles(self) -> int:
        """The tiles of the row."""
        return ceil(self.conv.grid[1] / self.knobs.columns)

    def tile(self, column: Expr) -> ConvTile:
        """One of them."""
        left = tile_origin(column, self.knobs.columns, self.conv.grid[1])
        number = self.number * self.num_tiles + column
        return ConvTile(self.block, number, (self.image, self.top, left))


@contextmanager
def each_row(conv: Conv, knobs: ConvKnobs, num_blocks: int) -> Iterator[RowOfTiles]:
    """A task for each row of tiles."""
    height = conv.grid[0]
    num_rows = ceil(height / knobs.rows)
    num_images = ceil(conv.output.batch / knobs.images)
    with parallel("task", num_blocks * num_images * num_rows) as task:
        n0 = tile_origin(task // num_rows % num_images, knobs.images, conv.output.batch)
        y0 = tile_origin(task % num_rows, knobs.rows, height)
        block, row = task // (num_images * num_rows), task % (num_images * num_rows)
        yield RowOfTiles(conv=conv, knobs=knobs, block=block, number=row, image=n0, top=y0)


@contextmanager
def each_tile(conv: Conv, knobs: ConvKnobs, num_blocks: int) -> Iterator[ConvTile]:
    """A task for each row of tiles, and a loop over the tiles in it."""
    with each_row(conv, knobs, num_blocks) as row, serial("column", row.num_tiles) as column:
        yield row.tile(column)


def results(
    conv: Conv,
    knobs: ConvKnobs,
    origin: tuple[Expr, Expr, Expr],
    sums: Buffer,
    channels: int,
    lanes: int,
    *place: Expr | int,
) -> Iterator[tuple[Expr, Expr, tuple[Expr, Expr, Expr]]]:
    """The sums of a tile's first `channels` channels, after its pool: each with its channel in the
    tile and its pixel. `sums` holds those of the tile at `place`, if it holds several.
    """
    n0, y0, x0 = origin
    side = 2 if conv.pool else 1
    kept = (knobs.images, knobs.rows // side, knobs.columns // side)

    def largest(n: Expr, i: Expr, j: Expr, c: Expr) -> Expr:
        """The largest of the pixels that become one by the pool."""
        window = product(range(side), repeat=2)
        return reduce(
            T.max, [sums[*place, n, side * i + di, side * j + dj, c] for di, dj in window]
        )

    for value, (n, i, j, c) in finished(conv.act, largest, kept, channels, lanes, str(sums.dtype)):
        yield value, c, (n0 + n, y0 // side + i, x0 // side + j)


@dataclass(frozen=True)
class DirectSizes:
    """How the sums of a direct convolution are cut.

    A sum of at most `2·PIECE` terms goes through the window in registers. Of a longer one each run
    of the window is summed in pieces, which are added to totals in memory. A `piece` is cut into
    `parts`, before each of which weights are asked for.
    """

    conv: Conv
    machine: Machine
    knobs: ConvKnobs

    @property
    def block(self) -> int:
        """The channels of a block."""
        return self.knobs.vectors * self.machine.lanes

    @property
    def pixels(self) -> tuple[int, int, int]:
        """The images, rows and columns of a tile."""
        return self.knobs.images, self.knobs.rows, self.knobs.columns

    @property
    def group_blocks(self) -> int:
        """The blocks of a group of channels."""
        return ceil(self.conv.output.channels // self.conv.groups / self.block)

    @property
    def num_blocks(self) -> int:
        """The blocks of all groups."""
        return self.conv.groups * self.group_blocks

    @property
    def num_runs(self) -> int:
        """The runs of a window."""
        kh, kw = self.conv.kernel
        return kh if has_row_runs(self.conv) else kh * kw

    @property
    def num_steps(self) -> int:
        """The terms of a run."""
        return prod(self.conv.weight_shape[1:]) // self.num_runs

    @property
    def num_weights(self) -> int:
        """The weights of a block."""
        return self.num_runs * self.num_steps * self.block

    @property
    def is_short(self) -> bool:
        """Whether a sum goes through the whole window in registers."""
        return self.num_runs * self.num_steps <= 2 * PIECE

    @property
    def num_pieces(self) -> int:
        """The pieces of a run."""
        return 1 if self.is_short else ceil(self.num_steps / PIECE)

    @property
    def piece(self) -> int:
        """The terms of a piece; the last one of a run may have fewer."""
        return ceil(self.num_steps / self.num_pieces)

    @property
    def num_tiles(self) -> int:
        """The tiles of a block."""
        return count(self.conv, self.machine, self.knobs) // self.num_blocks

    @property
    def is_ahead(self) -> bool:
        """Whether the weights of the next block are asked for."""
        return self.num_tiles <= MAX_TILES_AHEAD

    @property
    def is_together(self) -> bool:
        """Whether a row of tiles is summed together, run by run, as all weights of a block would
        fill a core's cache.
        """
        sums = ceil(self.conv.grid[1] / self.knobs.columns) * self.knobs.pixels * self.block
        return (
            self.num_runs > 1
            and not self.is_short
            and FLOAT * self.num_weights > self.machine.cache // 4
            and FLOAT * sums < self.machine.cache // 8
        )

    @property
    def part(self) -> int:
        """The terms of a part of a piece."""
        is_cut = self.num_steps % self.piece != 0
        return part_of(self.piece) if self.is_ahead and not is_cut else self.piece

    @property
    def parts(self) -> int:
        """The parts of a piece."""
        return self.piece // self.part


@dataclass(frozen=True)
class DirectEmitter:
    """Writes the body of a direct convolution.

    `x` is the map by rows of floats, `weight` that of blocks by runs, `ahead` asks for weights.
    """

    sizes: DirectSizes
    x: Buffer
    weight: Buffer
    ahead: WeightsAhead
    bias: Buffer
    addend: Buffer | None
    y: Buffer

    @classmethod
    def of(cls, sizes: DirectSizes, buffers: Buffers) -> DirectEmitter:
        """The emitter for a kernel's arguments."""
        x, *addends, weight, bias, y = buffers.values()
        batch, height, width, channels = sizes.conv.input.shape
        runs = (sizes.num_blocks, sizes.num_runs, sizes.num_steps, sizes.block)
        return cls(
            sizes=sizes,
            x=x.view("x_rows", batch, height, width * channels),
            weight=weight.view("weight_runs", *runs),
            y=y.view("y_map", *sizes.conv.output.shape),
            ahead=WeightsAhead(
                weight.view("weights", prod(runs)),
                sizes.num_weights,
                sizes.num_runs * sizes.num_pieces * sizes.parts * sizes.num_tiles,
            ),
            bias=bias,
            addend=addends[0] if addends else None,
        )

    @property
    def conv(self) -> Conv:
        """What is computed."""
        return self.sizes.conv

    def emit(self) -> None:
        """The whole body."""
        sizes = self.sizes
        clear_halo(self.y, self.conv.output)
        with each_row(self.conv, sizes.knobs, sizes.num_blocks) as row:
            shape = (row.num_tiles if sizes.is_together else 1, *sizes.pixels, sizes.block)
            totals = scratch("totals", *shape)
            # One buffer for each pixel, which LLVM keeps in registers whatever else a step does.
            pixels = product(*map(range, self.sizes.pixels))
            sums = {pixel: registers("sums", self.sizes.block) for pixel in pixels}
            if self.sizes.is_together:
                self.sum_together(row, sums, totals)
            else:
                self.sum_one_by_one(row, sums, totals)

    def sum_together(self, row: RowOfTiles, sums: TileSums, totals: Buffer) -> None:
        """All tiles of a row, run by run."""
        with serial("column", row.num_tiles) as column:
            self.keep(sums, totals, column, lambda _, __: T.float32(0))
        with (
            runs(self.conv) as run,
            serial("index", self.sizes.num_pieces) as index,
            serial("column", row.num_tiles) as column,
        ):
            self.add_piece(row.tile(column), sums, totals, column, run, index)
        with serial("column", row.num_tiles) as column:
            self.finish(row.tile(column), totals, column)

    def sum_one_by_one(self, row: RowOfTiles, sums: TileSums, totals: Buffer) -> None:
        """The tiles of a row, each to its end."""
        with serial("column", row.num_tiles) as column:
            tile = row.tile(column)
            if self.sizes.is_short:
                self.clear(sums)
                with runs(self.conv) as run:
                    self.accumulate(tile, sums, run, 0, self.sizes.piece)
                self.keep(sums, totals, 0, lambda _, total: total)
            else:
                self.keep(sums, totals, 0, lambda _, __: T.float32(0))
                with runs(self.conv) as run, serial("index", self.sizes.num_pieces) as index:
                    self.add_piece(tile, sums, totals, 0, run, index)
            self.finish(tile, totals, 0)

    def clear(self, sums: TileSums) -> None:
        """Sums of zero."""
        for held in sums.values():
            for at in elements((), self.sizes.block, self.sizes.machine.lanes):
                held[at] = 0

    def accumulate(
        self,
        tile: ConvTile,
        sums: TileSums,
        run: WindowRun,
        index: Expr | int,
        steps: Expr | int,
    ) -> None:
        """Adds the products of a piece of a run to the sums of a tile."""
        conv, source, sizes = self.conv, self.conv.input, self.sizes
        (stride_y, stride_x), (down, right) = conv.stride, conv.dilation
        top, left = (source.halo - padding for padding in conv.padding)
        channels = source.shape[-1]
        number, dy, dx = run
        n0, y0, x0 = tile.origin
        first_channel = tile.block // sizes.group_blocks * (source.channels // conv.groups)
        before = ((tile.number * sizes.num_runs + number) * sizes.num_pieces + index) * sizes.parts
        with serial("part", sizes.parts) as part:
            if sizes.is_ahead:
                self.ahead.fetch(tile.block, before + part)
            with serial("t", steps if sizes.parts == 1 else sizes.part) as t:
                step = index * sizes.piece + part * sizes.part + t
                for (n, i, j), held in sums.items():
                    row = (y0 + i) * stride_y + dy * down + top
                    column = (x0 + j) * stride_x + left + dx * right
                    factor = self.x[n0 + n, row, column * channels + first_channel + step]
                    for (c,) in elements((), sizes.block, sizes.machine.lanes):
                        held[c] += factor * self.weight[tile.block, number, step, c]

    def keep(
        self,
        sums: TileSums,
        totals: Buffer,
        place: Expr | int,
        value: Callable[[tuple[Expr | int, ...], Expr], Expr],
    ) -> None:
        """Writes the totals at a place: a value of where each lies and of the sum for it."""
        for pixel, held in sums.items():
            for (c,) in elements((), self.sizes.block, self.sizes.machine.lanes):
                totals[place, *pixel, c] = value((place, *pixel, c), held[c])

    def add_piece(
        self,
        tile: ConvTile,
        sums: TileSums,
        totals: Buffer,
        place: Expr | int,
        run: WindowRun,
        index: Expr,
    ) -> None:
        """Adds a piece of a run to the totals of a tile."""
        sizes = self.sizes
        steps = T.min(sizes.piece, sizes.num_steps - index * sizes.piece)
        is_cut = sizes.num_steps % sizes.piece != 0
        self.clear(sums)
        self.accumulate(tile, sums, run, index, steps if is_cut else sizes.piece)
        self.keep(sums, totals, place, lambda at, total: totals[at] + total)

    def finish(self, tile: ConvTile, totals: Buffer, place: Expr | int) -> None:
        """Writes what a tile gives of the totals at a place."""
        conv, out, sizes = self.conv, self.conv.output, self.sizes
        group, block = tile.block // sizes.group_blocks, tile.block % sizes.group_blocks
        width = out.channels // conv.groups
        for num_channels in in_block(block, sizes.block, width):
            for total, c, pixel in results(
                conv,
                sizes.knobs,
                tile.origin,
                totals,
                num_channels,
                sizes.machine.lanes,
                place,
            ):
                channel = group * width + block * sizes.block + c
                value = total + self.bias[channel]
                if self.addend is not None and conv.addend is not None:
                    value = value + self.addend[inside(conv.addend, *pixel, channel)]
                self.y[inside(out, *pixel, channel)] = activate(conv.act, value)


@dataclass(frozen=True)
class Direct(CpuAlgorithm[Conv, ConvKnobs]):
    """A tile of pixels by channels stays in vector registers for the whole reduction."""

    names = ("direct",)
    computes = Conv

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """Any convolution in float32 without groups."""
        return workload.groups == 1 and workload.input.format == "float32"

    def knobs(self) -> Iterator[ConvKnobs]:
        return tiles(self.workload, self.machine)

    def cost(self, knobs: ConvKnobs) -> Cost:
        return cost(self.workload, self.machine, knobs)

    def packing(self, knobs: ConvKnobs) -> BlockedWeight:
        conv = self.workload
        return BlockedWeight(conv.weight_shape, knobs.vectors * self.machine.lanes, conv.groups)

    def macs(self, knobs: ConvKnobs) -> int:
        return macs(self.workload, self.machine, knobs)

    def emit(self, knobs: ConvKnobs, buffers: Buffers) -> None:
        DirectEmitter.of(DirectSizes(self.workload, self.machine, knobs), buffers).emit()


class Grouped(Direct):
    """A tile of pixels by channels of one group stays in vector registers."""

    names = ("grouped",)

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """Convolutions in float32 in groups of several channels."""
        return workload.groups > 1 and not is_depthwise(workload)

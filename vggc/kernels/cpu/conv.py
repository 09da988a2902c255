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

from collections.abc import Callable, Iterator
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
        yield RowOfTiles(conv, knobs, block, row, n0, y0)


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
        conv, machine = self.workload, self.machine
        x, *addends, weight, bias, y = buffers.values()
        source, out = conv.input, conv.output
        (kh, kw), (stride_y, stride_x), (down, right) = conv.kernel, conv.stride, conv.dilation
        top, left = (source.halo - padding for padding in conv.padding)
        block = knobs.vectors * machine.lanes
        group_in, group_out = source.channels // conv.groups, out.channels // conv.groups
        group_blocks = ceil(group_out / block)
        num_blocks = conv.groups * group_blocks
        pixels = (knobs.images, knobs.rows, knobs.columns)

        batch, height, width, channels = source.shape
        num_runs, num_steps = (kh, kw * channels) if has_row_runs(conv) else (kh * kw, group_in)
        x_rows = x.view("x_rows", batch, height, width * channels)
        weight_runs = weight.view("weight_runs", num_blocks, num_runs, num_steps, block)
        y_map = y.view("y_map", *out.shape)

        num_weights = num_runs * num_steps * block
        is_short = num_runs * num_steps <= 2 * PIECE
        num_pieces = 1 if is_short else ceil(num_steps / PIECE)
        piece = ceil(num_steps / num_pieces)
        num_tiles = count(conv, machine, knobs) // num_blocks
        is_ahead = num_tiles <= MAX_TILES_AHEAD
        row_of_sums = ceil(conv.grid[1] / knobs.columns) * knobs.pixels * block
        is_together = (
            num_runs > 1
            and not is_short
            and FLOAT * num_weights > machine.cache // 4
            and FLOAT * row_of_sums < machine.cache // 8
        )
        part_steps = part_of(piece) if is_ahead and num_steps % piece == 0 else piece
        parts = piece // part_steps
        num_parts = num_runs * num_pieces * parts
        ahead = WeightsAhead(
            weight.view("weights", num_blocks * num_weights),
            num_weights,
            num_parts * num_tiles,
        )

        clear_halo(y, out)
        with each_row(conv, knobs, num_blocks) as row:
            k = row.block
            group, group_block = k // group_blocks, k % group_blocks
            first_channel = group * group_out + group_block * block
            num_held = row.num_tiles if is_together else 1
            totals = scratch("totals", num_held, *pixels, block)
            # One buffer for each pixel, which LLVM keeps in registers whatever else a step does.
            sums = {pixel: registers("sums", block) for pixel in product(*map(range, pixels))}

            def clear() -> None:
                for held in sums.values():
                    for at in elements((), block, machine.lanes):
                        held[at] = 0

            def accumulate(
                tile: ConvTile,
                run: WindowRun,
                index: Expr | int,
                steps: Expr | int,
            ) -> None:
                number, dy, dx = run
                n0, y0, x0 = tile.origin
                before = ((tile.number * num_runs + number) * num_pieces + index) * parts
                with serial("part", parts) as part:
                    if is_ahead:
                        ahead.fetch(k, before + part)
                    with serial("t", steps if parts == 1 else part_steps) as t:
                        step = index * piece + part * part_steps + t
                        for (n, i, j), held in sums.items():
                            line = (y0 + i) * stride_y + dy * down + top
                            column = (x0 + j) * stride_x + left + dx * right
                            first = column * channels + group * group_in
                            factor = x_rows[n0 + n, line, first + step]
                            for (c,) in elements((), block, machine.lanes):
                                held[c] += factor * weight_runs[k, number, step, c]

            def store(
                place: Expr | int, value: Callable[[tuple[Expr | int, ...], Expr], Expr]
            ) -> None:
                for at, held in sums.items():
                    for (c,) in elements((), block, machine.lanes):
                        totals[place, *at, c] = value((place, *at, c), held[c])

            def add_run(tile: ConvTile, place: Expr | int, run: WindowRun, index: Expr) -> None:
                clear()
                left_steps = T.min(piece, num_steps - index * piece)
                accumulate(tile, run, index, left_steps if num_steps % piece else piece)
                store(place, lambda at, total: totals[at] + total)

            def finish(tile: ConvTile, place: Expr | int) -> None:
                for num_channels in in_block(group_block, block, group_out):
                    for total, c, pixel in results(
                        conv, knobs, tile.origin, totals, num_channels, machine.lanes, place
                    ):
                        channel = first_channel + c
                        value = total + bias[channel]
                        if conv.addend is not None:
                            value = value + addends[0][inside(conv.addend, *pixel, channel)]
                        y_map[inside(out, *pixel, channel)] = activate(conv.act, value)

            if is_together:
                with serial("column", row.num_tiles) as column:
                    store(column, lambda _, __: T.float32(0))
                with (
                    runs(conv) as run,
                    serial("index", num_pieces) as index,
                    serial("column", row.num_tiles) as column,
                ):
                    add_run(row.tile(column), column, run, index)
                with serial("column", row.num_tiles) as column:
                    finish(row.tile(column), column)
            else:
                with serial("column", row.num_tiles) as column:
                    tile = row.tile(column)
                    if is_short:
                        clear()
                        with runs(conv) as run:
                            accumulate(tile, run, 0, piece)
                        store(0, lambda _, total: total)
                    else:
                        store(0, lambda _, __: T.float32(0))
                        with runs(conv) as run, serial("index", num_pieces) as index:
                            add_run(tile, 0, run, index)
                    finish(tile, 0)


class Grouped(Direct):
    """A tile of pixels by channels of one group stays in vector registers."""

    names = ("grouped",)

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """Convolutions in float32 in groups of several channels."""
        return workload.groups > 1 and not is_depthwise(workload)

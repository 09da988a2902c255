"""Convolution as an implicit matrix product: rows are output pixels, columns output channels.

A thread block owns a `rows × cols` tile of the product and walks the reduction (kernel taps,
then channels) in steps of `depth`. Each step's slices of the map and of the packed weight go
through shared memory; while a step is computed, the next one is already on its way to
registers. Where the tiles are too few to fill a GPU, the reduction is split between blocks
and a second kernel adds the parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TypeAlias

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.activation import activate
from vggc.kernels.algorithm import Buffers, Cost
from vggc.kernels.builder import Argument, Buffer, serial, unrolled, vectorized, when
from vggc.kernels.cuda.algorithm import CudaAlgorithm
from vggc.kernels.cuda.card import LAUNCH, Card
from vggc.kernels.cuda.emit import (
    clear_halo,
    fetch,
    flat,
    launch,
    registers,
    shared,
    synchronise,
    write_map,
)
from vggc.kernels.cuda.packing import ChannelOrder, DensePanelPacking, PanelPacking
from vggc.kernels.workloads import Conv, Dense, Map, round_up

StoreValue: TypeAlias = Callable[[Buffer, int, int, Expr, Expr], None]
"""Stores results `[first, first + width)` of a thread: columns `col`, `col + 1`, … of row `row`."""

THREADS = 128
FULL_GRID = 256
"""Blocks that keep a large GPU (108 to 132 multiprocessors) busy."""
MAX_SPLITS = 16
"""The most parts that a reduction is worth cutting into."""
GROUP = 4
"""Columns that a thread reads together: one float4, and no two groups on one bank."""
SKEW = 4
"""Floats added to a line of the map's slice: keeps its transposed stores off each other's banks."""


@dataclass(frozen=True)
class Tile:
    """What a thread block computes (`rows × cols`), how deep a step is, and a thread's share."""

    rows: int
    cols: int
    depth: int
    thread_rows: int
    thread_cols: int


LARGE = Tile(rows=128, cols=64, depth=16, thread_rows=8, thread_cols=8)
MEDIUM = Tile(rows=64, cols=64, depth=16, thread_rows=4, thread_cols=8)
FLAT = Tile(rows=16, cols=64, depth=32, thread_rows=2, thread_cols=4)
SHALLOW = 4
"""The depth of a step for maps of a few channels, such as an image."""


@dataclass(frozen=True)
class Tiling:
    """How a convolution is cut: its tile, and the number of parts of its reduction."""

    tile: Tile
    splits: int

    @property
    def knobs(self) -> dict[str, int]:
        """The sizes by name, as manifests hold them."""
        return {**asdict(self.tile), "splits": self.splits}


def tilings(conv: Conv) -> tuple[Tiling, ...]:
    """The tilings that are worth it, the best first.

    The large tile where its blocks fill a GPU; else a smaller one, and as many splits of the
    reduction as do. Where the flat tile is the best, the medium one comes second, since its weight
    is packed as for more rows.
    """
    shallow = conv.input.channels <= SHALLOW
    if num_blocks(conv, LARGE) >= FULL_GRID:
        tiles = [LARGE]
    elif num_rows(conv) > FLAT.rows or shallow:
        tiles = [MEDIUM]
    else:
        tiles = [FLAT, MEDIUM]
    if shallow:
        tiles = [replace(tile, depth=SHALLOW) for tile in tiles]
    return tuple(_split(conv, tile) for tile in tiles)


def _split(conv: Conv, tile: Tile) -> Tiling:
    """The tiling with as many splits as fill a GPU."""
    wanted = min(MAX_SPLITS, math.ceil(FULL_GRID / num_blocks(conv, tile)))
    steps = num_steps(conv, tile)
    splits = max(parts for parts in range(1, wanted + 1) if steps % parts == 0)
    return Tiling(tile, splits)


def packing(conv: Conv, tile: Tile) -> PanelPacking:
    """How the convolution with this tile wants its weight laid out."""
    outputs, inputs = conv.output.channels, conv.input.channels
    shape = (outputs, inputs, *conv.kernel)
    return PanelPacking(shape, round_up(inputs, tile.depth), round_up(outputs, tile.cols))


def scratch(conv: Conv, tiling: Tiling) -> tuple[Argument, ...]:
    """The sums of each part, where the reduction is split: whole tiles of columns."""
    if tiling.splits == 1:
        return ()
    cols = round_up(conv.output.channels, tiling.tile.cols)
    return (Argument("parts", (tiling.splits * num_rows(conv), cols)),)


def convolve(conv: Conv, tiling: Tiling, buffers: Buffers) -> None:
    """Emit the kernel of `conv`, or the two kernels where the reduction is split."""
    if tiling.splits == 1:
        _convolve_at_once(conv, tiling.tile, *buffers.values())
    else:
        _convolve_in_parts(conv, tiling, *buffers.values())


def num_rows(conv: Conv) -> int:
    """The rows of the matrix product: the output pixels of all images."""
    return conv.output.batch * conv.output.height * conv.output.width


def num_blocks(conv: Conv, tile: Tile) -> int:
    """The thread blocks that cover the matrix product."""
    return math.prod(_grid(conv, tile))


def num_steps(conv: Conv, tile: Tile) -> int:
    """The steps of the reduction, each `depth` channels of one tap."""
    return math.prod(conv.kernel) * math.ceil(conv.input.channels / tile.depth)


def _grid(conv: Conv, tile: Tile) -> tuple[int, int]:
    return math.ceil(num_rows(conv) / tile.rows), math.ceil(conv.output.channels / tile.cols)


def _convolve_at_once(
    conv: Conv, tile: Tile, x: Buffer, weight: Buffer, bias: Buffer, output: Buffer
) -> None:
    target = conv.output
    _, height, width, channels = target.shape
    grid = _grid(conv, tile)
    with launch(grid, THREADS) as (row_block, col_block, thread):
        block = row_block * grid[1] + col_block
        clear_halo(output, target, block * THREADS + thread, math.prod(grid) * THREADS)
        y = flat(output)

        def store(results: Buffer, first: int, lanes: int, row: Expr, col: Expr) -> None:
            n, i, j = _pixel(conv, row)
            place = (n * height + i + target.halo) * width + j + target.halo
            inside = T.And(row < num_rows(conv), col < channels)
            with when(inside), vectorized("v", lanes) as v:
                value = activate(conv.act, results[first + v] + bias[col + v])
                y[place * channels + col + v] = value

        lanes = GROUP if channels % GROUP == 0 else 1
        share = _Share(row_block, col_block, 0, num_steps(conv, tile))
        _multiply(conv, tile, x, weight, share, thread, lanes, store)


def _convolve_in_parts(
    conv: Conv,
    tiling: Tiling,
    x: Buffer,
    weight: Buffer,
    bias: Buffer,
    output: Buffer,
    parts: Buffer,
) -> None:
    rows = num_rows(conv)
    steps = num_steps(conv, tiling.tile) // tiling.splits
    grid = (*_grid(conv, tiling.tile), tiling.splits)
    with launch(grid, THREADS) as (row_block, col_block, part, thread):

        def store(results: Buffer, first: int, lanes: int, row: Expr, col: Expr) -> None:
            with when(row < rows), vectorized("v", lanes) as v:
                parts[part * rows + row, col + v] = results[first + v]

        share = _Share(row_block, col_block, part * steps, steps)
        _multiply(conv, tiling.tile, x, weight, share, thread, GROUP, store)

    def total(n: Expr, y: Expr, x: Expr, c: Expr) -> Expr:
        row = (n * conv.output.height + y) * conv.output.width + x
        sums = (parts[part * rows + row, c] for part in range(tiling.splits))
        return activate(conv.act, sum(sums, bias[c]))

    write_map(output, conv.output, total)


@dataclass(frozen=True)
class _Share:
    """What a block computes: a tile of the product, over some steps of its reduction."""

    row_block: Expr
    col_block: Expr
    first_step: Expr | int
    num_steps: int


def _multiply(
    conv: Conv,
    tile: Tile,
    x: Buffer,
    weight: Buffer,
    share: _Share,
    thread: Expr,
    lanes: int,
    store: StoreValue,
) -> None:
    """Compute a block's share and hand each thread's results to `store`, `lanes` at a time."""
    first_row, first_col = share.row_block * tile.rows, share.col_block * tile.cols
    thread_row = thread // _col_threads(tile) * tile.thread_rows
    thread_col = thread % _col_threads(tile) * GROUP

    pixels = _PixelSlice(conv, tile, x, first_row, thread)
    panel = _PanelSlice(tile, weight, first_col, thread)
    results = registers("results", tile.thread_rows * tile.thread_cols)
    with unrolled("i", tile.thread_rows * tile.thread_cols) as (i,):
        results[i] = 0

    pixels.fetch(share.first_step)
    panel.fetch(share.first_step)
    with serial("step", share.num_steps) as step:
        synchronise()
        pixels.deposit()
        panel.deposit()
        synchronise()
        with when(step + 1 < share.num_steps):
            pixels.fetch(share.first_step + step + 1)
            panel.fetch(share.first_step + step + 1)
        _accumulate(tile, pixels.slice, panel.slice, thread_row, thread_col, results)

    for i in range(tile.thread_rows):
        for j in range(0, tile.thread_cols, lanes):
            col = first_col + thread_col + _col_offset(tile, j)
            store(results, i * tile.thread_cols + j, lanes, first_row + thread_row + i, col)


def _accumulate(
    tile: Tile, pixels: Buffer, panel: Buffer, row: Expr, col: Expr, results: Buffer
) -> None:
    """Add the outer products of one step's slices to the thread's results."""
    lefts, rights = registers("lefts", tile.thread_rows), registers("rights", tile.thread_cols)
    with serial("k", tile.depth, unroll=True) as k:
        row_lanes = min(GROUP, tile.thread_rows)
        for i in range(0, tile.thread_rows, row_lanes):
            with vectorized("v", row_lanes) as v:
                lefts[i + v] = pixels[k * (tile.rows + SKEW) + row + i + v]
        for j in range(0, tile.thread_cols, GROUP):
            with vectorized("v", GROUP) as v:
                rights[j + v] = panel[k, col + _col_offset(tile, j) + v]
        with unrolled("i", tile.thread_rows) as (i,), unrolled("j", tile.thread_cols) as (j,):
            at = i * tile.thread_cols + j
            results[at] += lefts[i] * rights[j]


class _PixelSlice:
    """The map's part in a step, `(depth, rows)`, on its way through registers to shared memory."""

    def __init__(self, conv: Conv, tile: Tile, x: Buffer, first_row: Expr, thread: Expr) -> None:
        self._conv, self._tile, self._x, self._thread = conv, tile, flat(x), thread
        self._lanes = _widest_load(tile.depth * tile.rows, conv.input.channels)
        self._loads = tile.depth * tile.rows // (THREADS * self._lanes)
        # In one dimension, or TVM would take the skew out as unused.
        self.slice = shared("slice", tile.depth * (tile.rows + SKEW))
        self._fetched = registers("fetched", self._loads * self._lanes)
        self._corners = registers("corners", self._loads, dtype="int32")
        for load in range(self._loads):
            row, _ = self._place(load)
            self._corners[load] = self._corner(first_row + row)

    def fetch(self, step: Expr | int) -> None:
        tile, source = self._tile, self._conv.input
        steps_per_tap = math.ceil(source.channels / tile.depth)
        tap, first_channel = step // steps_per_tap, step % steps_per_tap * tile.depth
        across, (down, right) = self._conv.kernel[1], self._conv.dilation
        tap_y, tap_x = tap // across * down, tap % across * right
        pixel = (tap_y * source.shape[2] + tap_x) * (source.channels // self._lanes)
        for load in range(self._loads):
            _, k = self._place(load)
            # Counted in vectors, so that TVM can prove the loads aligned.
            vector = self._corners[load] + pixel + first_channel // self._lanes + k // self._lanes
            inside = first_channel + k < source.channels
            at = load * self._lanes
            fetch(self._fetched, at, self._x, vector * self._lanes, self._lanes, inside)

    def deposit(self) -> None:
        for load in range(self._loads):
            row, k = self._place(load)
            for lane in range(self._lanes):
                value = self._fetched[load * self._lanes + lane]
                line = (k + lane) * (self._tile.rows + SKEW)
                self.slice[line + row] = value

    def _place(self, load: int) -> tuple[Expr, Expr]:
        """Row and depth, within the slice, of the thread's `load`-th vector of channels."""
        vectors = self._tile.depth // self._lanes
        index = load * THREADS + self._thread
        return index // vectors, index % vectors * self._lanes

    def _corner(self, row: Expr) -> Expr:
        """Where, in vectors, the window of output pixel `row` begins.

        Rows past the last read what the last one reads.
        """
        conv = self._conv
        _, height, width, channels = conv.input.shape
        n, y, x = _pixel(conv, T.min(row, num_rows(conv) - 1))
        top = y * conv.stride[0] + conv.input.halo - conv.padding[0]
        left = x * conv.stride[1] + conv.input.halo - conv.padding[1]
        return ((n * height + top) * width + left) * (channels // self._lanes)


class _PanelSlice:
    """The packed weight's part in a step, `(depth, cols)`, on its way through registers to shared
    memory.
    """

    def __init__(self, tile: Tile, weight: Buffer, first_col: Expr, thread: Expr) -> None:
        self._tile, self._first_col, self._thread = tile, first_col, thread
        _, _, self._stride = map(int, weight.shape)
        self._weight = flat(weight)
        self._lanes = _widest_load(tile.depth * tile.cols, tile.cols)
        self._loads = tile.depth * tile.cols // (THREADS * self._lanes)
        self.slice = shared("slice", tile.depth, tile.cols)
        self._fetched = registers("fetched", self._loads * self._lanes)

    def fetch(self, step: Expr | int) -> None:
        for load in range(self._loads):
            k, col = self._place(load)
            start = (step * self._tile.depth + k) * self._stride + self._first_col + col
            with vectorized("v", self._lanes) as v:
                self._fetched[load * self._lanes + v] = self._weight[start + v]

    def deposit(self) -> None:
        for load in range(self._loads):
            k, col = self._place(load)
            with vectorized("v", self._lanes) as v:
                self.slice[k, col + v] = self._fetched[load * self._lanes + v]

    def _place(self, load: int) -> tuple[Expr, Expr]:
        vectors = self._tile.cols // self._lanes
        index = load * THREADS + self._thread
        return index // vectors, index % vectors * self._lanes


def _pixel(conv: Conv, row: Expr) -> tuple[Expr, Expr, Expr]:
    height, width = conv.output.height, conv.output.width
    return row // (height * width), row // width % height, row % width


def _widest_load(size: int, extent: int) -> int:
    """How many floats a load takes: a vector never crosses `extent` and every thread has as many
    loads.
    """
    return max(lanes for lanes in (1, 2, 4) if extent % lanes == size % (lanes * THREADS) == 0)


def _col_threads(tile: Tile) -> int:
    return tile.cols // tile.thread_cols


def _col_offset(tile: Tile, j: int) -> int:
    """How far a thread's `j`-th column lies from its first: groups are dealt out in turn."""
    return j // GROUP * GROUP * _col_threads(tile) + j % GROUP


def _seconds(conv: Conv, tiling: Tiling, card: Card, moving: float) -> float:
    """What a kernel is thought to take that moves in so many seconds what it must move: ordinary
    cores multiply whole tiles at two thirds of their rate, and parts take another launch.
    """
    tile = tiling.tile
    products = num_blocks(conv, tile) * tile.rows * tile.cols * num_steps(conv, tile) * tile.depth
    multiplying = LAUNCH + 2 * products / (card.float_rate * 2 / 3)
    return max(moving, multiplying) + (LAUNCH if tiling.splits > 1 else 0.0)


@dataclass(frozen=True)
class ImplicitGemm(CudaAlgorithm[Conv, Tiling]):
    """Rows are output pixels, columns output channels; slices go through shared memory."""

    names = ("implicit_gemm",)
    computes = Conv

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """Any convolution of one group in float32 that pools nothing."""
        alone = workload.groups == 1 and not workload.pool
        return alone and workload.input.format == "float32"

    def knobs(self) -> tuple[Tiling, ...]:
        return tilings(self.workload)

    def shown(self, knobs: Tiling) -> dict[str, int]:
        return knobs.knobs

    def seconds(self, knobs: Tiling) -> float:
        return _seconds(self.workload, knobs, self.card, super().seconds(knobs))

    def cost(self, knobs: Tiling) -> Cost:
        return (self.seconds(knobs), knobs.tile.rows)

    def packing(self, knobs: Tiling) -> PanelPacking:
        return packing(self.workload, knobs.tile)

    def scratch(self, knobs: Tiling) -> tuple[Argument, ...]:
        return scratch(self.workload, knobs)

    def emit(self, knobs: Tiling, buffers: Buffers) -> None:
        convolve(self.workload, knobs, buffers)


def over_pixels(dense: Dense) -> Conv:
    """A dense layer as the 1×1 convolution of a map of one pixel an image."""
    return Conv(
        input=Map(batch=dense.batch, height=1, width=1, channels=dense.in_features),
        output=Map(batch=dense.batch, height=1, width=1, channels=dense.out_features),
        kernel=(1, 1),
        stride=(1, 1),
        padding=(0, 0),
        act=dense.act,
    )


@dataclass(frozen=True)
class Gemm(CudaAlgorithm[Dense, Tiling]):
    """The layer as a 1×1 convolution over a map of one pixel an image."""

    names = ("gemm",)
    computes = Dense

    @classmethod
    def applies(cls, workload: Dense) -> bool:
        """Dense layers; of one image where they are to share their weight with several."""
        return True

    @property
    def conv(self) -> Conv:
        """The convolution that computes the layer."""
        return over_pixels(self.workload)

    def knobs(self) -> tuple[Tiling, ...]:
        return tilings(self.conv)

    def shown(self, knobs: Tiling) -> dict[str, int]:
        return knobs.knobs

    def seconds(self, knobs: Tiling) -> float:
        return _seconds(self.conv, knobs, self.card, super().seconds(knobs))

    def cost(self, knobs: Tiling) -> Cost:
        return (self.seconds(knobs), knobs.tile.rows)

    def packing(self, knobs: Tiling) -> DensePanelPacking:
        panels = packing(self.conv, knobs.tile)
        return DensePanelPacking(panels, ChannelOrder.of(self.workload))

    def scratch(self, knobs: Tiling) -> tuple[Argument, ...]:
        return scratch(self.conv, knobs)

    def emit(self, knobs: Tiling, buffers: Buffers) -> None:
        convolve(self.conv, knobs, buffers)

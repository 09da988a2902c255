"""Convolution in halves on tensor cores, as a matrix product whose rows are windows of the map.

A step is `depth` halves of the reduction, which runs over taps and then channels. Its slices of
the windows and of the weight are copied to shared memory some steps ahead. Any convolution of one
group is computed so; a pixel is read once for each tap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from typing import cast

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Buffers, Cost
from vggc.kernels.builder import Buffer
from vggc.kernels.cuda import ptx
from vggc.kernels.cuda.algorithm import CudaAlgorithm
from vggc.kernels.cuda.card import BlockWork, seconds
from vggc.kernels.cuda.emit import (
    ARRIVALS,
    clear_halo,
    dynamic_shared,
    flat,
    launch,
    registers,
)
from vggc.kernels.cuda.mma_tile import (
    FRAGMENT_ROWS,
    Panels,
    Ring,
    SharedTiles,
    Tile,
    WarpProduct,
    permuted,
    write_results,
)
from vggc.kernels.cuda.packing import HalfPanelPacking
from vggc.kernels.cuda.ptx import SEGMENT, Half
from vggc.kernels.workloads import Conv

HALVES: tuple[Half, ...] = ("float16", "bfloat16")
STAGES = (2, 3, 4, 5)
MAX_SPLITS = 16
"""The most blocks that share a tile."""

TILES = (
    (256, 128, 64, 64),
    (128, 256, 64, 64),
    (128, 128, 64, 32),
    (128, 128, 64, 64),
    (128, 64, 64, 32),
    (64, 64, 32, 32),
)
"""Rows and columns of a block's tile and of a warp's part."""


@dataclass(frozen=True)
class MmaKnobs:
    """The tile of a block and of a warp, the depth of a step, the steps that there is shared memory
    for, and the blocks that share a tile.
    """

    rows: int
    cols: int
    warp_rows: int
    warp_cols: int
    depth: int
    stages: int
    splits: int

    @property
    def tile(self) -> Tile:
        """The sizes but for the splits."""
        return Tile(
            rows=self.rows,
            cols=self.cols,
            warp_rows=self.warp_rows,
            warp_cols=self.warp_cols,
            depth=self.depth,
            stages=self.stages,
        )


def in_halves(conv: Conv) -> bool:
    """Whether a convolution multiplies halves that lie in whole segments."""
    return conv.groups == 1 and conv.input.format in HALVES and conv.input.vector == SEGMENT


def half_of(conv: Conv) -> Half:
    """The format that a convolution multiplies in."""
    return cast("Half", conv.input.format)


def splits_of(steps: int, tiles: int) -> Iterator[int]:
    """The numbers of blocks that may share each of some tiles."""
    for splits in range(1, MAX_SPLITS + 1):
        if splits == 1 or (steps % splits == 0 and tiles <= ARRIVALS):
            yield splits


def thread_registers(tile: Tile) -> int:
    """The registers that a thread is thought to take: its sums, fragments, and some thirty."""
    return tile.num_sums + 4 * (tile.warp_rows // 16) + 2 * (tile.warp_cols // 8) + 48


def moved_bytes(conv: Conv) -> float:
    """What a convolution in halves must read and write at least."""
    weight = prod(conv.weight_shape) * 2
    source, target = prod(conv.input.shape), prod(conv.output.shape)
    return weight + 2 * source + target * (4 if conv.output.format == "float32" else 2)


@dataclass(frozen=True)
class MmaWindows(CudaAlgorithm[Conv, MmaKnobs]):
    """Tensor cores; rows are windows of the map, read anew for each tap."""

    names = ("mma",)
    computes = Conv

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """Any convolution of one group in float16 or bfloat16."""
        return in_halves(workload)

    @property
    def num_rows(self) -> int:
        """The pixels that are computed, of all images."""
        return self.workload.output.batch * prod(self.workload.grid)

    @property
    def num_segments(self) -> int:
        """The segments of a window."""
        return prod(self.workload.kernel) * self.workload.input.shape[-1] // SEGMENT

    def num_steps(self, depth: int) -> int:
        """The steps of the reduction."""
        return ceil(self.num_segments * SEGMENT / depth)

    def grid(self, tile: Tile) -> tuple[int, int]:
        """The tiles that cover the product: along its rows, and its columns."""
        return ceil(self.num_rows / tile.rows), ceil(self.workload.output.channels / tile.cols)

    def shared_halves(self, tile: Tile) -> int:
        """The halves that a block has in shared memory."""
        return tile.stages * (tile.rows + tile.cols) * tile.depth

    def knobs(self) -> Iterator[MmaKnobs]:
        for rows, cols, warp_rows, warp_cols in TILES:
            for depth in (32, 64):
                for stages in STAGES:
                    knobs = MmaKnobs(rows, cols, warp_rows, warp_cols, depth, stages, 1)
                    if 2 * self.shared_halves(knobs.tile) > self.card.block_shared:
                        continue
                    tiles = prod(self.grid(knobs.tile))
                    for splits in splits_of(self.num_steps(depth), tiles):
                        yield MmaKnobs(rows, cols, warp_rows, warp_cols, depth, stages, splits)

    def cost(self, knobs: MmaKnobs) -> Cost:
        tile = knobs.tile
        tiles, steps = prod(self.grid(tile)), self.num_steps(tile.depth) / knobs.splits
        parts = 2 * tile.rows * tile.cols * 4 if knobs.splits > 1 else 0
        work = BlockWork(
            blocks=tiles * knobs.splits,
            threads=tile.threads,
            shared=2 * self.shared_halves(tile),
            registers=thread_registers(tile),
            operations=2.0 * tile.rows * tile.cols * tile.depth * steps,
            cache_bytes=2.0 * (tile.rows + tile.cols) * tile.depth * steps + parts,
            memory_bytes=moved_bytes(self.workload),
            stages=tile.stages,
            steps=steps,
            splits=knobs.splits,
        )
        return (seconds(work, self.card), work.blocks)

    def macs(self, knobs: MmaKnobs) -> int:
        tile = knobs.tile
        return (
            prod(self.grid(tile)) * tile.rows * tile.cols * tile.depth * self.num_steps(tile.depth)
        )

    def packing(self, knobs: MmaKnobs) -> HalfPanelPacking:
        conv = self.workload
        return HalfPanelPacking(
            shape=cast("tuple[int, int, int, int]", conv.weight_shape),
            half=half_of(conv),
            channels=conv.input.shape[-1],
            cols=knobs.cols,
            depth=knobs.depth,
            chunked=False,
        )

    def emit(self, knobs: MmaKnobs, buffers: Buffers) -> None:
        conv, tile = self.workload, knobs.tile
        x, weight, bias, y = buffers.values()
        down, across = self.grid(tile)
        steps = self.num_steps(tile.depth) // knobs.splits
        tiles = SharedTiles(tile, down * across, knobs.splits)
        with launch((down * across, knobs.splits), tile.threads) as (block, split, thread):
            blocks = down * across * knobs.splits
            index = (block * knobs.splits + split) * tile.threads + thread
            clear_halo(y, conv.output, index, blocks * tile.threads)
            first_row, panel = block // across * tile.rows, block % across
            shared = dynamic_shared("shared", self.shared_halves(tile), dtype="uint16")
            product = WarpProduct(half_of(conv), tile, thread)
            windows = _Windows(self, tile, x, first_row, thread)
            panels = Panels(
                tile, weight, (panel * self.num_steps(tile.depth) + split * steps), thread
            )
            stage = (tile.rows + tile.cols) * tile.depth

            def copy(step: Expr | int, at: Expr | int) -> None:
                windows.copy(split * steps + step, shared, at)
                panels.copy(step, shared, at + tile.rows * tile.depth)

            rows = registers("rows", tile.depth // 16, dtype="int32")
            for k in range(tile.depth // 16):
                segment = permuted(2 * k + product.lane // 16, product.lane, tile.depth)
                row = product.first_row + product.lane % 16
                rows[k] = row * tile.depth + segment * SEGMENT

            with Ring(tile.stages, stage, steps, copy).walk() as (_, at):

                def a_segment(k: int, fragment: int) -> Expr:
                    return at + rows[k] + fragment * FRAGMENT_ROWS * tile.depth

                product.add_step(shared, a_segment, at + tile.rows * tile.depth)

            def place(fragment: int, row: int) -> tuple[Expr, Expr]:
                return self._place(first_row + product.first_row, fragment, row, product.lane)

            tiles.finish(
                product,
                block,
                split,
                thread,
                lambda: write_results(conv, product, bias, y, panel * tile.cols, place),
            )

    def _place(self, first: Expr, fragment: int, row: int, lane: Expr) -> tuple[Expr, Expr]:
        """Where in the output the pixel lies that a lane holds, and whether it is one."""
        target = self.workload.output
        _, height, width, stored = target.shape
        index = first + fragment * FRAGMENT_ROWS + row * 8 + lane // 4
        if self.workload.pool:
            index = (first + fragment * FRAGMENT_ROWS) // 4 + lane // 8
        n, y, x = _pixel(index, target.height, target.width)
        at = ((n * height + y + target.halo) * width + x + target.halo) * stored
        return at, index < target.batch * target.height * target.width


class _Windows:
    """The windows of a tile's rows, on their way to shared memory."""

    def __init__(
        self, mma: MmaWindows, tile: Tile, x: Buffer, first_row: Expr, thread: Expr
    ) -> None:
        self._mma, self._tile, self._thread = mma, tile, thread
        self._x = flat(x)
        self._segment = thread % tile.row_segments
        self._row = thread // tile.row_segments
        self._rows_at_once = tile.threads // tile.row_segments
        self._loads = tile.rows // self._rows_at_once
        self._corners = registers("corners", self._loads, dtype="int32")
        for load in range(self._loads):
            self._corners[load] = self._corner(first_row + load * self._rows_at_once + self._row)
        place = permuted(self._segment, self._row, tile.depth)
        self._target = registers("target", 1, dtype="int32")
        self._target[0] = self._row * tile.depth + place * SEGMENT

    def copy(self, step: Expr | int, shared: Buffer, at: Expr | int) -> None:
        """Begins to copy the windows' part in a step to shared memory, from `at` on."""
        conv, tile = self._mma.workload, self._tile
        _, _, width, channels = conv.input.shape
        per_pixel = channels // SEGMENT
        if channels % tile.depth == 0:
            steps = channels // tile.depth
            tap, rest = step // steps, step % steps * tile.row_segments
            within = rest + self._segment
        else:
            index = step * tile.row_segments + self._segment
            tap, within = index // per_pixel, index % per_pixel
        offset = (tap // conv.kernel[1] * width + tap % conv.kernel[1]) * per_pixel + within
        whole = self._mma.num_segments % tile.row_segments == 0
        for load in range(self._loads):
            target = shared.address(at + self._target[0] + load * self._rows_at_once * tile.depth)
            segment = self._corners[load] + offset
            if whole:
                ptx.copy_async(target, self._x.address(segment * SEGMENT))
            else:
                inside = index < self._mma.num_segments
                source = T.Select(inside, segment, self._corners[load])
                ptx.copy_async_or_zeros(target, self._x.address(source * SEGMENT), inside)

    def _corner(self, row: Expr) -> Expr:
        """Where, in segments, the window of a row begins; rows past the last have the window of the
        last.
        """
        conv = self._mma.workload
        _, height, width, channels = conv.input.shape
        known = T.min(row, self._mma.num_rows - 1)
        if conv.pool:
            # Sixteen rows are four pooled pixels: the upper pixels of each, then the lower ones.
            windows = conv.output.height * conv.output.width * conv.output.batch
            window = T.min(row // 16 * 4 + row % 8 // 2, windows - 1)
            n, y, x = _pixel(window, conv.output.height, conv.output.width)
            y, x = 2 * y + row // 8 % 2, 2 * x + row % 2
        else:
            n, y, x = _pixel(known, conv.output.height, conv.output.width)
        top = y * conv.stride[0] + conv.input.halo - conv.padding[0]
        left = x * conv.stride[1] + conv.input.halo - conv.padding[1]
        return ((n * height + top) * width + left) * (channels // SEGMENT)


def _pixel(index: Expr, height: int, width: int) -> tuple[Expr, Expr, Expr]:
    return index // (height * width), index // width % height, index % width

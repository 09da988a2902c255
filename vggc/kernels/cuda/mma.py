"""Convolution in halves on tensor cores, as a matrix product whose rows are windows of the map.

A step is `depth` halves of the reduction, which runs over taps and then channels. Its slices of
the windows and of the weight are copied to shared memory some steps ahead. Any convolution of one
group is computed so; a pixel is read once for each tap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import ceil, prod
from typing import cast

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Buffers, Cost
from vggc.kernels.builder import Buffer, serial, when
from vggc.kernels.cuda import ptx
from vggc.kernels.cuda.algorithm import CudaAlgorithm, moved_bytes
from vggc.kernels.cuda.card import BlockWork, seconds
from vggc.kernels.cuda.emit import (
    ARRIVALS,
    clear_halo,
    flat,
    launch,
    registers,
    synchronise,
)
from vggc.kernels.cuda.half import is_half
from vggc.kernels.cuda.mma_tile import (
    ALIGNMENT,
    FRAGMENT_ROWS,
    SEGMENT_BYTES,
    Panels,
    Ring,
    SharedTiles,
    TensorTile,
    WarpProduct,
    permuted,
    shared_memory,
    write_results,
)
from vggc.kernels.cuda.packing import HalfPanelPacking
from vggc.kernels.cuda.ptx import SEGMENT, HalfFormat
from vggc.kernels.workloads import Conv

DEPTHS = (32, 64)
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
    def tile(self) -> TensorTile:
        """The sizes but for the splits."""
        return TensorTile(
            rows=self.rows,
            cols=self.cols,
            warp_rows=self.warp_rows,
            warp_cols=self.warp_cols,
            depth=self.depth,
            stages=self.stages,
        )


def in_halves(conv: Conv) -> bool:
    """Whether a convolution multiplies halves that lie in whole segments."""
    return conv.groups == 1 and is_half(conv.input)


def half_of(conv: Conv) -> HalfFormat:
    """The format that a convolution multiplies in."""
    return cast("HalfFormat", conv.input.format)


def splits_of(steps: int, tiles: int) -> Iterator[int]:
    """The numbers of blocks that may share each of some tiles."""
    for splits in range(1, MAX_SPLITS + 1):
        if splits == 1 or (steps % splits == 0 and tiles <= ARRIVALS):
            yield splits


def thread_registers(tile: TensorTile) -> int:
    """The registers that a thread is thought to take: its sums, fragments, and 48 others."""
    return tile.num_sums + 4 * (tile.warp_rows // 16) + 2 * (tile.warp_cols // 8) + 48


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

    def grid(self, tile: TensorTile) -> tuple[int, int]:
        """The tiles that cover the product: along its rows, and its columns."""
        return ceil(self.num_rows / tile.rows), ceil(self.workload.output.channels / tile.cols)

    def shared_halves(self, tile: TensorTile) -> int:
        """The halves that a block has in shared memory."""
        return tile.stages * (tile.rows + tile.cols) * tile.depth

    def knobs(self) -> Iterator[MmaKnobs]:
        for (rows, cols, warp_rows, warp_cols), depth, stages in product(TILES, DEPTHS, STAGES):
            knobs = MmaKnobs(
                rows=rows,
                cols=cols,
                warp_rows=warp_rows,
                warp_cols=warp_cols,
                depth=depth,
                stages=stages,
                splits=1,
            )
            if 2 * self.shared_halves(knobs.tile) + ALIGNMENT > self.card.block_shared:
                continue
            for splits in splits_of(self.num_steps(depth), prod(self.grid(knobs.tile))):
                yield replace(knobs, splits=splits)

    def seconds(self, knobs: MmaKnobs) -> float:
        return seconds(self.work(knobs), self.card)

    def cost(self, knobs: MmaKnobs) -> Cost:
        return (self.seconds(knobs), prod(self.grid(knobs.tile)) * knobs.splits)

    def work(self, knobs: MmaKnobs) -> BlockWork:
        """What the kernel's blocks do."""
        tile = knobs.tile
        tiles, steps = prod(self.grid(tile)), self.num_steps(tile.depth) / knobs.splits
        parts = 2 * tile.rows * tile.cols * 4 if knobs.splits > 1 else 0
        return BlockWork(
            blocks=tiles * knobs.splits,
            threads=tile.threads,
            shared=2 * self.shared_halves(tile) + ALIGNMENT,
            registers=thread_registers(tile),
            operations=2.0 * tile.rows * tile.cols * tile.depth * steps,
            cache_bytes=2.0 * (tile.rows + tile.cols) * tile.depth * steps + parts,
            memory_bytes=moved_bytes(self.workload),
            stages=tile.stages,
            steps=steps,
            splits=knobs.splits,
        )

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
            shared = shared_memory(self.shared_halves(tile))
            warp = WarpProduct(half_of(conv), tile, thread)
            windows = _Windows(self, tile, x, first_row, split * steps, thread)
            first_step = panel * self.num_steps(tile.depth) + split * steps
            panels = Panels(tile, weight, first_step, thread)
            ring = Ring(shared, tile.stages, 2 * (tile.rows * tile.depth + tile.panel))
            panel_at = tile.rows * tile.row_bytes

            row = warp.first_row + warp.lane % 16
            segment = permuted(warp.lane // 16, warp.lane, tile.depth)
            rows = registers("rows", 1, dtype="int32")
            rows[0] = row * tile.row_bytes + segment * SEGMENT_BYTES
            fragments = [i * FRAGMENT_ROWS * tile.row_bytes for i in range(warp.fragments)]

            def copy(step: Expr | int, stage: Expr) -> None:
                windows.copy(step, stage)
                panels.copy_next(stage + panel_at)

            ahead = tile.stages - 1
            for early in range(ahead):
                if early < steps:
                    copy(early, ring.stage(early))
                ptx.end_group()
            with serial("step", steps) as step:
                ptx.wait_for_groups(ahead - 1)
                synchronise()
                with when(step + ahead < steps):
                    copy(step + ahead, ring.writing)
                ptx.end_group()
                warp.add_step(ring.reading + rows[0], ring.reading + panel_at, fragments)
                ring.turn()

            def place(fragment: int, row: int) -> tuple[Expr, Expr]:
                return self._place(first_row + warp.first_row, fragment, row, warp.lane)

            tiles.finish(
                warp,
                block,
                split,
                thread,
                lambda: write_results(conv, warp, bias, y, panel * tile.cols, place),
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
        self,
        mma: MmaWindows,
        tile: TensorTile,
        x: Buffer,
        first_row: Expr,
        first_step: Expr,
        thread: Expr,
    ) -> None:
        self._mma, self._tile, self._first_step = mma, tile, first_step
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
        self._target[0] = self._row * tile.row_bytes + place * SEGMENT_BYTES

    def copy(self, step: Expr | int, address: Expr) -> None:
        """Begins to copy the windows' part in a step, counted from the first one, to an address in
        shared memory.
        """
        conv, tile = self._mma.workload, self._tile
        step = self._first_step + step
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
            target = address + self._target[0] + load * self._rows_at_once * tile.row_bytes
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
        if conv.pool:
            # Sixteen rows are four pooled pixels: the upper pixels of each, then the lower ones.
            windows = conv.output.height * conv.output.width * conv.output.batch
            window = T.min(row // 16 * 4 + row % 8 // 2, windows - 1)
            n, y, x = _pixel(window, conv.output.height, conv.output.width)
            y, x = 2 * y + row // 8 % 2, 2 * x + row % 2
        else:
            known = T.min(row, self._mma.num_rows - 1)
            n, y, x = _pixel(known, conv.output.height, conv.output.width)
        top = y * conv.stride[0] + conv.input.halo - conv.padding[0]
        left = x * conv.stride[1] + conv.input.halo - conv.padding[1]
        return ((n * height + top) * width + left) * (channels // SEGMENT)


def _pixel(index: Expr, height: int, width: int) -> tuple[Expr, Expr, Expr]:
    return index // (height * width), index // width % height, index % width

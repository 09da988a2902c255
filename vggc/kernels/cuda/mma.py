"""Convolution on tensor cores, as a matrix product whose rows are windows of the map.

A step is `depth` numbers of the reduction, which runs over taps and then channels. Its slices of
the windows and of the weight are copied to shared memory some steps ahead. Any convolution of one
group is computed so; a pixel is read once for each tap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import ceil, gcd, prod, sqrt
from typing import TYPE_CHECKING, TypeVar

from tvm.tirx import Expr

from vggc.kernels.algorithm import Buffers, Cost
from vggc.kernels.builder import Argument, serial, when
from vggc.kernels.cuda import ptx
from vggc.kernels.cuda.accesses import TileShares, WindowAccesses
from vggc.kernels.cuda.algorithm import CudaAlgorithm, moved_bytes
from vggc.kernels.cuda.card import BlockWork, seconds
from vggc.kernels.cuda.emit import (
    ARRIVALS,
    clear_halo,
    launch,
    synchronise,
)
from vggc.kernels.cuda.mma_tile import (
    ALIGNMENT,
    FRAGMENT_ROWS,
    Panels,
    Ring,
    SharedTiles,
    TensorTile,
    WarpProduct,
    part_of,
    shared_memory,
    write_results,
)
from vggc.kernels.cuda.operands import OPERANDS, SEGMENT_BYTES, Operands, on_tensor_cores
from vggc.kernels.cuda.packing import MmaPanelPacking
from vggc.kernels.cuda.windows import WindowRows, WindowSteps, window_plane
from vggc.kernels.workloads import Conv, round_up

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ROW_BYTES = (64, 128)
"""The bytes of a row of a step."""
STAGES = (2, 3, 4, 5)
SPLIT_ERROR = 8e-9
"""The relative L2 error of float32 in three products, over the root of the terms of a sum."""
MAX_SPLITS = 16
"""The most blocks that share a tile."""
MOST_PARTS_BYTES = 20 << 20
"""The most bytes of the sums of blocks that share tiles: half of an A100's L2 cache, so that they
need not go to memory.
"""
STEP_BYTES = 512
"""The bytes of a row in steps that are told of together where it is told what blocks read."""

TILES = (
    (256, 128, 64, 64),
    (128, 256, 64, 64),
    (128, 128, 64, 32),
    (128, 128, 64, 64),
    (128, 64, 64, 32),
    (64, 64, 32, 32),
)
"""Rows and columns of a block's tile and of a warp's part."""
FLAT_TILES = ((32, 128, 32, 32), (32, 64, 32, 32))
"""Tiles for products of no more rows, such as dense layers of few images."""
PANELS = (64, 128, 256)
"""The columns that panels of a weight may have."""


@dataclass(frozen=True)
class MmaKnobs:
    """The tile of a block and of a warp, the depth of a step, the steps that there is shared memory
    for, the blocks that share a tile, and the columns of a panel of the packed weight.
    """

    rows: int
    cols: int
    warp_rows: int
    warp_cols: int
    depth: int
    stages: int
    splits: int
    panel: int

    def tile(self, operands: Operands) -> TensorTile:
        """The sizes but for the splits."""
        return TensorTile(
            rows=self.rows,
            cols=self.cols,
            warp_rows=self.warp_rows,
            warp_cols=self.warp_cols,
            depth=self.depth,
            stages=self.stages,
            size=operands.size,
        )


def splits_of(steps: int, tiles: int, tile: TensorTile) -> Iterator[int]:
    """The numbers of blocks that may share each of some tiles."""
    for splits in range(1, MAX_SPLITS + 1):
        fits = tiles <= ARRIVALS and tiles * splits * tile.sums_bytes <= MOST_PARTS_BYTES
        if splits == 1 or (steps % splits == 0 and fits):
            yield splits


MOST_AT_ONCE = 4
"""The most steps that the code of a main loop has."""
MOST_REGISTERS = 255
"""The registers that a thread may have."""


def thread_registers(operands: Operands, tile: TensorTile) -> int:
    """The registers that a thread is thought to take: its sums, fragments, and 48 others, or 84 to
    split numbers.
    """
    lefts, rights = 4 * (tile.warp_rows // 16), 2 * (tile.warp_cols // 8)
    if operands.split:
        return tile.num_sums + 2 * (lefts + 4) + 4 + 84
    return tile.num_sums + lefts + rights + 48


C = TypeVar("C", bound=Conv)
K = TypeVar("K", bound="DataclassInstance")


@dataclass(frozen=True)
class MmaAlgorithm(CudaAlgorithm[C, K]):
    """A way to compute a convolution on tensor cores."""

    @property
    def operands(self) -> Operands:
        """What is multiplied."""
        return OPERANDS[self.workload.input.format]

    @property
    def error(self) -> float:
        terms = prod(self.workload.weight_shape[1:])
        return SPLIT_ERROR * sqrt(terms) if self.operands.split else 0.0


@dataclass(frozen=True)
class MmaWindows(MmaAlgorithm[Conv, MmaKnobs]):
    """Tensor cores; rows are windows of the map, read anew for each tap."""

    names = ("mma",)
    computes = Conv

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """Any convolution of one group whose channels fill whole segments of 16 bytes."""
        return on_tensor_cores(workload)

    @property
    def windows(self) -> WindowRows:
        """The rows."""
        return WindowRows(self.workload)

    def num_steps(self, depth: int) -> int:
        """The steps of the reduction."""
        return ceil(self.windows.numbers / depth)

    def grid(self, tile: TensorTile) -> tuple[int, int]:
        """The tiles that cover the product: along its rows, and its columns."""
        return ceil(self.windows.rows / tile.rows), ceil(self.workload.output.channels / tile.cols)

    def panels(self, cols: int) -> tuple[int, ...]:
        """The columns of panels that tiles of so many columns are read from. Those of a dense layer
        are any that hold as many: its weight is large, and is stored once for all kernels.
        """
        if prod(self.workload.grid) > 1:
            return (cols,)
        channels = self.workload.output.channels
        held = round_up(channels, cols)
        return tuple(panel for panel in PANELS if round_up(channels, panel) == held)

    def shared_bytes(self, tile: TensorTile) -> int:
        """The bytes that a block has in shared memory."""
        return tile.stages * self.stage_bytes(tile)

    def stage_bytes(self, tile: TensorTile) -> int:
        """The bytes of the operands of a step."""
        return tile.row_segments * window_plane(tile) + tile.panel_bytes

    def knobs(self) -> Iterator[MmaKnobs]:
        if not self.card.tensor_cores:
            return
        depths = [size // self.operands.size for size in ROW_BYTES]
        tiles = TILES + FLAT_TILES if self.windows.rows <= FLAT_TILES[0][0] else TILES
        for (rows, cols, warp_rows, warp_cols), depth, stages in product(tiles, depths, STAGES):
            knobs = MmaKnobs(
                rows=rows,
                cols=cols,
                warp_rows=warp_rows,
                warp_cols=warp_cols,
                depth=depth,
                stages=stages,
                splits=1,
                panel=cols,
            )
            tile = knobs.tile(self.operands)
            if self.shared_bytes(tile) + ALIGNMENT > self.card.block_shared:
                continue
            if thread_registers(self.operands, tile) > MOST_REGISTERS:
                continue
            for splits in splits_of(self.num_steps(depth), prod(self.grid(tile)), tile):
                for panel in self.panels(cols):
                    yield replace(knobs, splits=splits, panel=panel)

    def seconds(self, knobs: MmaKnobs) -> float:
        return seconds(self.work(knobs), self.card)

    def cost(self, knobs: MmaKnobs) -> Cost:
        blocks = prod(self.grid(knobs.tile(self.operands))) * knobs.splits
        return (self.seconds(knobs), blocks, knobs.panel != knobs.cols)

    def work(self, knobs: MmaKnobs) -> BlockWork:
        """What the kernel's blocks do."""
        tile = knobs.tile(self.operands)
        tiles, steps = prod(self.grid(tile)), self.num_steps(tile.depth) / knobs.splits
        parts = 2 * tile.rows * tile.cols * 4 if knobs.splits > 1 else 0
        return BlockWork(
            format=self.workload.input.format,
            blocks=tiles * knobs.splits,
            threads=tile.threads,
            shared=self.shared_bytes(tile) + ALIGNMENT,
            registers=thread_registers(self.operands, tile),
            operations=2.0 * tile.rows * tile.cols * tile.depth * steps,
            cache_bytes=float((tile.rows + tile.cols) * tile.row_bytes * steps + parts),
            memory_bytes=moved_bytes(self.workload),
            stages=tile.stages,
            steps=steps,
            splits=knobs.splits,
        )

    def macs(self, knobs: MmaKnobs) -> int:
        tile = knobs.tile(self.operands)
        return (
            prod(self.grid(tile)) * tile.rows * tile.cols * tile.depth * self.num_steps(tile.depth)
        )

    def packing(self, knobs: MmaKnobs) -> MmaPanelPacking:
        depth = max(ROW_BYTES) // self.operands.size
        return MmaPanelPacking.of(self.workload, knobs.panel, depth, chunked=False)

    def scratch(self, knobs: MmaKnobs) -> tuple[Argument, ...]:
        tile = knobs.tile(self.operands)
        return SharedTiles.scratch(self.operands, tile, prod(self.grid(tile)), knobs.splits)

    def accesses(self, knobs: MmaKnobs) -> WindowAccesses:
        tile = knobs.tile(self.operands)
        (down, across), steps = self.grid(tile), self.num_steps(tile.depth) // knobs.splits
        together = min(steps, STEP_BYTES // tile.row_bytes)
        blocks = down * across * knobs.splits
        return WindowAccesses(
            shares=TileShares(blocks, groups=down, panels=across, splits=knobs.splits),
            steps=ceil(steps / together),
            at_once=self.work(knobs).at_once(self.card),
            conv=self.workload,
            packing=self.packing(knobs),
            cols=tile.cols,
            threads=tile.threads,
            sums_bytes=tile.sums_bytes,
            windows=self.windows,
            tile=tile,
            kernel_steps=steps,
            together=together,
        )

    def steps_at_once(self, knobs: MmaKnobs) -> int:
        """The steps that the code of the main loop has.

        They are a part of a run of a window, and whole rounds of the ring where that is possible.
        Steps that split numbers are long by themselves.
        """
        run, depth = self.windows.run, knobs.depth
        if self.operands.split or run % depth != 0 or self.windows.is_dilated:
            return 1
        common = gcd(run // depth, self.num_steps(depth) // knobs.splits)
        numbers = [number for number in range(1, MOST_AT_ONCE + 1) if common % number == 0]
        whole = [number for number in numbers if number % knobs.stages == 0]
        return max(whole or numbers)

    def emit(self, knobs: MmaKnobs, buffers: Buffers) -> None:
        conv, tile = self.workload, knobs.tile(self.operands)
        x, weight, y = (buffers[name] for name in ("x", "weight", "y"))
        down, across = self.grid(tile)
        steps = self.num_steps(tile.depth) // knobs.splits
        tiles = SharedTiles(self.operands, tile, knobs.splits, buffers)
        blocks = down * across * knobs.splits
        with launch((blocks,), tile.threads) as (block, thread):
            clear_halo(y, conv.output, block * tile.threads + thread, blocks * tile.threads)
            number, split = part_of(block, knobs.splits)
            first_row, panel = number // across * tile.rows, number % across
            shared = shared_memory(self.shared_bytes(tile))
            warp = WarpProduct(self.operands, tile, thread)
            at_once = self.steps_at_once(knobs)
            windows = WindowSteps(self.windows, tile, x, first_row, split * steps, thread, at_once)
            first_plane = split * steps * tile.row_segments
            panels = Panels(tile, weight, panel * tile.cols, first_plane, thread)
            ring = Ring(shared, tile.stages, self.stage_bytes(tile), at_once)
            plane = window_plane(tile)
            panel_at = tile.row_segments * plane

            row = warp.first_row + warp.lane % 16
            rows = ptx.kept("rows", row * SEGMENT_BYTES + warp.lane // 16 * plane)
            fragments = [i * FRAGMENT_ROWS * SEGMENT_BYTES for i in range(warp.fragments)]

            def copy(stage: Expr) -> None:
                windows.copy(stage)
                panels.copy(stage + panel_at)

            def go_on() -> None:
                windows.go_on()
                panels.go_on()
                ptx.end_group()

            ahead = tile.stages - 1
            for early in range(ahead):
                if early < steps:
                    copy(ring.stage(early))
                go_on()
            with serial("turn", steps // at_once) as turn:
                for step in range(at_once):
                    ptx.wait_for_groups(ahead - 1)
                    synchronise()
                    with when(turn * at_once + step + ahead < steps):
                        copy(ring.writing)
                    go_on()
                    warp.add_step(ring.reading + rows, ring.reading + panel_at, fragments, plane)
                    ring.turn()

            def place(fragment: int, row: int) -> tuple[Expr, Expr]:
                return self._place(first_row + warp.first_row, fragment, row, warp.lane)

            tiles.finish(
                warp,
                number,
                split,
                thread,
                lambda: write_results(conv, warp, buffers, panel * tile.cols, place),
            )

    def _place(self, first: Expr, fragment: int, row: int, lane: Expr) -> tuple[Expr, Expr]:
        """Where in the output the pixel lies that a lane holds, and whether it is one."""
        index = first + fragment * FRAGMENT_ROWS + row * 8 + lane // 4
        if self.workload.pool:
            index = (first + fragment * FRAGMENT_ROWS) // 4 + lane // 8
        return self.windows.place(index)

"""Convolution by warpgroups, of patches of the map that stay in shared memory for all
taps. It needs a GPU of Hopper's, and machine code for `sm_90a`.

A block's first warpgroup brings operands: one thread the slices of the weight, as they lie packed,
three warps the patches of the map that a rectangle's windows cover, 128 bytes of channels at a
time. Two others multiply (`hopper.py`), each its part of the rectangle with all columns. Barriers
tell what is there and what may be overwritten. Blocks are as many as there is room for on the card,
and go on from tile to tile, so that the next tile's operands arrive while results are written.

In shared memory both operands lie in planes, as for other kernels: a plane has 16 bytes a pixel, or
a column. Eight pixels of a row are then a piece as the tensor cores take them, wherever it begins:
windows of another tap are the same pieces, some pixels further. A warpgroup's 64 rows are 8 rows of
8 pixels, and each warp has results of 2 rows of 8 pixels as `mma_patches.py` has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import ceil, prod

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Buffers, Cost
from vggc.kernels.builder import Argument, serial, when
from vggc.kernels.cuda import hopper, ptx
from vggc.kernels.cuda.accesses import PatchAccesses, shares_of
from vggc.kernels.cuda.algorithm import CudaAlgorithm, moved_bytes
from vggc.kernels.cuda.card import BlockWork, persistent_seconds
from vggc.kernels.cuda.emit import (
    await_kernel_before,
    clear_halo,
    flat,
    launch,
    registers,
    synchronise,
)
from vggc.kernels.cuda.hopper import GROUP_ROWS, WARPGROUP
from vggc.kernels.cuda.mma import splits_of
from vggc.kernels.cuda.mma_tile import (
    ALIGNMENT,
    SharedTiles,
    TensorTile,
    part_of,
    plane_bytes,
    shared_memory,
    write_results,
)
from vggc.kernels.cuda.operands import OPERANDS, SEGMENT_BYTES, Operands, on_tensor_cores
from vggc.kernels.cuda.packing import MmaPanelPacking
from vggc.kernels.cuda.ptx import WARP
from vggc.kernels.cuda.rectangles import Rectangles, RectangleTile
from vggc.kernels.cuda.wgmma_tile import GroupSums, Stages, barrier_bytes
from vggc.kernels.workloads import Conv, round_up

PLANES = 8
"""The planes of a step: segments of channels of each pixel and column."""
SIDE = 8
"""A warpgroup multiplies windows of 8×8 pixels at once."""
GROUPS = 2
"""The warpgroups that multiply."""
PATCHES = 2
"""The patches that there is shared memory for: one that is read, one that arrives."""
BARRIERS = 256
"""The bytes of shared memory for barriers."""
STAGES = (4, 6, 8)
"""How many slices there may be: while one is multiplied and one is let go, the others arrive."""
BRINGERS = WARPGROUP - WARP
"""The threads that bring patches."""
MOST_SHARED_SUMS = 64
"""The sums of a thread that has registers left to add up those of other blocks."""

RECTANGLES = (
    (16, 16, 128),
    (8, 32, 128),
    (16, 16, 64),
    (8, 16, 256),
    (16, 8, 256),
    (8, 16, 128),
    (16, 8, 128),
    (8, 16, 64),
)
"""Height and width of a block's rectangle, and its columns."""


@dataclass(frozen=True)
class GroupKnobs:
    """Height and width of a block's rectangle of pixels, its columns, the slices of the weight that
    there is shared memory for, and the blocks that share a tile.
    """

    height: int
    width: int
    cols: int
    stages: int
    splits: int

    def tile(self, operands: Operands) -> TensorTile:
        """The sizes of the tile, and a warp's part of it."""
        return TensorTile(
            rows=self.height * self.width,
            cols=self.cols,
            warp_rows=self.height * self.width // (GROUPS * WARPGROUP // WARP),
            warp_cols=self.cols,
            depth=PLANES * operands.segment,
            stages=self.stages,
            size=operands.size,
        )

    @property
    def windows(self) -> int:
        """How often 64 rows a warpgroup has."""
        return self.height * self.width // (GROUPS * GROUP_ROWS)


@dataclass(frozen=True)
class WgmmaPatches(CudaAlgorithm[Conv, GroupKnobs]):
    """Tensor cores by warpgroups; a patch of the map stays in shared memory for all taps."""

    names = ("wgmma_patches",)
    only_on = hopper.ARCH
    computes = Conv

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """Convolutions of one group in fewer bits with stride 1, several taps, and channels that
        fill a multiple of 128 bytes.
        """
        several = workload.stride == (1, 1) and prod(workload.kernel) > 1
        if not (on_tensor_cores(workload) and several):
            return False
        operands = OPERANDS[workload.input.format]
        depth = PLANES * operands.segment
        return not operands.split and workload.input.shape[-1] % depth == 0

    @property
    def operands(self) -> Operands:
        """What is multiplied."""
        return OPERANDS[self.workload.input.format]

    @property
    def depth(self) -> int:
        """The channels of a step."""
        return PLANES * self.operands.segment

    def rectangles(self, knobs: GroupKnobs) -> Rectangles:
        """The tiles."""
        return Rectangles(self.workload, knobs.height, knobs.width, knobs.cols)

    def blocks(self, knobs: GroupKnobs) -> int:
        """The blocks that are launched: one a part of a tile that is shared, otherwise at most as
        many as there is room for.
        """
        tiles = self.rectangles(knobs).count
        if knobs.splits > 1:
            return tiles * knobs.splits
        return min(tiles, self.work(knobs).at_once(self.card))

    def goes_on(self, knobs: GroupKnobs) -> bool:
        """Whether a block goes on from one tile to another."""
        return self.blocks(knobs) < self.rectangles(knobs).count * knobs.splits

    def plane(self, knobs: GroupKnobs) -> int:
        """The bytes of a plane of the patch."""
        return plane_bytes(prod(self.rectangles(knobs).patch), PLANES)

    def patch_bytes(self, knobs: GroupKnobs) -> int:
        """The bytes of a patch."""
        return round_up(PLANES * self.plane(knobs), ALIGNMENT)

    def shared_bytes(self, knobs: GroupKnobs) -> int:
        """What a block has in shared memory: barriers, patches, slices."""
        return (
            BARRIERS
            + PATCHES * self.patch_bytes(knobs)
            + knobs.stages * knobs.tile(self.operands).panel_bytes
        )

    @property
    def chunks(self) -> int:
        """The pieces of the channels."""
        return self.workload.input.shape[-1] // self.depth

    def knobs(self) -> Iterator[GroupKnobs]:
        for (height, width, cols), stages in product(RECTANGLES, STAGES):
            knobs = GroupKnobs(height=height, width=width, cols=cols, stages=stages, splits=1)
            if self.shared_bytes(knobs) + ALIGNMENT > self.card.block_shared:
                continue
            tile = knobs.tile(self.operands)
            for splits in splits_of(self.chunks, self.rectangles(knobs).count, tile):
                if splits == 1 or tile.num_sums <= MOST_SHARED_SUMS:
                    yield replace(knobs, splits=splits)

    def seconds(self, knobs: GroupKnobs) -> float:
        return persistent_seconds(self.work(knobs), self.card)

    def cost(self, knobs: GroupKnobs) -> Cost:
        return (self.seconds(knobs), self.rectangles(knobs).count * knobs.splits, -knobs.stages)

    def work(self, knobs: GroupKnobs) -> BlockWork:
        """What there is to do for a tile, or a part of one that is shared."""
        tile, taps = knobs.tile(self.operands), prod(self.workload.kernel)
        chunks = self.chunks // knobs.splits
        pixels = prod(self.rectangles(knobs).patch)
        parts = 2 * tile.rows * tile.cols * 4 if knobs.splits > 1 else 0
        threads = WARPGROUP + tile.threads
        return BlockWork(
            format=self.workload.input.format,
            blocks=self.rectangles(knobs).count * knobs.splits,
            threads=threads,
            shared=self.shared_bytes(knobs) + ALIGNMENT,
            registers=min(168, tile.num_sums + 40),
            operations=2.0 * tile.rows * tile.cols * self.depth * taps * chunks,
            cache_bytes=float(tile.row_bytes * chunks * (pixels + taps * tile.cols) + parts),
            memory_bytes=moved_bytes(self.workload),
            stages=knobs.stages,
            steps=taps * chunks,
            splits=knobs.splits,
        )

    def macs(self, knobs: GroupKnobs) -> int:
        reduction = prod(self.workload.kernel) * self.workload.input.shape[-1]
        return self.rectangles(knobs).results * reduction

    def packing(self, knobs: GroupKnobs) -> MmaPanelPacking:
        return MmaPanelPacking.of(self.workload, knobs.cols, self.depth, chunked=True)

    def scratch(self, knobs: GroupKnobs) -> tuple[Argument, ...]:
        tiles = self.rectangles(knobs).count
        return SharedTiles.scratch(self.operands, knobs.tile(self.operands), tiles, knobs.splits)

    def accesses(self, knobs: GroupKnobs) -> PatchAccesses:
        tile, rectangles = knobs.tile(self.operands), self.rectangles(knobs)
        return PatchAccesses(
            shares=shares_of(rectangles, self.blocks(knobs), knobs.splits),
            steps=self.chunks // knobs.splits,
            at_once=self.work(knobs).at_once(self.card),
            conv=self.workload,
            packing=self.packing(knobs),
            cols=tile.cols,
            threads=WARPGROUP + tile.threads - WARP,
            sums_bytes=tile.sums_bytes,
            rectangles=rectangles,
            patch_bytes=tile.row_bytes,
            panel_bytes=prod(self.workload.kernel) * tile.panel_bytes,
        )

    def emit(self, knobs: GroupKnobs, buffers: Buffers) -> None:
        conv, tile = self.workload, knobs.tile(self.operands)
        y = buffers["y"]
        blocks, threads = self.blocks(knobs), WARPGROUP + tile.threads
        rectangles = self.rectangles(knobs)
        parts = SharedTiles(self.operands, tile, knobs.splits, buffers)
        with launch((blocks,), threads, awaits=False) as (block, thread):
            shared = shared_memory(self.shared_bytes(knobs))
            operands = _Operands(self, knobs, buffers, shared)
            with when(thread == 0):
                operands.make_barriers()
            synchronise()
            # Weights are there whatever other kernels do: the first warp need not wait.
            with when(thread >= WARP):
                await_kernel_before()
                others = threads - WARP
                first = block * others + thread - WARP
                clear_halo(y, conv.output, first, blocks * others)
            sums = GroupSums(self.operands, tile, thread - WARPGROUP)
            pixels = _GroupPixels(knobs, sums)

            def write(item: _Item) -> None:
                def place(fragment: int, row: int) -> tuple[Expr, Expr]:
                    return rectangles.place(item.tile, *pixels.of(fragment, row))

                write_results(conv, sums, buffers, item.tile.panel * tile.cols, place)

            def multiply(item: _Item) -> None:
                operands.multiply(sums, pixels)
                if knobs.splits == 1:
                    write(item)

            with T.If(thread < WARPGROUP):
                with T.Then(), T.If(thread < WARP):
                    with T.Then(), when(thread == 0):
                        self._for_each(knobs, block, operands.bring_slices)
                    with T.Else():
                        bring = partial(operands.bring_patches, thread - WARP)
                        self._for_each(knobs, block, bring)
                with T.Else():
                    self._for_each(knobs, block, multiply)
            if knobs.splits > 1:
                item = self._item(knobs, block)
                parts.finish(
                    sums,
                    item.number,
                    item.split,
                    thread - WARPGROUP,
                    lambda: write(item),
                    holds=thread >= WARPGROUP,
                )

    def _for_each(self, knobs: GroupKnobs, block: Expr, do: Callable[[_Item], None]) -> None:
        """Does something for each item of a block."""
        if not self.goes_on(knobs):
            do(self._item(knobs, block))
            return
        blocks, items = self.blocks(knobs), self.rectangles(knobs).count * knobs.splits
        with serial("turn", (items - block + (blocks - 1)) // blocks) as turn:
            do(self._item(knobs, block + turn * blocks))

    def _item(self, knobs: GroupKnobs, index: Expr) -> _Item:
        number, split = part_of(index, knobs.splits)
        return _Item(number, split, self.rectangles(knobs).tile(number))


@dataclass(frozen=True)
class _Item:
    """What a block does in a turn: a part of the reduction of a tile, which has a number."""

    number: Expr
    split: Expr
    tile: RectangleTile


class _GroupPixels:
    """The pixels of a warpgroup's windows, in the rectangle."""

    def __init__(self, knobs: GroupKnobs, sums: GroupSums) -> None:
        self._sums, self._across = sums, knobs.width // SIDE
        self._first = sums.group * knobs.windows

    def corner(self, window: int) -> tuple[Expr, Expr]:
        """The first pixel of 64 rows of the warpgroup."""
        number = self._first + window
        return number // self._across * SIDE, number % self._across * SIDE

    def of(self, window: int, row: int) -> tuple[Expr, Expr]:
        """The pixel that a lane holds results of, in the upper or lower row of its warp."""
        y, x = self.corner(window)
        return y + 2 * self._sums.warp + row, x + self._sums.lane // 4


class _Operands:
    """The operands of a block's tiles in shared memory: who brings them, and who multiplies."""

    def __init__(
        self, conv: WgmmaPatches, knobs: GroupKnobs, buffers: Buffers, shared: Expr
    ) -> None:
        x, weight = buffers["x"], buffers["weight"]
        self._conv, self._knobs, self._tile = conv, knobs, knobs.tile(conv.operands)
        self._x, self._weight = flat(x), flat(weight)
        self._chunks = conv.chunks // knobs.splits
        self._taps = prod(conv.workload.kernel)
        patch, panel = conv.patch_bytes(knobs), self._tile.panel_bytes
        first, barriers = shared + BARRIERS, shared + barrier_bytes(PATCHES)
        self._patches = Stages("patches", shared, first, PATCHES, patch)
        slices_at = first + PATCHES * patch
        self._slices = Stages("slices", barriers, slices_at, knobs.stages, panel)

    def make_barriers(self) -> None:
        """Makes the barriers of both rings, for all threads of the block."""
        warps = self._tile.threads // WARP
        self._patches.make_barriers(BRINGERS, warps)
        self._slices.make_barriers(1, warps)
        hopper.show_barriers()

    def bring_slices(self, item: _Item) -> None:
        """Brings the slices of the weight for an item."""
        size = self._tile.panel_bytes
        chunk = item.tile.panel * self._conv.chunks + item.split * self._chunks
        with serial("step", self._chunks * self._taps) as step:
            self._slices.wait_until_empty()
            hopper.arrive_with_bytes(self._slices.full, size)
            step_size = size // self._tile.size
            source = self._weight.address((chunk * self._taps + step) * step_size)
            hopper.copy_bulk(self._slices.place, source, size, self._slices.full)
            self._slices.turn()

    def bring_patches(self, thread: Expr, item: _Item) -> None:
        """Brings the patches for an item, with the other threads that do so."""
        with serial("chunk", self._chunks) as chunk:
            self._patches.wait_until_empty()
            self._copy_patch(thread, item, item.split * self._chunks + chunk)
            ptx.end_group()
            ptx.wait_for_groups(0)
            hopper.show_to_tensor_cores()
            hopper.arrive(self._patches.full)
            self._patches.turn()

    def _copy_patch(self, thread: Expr, item: _Item, chunk: Expr) -> None:
        rectangles = self._conv.rectangles(self._knobs)
        rows, pitch = rectangles.patch
        per_segment = self._conv.operands.segment
        per_pixel = self._conv.workload.input.shape[-1] // per_segment
        pixels_at_once = BRINGERS // PLANES
        plane, segment = thread % PLANES, chunk * PLANES + thread % PLANES
        with serial("load", ceil(rows * pitch / pixels_at_once)) as load:
            pixel = load * pixels_at_once + thread // PLANES
            at = rectangles.source(item.tile, pixel // pitch, pixel % pitch) * per_pixel + segment
            target = plane * self._conv.plane(self._knobs) + pixel * SEGMENT_BYTES
            with when(pixel < rows * pitch):
                ptx.copy_async(self._patches.place + target, self._x.address(at * per_segment))

    def multiply(self, sums: GroupSums, pixels: _GroupPixels) -> None:
        """Multiplies what is brought for an item."""
        kernel_h, kernel_w = self._conv.workload.kernel
        pitch = self._conv.rectangles(self._knobs).patch[1]
        plane = self._conv.plane(self._knobs)
        along_rows, column_plane = pitch * SEGMENT_BYTES, self._knobs.cols * SEGMENT_BYTES
        begun = registers("begun", 1, dtype="int32")
        begun[0] = 0
        sums.clear()
        with serial("chunk", self._chunks):
            self._patches.wait_until_full()
            with serial("tap_y", kernel_h) as tap_y:
                for tap_x in range(kernel_w):
                    self._slices.wait_until_full()
                    rows = []
                    for window in range(self._knobs.windows):
                        y, x = pixels.corner(window)
                        pixel = (y + tap_y) * pitch + x + tap_x
                        address = self._patches.place + pixel * SEGMENT_BYTES
                        rows.append(hopper.descriptor(address, plane, along_rows))
                    columns = hopper.descriptor(self._slices.place, column_plane, 8 * SEGMENT_BYTES)
                    sums.add_slices(rows, columns, plane)
                    # The products of the step before have ended: what they read may go.
                    hopper.wait_for_products(1)
                    with when(T.And(begun[0] > 0, sums.lane == 0)):
                        self._slices.release_last()
                        if tap_x == 0:
                            with when(tap_y == 0):
                                self._patches.release_last()
                    self._slices.turn()
                    begun[0] += 1
            self._patches.turn()
        hopper.wait_for_products(0)
        if self._conv.goes_on(self._knobs):
            with when(sums.lane == 0):
                self._slices.release_last()
                self._patches.release_last()

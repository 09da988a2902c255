"""Convolution by warpgroups, of patches of the map that stay in shared memory for all
taps. It needs a GPU of Hopper's, and machine code for `sm_90a`.

A block's first warpgroup brings operands: one thread the slices of the weight, as they lie packed,
three warps the patches of the map that a rectangle's windows cover, 128 bytes of channels at a
time. Two others multiply (`hopper.py`), each its part of the rectangle with all columns. Barriers
tell what is there and what may be overwritten. Blocks are as many as there is room for on the card,
and go on from tile to tile, so that the next tile's operands arrive while results are written.

In shared memory both operands lie in planes, as for other kernels: a plane has 16 bytes a pixel, or
a column. Eight pixels that windows in a row have at a tap are then a piece as the tensor cores take
them, wherever it begins: windows of another tap are the same pieces, some pixels further. A
warpgroup's 64 rows are 8 rows of 8 pixels, and each warp has results of 2 rows of 8 pixels as
`mma_patches.py` has.

An instruction multiplies a slice: 16 bytes and 16 bytes more, wherever these lie. They are two
planes of a tap; or two taps, where all channels fill 16 bytes, as those of an image do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
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
from vggc.kernels.cuda.hopper import GROUP_ROWS, WARPGROUP, Descriptor, GroupSlice
from vggc.kernels.cuda.mma import splits_of
from vggc.kernels.cuda.mma_tile import (
    ALIGNMENT,
    SharedTiles,
    TensorTile,
    part_of,
    shared_memory,
    write_results,
)
from vggc.kernels.cuda.operands import OPERANDS, SEGMENT_BYTES, Operands, on_tensor_cores
from vggc.kernels.cuda.packing import MmaPanelPacking
from vggc.kernels.cuda.patch_planes import Pairs, PatchPlanes, steps_of_pairs
from vggc.kernels.cuda.ptx import WARP
from vggc.kernels.cuda.rectangles import Rectangles, RectangleTile
from vggc.kernels.cuda.wgmma_tile import GroupSums, Stages, barrier_bytes
from vggc.kernels.workloads import Conv, round_up

PLANES = (8, 4, 2)
"""How many planes a patch may have whose slices are two of them."""
MOST_PAIRS = 6
"""The most pairs of taps that are multiplied at once."""
PACKED_TAPS = 8
"""Where taps are paired, weights are packed in steps of so many, as for windows of 128 bytes."""
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
MOST_INTEGER_COLS = 128
"""The columns that TVM has instructions for which sum integers. What results of so many take beside
the sums (a scale and a bias a channel, places of four squares of pixels) has room in 168 registers
only in flat tiles that are no wider than the map.
"""
MOST_SHARED_SUMS = 64
"""The sums of a thread that has registers left to add up those of other blocks."""

RECTANGLES = (
    (1, 16, 16, 128),
    (1, 8, 32, 128),
    (1, 16, 16, 96),
    (1, 16, 16, 64),
    (1, 8, 16, 256),
    (1, 8, 16, 128),
    (1, 16, 8, 128),
    (1, 8, 16, 64),
)
"""Images of a block's tile, height and width of its rectangle, and its columns."""
SMALL_RECTANGLES = (
    (4, 8, 8, 128),
    (4, 8, 8, 64),
    (2, 8, 8, 256),
    (2, 8, 8, 128),
    (2, 8, 8, 64),
)
"""More of them for maps that one rectangle of 8×8 pixels covers."""


@dataclass(frozen=True)
class GroupKnobs:
    """The images that have a rectangle of pixels in a block's tile, its height and width, the
    tile's columns, the planes of a patch, the steps of the weight that there is shared memory for,
    and the blocks that share a tile.
    """

    images: int
    height: int
    width: int
    cols: int
    planes: int
    stages: int
    splits: int

    def tile(self, operands: Operands) -> TensorTile:
        """The sizes of the tile, and a warp's part of it."""
        return TensorTile(
            rows=self.rows,
            cols=self.cols,
            warp_rows=self.rows // (GROUPS * WARPGROUP // WARP),
            warp_cols=self.cols,
            depth=self.step_segments * operands.segment,
            stages=self.stages,
            size=operands.size,
        )

    @property
    def step_segments(self) -> int:
        """The most segments of a column that are multiplied at once."""
        return 2 * MOST_PAIRS if self.planes == 1 else self.planes

    @property
    def rows(self) -> int:
        """The pixels of a tile."""
        return self.images * self.height * self.width

    @property
    def windows(self) -> int:
        """How often 64 rows a warpgroup has."""
        return self.rows // (GROUPS * GROUP_ROWS)


@dataclass(frozen=True)
class WgmmaPatches(CudaAlgorithm[Conv, GroupKnobs]):
    """Tensor cores by warpgroups; a patch of the map stays in shared memory for all taps."""

    names = ("wgmma_patches",)
    only_on = hopper.ARCH
    computes = Conv

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """Convolutions of one group in fewer bits with several taps and no dilation, and channels
        that fill 16 bytes or a multiple of 32.
        """
        if workload.dilation != (1, 1):
            return False
        if not on_tensor_cores(workload) or OPERANDS[workload.input.format].split:
            return False
        conv = cls(workload)
        return prod(workload.kernel) > 1 and bool(conv.planes) and conv.pairs is not None

    @property
    def operands(self) -> Operands:
        """What is multiplied."""
        return OPERANDS[self.workload.input.format]

    @property
    def num_segments(self) -> int:
        """The segments of a pixel."""
        return self.workload.input.shape[-1] // self.operands.segment

    @property
    def planes(self) -> tuple[int, ...]:
        """How many planes patches may have: one where taps are paired, else as many as there may
        be. Patches are larger where windows are further apart: fewer planes leave room for more
        pixels.
        """
        if self.num_segments == 1:
            return (1,)
        found = [planes for planes in PLANES if self.num_segments % planes == 0]
        return tuple(found[: 1 if self.workload.stride == (1, 1) else 2])

    @cached_property
    def pairs(self) -> tuple[Pairs, ...] | None:
        """The pairs of taps of each step; none where slices are planes of one tap, None where taps
        cannot be paired.
        """
        if self.num_segments > 1:
            return ()
        return steps_of_pairs(self.workload.kernel, self.workload.stride[1], MOST_PAIRS)

    def rectangles(self, knobs: GroupKnobs) -> Rectangles:
        """The tiles."""
        return Rectangles(self.workload, knobs.height, knobs.width, knobs.cols, knobs.images)

    def patch(self, knobs: GroupKnobs) -> PatchPlanes:
        """How the patch of a tile lies in shared memory, that of one image below another's."""
        rows, columns = self.rectangles(knobs).patch
        return PatchPlanes(knobs.images * rows, columns, self.workload.stride[1], knobs.planes)

    def slices(self, knobs: GroupKnobs, tap: int) -> list[GroupSlice]:
        """The slices of a tap of the first row of taps."""
        patch, column_plane = self.patch(knobs), knobs.cols * SEGMENT_BYTES
        first = patch.across(tap)
        return [
            GroupSlice(first + plane * patch.plane, patch.plane, plane * column_plane, column_plane)
            for plane in range(0, knobs.planes, 2)
        ]

    def slices_of_pairs(self, knobs: GroupKnobs, pairs: Pairs) -> list[GroupSlice]:
        """The slices of pairs of taps, the first of which is first in the step."""
        patch, column_plane = self.patch(knobs), knobs.cols * SEGMENT_BYTES
        across, last = self.workload.kernel[1], prod(self.workload.kernel) - 1

        def place(tap: int) -> int:
            down, right = divmod(min(tap, last), across)
            return down * patch.pitch * SEGMENT_BYTES + patch.across(right)

        return [
            GroupSlice(
                place(one),
                place(other) - place(one),
                (one - pairs[0][0]) * column_plane,
                (other - one) * column_plane,
            )
            for one, other in pairs
        ]

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

    def shared_bytes(self, knobs: GroupKnobs) -> int:
        """What a block has in shared memory: barriers, patches, steps of the weight."""
        return (
            BARRIERS
            + PATCHES * self.patch(knobs).bytes
            + knobs.stages * knobs.tile(self.operands).panel_bytes
        )

    def chunks(self, knobs: GroupKnobs) -> int:
        """The pieces of the channels."""
        return self.num_segments // knobs.planes

    def column_segments(self, knobs: GroupKnobs) -> int:
        """The segments of a column that are multiplied with a patch."""
        if self.pairs:
            return 2 * sum(map(len, self.pairs))
        return prod(self.workload.kernel) * knobs.planes

    def steps(self, knobs: GroupKnobs) -> int:
        """How often something is multiplied with a patch."""
        return len(self.pairs) if self.pairs else prod(self.workload.kernel)

    def knobs(self) -> Iterator[GroupKnobs]:
        small = max(self.workload.grid) <= SIDE and self.workload.output.batch > 1
        sizes = (*RECTANGLES, *(SMALL_RECTANGLES if small else ()))
        for (images, height, width, cols), planes, stages in product(sizes, self.planes, STAGES):
            knobs = GroupKnobs(
                images=images,
                height=height,
                width=width,
                cols=cols,
                planes=planes,
                stages=stages,
                splits=1,
            )
            if self.shared_bytes(knobs) + ALIGNMENT > self.card.block_shared:
                continue
            if self.operands.sums == "uint32" and not self._holds_integers(knobs):
                continue
            tile = knobs.tile(self.operands)
            for splits in splits_of(self.chunks(knobs), self.rectangles(knobs).count, tile):
                if splits == 1 or tile.num_sums <= MOST_SHARED_SUMS:
                    yield replace(knobs, splits=splits)

    def seconds(self, knobs: GroupKnobs) -> float:
        return persistent_seconds(self.work(knobs), self.card)

    def cost(self, knobs: GroupKnobs) -> Cost:
        return (self.seconds(knobs), self.rectangles(knobs).count * knobs.splits, -knobs.stages)

    def work(self, knobs: GroupKnobs) -> BlockWork:
        """What there is to do for a tile, or a part of one that is shared."""
        tile, chunks = knobs.tile(self.operands), self.chunks(knobs) // knobs.splits
        segments = self.column_segments(knobs) * chunks
        pixels = self.patch(knobs).pixels * knobs.planes * chunks
        parts = 2 * tile.rows * tile.cols * 4 if knobs.splits > 1 else 0
        return BlockWork(
            format=self.workload.input.format,
            blocks=self.rectangles(knobs).count * knobs.splits,
            threads=WARPGROUP + tile.threads,
            shared=self.shared_bytes(knobs) + ALIGNMENT,
            registers=min(168, tile.num_sums + 40),
            operations=2.0 * tile.rows * tile.cols * self.operands.segment * segments,
            cache_bytes=float(SEGMENT_BYTES * (pixels + segments * tile.cols) + parts),
            memory_bytes=moved_bytes(self.workload),
            stages=knobs.stages,
            steps=self.steps(knobs) * chunks,
            splits=knobs.splits,
        )

    def macs(self, knobs: GroupKnobs) -> int:
        reduction = self.column_segments(knobs) * self.chunks(knobs) * self.operands.segment
        return self.rectangles(knobs).results * reduction

    def packing(self, knobs: GroupKnobs) -> MmaPanelPacking:
        segments = PACKED_TAPS if self.pairs else knobs.planes
        depth = segments * self.operands.segment
        return MmaPanelPacking.of(self.workload, knobs.cols, depth, chunked=not self.pairs)

    def scratch(self, knobs: GroupKnobs) -> tuple[Argument, ...]:
        tiles = self.rectangles(knobs).count
        return SharedTiles.scratch(self.operands, knobs.tile(self.operands), tiles, knobs.splits)

    def accesses(self, knobs: GroupKnobs) -> PatchAccesses:
        tile, rectangles = knobs.tile(self.operands), self.rectangles(knobs)
        return PatchAccesses(
            shares=shares_of(rectangles, self.blocks(knobs), knobs.splits),
            steps=self.chunks(knobs) // knobs.splits,
            at_once=self.work(knobs).at_once(self.card),
            conv=self.workload,
            packing=self.packing(knobs),
            cols=tile.cols,
            threads=WARPGROUP + tile.threads - WARP,
            sums_bytes=tile.sums_bytes,
            rectangles=rectangles,
            pitch=self.patch(knobs).pitch,
            patch_bytes=knobs.planes * SEGMENT_BYTES,
            panel_bytes=self.column_segments(knobs) * tile.cols * SEGMENT_BYTES,
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
                    image, y, x = pixels.of(fragment, row)
                    return rectangles.place(item.tile, y, x, image)

                write_results(conv, sums, buffers, item.tile.panel * tile.cols, place)

            def multiply(item: _Item) -> None:
                operands.multiply(sums, pixels)
                if knobs.splits == 1:
                    write(item)

            with T.If(thread < WARPGROUP):
                with T.Then(), T.If(thread < WARP):
                    with T.Then(), when(thread == 0):
                        self._for_each(knobs, block, operands.bring_weights)
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

    def _holds_integers(self, knobs: GroupKnobs) -> bool:
        """Whether a tile is one for integers: there are instructions for it, and registers for its
        results.
        """
        if knobs.cols > MOST_INTEGER_COLS:
            return False
        whole = knobs.width <= self.workload.grid[1]
        return knobs.cols < MOST_INTEGER_COLS or (whole and knobs.height < knobs.width)


@dataclass(frozen=True)
class _Item:
    """What a block does in a turn: a part of the reduction of a tile, which has a number."""

    number: Expr
    split: Expr
    tile: RectangleTile


class _GroupPixels:
    """The pixels of a warpgroup's windows: an image of the tile, and a place in the rectangle."""

    def __init__(self, knobs: GroupKnobs, sums: GroupSums) -> None:
        self._sums, self._across = sums, knobs.width // SIDE
        self._of_image = knobs.height * knobs.width // GROUP_ROWS
        self._first = sums.group * knobs.windows

    def corner(self, window: int) -> tuple[Expr, Expr, Expr]:
        """The image, row and column of the first pixel of 64 rows of the warpgroup."""
        number = self._first + window
        image, inside = number // self._of_image, number % self._of_image
        return image, inside // self._across * SIDE, inside % self._across * SIDE

    def of(self, window: int, row: int) -> tuple[Expr, Expr, Expr]:
        """The pixel that a lane holds results of, in the upper or lower row of its warp."""
        image, y, x = self.corner(window)
        return image, y + 2 * self._sums.warp + row, x + self._sums.lane // 4


class _Operands:
    """The operands of a block's tiles in shared memory: who brings them, and who multiplies."""

    def __init__(
        self, conv: WgmmaPatches, knobs: GroupKnobs, buffers: Buffers, shared: Expr
    ) -> None:
        x, weight = buffers["x"], buffers["weight"]
        self._conv, self._knobs, self._tile = conv, knobs, knobs.tile(conv.operands)
        self._x, self._weight = flat(x), flat(weight)
        self._chunks = conv.chunks(knobs) // knobs.splits
        self._patch = conv.patch(knobs)
        first, barriers = shared + BARRIERS, shared + barrier_bytes(PATCHES)
        self._patches = Stages("patches", shared, first, PATCHES, self._patch.bytes)
        weights_at = first + PATCHES * self._patch.bytes
        size = self._tile.panel_bytes
        self._weights = Stages("weights", barriers, weights_at, knobs.stages, size)

    def make_barriers(self) -> None:
        """Makes the barriers of both rings, for all threads of the block."""
        warps = self._tile.threads // WARP
        self._patches.make_barriers(BRINGERS, warps)
        self._weights.make_barriers(1, warps)
        hopper.show_barriers()

    def bring_weights(self, item: _Item) -> None:
        """Brings the steps of the weight for an item."""
        if self._conv.pairs:
            taps = round_up(self._conv.column_segments(self._knobs), PACKED_TAPS)
            for pairs in self._conv.pairs:
                first_tap = pairs[0][0]
                self._bring_segments(item.tile.panel * taps + first_tap, 2 * len(pairs))
            return
        steps = self._chunks * self._conv.steps(self._knobs)
        first_step = (item.tile.panel * self._knobs.splits + item.split) * steps
        with serial("step", steps) as step:
            self._bring_segments((first_step + step) * self._knobs.planes, self._knobs.planes)

    def _bring_segments(self, first: Expr, count: int) -> None:
        """Brings so many segments of each column, from one of the weight on."""
        segment, cols = self._conv.operands.segment, self._knobs.cols
        size = count * cols * SEGMENT_BYTES
        self._weights.wait_until_empty()
        hopper.arrive_with_bytes(self._weights.full, size)
        source = self._weight.address(first * (cols * segment))
        hopper.copy_bulk(self._weights.place, source, size, self._weights.full)
        self._weights.turn()

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
        patch, planes = self._patch, self._knobs.planes
        rectangles = self._conv.rectangles(self._knobs)
        per_segment, per_pixel = self._conv.operands.segment, self._conv.num_segments
        pixels_at_once = BRINGERS // planes
        plane, segment = thread % planes, chunk * planes + thread % planes
        with serial("load", ceil(patch.pixels / pixels_at_once)) as load:
            pixel = load * pixels_at_once + thread // planes
            y, x = pixel // patch.pitch, pixel % patch.pitch
            place = y * (patch.pitch * SEGMENT_BYTES) + patch.across(x)
            image, y = y // rectangles.patch[0], y % rectangles.patch[0]
            at = rectangles.source(item.tile, y, x, image) * per_pixel + segment
            target = self._patches.place + plane * patch.plane + place
            with when(pixel < patch.pixels):
                ptx.copy_async(target, self._x.address(at * per_segment))

    def multiply(self, sums: GroupSums, pixels: _GroupPixels) -> None:
        """Multiplies what is brought for an item."""
        if self._conv.pairs:
            self._multiply_pairs(sums, pixels, self._conv.pairs)
        else:
            self._multiply_planes(sums, pixels)
        hopper.wait_for_products(0)
        if self._conv.goes_on(self._knobs):
            with when(sums.lane == 0):
                self._weights.release_last()
                self._patches.release_last()

    def _multiply_pairs(
        self, sums: GroupSums, pixels: _GroupPixels, steps: tuple[Pairs, ...]
    ) -> None:
        """Begins to multiply the one patch of an item, pairs of taps in steps."""
        self._patches.wait_until_full()
        windows = self._windows(pixels, 0)
        for step, pairs in enumerate(steps):
            slices = self._conv.slices_of_pairs(self._knobs, pairs)
            self._begin_step(sums, windows, slices, is_first=step == 0)
            if step > 0:
                # The products of the step before have ended: what they read may go.
                hopper.wait_for_products(1)
                with when(sums.lane == 0):
                    self._weights.release_last()
            self._weights.turn()
        self._patches.turn()

    def _multiply_planes(self, sums: GroupSums, pixels: _GroupPixels) -> None:
        """Begins to multiply the patches of an item, tap by tap."""
        kernel_h, kernel_w = self._conv.workload.kernel
        begun = registers("begun", 1, dtype="int32")
        begun[0] = 0
        sums.clear()
        with serial("chunk", self._chunks):
            self._patches.wait_until_full()
            with serial("tap_y", kernel_h) as tap_y:
                windows = self._windows(pixels, tap_y)
                for tap_x in range(kernel_w):
                    self._begin_step(sums, windows, self._conv.slices(self._knobs, tap_x))
                    # The products of the step before have ended: what they read may go.
                    hopper.wait_for_products(1)
                    with when(T.And(begun[0] > 0, sums.lane == 0)):
                        self._weights.release_last()
                        if tap_x == 0:
                            with when(tap_y == 0):
                                self._patches.release_last()
                    self._weights.turn()
                    begun[0] += 1
            self._patches.turn()

    def _windows(self, pixels: _GroupPixels, tap_y: Expr | int) -> list[Descriptor]:
        """The windows of the warpgroup at the first tap of a row of taps."""
        row_bytes, down = self._patch.pitch * SEGMENT_BYTES, self._conv.workload.stride[0]
        image_rows = self._conv.rectangles(self._knobs).patch[0]
        found = []
        for window in range(self._knobs.windows):
            image, y, x = pixels.corner(window)
            row = image * image_rows + y * down + tap_y
            place = row * row_bytes + x * SEGMENT_BYTES
            found.append(hopper.descriptor(self._patches.place + place, down * row_bytes))
        return found

    def _begin_step(
        self,
        sums: GroupSums,
        windows: list[Descriptor],
        slices: list[GroupSlice],
        *,
        is_first: bool = False,
    ) -> None:
        """Begins to multiply with a step of the weight, once it is there; where it is the first,
        whatever the sums hold.
        """
        self._weights.wait_until_full()
        columns = hopper.descriptor(self._weights.place, 8 * SEGMENT_BYTES)
        sums.add_slices(windows, columns, slices, are_first=is_first)

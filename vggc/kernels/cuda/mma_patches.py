"""Convolution on tensor cores, of patches of the map that stay in shared memory for all
taps.

A block's rows are a rectangle of pixels of one image. It copies the patch that their windows
cover, `depth` channels of it at a time, and multiplies it once a tap, each time shifted: a pixel
comes from the L2 cache once or a little more, and not once for each tap. Meanwhile the next
channels of the patch arrive, and slices of the weight run some taps ahead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product
from math import ceil, prod

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Buffers, Cost
from vggc.kernels.builder import Argument, Buffer, serial, when
from vggc.kernels.cuda import ptx
from vggc.kernels.cuda.accesses import PatchAccesses, shares_of
from vggc.kernels.cuda.algorithm import moved_bytes
from vggc.kernels.cuda.card import BlockWork, seconds
from vggc.kernels.cuda.emit import (
    clear_halo,
    flat,
    launch,
    registers,
    synchronise,
)
from vggc.kernels.cuda.mma import (
    MOST_REGISTERS,
    ROW_BYTES,
    STAGES,
    MmaAlgorithm,
    splits_of,
    thread_registers,
)
from vggc.kernels.cuda.mma_tile import (
    ALIGNMENT,
    Panels,
    Ring,
    SharedTiles,
    TensorTile,
    WarpProduct,
    part_of,
    plane_bytes,
    shared_memory,
    write_results,
)
from vggc.kernels.cuda.operands import OPERANDS, SEGMENT_BYTES, Operands, on_tensor_cores
from vggc.kernels.cuda.packing import MmaPanelPacking
from vggc.kernels.cuda.rectangles import Rectangles, RectangleTile
from vggc.kernels.workloads import Conv, round_up

FRAGMENT = (2, 8)
"""The rows and columns of pixels of a fragment's 16 rows."""

PATCHES = (
    (16, 16, 128, 64, 64),
    (8, 32, 128, 64, 64),
    (16, 8, 256, 64, 64),
    (8, 16, 256, 64, 64),
    (16, 8, 128, 64, 32),
    (8, 16, 128, 64, 32),
    (16, 8, 128, 64, 64),
    (8, 16, 128, 64, 64),
    (16, 8, 64, 64, 32),
    (8, 16, 64, 64, 32),
    (8, 8, 64, 32, 32),
)
"""Height and width of a block's rectangle, its columns, and rows and columns of a warp's part."""


@dataclass(frozen=True)
class PatchKnobs:
    """Height and width of a block's rectangle of pixels, its columns, rows and columns of a warp's
    part, the channels of the patch at a time, the slices of the weight that there is shared memory
    for, and the blocks that share a tile.
    """

    height: int
    width: int
    cols: int
    warp_rows: int
    warp_cols: int
    depth: int
    stages: int
    splits: int

    def tile(self, operands: Operands) -> TensorTile:
        """The sizes of the tile."""
        return TensorTile(
            rows=self.height * self.width,
            cols=self.cols,
            warp_rows=self.warp_rows,
            warp_cols=self.warp_cols,
            depth=self.depth,
            stages=self.stages,
            size=operands.size,
        )


@dataclass(frozen=True)
class MmaPatches(MmaAlgorithm[Conv, PatchKnobs]):
    """Tensor cores; a patch of the map stays in shared memory for all taps."""

    names = ("mma_patches",)
    computes = Conv

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """Convolutions of one group with stride 1, several taps without dilation, and channels
        that are a multiple of 64 bytes.
        """
        several = workload.stride == workload.dilation == (1, 1) and prod(workload.kernel) > 1
        if not on_tensor_cores(workload) or not several:
            return False
        size = OPERANDS[workload.input.format].size
        return workload.input.shape[-1] * size % ROW_BYTES[0] == 0

    def rectangles(self, knobs: PatchKnobs) -> Rectangles:
        """The tiles."""
        return Rectangles(self.workload, knobs.height, knobs.width, knobs.cols)

    def plane(self, knobs: PatchKnobs) -> int:
        """The bytes of a plane of the patch."""
        pixels = prod(self.rectangles(knobs).patch)
        return plane_bytes(pixels, knobs.tile(self.operands).row_segments)

    def patch_bytes(self, knobs: PatchKnobs) -> int:
        """The bytes of a patch."""
        planes = knobs.tile(self.operands).row_segments
        return round_up(planes * self.plane(knobs), ALIGNMENT)

    def chunks(self, depth: int) -> int:
        """The pieces of the channels."""
        return self.workload.input.shape[-1] // depth

    def shared_bytes(self, knobs: PatchKnobs) -> int:
        """The bytes that a block has in shared memory: the patch twice, the slices."""
        tile = knobs.tile(self.operands)
        twice = 2 if self.chunks(knobs.depth) // knobs.splits > 1 else 1
        return twice * self.patch_bytes(knobs) + tile.stages * tile.panel_bytes

    def knobs(self) -> Iterator[PatchKnobs]:
        if not self.card.tensor_cores:
            return
        # The next patch arrives with slices that are waited for in the same turn.
        stages_of = [each for each in STAGES if each - 1 <= prod(self.workload.kernel)]
        depths = [size // self.operands.size for size in ROW_BYTES]
        depths = [each for each in depths if self.workload.input.shape[-1] % each == 0]
        for sizes, depth, stages in product(PATCHES, depths, stages_of):
            height, width, cols, warp_rows, warp_cols = sizes
            knobs = PatchKnobs(
                height=height,
                width=width,
                cols=cols,
                warp_rows=warp_rows,
                warp_cols=warp_cols,
                depth=depth,
                stages=stages,
                splits=1,
            )
            tile = knobs.tile(self.operands)
            if thread_registers(self.operands, tile) > MOST_REGISTERS:
                continue
            for splits in splits_of(self.chunks(depth), self.rectangles(knobs).count, tile):
                shared = replace(knobs, splits=splits)
                if self.shared_bytes(shared) + ALIGNMENT <= self.card.block_shared:
                    yield shared

    def seconds(self, knobs: PatchKnobs) -> float:
        return seconds(self.work(knobs), self.card)

    def cost(self, knobs: PatchKnobs) -> Cost:
        return (self.seconds(knobs), self.rectangles(knobs).count * knobs.splits)

    def work(self, knobs: PatchKnobs) -> BlockWork:
        """What the kernel's blocks do."""
        tile, taps = knobs.tile(self.operands), prod(self.workload.kernel)
        chunks = self.chunks(knobs.depth) // knobs.splits
        pixels = prod(self.rectangles(knobs).patch)
        parts = 2 * tile.rows * tile.cols * 4 if knobs.splits > 1 else 0
        return BlockWork(
            format=self.workload.input.format,
            blocks=self.rectangles(knobs).count * knobs.splits,
            threads=tile.threads,
            shared=self.shared_bytes(knobs) + ALIGNMENT,
            registers=thread_registers(self.operands, tile) + self._loads(knobs),
            operations=2.0 * tile.rows * tile.cols * knobs.depth * taps * chunks,
            cache_bytes=float(tile.row_bytes * chunks * (pixels + taps * tile.cols) + parts),
            memory_bytes=moved_bytes(self.workload),
            stages=knobs.stages,
            steps=taps * chunks,
            splits=knobs.splits,
        )

    def macs(self, knobs: PatchKnobs) -> int:
        reduction = prod(self.workload.kernel) * self.workload.input.shape[-1]
        return self.rectangles(knobs).results * reduction

    def packing(self, knobs: PatchKnobs) -> MmaPanelPacking:
        return MmaPanelPacking.of(self.workload, knobs.cols, knobs.depth, chunked=True)

    def scratch(self, knobs: PatchKnobs) -> tuple[Argument, ...]:
        tiles = self.rectangles(knobs).count
        return SharedTiles.scratch(self.operands, knobs.tile(self.operands), tiles, knobs.splits)

    def accesses(self, knobs: PatchKnobs) -> PatchAccesses:
        tile, rectangles = knobs.tile(self.operands), self.rectangles(knobs)
        return PatchAccesses(
            shares=shares_of(rectangles, rectangles.count * knobs.splits, knobs.splits),
            steps=self.chunks(knobs.depth) // knobs.splits,
            at_once=self.work(knobs).at_once(self.card),
            conv=self.workload,
            packing=self.packing(knobs),
            cols=tile.cols,
            threads=tile.threads,
            sums_bytes=tile.sums_bytes,
            rectangles=rectangles,
            pitch=rectangles.patch[1],
            patch_bytes=tile.row_bytes,
            panel_bytes=prod(self.workload.kernel) * tile.panel_bytes,
        )

    def emit(self, knobs: PatchKnobs, buffers: Buffers) -> None:
        conv, tile = self.workload, knobs.tile(self.operands)
        x, weight, y = (buffers[name] for name in ("x", "weight", "y"))
        rectangles, plane = self.rectangles(knobs), self.plane(knobs)
        (kernel_h, kernel_w), (_, pitch) = conv.kernel, rectangles.patch
        taps, total = prod(conv.kernel), rectangles.count
        chunks = self.chunks(knobs.depth) // knobs.splits
        steps, ahead = chunks * taps, knobs.stages - 1
        patch_bytes = self.patch_bytes(knobs)
        sums = SharedTiles(self.operands, tile, knobs.splits, buffers)
        blocks = total * knobs.splits
        with launch((blocks,), tile.threads) as (block, thread):
            clear_halo(y, conv.output, block * tile.threads + thread, blocks * tile.threads)
            number, split = part_of(block, knobs.splits)
            place_of = rectangles.tile(number)
            shared = shared_memory(self.shared_bytes(knobs))
            slices_at = self.shared_bytes(knobs) - tile.stages * tile.panel_bytes
            warp = WarpProduct(self.operands, tile, thread)
            patches = _Patch(self, knobs, x, place_of, split * chunks, thread)
            first_plane = split * steps * tile.row_segments
            slices = Panels(tile, weight, place_of.panel * tile.cols, first_plane, thread)
            pixels = _Pixels(knobs, pitch, plane, warp)
            ring = Ring(shared + slices_at, tile.stages, tile.panel_bytes, kernel_w)
            held = registers("patch", 2, dtype="int32")
            patch_at, left_over = 0, 1

            # The first patch and the first slices are one group, then each slice is one.
            patches.copy_next(shared)
            for early in range(ahead):
                if early < steps:
                    slices.copy(ring.stage(early))
                slices.go_on()
                ptx.end_group()
            held[patch_at], held[left_over] = shared, steps - ahead
            with serial("chunk", chunks) as chunk:
                if chunks > 1:
                    synchronise()
                    with when(chunk + 1 < chunks):
                        patches.copy_next(2 * shared + patch_bytes - held[patch_at])
                with serial("tap_y", kernel_h) as tap_y:
                    for tap_x in range(kernel_w):
                        ptx.wait_for_groups(ahead - 1)
                        synchronise()
                        with when(held[left_over] > 0):
                            slices.copy(ring.writing)
                        slices.go_on()
                        ptx.end_group()
                        tap = (tap_y * pitch + tap_x) * SEGMENT_BYTES
                        rows = held[patch_at] + tap + pixels.first
                        warp.add_step(rows, ring.reading, pixels.fragments, plane)
                        ring.turn()
                        held[left_over] -= 1
                if chunks > 1:
                    held[patch_at] = 2 * shared + patch_bytes - held[patch_at]

            def place(fragment: int, row: int) -> tuple[Expr, Expr]:
                return rectangles.place(place_of, *pixels.of(fragment, row))

            sums.finish(
                warp,
                number,
                split,
                thread,
                lambda: write_results(conv, warp, buffers, place_of.panel * tile.cols, place),
            )

    def _loads(self, knobs: PatchKnobs) -> int:
        """The segments of a patch that a thread copies at most."""
        tile = knobs.tile(self.operands)
        return ceil(prod(self.rectangles(knobs).patch) * tile.row_segments / tile.threads)


class _Pixels:
    """Where the pixels of a warp's rows lie in the rectangle, and in the patch.

    The 16 rows of a fragment are two rows of eight pixels.
    """

    def __init__(self, knobs: PatchKnobs, pitch: int, plane: int, warp: WarpProduct) -> None:
        self._warp = warp
        self._across = knobs.width // FRAGMENT[1]
        fragments = knobs.warp_rows // 16
        assert fragments % self._across == 0 or self._across % fragments == 0
        first = warp.first_row // 16
        self._y = first // self._across * FRAGMENT[0]
        self._x = first % self._across * FRAGMENT[1]
        lane = warp.lane
        pixel = (self._y + lane % 16 // 8) * pitch + self._x + lane % 8
        self._first = ptx.kept("pixels", pixel * SEGMENT_BYTES + lane // 16 * plane)
        within = map(self._within, range(warp.fragments))
        self.fragments = [(down * pitch + right) * SEGMENT_BYTES for down, right in within]
        """Bytes from the first fragment's pixels to those of each."""

    @property
    def first(self) -> Expr:
        """The bytes from where the patch begins to the lane's segment, for the first tap, the first
        slice of the depth and the first fragment.
        """
        return self._first

    def of(self, fragment: int, row: int) -> tuple[Expr, Expr]:
        """The pixel, in the rectangle, that a lane holds results of."""
        down, right = self._within(fragment)
        lane = self._warp.lane
        return self._y + down + row, self._x + right + lane // 4

    def _within(self, fragment: int) -> tuple[int, int]:
        return (
            fragment // self._across * FRAGMENT[0],
            fragment % self._across * FRAGMENT[1],
        )


class _Patch:
    """The patch of a block, on its way to shared memory. A thread copies the same segment of some
    pixels, as far as the patch has them.
    """

    def __init__(
        self,
        conv: MmaPatches,
        knobs: PatchKnobs,
        x: Buffer,
        tile: RectangleTile,
        first_chunk: Expr,
        thread: Expr,
    ) -> None:
        sizes, rectangles = knobs.tile(conv.operands), conv.rectangles(knobs)
        per_row, channels = sizes.row_segments, conv.workload.input.shape[-1]
        rows, pitch = rectangles.patch
        pixel, segment = thread // per_row, thread % per_row
        at_once = sizes.threads // per_row
        self._loads, self._rest = conv._loads(knobs), rows * pitch % at_once
        self._pixel, self._apart = pixel, at_once * SEGMENT_BYTES
        self._x, self._depth = flat(x), sizes.depth
        self._target = ptx.kept("patch_to", pixel * SEGMENT_BYTES + segment * conv.plane(knobs))
        self._sources = registers("sources", self._loads, dtype="int32")
        start = first_chunk * sizes.depth + segment * conv.operands.segment
        for load in range(self._loads):
            number = T.min(load * at_once + pixel, rows * pitch - 1)
            source = rectangles.source(tile, number // pitch, number % pitch)
            self._sources[load] = source * channels + start

    def copy_next(self, address: Expr) -> None:
        """Begins to copy the patch's next channels to an address in shared memory."""
        for load in range(self._loads):
            last = load == self._loads - 1 and self._rest > 0
            with when(self._pixel < self._rest) if last else nullcontext():
                target = address + self._target + load * self._apart
                ptx.copy_async(target, self._x.address(self._sources[load]))
            self._sources[load] += self._depth

"""Convolution in halves on tensor cores, of patches of the map that stay in shared memory for all
taps.

A block's rows are a rectangle of pixels of one image. It copies the patch that their windows
cover, `depth` channels of it at a time, and multiplies it once a tap, each time shifted: a pixel
comes from the L2 cache once or a little more, and not once for each tap. Meanwhile the next
channels of the patch arrive, and slices of the weight run some taps ahead.

Rows of the patch are as long in shared memory as a multiple of 8 pixels, so that the permutation
of segments (`mma_tile.py`) is the same in each row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from typing import cast

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Buffers, Cost
from vggc.kernels.builder import Buffer, serial, when
from vggc.kernels.cuda import ptx
from vggc.kernels.cuda.algorithm import CudaAlgorithm
from vggc.kernels.cuda.card import BlockWork, seconds
from vggc.kernels.cuda.emit import (
    clear_halo,
    dynamic_shared,
    flat,
    launch,
    registers,
    synchronise,
)
from vggc.kernels.cuda.mma import (
    STAGES,
    half_of,
    in_halves,
    moved_bytes,
    splits_of,
    thread_registers,
)
from vggc.kernels.cuda.mma_tile import (
    ASegment,
    Panels,
    SharedTiles,
    Tile,
    WarpProduct,
    permuted,
    write_results,
)
from vggc.kernels.cuda.packing import HalfPanelPacking, round_up
from vggc.kernels.cuda.ptx import SEGMENT
from vggc.kernels.workloads import Conv

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

    @property
    def tile(self) -> Tile:
        """The sizes of the tile."""
        return Tile(
            rows=self.height * self.width,
            cols=self.cols,
            warp_rows=self.warp_rows,
            warp_cols=self.warp_cols,
            depth=self.depth,
            stages=self.stages,
        )


@dataclass(frozen=True)
class MmaPatches(CudaAlgorithm[Conv, PatchKnobs]):
    """Tensor cores; a patch of the map stays in shared memory for all taps."""

    names = ("mma_patches",)
    computes = Conv

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """Convolutions of one group in float16 or bfloat16 with stride 1, several taps and a
        multiple of 32 channels.
        """
        several = workload.stride == (1, 1) and prod(workload.kernel) > 1
        return in_halves(workload) and several and workload.input.shape[-1] % 32 == 0

    def grid(self, knobs: PatchKnobs) -> tuple[int, int, int]:
        """The rectangles that cover an image, down and across, and the panels of columns."""
        height, width = self.workload.grid
        channels = self.workload.output.channels
        return (
            ceil(height / knobs.height),
            ceil(width / knobs.width),
            ceil(channels / knobs.cols),
        )

    def tiles(self, knobs: PatchKnobs) -> int:
        """The tiles of all images."""
        return self.workload.output.batch * prod(self.grid(knobs))

    def patch(self, knobs: PatchKnobs) -> tuple[int, int]:
        """The rows of pixels of a patch, and how many pixels a row takes in shared memory."""
        kernel = self.workload.kernel
        return knobs.height + kernel[0] - 1, round_up(knobs.width + kernel[1] - 1, 8)

    def chunks(self, depth: int) -> int:
        """The pieces of the channels."""
        return self.workload.input.shape[-1] // depth

    def shared_halves(self, knobs: PatchKnobs) -> int:
        """The halves that a block has in shared memory: the patch twice, the slices."""
        twice = 2 if self.chunks(knobs.depth) // knobs.splits > 1 else 1
        return twice * prod(self.patch(knobs)) * knobs.depth + knobs.stages * knobs.tile.panel

    def knobs(self) -> Iterator[PatchKnobs]:
        taps = prod(self.workload.kernel)
        for height, width, cols, warp_rows, warp_cols in PATCHES:
            for depth in (32, 64):
                if self.workload.input.shape[-1] % depth:
                    continue
                # The next patch arrives with slices that are waited for in the same turn.
                for stages in (each for each in STAGES if each - 1 <= taps):
                    knobs = PatchKnobs(height, width, cols, warp_rows, warp_cols, depth, stages, 1)
                    for splits in splits_of(self.chunks(depth), self.tiles(knobs)):
                        some = PatchKnobs(
                            height, width, cols, warp_rows, warp_cols, depth, stages, splits
                        )
                        if 2 * self.shared_halves(some) <= self.card.block_shared:
                            yield some

    def cost(self, knobs: PatchKnobs) -> Cost:
        tile, taps = knobs.tile, prod(self.workload.kernel)
        chunks = self.chunks(knobs.depth) // knobs.splits
        rows, _ = self.patch(knobs)
        pixels = rows * (knobs.width + self.workload.kernel[1] - 1)
        parts = 2 * tile.rows * tile.cols * 4 if knobs.splits > 1 else 0
        work = BlockWork(
            blocks=self.tiles(knobs) * knobs.splits,
            threads=tile.threads,
            shared=2 * self.shared_halves(knobs),
            registers=thread_registers(tile) + self._loads(knobs),
            operations=2.0 * tile.rows * tile.cols * knobs.depth * taps * chunks,
            cache_bytes=2.0 * knobs.depth * chunks * (pixels + taps * tile.cols) + parts,
            memory_bytes=moved_bytes(self.workload),
            stages=knobs.stages,
            steps=taps * chunks,
            splits=knobs.splits,
        )
        return (seconds(work, self.card), work.blocks)

    def macs(self, knobs: PatchKnobs) -> int:
        reduction = prod(self.workload.kernel) * self.workload.input.shape[-1]
        return self.tiles(knobs) * knobs.tile.rows * knobs.cols * reduction

    def packing(self, knobs: PatchKnobs) -> HalfPanelPacking:
        conv = self.workload
        return HalfPanelPacking(
            shape=cast("tuple[int, int, int, int]", conv.weight_shape),
            half=half_of(conv),
            channels=conv.input.shape[-1],
            cols=knobs.cols,
            depth=knobs.depth,
            chunked=True,
        )

    def emit(self, knobs: PatchKnobs, buffers: Buffers) -> None:
        conv, tile = self.workload, knobs.tile
        x, weight, bias, y = buffers.values()
        down, across, panels = self.grid(knobs)
        (kernel_h, kernel_w), (_, pitch) = conv.kernel, self.patch(knobs)
        taps, total = prod(conv.kernel), self.tiles(knobs)
        chunks = self.chunks(knobs.depth) // knobs.splits
        steps, ahead = chunks * taps, knobs.stages - 1
        patch_size = prod(self.patch(knobs)) * knobs.depth
        sums = SharedTiles(tile, total, knobs.splits)
        with launch((total, knobs.splits), tile.threads) as (block, split, thread):
            index = (block * knobs.splits + split) * tile.threads + thread
            clear_halo(y, conv.output, index, total * knobs.splits * tile.threads)
            panel, rectangle = block % panels, block // panels
            left = rectangle % across * knobs.width
            top = rectangle // across % down * knobs.height
            image = rectangle // (across * down)

            shared = dynamic_shared("shared", self.shared_halves(knobs), dtype="uint16")
            weights_at = self.shared_halves(knobs) - knobs.stages * tile.panel
            product = WarpProduct(half_of(conv), tile, thread)
            patches = _Patch(self, knobs, x, (image, top, left), split * chunks, thread)
            panel_step = panel * self.chunks(knobs.depth) * taps + split * steps
            slices = Panels(tile, weight, panel_step, thread)
            pixels = _Pixels(knobs, pitch, product, kernel_w)
            ring = registers("ring", 4, dtype="int32")
            reading, writing, patch_at, step = range(4)

            # The first patch and the first slices are one group, then each slice is one.
            patches.copy(0, shared, 0)
            for early in range(ahead):
                if early < steps:
                    slices.copy(early, shared, weights_at + early * tile.panel)
                ptx.end_group()
            ring[reading], ring[writing] = weights_at, weights_at + ahead * tile.panel
            ring[patch_at], ring[step] = 0, 0
            last = weights_at + ahead * tile.panel
            with serial("chunk", chunks) as chunk:
                if chunks > 1:
                    synchronise()
                    with when(chunk + 1 < chunks):
                        patches.copy(chunk + 1, shared, patch_size - ring[patch_at])
                with serial("tap_y", kernel_h) as tap_y:
                    for tap_x in range(kernel_w):
                        ptx.wait_for_groups(ahead - 1)
                        synchronise()
                        with when(ring[step] + ahead < steps):
                            slices.copy(ring[step] + ahead, shared, ring[writing])
                        ptx.end_group()
                        first = ring[patch_at] + tap_y * (pitch * knobs.depth)
                        product.add_step(shared, pixels.at(first, tap_x), ring[reading])
                        ring[writing] = ring[reading]
                        at = ring[reading]
                        ring[reading] = T.Select(at == last, weights_at, at + tile.panel)
                        ring[step] = ring[step] + 1
                if chunks > 1:
                    ring[patch_at] = patch_size - ring[patch_at]

            def place(fragment: int, row: int) -> tuple[Expr, Expr]:
                return self._place((image, top, left), pixels, fragment, row)

            sums.finish(
                product,
                block,
                split,
                thread,
                lambda: write_results(conv, product, bias, y, panel * tile.cols, place),
            )

    def _place(
        self, corner: tuple[Expr, Expr, Expr], pixels: _Pixels, fragment: int, row: int
    ) -> tuple[Expr, Expr]:
        """Where in the output the pixel lies that a lane holds, and whether it is one."""
        target, (image, top, left) = self.workload.output, corner
        _, height, width, stored = target.shape
        y, x = pixels.of(fragment, row)
        y, x = top + y, left + x
        if self.workload.pool:
            y, x = y // 2, x // 2
        at = ((image * height + y + target.halo) * width + x + target.halo) * stored
        return at, T.And(y < target.height, x < target.width)

    def _loads(self, knobs: PatchKnobs) -> int:
        """The segments of a patch, with what fills its rows, that a thread copies at most."""
        segments = prod(self.patch(knobs)) * knobs.tile.row_segments
        return ceil(segments / knobs.tile.threads)


class _Pixels:
    """Where the pixels of a warp's rows lie in the rectangle, and in the patch.

    The 16 rows of a fragment are two rows of eight pixels.
    """

    def __init__(self, knobs: PatchKnobs, pitch: int, product: WarpProduct, kernel_w: int) -> None:
        self._depth, self._pitch, self._product = knobs.depth, pitch, product
        self._across = knobs.width // FRAGMENT[1]
        fragments = knobs.warp_rows // 16
        assert fragments % self._across == 0 or self._across % fragments == 0
        first = product.first_row // 16
        self._y = first // self._across * FRAGMENT[0]
        self._x = first % self._across * FRAGMENT[1]
        lane = product.lane
        y, x = self._y + lane % 16 // 8, self._x + lane % 8
        self._first = registers("pixel", 1, dtype="int32")
        self._first[0] = (y * pitch + x) * knobs.depth
        self._slices = knobs.depth // 16
        self._segments = registers("segments", kernel_w * self._slices, dtype="int32")
        for tap_x in range(kernel_w):
            for k in range(self._slices):
                place = permuted(2 * k + lane // 16, lane % 8 + tap_x, knobs.depth)
                self._segments[tap_x * self._slices + k] = place * SEGMENT + self._first[0]

    def at(self, first: Expr, tap_x: int) -> ASegment:
        """Where a lane's segments lie, of the patch whose row of the tap begins at `first`."""

        def segment(k: int, fragment: int) -> Expr:
            down, right = self._within(fragment)
            offset = (down * self._pitch + right + tap_x) * self._depth
            return first + self._segments[tap_x * self._slices + k] + offset

        return segment

    def of(self, fragment: int, row: int) -> tuple[Expr, Expr]:
        """The pixel, in the rectangle, that a lane holds results of."""
        down, right = self._within(fragment)
        lane = self._product.lane
        return self._y + down + row, self._x + right + lane // 4

    def _within(self, fragment: int) -> tuple[int, int]:
        return (
            fragment // self._across * FRAGMENT[0],
            fragment % self._across * FRAGMENT[1],
        )


class _Patch:
    """The patch of a block, on its way to shared memory."""

    def __init__(
        self,
        conv: MmaPatches,
        knobs: PatchKnobs,
        x: Buffer,
        corner: tuple[Expr, Expr, Expr],
        first_chunk: Expr,
        thread: Expr,
    ) -> None:
        source, (image, top, left) = conv.workload.input, corner
        self._x, self._knobs, self._threads = flat(x), knobs, knobs.tile.threads
        per_row = knobs.tile.row_segments
        rows, pitch = conv.patch(knobs)
        width = knobs.width + conv.workload.kernel[1] - 1
        self._loads = conv._loads(knobs)
        self._sources = registers("sources", self._loads, dtype="int32")
        self._target = registers("target", 1, dtype="int32")
        pixel, segment = thread // per_row, thread % per_row
        place = permuted(segment, pixel, knobs.depth)
        self._target[0] = pixel * knobs.depth + place * SEGMENT
        _, height, whole_width, channels = source.shape
        shift = [source.halo - pad for pad in conv.workload.padding]
        for load in range(self._loads):
            number = load * (self._threads // per_row) + pixel
            y, x_ = number // pitch, number % pitch
            # Pixels beyond the map are not those of any result: any of the map will do.
            row = T.min(top + y + shift[0], height - 1)
            column = T.min(left + x_ + shift[1], whole_width - 1)
            at = ((image * height + row) * whole_width + column) * (channels // SEGMENT)
            here = T.And(y < rows, x_ < width)
            start = at + first_chunk * per_row + segment
            self._sources[load] = T.Select(here, start, -1)

    def copy(self, chunk: Expr | int, shared: Buffer, at: Expr | int) -> None:
        """Begins to copy the patch's part in some channels to shared memory, from `at` on."""
        for load in range(self._loads):
            source = self._sources[load]
            offset = load * self._threads * SEGMENT
            with when(source >= 0):
                segment = source + chunk * self._knobs.tile.row_segments
                target = at + self._target[0] + offset
                ptx.copy_async(shared.address(target), self._x.address(segment * SEGMENT))

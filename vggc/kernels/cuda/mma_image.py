"""Convolution of few channels on tensor cores, as the first one of an image.

A pixel is one segment. A block copies the patch that its pixels' windows
cover, and its columns' whole weight, then multiplies two taps at a time: the rows that `ldmatrix`
reads are pixels of the patch, eight in a row, which lie on different banks by themselves. Rows of
the weight are an odd number of segments long, so that they do, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from typing import cast

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Buffers, Cost
from vggc.kernels.builder import Buffer, when
from vggc.kernels.cuda import ptx
from vggc.kernels.cuda.accesses import PatchAccesses, shares_of
from vggc.kernels.cuda.algorithm import moved_bytes
from vggc.kernels.cuda.card import BlockWork, seconds
from vggc.kernels.cuda.emit import clear_halo, flat, launch, registers, synchronise
from vggc.kernels.cuda.mma import MOST_REGISTERS, MmaAlgorithm, thread_registers
from vggc.kernels.cuda.mma_tile import (
    ALIGNMENT,
    FRAGMENT_COLS,
    TensorTile,
    WarpProduct,
    shared_memory,
    write_results,
)
from vggc.kernels.cuda.operands import (
    OPERANDS,
    SEGMENT_BYTES,
    SLICE_BYTES,
    Operands,
    on_tensor_cores,
)
from vggc.kernels.cuda.packing import MmaTapsPacking
from vggc.kernels.cuda.rectangles import Rectangles, RectangleTile
from vggc.kernels.workloads import Conv

FRAGMENT = (2, 8)
"""The rows and columns of pixels of a fragment's 16 rows."""
RECTANGLES = ((16, 16, 64, 32, 64), (8, 16, 64, 32, 64), (8, 16, 64, 32, 32), (8, 8, 64, 16, 64))
"""Height and width of a block's rectangle, its columns, and rows and columns of a warp's part."""


@dataclass(frozen=True)
class ImageKnobs:
    """Height and width of a block's rectangle of pixels, its columns, and rows and columns of a
    warp's part.
    """

    height: int
    width: int
    cols: int
    warp_rows: int
    warp_cols: int

    def tile(self, operands: Operands) -> TensorTile:
        """The sizes of the tile."""
        return TensorTile(
            rows=self.height * self.width,
            cols=self.cols,
            warp_rows=self.warp_rows,
            warp_cols=self.warp_cols,
            depth=2 * operands.slice,
            stages=1,
            size=operands.size,
        )


@dataclass(frozen=True)
class MmaImage(MmaAlgorithm[Conv, ImageKnobs]):
    """Tensor cores; a patch and the whole weight of its columns are in shared memory at once."""

    names = ("mma_image",)
    computes = Conv

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """Convolutions of channels that fill one segment of 16 bytes, with stride 1, two to 49
        taps and no dilation.
        """
        if not on_tensor_cores(workload) or not workload.stride == workload.dilation == (1, 1):
            return False
        few = workload.input.shape[-1] == OPERANDS[workload.input.format].segment
        return few and 2 <= prod(workload.kernel) <= 49

    @property
    def pairs(self) -> int:
        """The pairs of taps, the last of which may have one only."""
        return ceil(prod(self.workload.kernel) / 2)

    def rectangles(self, knobs: ImageKnobs) -> Rectangles:
        """The tiles."""
        return Rectangles(self.workload, knobs.height, knobs.width, knobs.cols)

    def shared_bytes(self, knobs: ImageKnobs) -> int:
        """The bytes that a block has in shared memory."""
        weights = knobs.cols * self.packing(knobs).row_segments
        return (prod(self.rectangles(knobs).patch) + weights) * SEGMENT_BYTES

    def knobs(self) -> Iterator[ImageKnobs]:
        if not self.card.tensor_cores:
            return
        for sizes in RECTANGLES:
            knobs = ImageKnobs(*sizes)
            registers = thread_registers(self.operands, knobs.tile(self.operands))
            fits = self.shared_bytes(knobs) + ALIGNMENT <= self.card.block_shared
            if fits and registers <= MOST_REGISTERS:
                yield knobs

    def seconds(self, knobs: ImageKnobs) -> float:
        return seconds(self.work(knobs), self.card)

    def cost(self, knobs: ImageKnobs) -> Cost:
        return (self.seconds(knobs), knobs.tile(self.operands).threads)

    def work(self, knobs: ImageKnobs) -> BlockWork:
        """What the kernel's blocks do."""
        tile, conv = knobs.tile(self.operands), self.workload
        read = self.shared_bytes(knobs)
        written = tile.rows * tile.cols * self.operands.size / (4 if conv.pool else 1)
        return BlockWork(
            format=self.workload.input.format,
            blocks=self.rectangles(knobs).count,
            threads=tile.threads,
            shared=read + ALIGNMENT,
            registers=thread_registers(self.operands, tile),
            operations=2.0 * tile.rows * tile.cols * self.pairs * self.operands.slice,
            cache_bytes=read + written,
            memory_bytes=moved_bytes(conv),
            stages=4,
            steps=1,
        )

    def macs(self, knobs: ImageKnobs) -> int:
        return self.rectangles(knobs).results * self.pairs * self.operands.slice

    def packing(self, knobs: ImageKnobs) -> MmaTapsPacking:
        shape = cast("tuple[int, int, int, int]", self.workload.weight_shape)
        return MmaTapsPacking(shape, self.workload.input.format, knobs.cols)

    def accesses(self, knobs: ImageKnobs) -> PatchAccesses:
        tile, rectangles = knobs.tile(self.operands), self.rectangles(knobs)
        return PatchAccesses(
            shares=shares_of(rectangles, rectangles.count, splits=1),
            steps=1,
            at_once=self.work(knobs).at_once(self.card),
            conv=self.workload,
            packing=self.packing(knobs),
            cols=tile.cols,
            threads=tile.threads,
            sums_bytes=tile.sums_bytes,
            rectangles=rectangles,
            pitch=rectangles.patch[1],
            patch_bytes=SEGMENT_BYTES,
            panel_bytes=tile.cols * self.packing(knobs).row_segments * SEGMENT_BYTES,
        )

    def emit(self, knobs: ImageKnobs, buffers: Buffers) -> None:
        conv, tile = self.workload, knobs.tile(self.operands)
        x, weight, y = (buffers[name] for name in ("x", "weight", "y"))
        rectangles = self.rectangles(knobs)
        rows, pitch = rectangles.patch
        total = rectangles.count
        with launch((total,), tile.threads) as (block, thread):
            clear_halo(y, conv.output, block * tile.threads + thread, total * tile.threads)
            place_of = rectangles.tile(block)
            shared = shared_memory(self.shared_bytes(knobs))
            weights_at = rows * pitch * SEGMENT_BYTES
            self._copy_patch(knobs, flat(x), place_of, shared, thread)
            self._copy_weight(knobs, flat(weight), place_of.panel, shared + weights_at, thread)
            ptx.end_group()
            product = WarpProduct(self.operands, tile, thread)
            lane, fragment_across = product.lane, knobs.width // FRAGMENT[1]
            number = product.first_row // 16

            def corner(fragment: int) -> tuple[Expr, Expr]:
                """Where a fragment's pixels begin in the rectangle."""
                index = number + fragment
                return index // fragment_across * FRAGMENT[0], index % fragment_across * FRAGMENT[1]

            length = self.packing(knobs).row_segments * SEGMENT_BYTES
            at = registers("operands", 1 + product.fragments, dtype="int32")
            col = product.first_col + lane % 8 + lane // 16 * 8
            at[0] = shared + weights_at + col * length + lane // 8 % 2 * SEGMENT_BYTES
            for i in range(product.fragments):
                row, column = corner(i)
                pixel = (row + lane % 16 // 8) * pitch + column + lane % 8
                at[1 + i] = shared + pixel * SEGMENT_BYTES

            ptx.wait_for_groups(0)
            synchronise()
            for pair in range(self.pairs):
                first, second = (self._tap(2 * pair + index, pitch) for index in range(2))
                tap = T.Select(lane < 16, first, second) * SEGMENT_BYTES
                lefts = [at[1 + i] + tap for i in range(product.fragments)]
                columns = range(0, tile.warp_cols, 2 * FRAGMENT_COLS)
                rights = [at[0] + pair * SLICE_BYTES + j * length for j in columns]
                product.add_slice(lefts, rights)

            def place(fragment: int, row: int) -> tuple[Expr, Expr]:
                y, x = corner(fragment)
                return rectangles.place(place_of, y + row, x + lane // 4)

            write_results(conv, product, buffers, place_of.panel * tile.cols, place)

    def _tap(self, tap: int, pitch: int) -> int:
        """How many pixels of the patch lie between a tap and the first one. In the place of one
        that is missing, whose weights are zero, stands the last.
        """
        down, right = divmod(min(tap, prod(self.workload.kernel) - 1), self.workload.kernel[1])
        return down * pitch + right

    def _copy_patch(
        self,
        knobs: ImageKnobs,
        x: Buffer,
        tile: RectangleTile,
        shared: Expr,
        thread: Expr,
    ) -> None:
        rectangles, numbers = self.rectangles(knobs), self.operands.segment
        rows, pitch = rectangles.patch
        for start in range(0, rows * pitch, knobs.tile(self.operands).threads):
            number = start + thread
            with when(number < rows * pitch):
                at = rectangles.source(tile, number // pitch, number % pitch) * numbers
                ptx.copy_async(shared + number * SEGMENT_BYTES, x.address(at))

    def _copy_weight(
        self, knobs: ImageKnobs, weight: Buffer, panel: Expr, address: Expr, thread: Expr
    ) -> None:
        segments = knobs.cols * self.packing(knobs).row_segments
        for start in range(0, segments, knobs.tile(self.operands).threads):
            number = start + thread
            with when(number < segments):
                source = (panel * segments + number) * self.operands.segment
                ptx.copy_async(address + number * SEGMENT_BYTES, weight.address(source))

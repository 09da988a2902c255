"""Dense layers of few images in fewer bits: bound by reading the weight once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from typing import cast

from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Buffers, Cost
from vggc.kernels.builder import Buffer, serial, unrolled, when
from vggc.kernels.cuda import hopper, ptx
from vggc.kernels.cuda.accesses import RowAccesses, TileShares
from vggc.kernels.cuda.algorithm import CudaAlgorithm
from vggc.kernels.cuda.emit import await_kernel_before, flat, launch, registers, store
from vggc.kernels.cuda.formats import widen_segment
from vggc.kernels.cuda.operands import OPERANDS, SEGMENT_BYTES, in_segments
from vggc.kernels.cuda.packing import MapRowPacking
from vggc.kernels.cuda.ptx import WARP
from vggc.kernels.cuda.results import ChannelResults
from vggc.kernels.workloads import Conv

MAX_IMAGES = 4
"""With more, the arithmetic of ordinary cores takes longer than reading the weight."""


@dataclass(frozen=True)
class SegmentGemvKnobs:
    """The warps of a block, the outputs of a warp, the segments of each that are in flight."""

    warps: int
    outputs: int
    segments: int


@dataclass(frozen=True)
class SegmentGemv(CudaAlgorithm[Conv, SegmentGemvKnobs]):
    """A warp reads the weights of a few outputs at once, and multiplies on ordinary cores."""

    names = ("gemv_segments",)
    computes = Conv

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """Dense layers of up to four images in fewer bits."""
        source, target = workload.input, workload.output
        covers = (source.height, source.width) == workload.kernel
        alone = source.halo == target.halo == 0 and not workload.pool
        one = (target.height, target.width) == (1, 1)
        few = in_segments(source) and source.batch <= MAX_IMAGES
        return workload.groups == 1 and few and covers and alone and one

    def knobs(self) -> Iterator[SegmentGemvKnobs]:
        for warps in (4, 8):
            for outputs in (1, 2, 4):
                for segments in (1, 2, 4):
                    yield SegmentGemvKnobs(warps, outputs, segments)

    def cost(self, knobs: SegmentGemvKnobs) -> Cost:
        # Some 8 segments in flight a lane keep memory busy; more take registers from other warps.
        in_flight = knobs.outputs * knobs.segments
        off = abs(in_flight - 8) / 64 + abs(knobs.outputs - 2) / 128 + knobs.warps / 1024
        return (self.seconds(knobs), off)

    def packing(self, knobs: SegmentGemvKnobs) -> MapRowPacking:
        shape, source = self.workload.weight_shape, self.workload.input
        sizes = cast("tuple[int, int, int, int]", shape)
        return MapRowPacking(sizes, source.format, source.shape[-1])

    @property
    def fetched_ahead(self) -> int:
        """The bytes of a row of the weight that are brought to the L2 cache before the input is
        there: of all rows together half of what the cache holds; none where kernels do not overlap.
        """
        if not self.overlaps:
            return 0
        row = prod(self.workload.input.shape[1:]) * OPERANDS[self.workload.input.format].size
        most = self.card.cache // 2 // self.workload.output.channels
        return min(row, most) // SEGMENT_BYTES * SEGMENT_BYTES

    def accesses(self, knobs: SegmentGemvKnobs) -> RowAccesses:
        outputs = knobs.warps * knobs.outputs
        blocks = ceil(self.workload.output.shape[-1] / outputs)
        return RowAccesses(
            shares=TileShares(blocks, groups=blocks, panels=1, splits=1),
            steps=1,
            at_once=self.card.threads // (WARP * knobs.warps) * self.card.multiprocessors,
            conv=self.workload,
            packing=self.packing(knobs),
            outputs=outputs,
        )

    def emit(self, knobs: SegmentGemvKnobs, buffers: Buffers) -> None:
        conv = self.workload
        x, weight, y = (flat(buffers[name]) for name in ("x", "weight", "y"))
        images, length = conv.input.batch, prod(conv.input.shape[1:])
        channels, stored = conv.output.channels, conv.output.shape[-1]
        numbers = OPERANDS[conv.input.format].segment
        outputs, chunk = knobs.outputs, WARP * numbers * knobs.segments
        per_block = knobs.warps * outputs
        blocks = ceil(stored / per_block)
        with launch((blocks,), WARP * knobs.warps, awaits=False) as (block, thread):
            lane = thread % WARP
            first = block * per_block + thread // WARP * outputs
            if self.fetched_ahead:
                with when(lane < outputs):
                    row = T.min(first + lane, channels - 1)
                    hopper.fetch_ahead(weight.address(row * length), self.fetched_ahead)
            await_kernel_before()
            words = registers("words", outputs * knobs.segments * 4, dtype="uint32")
            inputs = registers("inputs", 4, dtype="uint32")
            products = _products(conv, outputs)
            with serial("step", ceil(length / chunk)) as step:
                for segment in range(knobs.segments):
                    col = step * chunk + (segment * WARP + lane) * numbers
                    with when(col < length):
                        for r in range(outputs):
                            row = T.min(first + r, channels - 1)
                            at = weight.address(row * length + col)
                            ptx.load_weight_segment(words, (segment * outputs + r) * 4, at)
                for segment in range(knobs.segments):
                    col = step * chunk + (segment * WARP + lane) * numbers
                    with when(col < length):
                        products.take(words, segment * outputs * 4)
                        for n in range(images):
                            ptx.load_map_segment(inputs, 0, x.address(n * length + col))
                            products.add(n, inputs)
            sums, results = products.sums, ChannelResults(conv, buffers, 1)
            other = registers("other", 1, dtype=sums.dtype)
            for i in range(outputs * images):
                for distance in (16, 8, 4, 2, 1):
                    ptx.from_lane(other[0], sums[i], distance)
                    sums[i] = sums[i] + other[0]
            for r in range(outputs):
                row = first + r
                with when(T.And(lane == 0, row < stored)):
                    results.load(row)
                    for n in range(images):
                        total = results.of(sums[r * images + n], 0)
                        value = T.Select(row < channels, total, T.float32(0))
                        store(y, n * stored + row, value, conv.output)


class _FloatProducts:
    """The sums of a thread, of the products of floats: of each output, of each image."""

    def __init__(self, conv: Conv, outputs: int) -> None:
        self._map, self._outputs, self._images = conv.input, outputs, conv.input.batch
        self._numbers = OPERANDS[conv.input.format].segment
        self._values = registers("values", self._numbers)
        self._weights = registers("weights", self._numbers * outputs)
        self.sums = registers("sums", outputs * self._images)
        with unrolled("i", outputs * self._images) as (i,):
            self.sums[i] = 0

    def take(self, words: Buffer, first: int) -> None:
        """Makes the weights those of a segment of each output, in words from the `first` on."""
        for r in range(self._outputs):
            widen_segment(self._map, self._weights, self._numbers * r, words, first + 4 * r)

    def add(self, image: int, inputs: Buffer) -> None:
        """Adds the products with a segment of an image."""
        widen_segment(self._map, self._values, 0, inputs, 0)
        for r in range(self._outputs):
            for index in range(self._numbers):
                product = self._weights[self._numbers * r + index] * self._values[index]
                self.sums[r * self._images + image] += product


class _ByteProducts:
    """The sums of a thread, of the products of uint8 and int8: of each output, of each image."""

    def __init__(self, conv: Conv, outputs: int) -> None:
        self._outputs, self._images = outputs, conv.input.batch
        self.sums = registers("sums", outputs * self._images, dtype="int32")
        with unrolled("i", outputs * self._images) as (i,):
            self.sums[i] = 0

    def take(self, words: Buffer, first: int) -> None:
        """Makes the weights those of a segment of each output, in words from the `first` on."""
        self._words, self._first = words, first

    def add(self, image: int, inputs: Buffer) -> None:
        """Adds the products with a segment of an image."""
        for r, word in product(range(self._outputs), range(4)):
            weights = self._words[self._first + 4 * r + word]
            ptx.add_byte_products(self.sums, r * self._images + image, inputs[word], weights)


def _products(conv: Conv, outputs: int) -> _FloatProducts | _ByteProducts:
    kind = _ByteProducts if conv.input.format == "uint8" else _FloatProducts
    return kind(conv, outputs)

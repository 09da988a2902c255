"""Dense layers of few images in fewer bits: bound by reading the weight once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from typing import cast

from tvm.tirx.script import builder as T

from vggc.kernels.activation import activate
from vggc.kernels.algorithm import Buffers, Cost
from vggc.kernels.builder import serial, unrolled, when
from vggc.kernels.cuda import ptx
from vggc.kernels.cuda.algorithm import CudaAlgorithm
from vggc.kernels.cuda.emit import flat, launch, registers
from vggc.kernels.cuda.formats import widen_words
from vggc.kernels.cuda.operands import on_tensor_cores, operands_of
from vggc.kernels.cuda.packing import MapRowPacking
from vggc.kernels.cuda.ptx import WARP, HalfFormat
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
        """Dense layers of up to four images in float16 or bfloat16."""
        source, target = workload.input, workload.output
        covers = (source.height, source.width) == workload.kernel
        alone = source.halo == target.halo == 0 and not workload.pool
        one = (target.height, target.width) == (1, 1)
        return on_tensor_cores(workload) and covers and alone and one and source.batch <= MAX_IMAGES

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

    def emit(self, knobs: SegmentGemvKnobs, buffers: Buffers) -> None:
        conv, form = self.workload, self.workload.input.format
        x, weight, bias, y = (flat(each) for each in buffers.values())
        images, length = conv.input.batch, prod(conv.input.shape[1:])
        channels, stored = conv.output.channels, conv.output.shape[-1]
        numbers = operands_of(form).segment
        outputs, chunk = knobs.outputs, WARP * numbers * knobs.segments
        per_block = knobs.warps * outputs
        with launch((ceil(stored / per_block),), WARP * knobs.warps) as (block, thread):
            lane = thread % WARP
            first = block * per_block + thread // WARP * outputs
            words = registers("words", outputs * knobs.segments * 4, dtype="uint32")
            inputs = registers("inputs", 4, dtype="uint32")
            values, weights = registers("values", numbers), registers("weights", numbers * outputs)
            sums, other = registers("sums", outputs * images), registers("other", 1)
            with unrolled("i", outputs * images) as (i,):
                sums[i] = 0
            with serial("step", ceil(length / chunk)) as step:
                for segment in range(knobs.segments):
                    col = step * chunk + (segment * WARP + lane) * numbers
                    with when(col < length):
                        for r in range(outputs):
                            row = T.min(first + r, channels - 1)
                            at = weight.address(row * length + col)
                            ptx.load_segment(words, (segment * outputs + r) * 4, at)
                for segment in range(knobs.segments):
                    col = step * chunk + (segment * WARP + lane) * numbers
                    with when(col < length):
                        for r in range(outputs):
                            at = (segment * outputs + r) * 4
                            widen_words(form, weights, numbers * r, words, at)
                        for n in range(images):
                            ptx.load_segment(inputs, 0, x.address(n * length + col))
                            widen_words(form, values, 0, inputs, 0)
                            for r in range(outputs):
                                for index in range(numbers):
                                    product = weights[numbers * r + index] * values[index]
                                    sums[r * images + n] += product
            for i in range(outputs * images):
                for distance in (16, 8, 4, 2, 1):
                    ptx.from_lane(other[0], sums[i], distance)
                    sums[i] = sums[i] + other[0]
            for r in range(outputs):
                row = first + r
                with when(T.And(lane == 0, row < stored)):
                    for n in range(images):
                        here = T.min(row, channels - 1)
                        total = activate(conv.act, sums[r * images + n] + bias[here])
                        value = T.Select(row < channels, total, T.float32(0))
                        if conv.output.format == "float32":
                            y[n * stored + row] = value
                        else:
                            out = cast("HalfFormat", conv.output.format)
                            ptx.round_pair(out, inputs[0], value, T.float32(0))
                            y[n * stored + row] = T.Cast("uint16", inputs[0])

"""Maps of fewer bits, a segment of channels a thread: changes of format, and pools."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from math import ceil, prod

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Buffers, NoKnobs
from vggc.kernels.builder import Buffer, serial, unrolled, when
from vggc.kernels.cuda import ptx
from vggc.kernels.cuda.algorithm import FixedCudaAlgorithm
from vggc.kernels.cuda.emit import (
    BLOCK,
    flat,
    inside_map,
    launch,
    reader,
    registers,
    write_map,
)
from vggc.kernels.cuda.formats import round_words, segment_of, widen_segment, zero_word
from vggc.kernels.cuda.operands import OPERANDS, in_segments
from vggc.kernels.windows import axes
from vggc.kernels.workloads import Convert, Map, MaxPool

MAX_WRITTEN = 9
"""Pixels of a window that are written out one by one."""
LOWEST = -3.4028234663852886e38


class ConvertSegments(FixedCudaAlgorithm[Convert]):
    """A thread per segment of channels, or per element of a map in float32."""

    names = ("convert",)
    computes = Convert

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        work = self.workload
        source, *scale, output = buffers.values()
        halo = work.input.halo
        if in_segments(work.output):

            def read(values: Buffer, n: Expr, y: Expr, x_: Expr, c: Expr) -> None:
                for index in range(OPERANDS[work.output.format].segment):
                    here = c + index < work.input.channels
                    value = source[
                        n, y + halo, x_ + halo, T.min(c + index, work.input.channels - 1)
                    ]
                    if scale:
                        value = value / scale[0][0]
                    values[index] = T.if_then_else(here, value, T.float32(0))

            write_segments(output, work.output, read)
            return
        value = reader(source, work.input)
        write_map(
            output,
            work.output,
            (lambda *at: value(*at) * scale[0][0]) if scale else value,
        )


class MaxPoolSegments(FixedCudaAlgorithm[MaxPool]):
    """A thread per segment of channels walks its window."""

    names = ("max_pool_segments",)
    computes = MaxPool

    @classmethod
    def applies(cls, workload: MaxPool) -> bool:
        """Max pools of maps in fewer bits."""
        return in_segments(workload.input)

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        work = self.workload
        source, output = (flat(each) for each in buffers.values())
        halo, (rows, columns) = work.input.halo, axes(work)
        _, height, width, stored = work.input.shape
        kernel_h, kernel_w = work.kernel
        numbers = OPERANDS[work.input.format].segment

        def largest(values: Buffer, n: Expr, y: Expr, x: Expr, c: Expr) -> None:
            words, read = registers("words", 4, dtype="uint32"), registers("read", numbers)

            def take(dy: Expr | int, dx: Expr | int) -> None:
                row, column = rows.clamped(y, dy) + halo, columns.clamped(x, dx) + halo
                at = ((n * height + row) * width + column) * stored + c
                ptx.load_map_segment(words, 0, source.address(at))
                widen_segment(work.input, read, 0, words, 0)
                for index in range(numbers):
                    values[index] = T.max(values[index], read[index])

            with unrolled("i", numbers) as (i,):
                values[i] = T.float32(LOWEST)
            if kernel_h * kernel_w <= MAX_WRITTEN:
                for dy, dx in itertools.product(range(kernel_h), range(kernel_w)):
                    take(dy, dx)
            else:
                with serial("dy", kernel_h) as dy, serial("dx", kernel_w) as dx:
                    take(dy, dx)

        write_segments(output, work.output, largest)


def write_segments(
    output: Buffer, map: Map, fill: Callable[[Buffer, Expr, Expr, Expr, Expr], None]
) -> None:
    """A kernel with a thread per segment: `fill(values, n, y, x, c)` sets the values of the segment
    that begins with channel `c` inside the map, and in its halo lies what stands for zero.
    """
    _, height, width, channels = map.shape
    numbers = OPERANDS[map.format].segment
    per_pixel = channels // numbers
    size = prod(map.shape) // numbers
    target = flat(output)
    with launch((ceil(size / BLOCK),), BLOCK) as (block, thread):
        index = block * BLOCK + thread
        c = index % per_pixel * numbers
        x = index // per_pixel % width - map.halo
        y = index // (per_pixel * width) % height - map.halo
        n = index // (per_pixel * width * height)
        values, made = registers("values", numbers), registers("made", 4, dtype="uint32")
        with when(index < size):
            with unrolled("i", 4) as (i,):
                made[i] = zero_word(map)
            with when(inside_map(map, y, x)):
                fill(values, n, y, x, c)
                round_words(map, made, values, 0, numbers)
            ptx.store_segment(target.address(index * numbers), segment_of(made))

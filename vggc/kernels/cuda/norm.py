"""Group and layer normalisation: a mean, then the deviations from it, so that nothing cancels."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.activation import activate
from vggc.kernels.algorithm import Buffers, NoKnobs
from vggc.kernels.builder import Argument, Buffer, serial, when
from vggc.kernels.cuda.algorithm import FixedCudaAlgorithm
from vggc.kernels.cuda.emit import (
    BLOCK,
    clear_halo,
    launch,
    load,
    reader,
    registers,
    shared,
    store,
    synchronise,
    tree_reduce,
    write_map,
)
from vggc.kernels.workloads import GroupNorm, LayerNorm

WARP = 32


def summed(parts: Buffer, row: Expr | int, lane: Expr, own: Expr) -> Expr:
    """The sum over a row of threads of what each has of its `own`, for all of them."""
    synchronise()
    parts[row, lane] = own
    tree_reduce(parts, row, lane, operator.add)
    return parts[row, 0]


class NormWarps(FixedCudaAlgorithm[LayerNorm]):
    """A block takes eight pixels, a warp the channels of each."""

    names = ("layer_norm",)
    computes = LayerNorm

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        layer = self.workload
        source, weight, bias, output = buffers.values()
        map_, out = layer.input, layer.output
        channels, rows = map_.channels, BLOCK // WARP
        pixels = map_.batch * map_.height * map_.width
        blocks = math.ceil(pixels / rows)
        with launch((blocks,), BLOCK) as (block, thread):
            clear_halo(output, out, block * BLOCK + thread, blocks * BLOCK)
            row, lane = thread // WARP, thread % WARP
            own, mean, scale = (registers(name, 1) for name in ("own", "mean", "scale"))
            parts = shared("parts", rows, WARP)
            pixel = block * rows + row
            at = T.min(pixel, pixels - 1)
            n, y, x = (
                at // (map_.height * map_.width),
                at // map_.width % map_.height,
                at % map_.width,
            )

            @contextmanager
            def own_channels(count: int) -> Iterator[Expr]:
                with serial("step", math.ceil(count / WARP)) as step:
                    c = step * WARP + lane
                    with when(c < count):
                        yield c

            def read(c: Expr) -> Expr:
                return load(source, map_, n, y + map_.halo, x + map_.halo, c)

            def mean_of(value: Callable[[Expr], Expr]) -> Expr:
                own[0] = 0
                with own_channels(channels) as c:
                    own[0] += value(c)
                return summed(parts, row, lane, own[0]) / T.float32(channels)

            def square(c: Expr) -> Expr:
                deviation = read(c) - mean[0]
                return deviation * deviation

            mean[0] = mean_of(read)
            scale[0] = T.float32(1) / T.sqrt(mean_of(square) + T.float32(layer.eps))
            _, height, width, stored = out.shape
            start = ((n * height + y + out.halo) * width + x + out.halo) * stored
            values = output.view("values", math.prod(out.shape))
            with when(pixel < pixels), own_channels(stored) as c, T.If(c < channels):
                with T.Then():
                    normal = (read(c) - mean[0]) * scale[0]
                    value = activate(layer.act, normal * weight[c] + bias[c])
                    store(values, start + c, value, out)
                with T.Else():
                    values[start + c] = 0


class NormRows(FixedCudaAlgorithm[GroupNorm]):
    """A thread sums a row of a channel, a block joins those of a group, then a thread per element.

    Source: Chan et al. 1983, equation 2.1, of rows in the place of halves.
    """

    names = ("group_norm",)
    computes = GroupNorm

    def scratch(self, knobs: NoKnobs) -> tuple[Argument, ...]:
        map_, groups = self.workload.input, self.workload.groups
        of_rows = (map_.batch, map_.height, map_.channels)
        return (
            Argument("row_means", of_rows),
            Argument("row_squares", of_rows),
            Argument("means", (map_.batch, groups)),
            Argument("scales", (map_.batch, groups)),
        )

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        source, weight, bias, output, row_means, row_squares, means, scales = buffers.values()
        layer = self.workload
        size = layer.input.channels // layer.groups
        read = reader(source, layer.input)
        self.sum_rows(source, row_means, row_squares)
        self.join_rows(row_means, row_squares, means, scales)

        def element(n: Expr, y: Expr, x: Expr, c: Expr) -> Expr:
            normal = (read(n, y, x, c) - means[n, c // size]) * scales[n, c // size]
            return activate(layer.act, normal * weight[c] + bias[c])

        write_map(output, layer.output, element)

    def sum_rows(self, source: Buffer, row_means: Buffer, row_squares: Buffer) -> None:
        """The mean of each channel in each row, and the sum of its squared deviations from it."""
        map_ = self.workload.input
        read = reader(source, map_)
        size = map_.batch * map_.height * map_.channels
        with launch((math.ceil(size / BLOCK),), BLOCK) as (block, thread):
            index = block * BLOCK + thread
            c, row = index % map_.channels, index // map_.channels
            n, y = row // map_.height, row % map_.height
            mean, squares, deviation = (
                registers(name, 1) for name in ("mean", "squares", "deviation")
            )
            with when(index < size):
                mean[0] = 0
                with serial("x", map_.width) as x:
                    mean[0] += read(n, y, x, c)
                mean[0] = mean[0] / T.float32(map_.width)
                squares[0] = 0
                with serial("x", map_.width) as x:
                    deviation[0] = read(n, y, x, c) - mean[0]
                    squares[0] += deviation[0] * deviation[0]
                row_means[n, y, c] = mean[0]
                row_squares[n, y, c] = squares[0]

    def join_rows(
        self, row_means: Buffer, row_squares: Buffer, means: Buffer, scales: Buffer
    ) -> None:
        """The mean of each group, and what deviations from it are to be multiplied by."""
        layer, map_ = self.workload, self.workload.input
        size = map_.channels // layer.groups
        parts_of_group = map_.height * size
        with launch((map_.batch * layer.groups,), BLOCK) as (block, thread):
            n, group = block // layer.groups, block % layer.groups
            parts, own, mean = shared("parts", 1, BLOCK), registers("own", 1), registers("mean", 1)

            def sum_of(value: Callable[[Expr, Expr], Expr]) -> Expr:
                own[0] = 0
                with serial("step", math.ceil(parts_of_group / BLOCK)) as step:
                    index = step * BLOCK + thread
                    with when(index < parts_of_group):
                        own[0] += value(index // size, group * size + index % size)
                return summed(parts, 0, thread, own[0])

            def squares(y: Expr, c: Expr) -> Expr:
                deviation = row_means[n, y, c] - mean[0]
                return row_squares[n, y, c] + T.float32(map_.width) * deviation * deviation

            mean[0] = sum_of(lambda y, c: row_means[n, y, c]) / T.float32(parts_of_group)
            variance = sum_of(squares) / T.float32(parts_of_group * map_.width)
            with when(thread == 0):
                means[n, group] = mean[0]
                scales[n, group] = T.float32(1) / T.sqrt(variance + T.float32(layer.eps))

"""What is bound by memory: pooling, normalisation, soft-max, joins, changes of layout."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.activation import activate, leaky
from vggc.kernels.algorithm import Buffers, NoKnobs
from vggc.kernels.builder import Buffer, serial, when
from vggc.kernels.cuda.accesses import PlanesAccesses, TileShares
from vggc.kernels.cuda.algorithm import FixedCudaAlgorithm
from vggc.kernels.cuda.emit import (
    BLOCK,
    clear_halo,
    flat,
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
from vggc.kernels.upsampling import upsampled
from vggc.kernels.windows import axes
from vggc.kernels.workloads import (
    Add,
    AvgPool,
    Concat,
    Lrn,
    Map,
    MaxPool,
    Mul,
    Pointwise,
    PRelu,
    Shuffle,
    Softmax,
    Softmax2d,
    Take,
    ToNchw,
    ToNhwc,
    Upsample,
)

MAX_TERMS = 16
"""Terms of a window written out as one expression; of many more the compiler's stack overflows."""
WARP = 32
LOWEST = -3.4028234663852886e38


def covers_map(pool: AvgPool) -> bool:
    """Whether the pool has one window only, which is the map."""
    covered = pool.kernel == (pool.input.height, pool.input.width) and pool.padding == (0, 0)
    return covered and (pool.output.height, pool.output.width) == (1, 1)


class PoolThreads(FixedCudaAlgorithm[MaxPool | AvgPool]):
    """A thread per element walks its window; a mean sums row by row."""

    names = (
        "max_pool",
        "avg_pool",
    )
    computes = (MaxPool, AvgPool)

    @classmethod
    def applies(cls, workload: MaxPool | AvgPool) -> bool:
        """Means of windows that are not the whole map, and max pools in float32."""
        if isinstance(workload, MaxPool):
            return workload.input.format == "float32"
        return not covers_map(workload)

    @property
    def name(self) -> str:
        return self.names[isinstance(self.workload, AvgPool)]

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        layer = self.workload
        source, output = buffers.values()
        halo = layer.input.halo
        (kh, kw), (rows, columns) = layer.kernel, axes(layer)

        def maximum(n: Expr, y: Expr, x: Expr, c: Expr) -> Expr:
            def read(dy: Expr | int, dx: Expr | int) -> Expr:
                return source[n, rows.clamped(y, dy) + halo, columns.clamped(x, dx) + halo, c]

            if kh * kw <= MAX_TERMS:
                window = itertools.product(range(kh), range(kw))
                return functools.reduce(T.max, itertools.starmap(read, window))
            largest = registers("largest", 1)
            largest[0] = read(0, 0)
            with serial("dy", kh) as dy, serial("dx", kw) as dx:
                largest[0] = T.max(largest[0], read(dy, dx))
            return largest[0]

        def mean(n: Expr, y: Expr, x: Expr, c: Expr) -> Expr:
            (top, height), (left, width) = rows.span(y), columns.span(x)
            total, row = registers("total", 1), registers("row", 1)
            total[0] = 0
            with serial("dy", height) as dy:
                row[0] = 0
                with serial("dx", width) as dx:
                    row[0] += load(source, layer.input, n, top + dy + halo, left + dx + halo, c)
                total[0] += row[0]
            return total[0] / T.Cast("float32", rows.count(y) * columns.count(x))

        write_map(output, layer.output, maximum if isinstance(layer, MaxPool) else mean)


class GlobalMean(FixedCudaAlgorithm[AvgPool]):
    """A block takes 32 channels, a warp every eighth row."""

    names = ("global_mean",)
    computes = AvgPool

    @classmethod
    def applies(cls, workload: AvgPool) -> bool:
        """The mean of whole channels."""
        return covers_map(workload)

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        layer = self.workload
        source, output = buffers.values()
        halo, height, width = layer.input.halo, layer.input.height, layer.input.width
        channels, side, warps = layer.output.shape[-1], layer.output.shape[1], BLOCK // WARP
        grid = (layer.input.batch, math.ceil(channels / WARP))
        with launch(grid, BLOCK) as (n, chunk, thread):
            warp, lane = thread // WARP, thread % WARP
            c = chunk * WARP + lane
            clear_halo(
                output,
                layer.output,
                (n * grid[1] + chunk) * BLOCK + thread,
                math.prod(grid) * BLOCK,
            )
            parts, total, row = (
                shared("parts", warps, WARP),
                registers("total", 1),
                registers("row", 1),
            )
            total[0] = 0
            with when(c < channels), serial("step", math.ceil(height / warps)) as step:
                y = step * warps + warp
                with when(y < height):
                    row[0] = 0
                    with serial("x", width) as x:
                        row[0] += load(source, layer.input, n, y + halo, x + halo, c)
                    total[0] += row[0]
            parts[warp, lane] = total[0]
            synchronise()
            with when(T.And(warp == 0, c < channels)):
                sums = functools.reduce(operator.add, (parts[part, lane] for part in range(warps)))
                pixel = (n * side + layer.output.halo) * side + layer.output.halo
                value = sums / T.float32(height * width)
                store(flat(output), pixel * channels + c, value, layer.output)


class LrnThreads(FixedCudaAlgorithm[Lrn]):
    """A thread per element sums the squares of its window."""

    names = ("lrn",)
    computes = Lrn

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        layer = self.workload
        source, output = buffers.values()
        halo, channels = layer.input.halo, layer.input.channels
        before, after = layer.size // 2, (layer.size - 1) // 2

        def normalise(n: Expr, y: Expr, x: Expr, c: Expr) -> Expr:
            def square(at: Expr) -> Expr:
                near = T.max(T.min(at, channels - 1), 0)
                value = load(source, layer.input, n, y + halo, x + halo, near)
                return T.Select(T.And(at >= 0, at < channels), value * value, T.float32(0))

            if layer.size <= MAX_TERMS:
                squares = sum((square(c + d) for d in range(-before, after + 1)), T.float32(0))
            else:
                total = registers("total", 1)
                total[0] = 0
                with serial("d", layer.size) as d:
                    total[0] += square(c - before + d)
                squares = total[0]
            scale = T.float32(layer.k) + T.float32(layer.alpha) * squares
            value = load(source, layer.input, n, y + halo, x + halo, c)
            return value / T.pow(scale, T.float32(layer.beta))

        write_map(output, layer.output, normalise)


class PointwiseThreads(FixedCudaAlgorithm[Pointwise]):
    """A thread per element applies the activation."""

    names = ("pointwise",)
    computes = Pointwise

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        layer = self.workload
        source, output = buffers.values()
        read = reader(source, layer.input)
        write_map(output, layer.output, lambda *at: activate(layer.act, read(*at)))


class PReluThreads(FixedCudaAlgorithm[PRelu]):
    """A thread per element applies the slope of its channel."""

    names = ("prelu",)
    computes = PRelu

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        layer = self.workload
        source, slopes, output = buffers.values()
        read = reader(source, layer.input)
        write_map(output, layer.output, lambda n, y, x, c: leaky(read(n, y, x, c), slopes[c]))


class AddThreads(FixedCudaAlgorithm[Add]):
    """A thread per element sums the inputs and applies the activation."""

    names = ("add",)
    computes = Add

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        layer = self.workload
        *sources, output = buffers.values()
        readers = list(map(reader, sources, layer.inputs))

        def total(*at: Expr) -> Expr:
            summands = (read(*at) for read in readers)
            return activate(layer.act, functools.reduce(operator.add, summands))

        write_map(output, layer.output, total)


class MulThreads(FixedCudaAlgorithm[Mul]):
    """A thread per element multiplies the inputs, one pixel's for all pixels, and applies the
    activation.
    """

    names = ("mul",)
    computes = Mul

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        layer = self.workload
        *sources, output = buffers.values()

        def product(n: Expr, y: Expr, x: Expr, c: Expr) -> Expr:
            def factor(source: Buffer, map: Map) -> Expr:
                row, column = (0, 0) if layer.spreads(map) else (y, x)
                return reader(source, map)(n, row, column, c)

            factors = map(factor, sources, layer.inputs)
            return activate(layer.act, functools.reduce(operator.mul, factors))

        write_map(output, layer.output, product)


class ConcatThreads(FixedCudaAlgorithm[Concat]):
    """A thread per element looks for the input that its channel is of."""

    names = ("concat",)
    computes = Concat

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        layer = self.workload
        *sources, output = buffers.values()

        def element(n: Expr, y: Expr, x: Expr, c: Expr) -> Expr:
            ends = itertools.accumulate(map.channels for map in layer.inputs)
            value: Expr | None = None
            for source, map, end in reversed(list(zip(sources, layer.inputs, ends, strict=True))):
                within = T.max(T.min(c - (end - map.channels), map.channels - 1), 0)
                part = reader(source, map)(n, y, x, within)
                value = part if value is None else T.if_then_else(c < end, part, value)
            return value

        write_map(output, layer.output, element)


class ShuffleThreads(FixedCudaAlgorithm[Shuffle]):
    """A thread per element reads the channel that comes to its place."""

    names = ("shuffle",)
    computes = Shuffle

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        source, output = buffers.values()
        layer, groups = self.workload, self.workload.groups
        read, size = reader(source, layer.input), layer.output.channels // layer.groups
        write_map(
            output,
            layer.output,
            lambda n, y, x, c: read(n, y, x, c % groups * size + c // groups),
        )


class TakeThreads(FixedCudaAlgorithm[Take]):
    """A thread per element reads the channel that is taken."""

    names = ("take",)
    computes = Take

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        source, output = buffers.values()
        layer, first = self.workload, self.workload.first
        read = reader(source, layer.input)
        write_map(output, layer.output, lambda n, y, x, c: read(n, y, x, first + c))


class UpsampleThreads(FixedCudaAlgorithm[Upsample]):
    """A thread per element reads the nearest pixel, or weighs the nearest four."""

    names = ("upsample",)
    computes = Upsample

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        source, output = buffers.values()
        layer = self.workload
        read = reader(source, layer.input)

        def element(n: Expr, y: Expr, x: Expr, c: Expr) -> Expr:
            return upsampled(layer, lambda row, column: read(n, row, column, c), y, x)

        write_map(output, layer.output, element)


class SoftmaxBlocks(FixedCudaAlgorithm[Softmax]):
    """A block per row: its maximum, the sum of its exponentials, then the quotients."""

    names = ("softmax",)
    computes = Softmax

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        layer = self.workload
        source, output = buffers.values()
        with launch((layer.batch,), BLOCK) as (row, thread):
            parts, peak, own = shared("parts", 1, BLOCK), registers("peak", 1), registers("own", 1)

            @contextmanager
            def own_columns() -> Iterator[Expr]:
                with serial("chunk", math.ceil(layer.features / BLOCK)) as chunk:
                    col = chunk * BLOCK + thread
                    with when(col < layer.features):
                        yield col

            def exponential(col: Expr) -> Expr:
                return T.exp(source[row, col] - peak[0])

            def reduce_row(
                start: float, value: Callable[[Expr], Expr], combine: Callable[[Expr, Expr], Expr]
            ) -> None:
                own[0] = T.float32(start)
                with own_columns() as col:
                    own[0] = combine(own[0], value(col))
                parts[0, thread] = own[0]
                tree_reduce(parts, 0, thread, combine)

            reduce_row(LOWEST, lambda col: source[row, col], T.max)
            peak[0] = parts[0, 0]
            synchronise()
            reduce_row(0.0, exponential, operator.add)
            with own_columns() as col:
                output[row, col] = exponential(col) / parts[0, 0]


class Softmax2dThreads(FixedCudaAlgorithm[Softmax2d]):
    """A thread per pixel: its maximum, the sum of its exponentials, then the quotients."""

    names = ("softmax2d",)
    computes = Softmax2d

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        source, output = buffers.values()
        layer, out = self.workload.input, self.workload.output
        _, rows, columns, channels = out.shape
        pixels = out.batch * out.height * out.width
        blocks = math.ceil(pixels / BLOCK)
        with launch((blocks,), BLOCK) as (block, thread):
            values = flat(output)
            pixel = block * BLOCK + thread
            clear_halo(output, out, pixel, blocks * BLOCK)
            x, y = pixel % out.width, pixel // out.width % out.height
            n = pixel // (out.width * out.height)
            first = ((n * rows + y + out.halo) * columns + x + out.halo) * channels
            peak, total = registers("peak", 1), registers("total", 1)

            def score(c: Expr) -> Expr:
                return source[n, y + layer.halo, x + layer.halo, c]

            with when(pixel < pixels):
                peak[0] = T.float32(LOWEST)
                with serial("c", channels) as c:
                    peak[0] = T.max(peak[0], score(c))
                total[0] = 0
                with serial("c", channels) as c:
                    total[0] += T.exp(score(c) - peak[0])
                with serial("c", channels) as c:
                    values[first + c] = T.exp(score(c) - peak[0]) / total[0]


class ToNhwcThreads(FixedCudaAlgorithm[ToNhwc]):
    """A thread per element of the map reads it from the planes."""

    names = ("to_nhwc",)
    computes = ToNhwc

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        source, output = buffers.values()
        write_map(output, self.workload.output, lambda n, y, x, c: source[n, c, y, x])

    def accesses(self, knobs: NoKnobs) -> PlanesAccesses:
        output = self.workload.output
        blocks = math.ceil(math.prod(output.shape) / BLOCK)
        return PlanesAccesses(
            shares=TileShares(blocks, groups=blocks, panels=1, splits=1),
            steps=1,
            at_once=self.card.threads // BLOCK * self.card.multiprocessors,
            output=output,
        )


class ToNchwThreads(FixedCudaAlgorithm[ToNchw]):
    """A thread per element of the planes reads it from the map.

    The output is written as a map whose rows, columns and channels are C, H and W.
    """

    names = ("to_nchw",)
    computes = ToNchw

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        source, output = buffers.values()
        halo, target = self.workload.input.halo, self.workload.input
        turned = Map(
            batch=target.batch, height=target.channels, width=target.height, channels=target.width
        )
        write_map(output, turned, lambda n, c, y, x: source[n, y + halo, x + halo, c])

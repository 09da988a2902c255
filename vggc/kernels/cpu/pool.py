"""Maximum and mean over windows; of a map of fewer bits than float32 the maximum only.

A small window is one expression, a row of output pixels per task. A large one, such as a
whole map, and one of a mean that ends beyond the map is walked with a block of channels in
registers, a row and a block per task.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import product
from math import ceil, prod
from operator import add

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Buffers, NoKnobs
from vggc.kernels.builder import parallel, serial
from vggc.kernels.cpu import formats
from vggc.kernels.cpu.algorithm import FixedCpuAlgorithm
from vggc.kernels.cpu.loops import (
    MAX_TERMS,
    clear_halo,
    elements,
    inside,
    parallel_rows,
    scratch,
    tile_origin,
)
from vggc.kernels.windows import axes
from vggc.kernels.workloads import AvgPool, MaxPool

MAX_VECTORS = 4
"""Vector registers of a block of channels at most; a mean needs them twice."""


def to_float(count: Expr | int) -> Expr:
    """A count of elements as an expression of type float32."""
    return T.float32(count) if isinstance(count, int) else T.Cast("float32", count)


def is_small(pool: MaxPool | AvgPool) -> bool:
    """Whether a window is one expression. A choice in it, of what lies on the map, would be made
    for each element: a mean of 3×3 took ten times the time (Zen 5).
    """
    overhangs = isinstance(pool, AvgPool) and any(axis.overhangs for axis in axes(pool))
    return prod(pool.kernel) <= MAX_TERMS and not overhangs


class SmallWindow(FixedCpuAlgorithm[MaxPool | AvgPool]):
    """The elements of a window are written out; a row of output pixels per task."""

    names = ("window",)
    computes = (MaxPool, AvgPool)

    @classmethod
    def applies(cls, workload: MaxPool | AvgPool) -> bool:
        """Pools by windows of at most 16 elements, means only where all windows lie on the map."""
        return is_small(workload)

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        pool = self.workload
        x, y = buffers.values()
        source, out = pool.input, pool.output
        rows, columns = axes(pool)
        offsets = list(product(range(rows.kernel), range(columns.kernel)))
        # What pads the channels goes through the pool as they do.
        channels = out.shape[-1]

        clear_halo(y, out)
        with parallel_rows(out) as (n, i), serial("j", out.width) as j, serial("c", channels) as c:

            def read(dy: int, dx: int) -> Expr:
                stored = x[inside(source, n, rows.clamped(i, dy), columns.clamped(j, dx), c)]
                return formats.read_ordered(stored, source.format)

            values = (read(*offset) for offset in offsets)
            if isinstance(pool, MaxPool):
                value = reduce(T.max, values)
            else:
                value = reduce(add, values) / to_float(rows.count(i) * columns.count(j))
            y[inside(out, n, i, j, c)] = formats.write_ordered(value, out.format)


class LargeWindow(FixedCpuAlgorithm[MaxPool | AvgPool]):
    """Each window is walked with a block of channels in registers.

    A mean sums row by row first: the rounding error of a sum grows with the square root of its
    length.
    """

    names = ("walk",)
    computes = (MaxPool, AvgPool)

    @classmethod
    def applies(cls, workload: MaxPool | AvgPool) -> bool:
        """Pools by larger windows, such as a whole map, and means of windows beyond the map."""
        return not is_small(workload)

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        pool, machine = self.workload, self.machine
        x, y = buffers.values()
        source, out = pool.input, pool.output
        rows, columns = axes(pool)
        num_channels = out.shape[-1]
        block = min(MAX_VECTORS * machine.lanes, num_channels)
        num_blocks = ceil(num_channels / block)
        number = "uint8" if out.format == "uint8" else "float32"

        def channels(start: Expr) -> Iterator[tuple[Expr, Expr]]:
            """The channels of a block: each one's index in the block and in the map."""
            for (c,) in elements((), block, machine.lanes):
                yield c, start + c

        clear_halo(y, out)
        with parallel("task", out.batch * out.height * num_blocks) as task:
            n, i = task // (out.height * num_blocks), task // num_blocks % out.height
            c0 = tile_origin(task % num_blocks, block, num_channels)
            with serial("j", out.width) as j:
                (top, height), (left, width) = rows.span(i), columns.span(j)
                result = scratch("result", block, dtype=number)

                def read(dy: Expr | int, dx: Expr | int, c: Expr) -> Expr:
                    stored = x[inside(source, n, top + dy, left + dx, c)]
                    return formats.read_ordered(stored, source.format)

                if isinstance(pool, MaxPool):
                    for at, c in channels(c0):
                        result[at] = read(0, 0, c)
                    with serial("dy", height) as dy, serial("dx", width) as dx:
                        for at, c in channels(c0):
                            result[at] = T.max(result[at], read(dy, dx, c))
                else:
                    row = scratch("row", block)
                    for at, _ in channels(c0):
                        result[at] = 0
                    with serial("dy", height) as dy:
                        for at, _ in channels(c0):
                            row[at] = 0
                        with serial("dx", width) as dx:
                            for at, c in channels(c0):
                                row[at] += read(dy, dx, c)
                        for at, _ in channels(c0):
                            result[at] += row[at]
                for at, c in channels(c0):
                    value = result[at]
                    if isinstance(pool, AvgPool):
                        value = value / to_float(rows.count(i) * columns.count(j))
                    stored = formats.write_ordered(value, out.format)
                    y[inside(out, n, i, j, c)] = stored

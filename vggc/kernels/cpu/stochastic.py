"""The mean of windows weighted by their own values, a row of output pixels per task."""

from __future__ import annotations

from math import ceil

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Buffers, NoKnobs
from vggc.kernels.builder import parallel, serial
from vggc.kernels.cpu.algorithm import FixedCpuAlgorithm
from vggc.kernels.cpu.loops import clear_halo, elements, inside, scratch, tile_origin
from vggc.kernels.windows import axes
from vggc.kernels.workloads import LEAST_SUM, StochasticPool

MAX_VECTORS = 2
"""Vector registers of a block of channels at most; their sums need them four times."""


class StochasticWindows(FixedCpuAlgorithm[StochasticPool]):
    """Each window is walked with the sums of a block of channels, and those of their squares, in
    registers; row by row first, as a sum's error grows with its length.
    """

    names = ("squares",)
    computes = StochasticPool

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        pool, lanes = self.workload, self.machine.lanes
        x, y = buffers.values()
        source, out = pool.input, pool.output
        rows, columns = axes(pool)
        block = min(MAX_VECTORS * lanes, out.channels)
        blocks = ceil(out.channels / block)
        clear_halo(y, out)
        with parallel("task", out.batch * out.height * blocks) as task:
            n, i = task // (out.height * blocks), task // blocks % out.height
            c0 = tile_origin(task % blocks, block, out.channels)
            sums, squares = scratch("sums", block), scratch("squares", block)
            row_sums, row_squares = scratch("row_sums", block), scratch("row_squares", block)
            with serial("j", out.width) as j:
                (top, height), (left, width) = rows.span(i), columns.span(j)

                def rectified(dy: Expr, dx: Expr, c: Expr) -> Expr:
                    return T.max(x[inside(source, n, top + dy, left + dx, c0 + c)], T.float32(0))

                for (c,) in elements((), block, lanes):
                    sums[c] = 0
                    squares[c] = 0
                with serial("dy", height) as dy:
                    for (c,) in elements((), block, lanes):
                        row_sums[c] = 0
                        row_squares[c] = 0
                    with serial("dx", width) as dx:
                        for (c,) in elements((), block, lanes):
                            value = rectified(dy, dx, c)
                            row_sums[c] += value
                            row_squares[c] += value * value
                    for (c,) in elements((), block, lanes):
                        sums[c] += row_sums[c]
                        squares[c] += row_squares[c]
                for (c,) in elements((), block, lanes):
                    some = T.max(sums[c], T.float32(LEAST_SUM))
                    y[inside(out, n, i, j, c0 + c)] = squares[c] / some

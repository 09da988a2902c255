"""The mean of windows weighted by their own values."""

from __future__ import annotations

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Buffers, NoKnobs
from vggc.kernels.builder import serial
from vggc.kernels.cuda.algorithm import FixedCudaAlgorithm
from vggc.kernels.cuda.emit import load, registers, write_map
from vggc.kernels.windows import axes
from vggc.kernels.workloads import LEAST_SUM, StochasticPool


class StochasticThreads(FixedCudaAlgorithm[StochasticPool]):
    """A thread per element walks its window and sums values and squares, row by row."""

    names = ("stochastic_pool",)
    computes = StochasticPool

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        layer = self.workload
        source, output = buffers.values()
        map_, (rows, columns) = layer.input, axes(layer)

        def element(n: Expr, y: Expr, x: Expr, c: Expr) -> Expr:
            (top, height), (left, width) = rows.span(y), columns.span(x)
            sums, squares, row_sums, row_squares, value = (
                registers(name, 1)
                for name in ("sums", "squares", "row_sums", "row_squares", "rectified")
            )
            sums[0] = 0
            squares[0] = 0
            with serial("dy", height) as dy:
                row_sums[0] = 0
                row_squares[0] = 0
                with serial("dx", width) as dx:
                    read = load(source, map_, n, top + dy + map_.halo, left + dx + map_.halo, c)
                    value[0] = T.max(read, T.float32(0))
                    row_sums[0] += value[0]
                    row_squares[0] += value[0] * value[0]
                sums[0] += row_sums[0]
                squares[0] += row_squares[0]
            return squares[0] / T.max(sums[0], T.float32(LEAST_SUM))

        write_map(output, layer.output, element)

"""Soft-max along rows, a row per task."""

from __future__ import annotations

from math import ceil

from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Buffers, NoKnobs
from vggc.kernels.builder import parallel, serial
from vggc.kernels.cpu.algorithm import FixedCpuAlgorithm
from vggc.kernels.cpu.loops import scratch
from vggc.kernels.workloads import Softmax

PIECE = 32
"""Terms of a partial sum: the error of a thousand terms becomes that of some sixty."""


class SoftmaxRows(FixedCpuAlgorithm[Softmax]):
    """The exponentials of a row, shifted by its maximum, over their sum; a row per task."""

    names = ("row",)
    computes = Softmax

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        features = self.workload.features
        x, y = buffers.values()
        with parallel("n", self.workload.batch) as n:
            largest, total, part = (scratch(name, 1) for name in ("largest", "total", "part"))
            largest[0] = x[n, 0]
            with serial("i", features) as i:
                largest[0] = T.max(largest[0], x[n, i])
            total[0] = 0
            with serial("piece", ceil(features / PIECE)) as piece:
                first = piece * PIECE
                part[0] = 0
                with serial("i", T.min(PIECE, features - first)) as i:
                    y[n, first + i] = T.exp(x[n, first + i] - largest[0])
                    part[0] += y[n, first + i]
                total[0] += part[0]
            with serial("i", features) as i:
                y[n, i] = y[n, i] / total[0]

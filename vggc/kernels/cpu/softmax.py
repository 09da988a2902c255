"""Soft-max along rows, and over the channels of pixels."""

from __future__ import annotations

from functools import reduce
from math import ceil
from operator import add

from tvm.tirx.script import builder as T

from vggc.kernels.activation import exponential
from vggc.kernels.algorithm import Buffers, NoKnobs
from vggc.kernels.builder import parallel, serial
from vggc.kernels.cpu.algorithm import FixedCpuAlgorithm
from vggc.kernels.cpu.loops import clear_halo, each_lane, inside, parallel_rows, scratch
from vggc.kernels.workloads import Softmax, Softmax2d

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


class Softmax2dRows(FixedCpuAlgorithm[Softmax2d]):
    """The exponentials of a pixel's channels, shifted by their maximum, over their sum; a row of
    pixels per task.
    """

    names = ("pixel",)
    computes = Softmax2d

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        source, out = self.workload.input, self.workload.output
        channels = out.channels
        lanes = min(self.machine.lanes, channels)
        x, y = buffers.values()
        clear_halo(y, out)
        with parallel_rows(out) as (n, i), serial("j", out.width) as j:
            largest, total = (scratch(name, lanes) for name in ("largest", "total"))
            for lane, c in each_lane(lanes, lanes):
                largest[lane] = x[inside(source, n, i, j, c)]
                total[lane] = 0
            for lane, c in each_lane(channels, lanes):
                largest[lane] = T.max(largest[lane], x[inside(source, n, i, j, c)])
            shift = scratch("shift", 1)
            shift[0] = reduce(T.max, (largest[lane] for lane in range(lanes)))
            for lane, c in each_lane(channels, lanes):
                power = exponential(x[inside(source, n, i, j, c)] - shift[0])
                y[inside(out, n, i, j, c)] = power
                total[lane] += y[inside(out, n, i, j, c)]
            whole = scratch("whole", 1)
            whole[0] = reduce(add, (total[lane] for lane in range(lanes)))
            for _, c in each_lane(channels, lanes):
                at = inside(out, n, i, j, c)
                y[at] = y[at] / whole[0]

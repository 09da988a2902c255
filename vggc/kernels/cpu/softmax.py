"""Soft-max along rows, a row per task."""

from __future__ import annotations

from math import ceil

from tvm.tirx.script import builder as T

from vggc.kernels.builder import Buffer, parallel, serial
from vggc.kernels.cpu.loops import function, scratch
from vggc.kernels.workloads import Kernel, Softmax

# Terms of a partial sum: the error of a thousand terms becomes that of some sixty.
PIECE = 32


def kernel(softmax: Softmax) -> Kernel:
    shape = (softmax.batch, softmax.features)

    def body(x: Buffer, y: Buffer) -> None:
        with parallel("n", softmax.batch) as n:
            largest = scratch("largest", 1)
            total = scratch("total", 1)
            part = scratch("part", 1)
            largest[0] = x[n, 0]
            with serial("i", softmax.features) as i:
                largest[0] = T.max(largest[0], x[n, i])
            total[0] = 0
            with serial("piece", ceil(softmax.features / PIECE)) as piece:
                first = piece * PIECE
                part[0] = 0
                with serial("i", T.min(PIECE, softmax.features - first)) as i:
                    y[n, first + i] = T.exp(x[n, first + i] - largest[0])
                    part[0] += y[n, first + i]
                total[0] += part[0]
            with serial("i", softmax.features) as i:
                y[n, i] = y[n, i] / total[0]

    return Kernel("row", {}, function(body, x=shape, y=shape))

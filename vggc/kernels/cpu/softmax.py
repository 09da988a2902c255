"""Soft-max along rows, a row per task."""

from __future__ import annotations

from math import ceil

from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from vggc.kernels.cpu.loops import function
from vggc.kernels.workloads import Kernel, Softmax

# Terms of a partial sum: the error of a thousand terms becomes that of some sixty.
PIECE = 32


def kernel(softmax: Softmax) -> Kernel:
    shape = (softmax.batch, softmax.features)

    def body(x: Buffer, y: Buffer) -> None:
        with T.parallel(softmax.batch) as n:
            largest = T.alloc_buffer((1,), "float32", scope="local")
            total = T.alloc_buffer((1,), "float32", scope="local")
            part = T.alloc_buffer((1,), "float32", scope="local")
            T.buffer_store(largest, x[n, 0], [0])
            with T.serial(softmax.features) as i:
                T.buffer_store(largest, T.max(largest[0], x[n, i]), [0])
            T.buffer_store(total, T.float32(0), [0])
            with T.serial(ceil(softmax.features / PIECE)) as piece:
                first = piece * PIECE
                T.buffer_store(part, T.float32(0), [0])
                with T.serial(T.min(PIECE, softmax.features - first)) as i:
                    T.buffer_store(y, T.exp(x[n, first + i] - largest[0]), [n, first + i])
                    T.buffer_store(part, part[0] + y[n, first + i], [0])
                T.buffer_store(total, total[0] + part[0], [0])
            with T.serial(softmax.features) as i:
                T.buffer_store(y, y[n, i] / total[0], [n, i])

    return Kernel("row", {}, function(body, x=shape, y=shape))

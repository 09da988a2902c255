"""Soft-max along rows, a row per task."""

from __future__ import annotations

from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from vggc.kernels.cpu.loops import function
from vggc.kernels.workloads import Kernel, Softmax


def kernel(softmax: Softmax) -> Kernel:
    shape = (softmax.batch, softmax.features)

    def body(x: Buffer, y: Buffer) -> None:
        with T.parallel(softmax.batch) as n:
            largest = T.alloc_buffer((1,), "float32", scope="local")
            total = T.alloc_buffer((1,), "float32", scope="local")
            T.buffer_store(largest, x[n, 0], [0])
            with T.serial(softmax.features) as i:
                T.buffer_store(largest, T.max(largest[0], x[n, i]), [0])
            T.buffer_store(total, T.float32(0), [0])
            with T.serial(softmax.features) as i:
                T.buffer_store(y, T.exp(x[n, i] - largest[0]), [n, i])
                T.buffer_store(total, total[0] + y[n, i], [0])
            with T.serial(softmax.features) as i:
                T.buffer_store(y, y[n, i] / total[0], [n, i])

    return Kernel("row", {}, function(body, x=shape, y=shape))

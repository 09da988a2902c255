"""ReLU on its own, a row of pixels per task."""

from __future__ import annotations

from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from ..workloads import Kernel, Relu
from .loops import clear_halo, function


def kernel(relu: Relu) -> Kernel:
    source, out = relu.input, relu.output

    def body(x: Buffer, y: Buffer) -> None:
        clear_halo(y, out)
        with T.parallel(out.batch * out.height) as row:
            n, i = row // out.height, row % out.height
            with T.serial(out.width) as j, T.serial(out.channels) as c:
                value = x[n, i + source.halo, j + source.halo, c]
                positive = T.max(value, T.float32(0))
                T.buffer_store(y, positive, [n, i + out.halo, j + out.halo, c])

    return Kernel("loop", {}, function(body, x=source.shape, y=out.shape))

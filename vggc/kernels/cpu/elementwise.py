"""ReLU on its own, a row of pixels per task."""

from __future__ import annotations

from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from vggc.kernels.cpu.loops import clear_halo, function, inside, parallel_rows
from vggc.kernels.workloads import Kernel, Relu


def kernel(relu: Relu) -> Kernel:
    source, out = relu.input, relu.output

    def body(x: Buffer, y: Buffer) -> None:
        clear_halo(y, out)
        with parallel_rows(out) as (n, i), T.serial(out.width) as j, T.serial(out.channels) as c:
            value = x[*inside(source, n, i, j, c)]
            T.buffer_store(y, T.max(value, T.float32(0)), inside(out, n, i, j, c))

    return Kernel("loop", {}, function(body, x=source.shape, y=out.shape))

"""Max pooling, a row of output pixels per task."""

from __future__ import annotations

from functools import reduce
from itertools import product

from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from vggc.kernels.cpu.loops import clear_halo, function, inside, parallel_rows
from vggc.kernels.workloads import Kernel, MaxPool


def kernel(pool: MaxPool) -> Kernel:
    source, out = pool.input, pool.output
    stride_y, stride_x = pool.stride
    window = list(product(range(pool.kernel[0]), range(pool.kernel[1])))

    def body(x: Buffer, y: Buffer) -> None:
        clear_halo(y, out)
        with parallel_rows(out) as (n, i), T.serial(out.width) as j, T.serial(out.channels) as c:
            inputs = (
                x[*inside(source, n, i * stride_y + dy, j * stride_x + dx, c)] for dy, dx in window
            )
            T.buffer_store(y, reduce(T.max, inputs), inside(out, n, i, j, c))

    return Kernel("window", {}, function(body, x=source.shape, y=out.shape))

"""Max pooling, a row of output pixels per task."""

from __future__ import annotations

from functools import reduce
from itertools import product

from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from ..workloads import Kernel, MaxPool
from .loops import clear_halo, function


def kernel(pool: MaxPool) -> Kernel:
    source, out = pool.input, pool.output
    stride_y, stride_x = pool.stride
    window = list(product(range(pool.kernel[0]), range(pool.kernel[1])))

    def body(x: Buffer, y: Buffer) -> None:
        clear_halo(y, out)
        with T.parallel(out.batch * out.height) as row, T.serial(out.width) as j:
            n, i = row // out.height, row % out.height
            top, left = i * stride_y + source.halo, j * stride_x + source.halo
            with T.serial(out.channels) as c:
                inputs = (x[n, top + dy, left + dx, c] for dy, dx in window)
                T.buffer_store(y, reduce(T.max, inputs), [n, i + out.halo, j + out.halo, c])

    return Kernel("window", {}, function(body, x=source.shape, y=out.shape))

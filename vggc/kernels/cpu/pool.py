"""Max pooling, a row of output pixels per task."""

from __future__ import annotations

from functools import reduce
from itertools import product

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from vggc.kernels.cpu.loops import MAX_TERMS, clear_halo, function, inside, parallel_rows
from vggc.kernels.workloads import Kernel, MaxPool


def kernel(pool: MaxPool) -> Kernel:
    source, out = pool.input, pool.output
    (kh, kw), (stride_y, stride_x) = pool.kernel, pool.stride

    def body(x: Buffer, y: Buffer) -> None:
        clear_halo(y, out)
        with parallel_rows(out) as (n, i), T.serial(out.width) as j:

            def read(dy: Expr | int, dx: Expr | int, c: Expr) -> Expr:
                return x[*inside(source, n, i * stride_y + dy, j * stride_x + dx, c)]

            if kh * kw <= MAX_TERMS:
                with T.serial(out.channels) as c:
                    window = (read(dy, dx, c) for dy, dx in product(range(kh), range(kw)))
                    T.buffer_store(y, reduce(T.max, window), inside(out, n, i, j, c))
            else:
                with T.serial(out.channels) as c:
                    T.buffer_store(y, read(0, 0, c), inside(out, n, i, j, c))
                with T.serial(kh) as dy, T.serial(kw) as dx, T.serial(out.channels) as c:
                    at = inside(out, n, i, j, c)
                    T.buffer_store(y, T.max(y[*at], read(dy, dx, c)), at)

    return Kernel("window", {}, function(body, x=source.shape, y=out.shape))

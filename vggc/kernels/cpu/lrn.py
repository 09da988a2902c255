"""Local response normalisation across channels, a row of pixels per task."""

from __future__ import annotations

from functools import reduce
from operator import add

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from vggc.kernels.cpu.loops import clear_halo, function, inside, parallel_rows
from vggc.kernels.workloads import Kernel, Lrn


def inverse_power(base: Expr, exponent: float) -> Expr:
    """`base` to the power `-exponent`; square roots, which are vector code, where they do."""
    match exponent:
        case 0.5:
            return 1 / T.sqrt(base)
        case 0.75:
            return 1 / (T.sqrt(base) * T.sqrt(T.sqrt(base)))
        case 1.0:
            return 1 / base
        case _:
            return T.pow(base, T.float32(-exponent))


def kernel(lrn: Lrn) -> Kernel:
    source, out = lrn.input, lrn.output
    channels = out.channels
    before = lrn.size // 2
    padded = channels + lrn.size - 1

    def body(x: Buffer, y: Buffer) -> None:
        clear_halo(y, out)
        with parallel_rows(out) as (n, i):
            # The squares between zeros, so that no channel's window leaves the array.
            squares = T.alloc_buffer((padded,), "float32")
            with T.serial(padded) as c:
                T.buffer_store(squares, T.float32(0), [c])
            with T.serial(out.width) as j:
                with T.serial(channels) as c:
                    value = x[*inside(source, n, i, j, c)]
                    T.buffer_store(squares, value * value, [c + before])
                with T.serial(channels) as c:
                    total = reduce(add, (squares[c + d] for d in range(lrn.size)))
                    scale = T.float32(lrn.k) + T.float32(lrn.alpha) * total
                    value = x[*inside(source, n, i, j, c)] * inverse_power(scale, lrn.beta)
                    T.buffer_store(y, value, inside(out, n, i, j, c))

    return Kernel("window", {}, function(body, x=source.shape, y=out.shape))

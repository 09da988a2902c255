"""Local response normalisation across channels, a row of pixels per task."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add

from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from vggc.kernels.cpu.loops import MAX_TERMS, clear_halo, function, inside, parallel_rows
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


def window_sums(values: Buffer, size: int, channels: int) -> Callable[[Expr], Expr]:
    """The sum of `values[c : c + size]` for each of the channels `c`."""
    if size <= MAX_TERMS:
        return lambda c: reduce(add, (values[c + d] for d in range(size)))
    sums = T.alloc_buffer((channels,), "float32")
    with T.serial(channels) as c:
        T.buffer_store(sums, T.float32(0), [c])
    with T.serial(size) as d, T.serial(channels) as c:
        T.buffer_store(sums, sums[c] + values[c + d], [c])
    return lambda c: sums[c]


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
                total = window_sums(squares, lrn.size, channels)
                with T.serial(channels) as c:
                    scale = T.float32(lrn.k) + T.float32(lrn.alpha) * total(c)
                    value = x[*inside(source, n, i, j, c)] * inverse_power(scale, lrn.beta)
                    T.buffer_store(y, value, inside(out, n, i, j, c))

    return Kernel("window", {}, function(body, x=source.shape, y=out.shape))

"""Local response normalisation across channels, a row of pixels per task."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Buffers, NoKnobs
from vggc.kernels.builder import Buffer, serial
from vggc.kernels.cpu.algorithm import FixedCpuAlgorithm
from vggc.kernels.cpu.loops import MAX_TERMS, clear_halo, inside, parallel_rows, registers
from vggc.kernels.workloads import Lrn


def inverse_power(base: Expr, exponent: float) -> Expr:
    """`base` to the power `-exponent`; by square roots, which are vector code, where they do."""
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
    sums = registers("sums", channels)
    with serial("c", channels) as c:
        sums[c] = 0
    with serial("d", size) as d, serial("c", channels) as c:
        sums[c] += values[c + d]
    return lambda c: sums[c]


class LrnRows(FixedCpuAlgorithm[Lrn]):
    """The squares of a pixel's channels are summed window by window; a row of pixels per task."""

    names = ("window",)
    computes = Lrn

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        lrn = self.workload
        x, y = buffers.values()
        source, out = lrn.input, lrn.output
        channels = out.channels
        before = lrn.size // 2
        padded = channels + lrn.size - 1

        clear_halo(y, out)
        with parallel_rows(out) as (n, i):
            # The squares between zeros, so that no channel's window leaves the array.
            squares = registers("squares", padded)
            with serial("c", padded) as c:
                squares[c] = 0
            with serial("j", out.width) as j:
                with serial("c", channels) as c:
                    value = x[inside(source, n, i, j, c)]
                    squares[c + before] = value * value
                total = window_sums(squares, lrn.size, channels)
                with serial("c", channels) as c:
                    scale = T.float32(lrn.k) + T.float32(lrn.alpha) * total(c)
                    value = x[inside(source, n, i, j, c)] * inverse_power(scale, lrn.beta)
                    y[inside(out, n, i, j, c)] = value

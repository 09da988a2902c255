"""Convolution in groups of channels: a thread per output element walks its window.

Neighbouring threads compute neighbouring channels, and read neighbouring weights and either
one input or, where groups are single channels, neighbouring ones.
"""

from __future__ import annotations

from tvm.tirx import Buffer, Expr
from tvm.tirx.script import builder as T

from vggc.kernels.activation import activate
from vggc.kernels.cuda.emit import registers, write_map
from vggc.kernels.workloads import Conv


def convolve(conv: Conv, x: Buffer, weight: Buffer, bias: Buffer, output: Buffer) -> None:
    """Emit the kernel of `conv`. Each tap is summed by itself, so that no sum is long."""
    _, group_in, kh, kw = conv.weight_shape
    group_out = conv.output.channels // conv.groups
    top, left = (conv.input.halo - padding for padding in conv.padding)

    def element(n: Expr, i: Expr, j: Expr, c: Expr) -> Expr:
        first = c // group_out * group_in
        total, tap = registers(1), registers(1)
        T.buffer_store(total, T.float32(0), [0])
        with T.serial(kh) as dy, T.serial(kw) as dx:
            row, column = i * conv.stride[0] + top + dy, j * conv.stride[1] + left + dx
            T.buffer_store(tap, T.float32(0), [0])
            with T.serial(group_in) as d:
                product = x[n, row, column, first + d] * weight[dy, dx, d, c]
                T.buffer_store(tap, tap[0] + product, [0])
            T.buffer_store(total, total[0] + tap[0], [0])
        return activate(conv.act, total[0] + bias[c])

    write_map(output, conv.output, element)

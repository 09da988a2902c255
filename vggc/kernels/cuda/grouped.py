"""Convolution in groups of channels: a thread per output element walks its window.

Neighbouring threads compute neighbouring channels, and read neighbouring weights and either
one input or, where groups are single channels, neighbouring ones.
"""

from __future__ import annotations

from tvm.tirx import Expr

from vggc.kernels.activation import activate
from vggc.kernels.builder import Buffer, serial
from vggc.kernels.cuda.emit import registers, write_map
from vggc.kernels.workloads import Conv


def convolve(conv: Conv, x: Buffer, weight: Buffer, bias: Buffer, output: Buffer) -> None:
    """Emit the kernel of `conv`. Each tap is summed by itself, so that no sum is long."""
    _, group_in, kh, kw = conv.weight_shape
    group_out = conv.output.channels // conv.groups
    top, left = (conv.input.halo - padding for padding in conv.padding)

    def element(n: Expr, i: Expr, j: Expr, c: Expr) -> Expr:
        first = c // group_out * group_in
        total, tap = registers("total", 1), registers("tap", 1)
        total[0] = 0
        with serial("dy", kh) as dy, serial("dx", kw) as dx:
            row, column = i * conv.stride[0] + top + dy, j * conv.stride[1] + left + dx
            tap[0] = 0
            with serial("d", group_in) as d:
                product = x[n, row, column, first + d] * weight[dy, dx, d, c]
                tap[0] += product
            total[0] += tap[0]
        return activate(conv.act, total[0] + bias[c])

    write_map(output, conv.output, element)

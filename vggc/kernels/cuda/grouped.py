"""Convolution in groups of channels: a thread per output element walks its window.

Neighbouring threads compute neighbouring channels, and read neighbouring weights and either
one input or, where groups are single channels, neighbouring ones.
"""

from __future__ import annotations

from tvm.tirx import Expr

from vggc.kernels.activation import activate
from vggc.kernels.algorithm import Buffers, NoKnobs
from vggc.kernels.builder import serial
from vggc.kernels.cuda.algorithm import FixedCudaAlgorithm
from vggc.kernels.cuda.emit import load, registers, write_map
from vggc.kernels.cuda.packing import TapsFirst
from vggc.kernels.workloads import Conv


class GroupedThreads(FixedCudaAlgorithm[Conv]):
    """A thread per output element; each tap is summed by itself, so that no sum is long."""

    names = ("grouped", "depthwise")
    computes = Conv

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """A convolution in groups, of one channel or several."""
        return workload.groups > 1

    @property
    def name(self) -> str:
        return self.names[self.workload.groups == self.workload.input.channels]

    def packing(self, knobs: NoKnobs) -> TapsFirst:
        return TapsFirst(self.workload.weight_shape)

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        conv = self.workload
        x, weight, bias, y = buffers.values()
        _, group_in, kh, kw = conv.weight_shape
        group_out = conv.output.channels // conv.groups
        top, left = (conv.input.halo - padding for padding in conv.padding)

        def element(n: Expr, i: Expr, j: Expr, c: Expr) -> Expr:
            first = c // group_out * group_in
            total, tap = registers("total", 1), registers("tap", 1)
            total[0] = 0
            with serial("dy", kh) as dy, serial("dx", kw) as dx:
                row = i * conv.stride[0] + top + dy * conv.dilation[0]
                column = j * conv.stride[1] + left + dx * conv.dilation[1]
                tap[0] = 0
                with serial("d", group_in) as d:
                    value = load(x, conv.input, n, row, column, first + d)
                    tap[0] += value * weight[dy, dx, d, c]
                total[0] += tap[0]
            return activate(conv.act, total[0] + bias[c])

        write_map(y, conv.output, element)

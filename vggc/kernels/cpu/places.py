"""Channels brought to places, as a transposed convolution ends, a row of pixels per task."""

from __future__ import annotations

from vggc.kernels.activation import activate
from vggc.kernels.algorithm import Buffers, NoKnobs
from vggc.kernels.builder import serial
from vggc.kernels.cpu.algorithm import FixedCpuAlgorithm
from vggc.kernels.cpu.loops import clear_halo, inside, parallel_rows
from vggc.kernels.workloads import DepthToSpace


class PlacesRows(FixedCpuAlgorithm[DepthToSpace]):
    """The channels of a pixel are copied from those of the block that it lies in, then an
    activation; a row of pixels per task.
    """

    names = ("copy",)
    computes = DepthToSpace

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        x, y = buffers.values()
        work = self.workload
        source, out = work.input, work.output
        (down, across), (top, left) = work.block, work.offset
        size = out.channels // work.groups
        clear_halo(y, out)
        with parallel_rows(out) as (n, i), serial("j", out.width) as j:
            row, column = (i + top) // down, (j + left) // across
            place = (i + top) % down * across + (j + left) % across
            with serial("group", work.groups) as group, serial("c", size) as c:
                stored = (group * down * across + place) * size + c
                value = x[inside(source, n, row, column, stored)]
                y[inside(out, n, i, j, group * size + c)] = activate(work.act, value)

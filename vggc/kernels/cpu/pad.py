"""A map with rows and columns around it, a row of pixels per task."""

from __future__ import annotations

from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Buffers, NoKnobs
from vggc.kernels.borders import is_inside, source_pixel
from vggc.kernels.builder import serial
from vggc.kernels.cpu.algorithm import FixedCpuAlgorithm
from vggc.kernels.cpu.loops import clear_halo, inside, parallel_rows
from vggc.kernels.workloads import Pad


class PadRows(FixedCpuAlgorithm[Pad]):
    """Each pixel copied from where the border says it lies, a row of pixels per task."""

    names = ("pad",)
    computes = Pad

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        pad = self.workload
        out = pad.output
        x, y = buffers.values()
        clear_halo(y, out)
        with parallel_rows(out) as (n, i), serial("j", out.width) as j:
            row, column = source_pixel(pad, i, j)
            with serial("c", out.channels) as c:
                value = x[inside(pad.input, n, row, column, c)]
                if pad.border == "zeros":
                    value = T.Select(is_inside(pad, i, j), value, T.float32(0))
                y[inside(out, n, i, j, c)] = value

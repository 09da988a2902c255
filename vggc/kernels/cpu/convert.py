"""Between float32 and the formats of fewer bits, a row of pixels per task."""

from __future__ import annotations

from vggc.kernels.algorithm import Buffers, NoKnobs
from vggc.kernels.builder import serial
from vggc.kernels.cpu.algorithm import FixedCpuAlgorithm
from vggc.kernels.cpu.formats import clear_padding, read, rounded
from vggc.kernels.cpu.loops import clear_halo, inside, parallel_rows
from vggc.kernels.workloads import Convert


class ConvertRows(FixedCpuAlgorithm[Convert]):
    """Each value is read and rounded to the other format, a row of pixels per task."""

    names = ("convert",)
    computes = Convert

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        source, out = self.workload.input, self.workload.output
        x, *scale, y = buffers.values()
        clear_halo(y, out)
        with parallel_rows(out) as (n, i), serial("j", out.width) as j:
            with serial("c", out.channels) as c:
                value = read(x[inside(source, n, i, j, c)], source.format, source.zero)
                if out.format == "uint8":
                    value = value / scale[0][0]
                elif source.format == "uint8":
                    value = value * scale[0][0]
                y[inside(out, n, i, j, c)] = rounded(value, out.format, out.zero)
            clear_padding(y, out, n, i, j)

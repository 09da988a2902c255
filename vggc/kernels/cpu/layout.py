"""Between the callers' NCHW and the maps' NHWC, a row or a plane per task."""

from __future__ import annotations

from vggc.kernels.algorithm import Buffers, NoKnobs
from vggc.kernels.builder import parallel, serial
from vggc.kernels.cpu.algorithm import FixedCpuAlgorithm
from vggc.kernels.cpu.loops import clear_halo, each_element, inside
from vggc.kernels.workloads import ToNchw, ToNhwc


class ToNhwcRows(FixedCpuAlgorithm[ToNhwc]):
    """Planes to pixels, a row per task."""

    names = ("transpose",)
    computes = ToNhwc

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        out = self.workload.output
        x, y = buffers.values()
        clear_halo(y, out)
        with each_element(out) as (n, i, j, c):
            y[inside(out, n, i, j, c)] = x[n, c, i, j]


class ToNchwPlanes(FixedCpuAlgorithm[ToNchw]):
    """Pixels to planes, a plane per task."""

    names = ("transpose",)
    computes = ToNchw

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        source = self.workload.input
        x, y = buffers.values()
        with parallel("plane", source.batch * source.channels) as plane:
            n, c = plane // source.channels, plane % source.channels
            with serial("i", source.height) as i, serial("j", source.width) as j:
                y[n, c, i, j] = x[inside(source, n, i, j, c)]

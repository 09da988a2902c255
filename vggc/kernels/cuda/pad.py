"""A map with rows and columns around it, a thread per element."""

from __future__ import annotations

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Buffers, NoKnobs
from vggc.kernels.borders import is_inside, source_pixel
from vggc.kernels.cuda.algorithm import FixedCudaAlgorithm
from vggc.kernels.cuda.emit import reader, write_map
from vggc.kernels.workloads import Pad


class PadThreads(FixedCudaAlgorithm[Pad]):
    """A thread per element copies it from where the border says it lies."""

    names = ("pad",)
    computes = Pad

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        pad = self.workload
        x, y = buffers.values()
        read = reader(x, pad.input)

        def element(n: Expr, i: Expr, j: Expr, c: Expr) -> Expr:
            value = read(n, *source_pixel(pad, i, j), c)
            if pad.border != "zeros":
                return value
            return T.Select(is_inside(pad, i, j), value, T.float32(0))

        write_map(y, pad.output, element)

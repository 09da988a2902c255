"""Channels brought to places, as a transposed convolution ends."""

from __future__ import annotations

from tvm.tirx import Expr

from vggc.kernels.activation import activate
from vggc.kernels.algorithm import Buffers, NoKnobs
from vggc.kernels.cuda.algorithm import FixedCudaAlgorithm
from vggc.kernels.cuda.emit import reader, write_map
from vggc.kernels.workloads import DepthToSpace


class PlacesThreads(FixedCudaAlgorithm[DepthToSpace]):
    """A thread per element copies it from the channels of its block and applies the activation."""

    names = ("depth_to_space",)
    computes = DepthToSpace

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        layer = self.workload
        source, output = buffers.values()
        read = reader(source, layer.input)
        (down, across), (top, left) = layer.block, layer.offset
        size = layer.output.channels // layer.groups

        def element(n: Expr, y: Expr, x: Expr, c: Expr) -> Expr:
            place = (y + top) % down * across + (x + left) % across
            stored = (c // size * (down * across) + place) * size + c % size
            return activate(layer.act, read(n, (y + top) // down, (x + left) // across, stored))

        write_map(output, layer.output, element)

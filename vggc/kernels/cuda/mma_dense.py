"""Dense layers in float32 on tensor cores; in fewer bits a plan has them as convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vggc.kernels.algorithm import Buffers, Cost
from vggc.kernels.builder import Argument
from vggc.kernels.cuda.algorithm import CudaAlgorithm
from vggc.kernels.cuda.gemm import over_pixels
from vggc.kernels.cuda.mma import MmaKnobs, MmaWindows
from vggc.kernels.cuda.operands import on_tensor_cores
from vggc.kernels.cuda.packing import ChannelOrder, MmaDensePacking
from vggc.kernels.workloads import Dense


@dataclass(frozen=True)
class MmaDense(CudaAlgorithm[Dense, MmaKnobs]):
    """Tensor cores; the layer as a 1×1 convolution over a map of one pixel an image."""

    names = ("mma_dense",)
    computes = Dense

    @classmethod
    def applies(cls, workload: Dense) -> bool:
        """Dense layers whose inputs fill whole segments of 16 bytes."""
        return on_tensor_cores(over_pixels(workload))

    @property
    def windows(self) -> MmaWindows:
        """The convolution that computes the layer."""
        return MmaWindows(over_pixels(self.workload), self.card)

    @property
    def error(self) -> float:
        return self.windows.error

    def knobs(self) -> Iterator[MmaKnobs]:
        return self.windows.knobs()

    def seconds(self, knobs: MmaKnobs) -> float:
        return self.windows.seconds(knobs)

    def cost(self, knobs: MmaKnobs) -> Cost:
        return self.windows.cost(knobs)

    def macs(self, knobs: MmaKnobs) -> int:
        return self.windows.macs(knobs)

    def packing(self, knobs: MmaKnobs) -> MmaDensePacking:
        panels = self.windows.packing(knobs)
        order = ChannelOrder.of(self.workload)
        return MmaDensePacking(self.workload.weight_shape, order, panels.cols, panels.depth)

    def scratch(self, knobs: MmaKnobs) -> tuple[Argument, ...]:
        return self.windows.scratch(knobs)

    def emit(self, knobs: MmaKnobs, buffers: Buffers) -> None:
        self.windows.emit(knobs, buffers)

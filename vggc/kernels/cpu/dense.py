"""A dense layer is a convolution whose kernel covers the whole map.

The packed weight then lies in the order in which the map is read, H, W, C, and the
register tile is a GEMV for one image and a GEMM tile for several.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from vggc.kernels.cpu import conv
from vggc.kernels.cpu.conv import BlockedWeight, ConvKnobs
from vggc.kernels.cpu.loops import function
from vggc.kernels.cpu.machine import Machine
from vggc.kernels.cpu.template import Template
from vggc.kernels.workloads import Conv, Dense, Kernel, Map


def as_conv(dense: Dense) -> Conv:
    """The convolution that computes `dense`; its output map is 1×1."""
    source = dense.source or Map(dense.batch, 1, 1, dense.in_features)
    return Conv(
        input=source,
        output=Map(dense.batch, 1, 1, dense.out_features),
        kernel=(source.height, source.width),
        stride=(1, 1),
        padding=(0, 0),
        act=dense.act,
    )


def tiles(dense: Dense, machine: Machine) -> Iterator[ConvKnobs]:
    return conv.tiles(as_conv(dense), machine)


def template(dense: Dense, machine: Machine) -> Template:
    """A GEMV for one image, a GEMM for several."""
    return Template(
        algorithm(dense),
        tiles(dense, machine),
        partial(conv.cost, as_conv(dense), machine),
        partial(kernel, dense, machine),
    )


def algorithm(dense: Dense) -> str:
    return "gemv" if dense.batch == 1 else "gemm"


@dataclass(frozen=True)
class BlockedColumns:
    """`(O, C·H·W)` packed as the weight `(O, C, H, W)` of the equivalent convolution."""

    shape: tuple[int, ...]
    kernel: BlockedWeight

    @property
    def packed_shape(self) -> tuple[int, ...]:
        return self.kernel.packed_shape

    def pack(self, weight: np.ndarray) -> np.ndarray:
        return self.kernel.pack(weight.reshape(self.kernel.shape))

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        return self.kernel.unpack(packed).reshape(self.shape)


def kernel(dense: Dense, machine: Machine, knobs: ConvKnobs) -> Kernel:
    """Code for `dense` with these knobs, one of `tiles`."""
    convolution = as_conv(dense)
    blocked = BlockedWeight(convolution.weight_shape, knobs.vectors * machine.lanes)
    func = function(
        partial(conv.emit, convolution, machine, knobs),
        x=dense.source.shape if dense.source else (dense.batch, dense.in_features),
        weight=blocked.packed_shape,
        bias=(dense.out_features,),
        y=(dense.batch, dense.out_features),
    )
    packing = BlockedColumns((dense.out_features, dense.in_features), blocked)
    return Kernel(algorithm(dense), asdict(knobs), func, packing)

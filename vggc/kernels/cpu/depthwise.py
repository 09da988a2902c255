"""Convolution whose groups are single channels: a tile of pixels by channels, tap by tap.

Each output channel reads one input channel, so that input, weight and output are vectors
of neighbouring channels and nothing is broadcast. A row of taps is written out: the pixels
of a tile share what their windows have in common from registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
from tvm.ir import Expr

from vggc.kernels.activation import activate
from vggc.kernels.algorithm import Buffers, Cost
from vggc.kernels.builder import parallel, serial
from vggc.kernels.cpu.algorithm import CpuAlgorithm
from vggc.kernels.cpu.conv import MULTIPLY_ADDS_IN_FLIGHT, is_depthwise
from vggc.kernels.cpu.loops import (
    MAX_TERMS,
    clear_halo,
    elements,
    finished,
    inside,
    scratch,
    tile_origin,
)
from vggc.kernels.cpu.machine import Machine
from vggc.kernels.workloads import Conv

MAX_VECTORS = 4
"""Vectors of channels of a tile at most; more would leave too few pixels to share their windows."""


@dataclass(frozen=True)
class DepthwiseKnobs:
    """The register tile: `columns` output pixels by `vectors` of channels."""

    columns: int
    vectors: int


@dataclass(frozen=True)
class DepthwiseTapsFirst:
    """Packs a depthwise weight `(K, 1, kh, kw)` as `(kh, kw, K)`."""

    shape: tuple[int, ...]

    packed_type = "float32"

    @property
    def packed_shape(self) -> tuple[int, ...]:
        k, _, kh, kw = self.shape
        return (kh, kw, k)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0))

    def pieces(self, weight: np.ndarray) -> Iterator[np.ndarray]:
        yield self.pack(weight)

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(packed.transpose(2, 0, 1)[:, None])


def tiles(conv: Conv, machine: Machine) -> Iterator[DepthwiseKnobs]:
    """Register tiles that fit the map and have sums in half of the registers.

    The other half is for the inputs that the taps of a row share, which LLVM 22 loads ahead, and
    the weights. With sums in more of them it keeps some values on the stack, and a kernel took up
    to 1.8 times the time (Zen 5).
    """
    out = conv.output
    for vectors in range(1, min(ceil(out.channels / machine.lanes), MAX_VECTORS) + 1):
        columns = machine.registers // 2 // vectors
        for count in range(1, min(out.width, columns) + 1):
            yield DepthwiseKnobs(count, vectors)


def cost(conv: Conv, machine: Machine, knobs: DepthwiseKnobs) -> Cost:
    """The order of preference of tiles, least first.

    The half cycles that all cores spend until the last is done, each core one that starts two
    multiply-adds and two loads a cycle; then the vectors that all tiles load.
    """
    out, (rows, taps) = conv.output, conv.kernel
    num_tasks = out.batch * out.height * ceil(out.width / knobs.columns)
    rounds = ceil(num_tasks / machine.cores)
    blocks = ceil(out.channels / (machine.lanes * knobs.vectors))
    read = min((knobs.columns - 1) * conv.stride[1] + taps, knobs.columns * taps)
    loads = (read + taps) * knobs.vectors
    multiply_adds = knobs.columns * knobs.vectors * taps
    step = max(multiply_adds, loads, MULTIPLY_ADDS_IN_FLIGHT * taps)
    return machine.cores * rounds * blocks * rows * step, num_tasks * blocks * rows * loads


def macs(conv: Conv, machine: Machine, knobs: DepthwiseKnobs) -> int:
    """The multiply-adds of all tiles, overlapping as they are."""
    out = conv.output
    block = min(knobs.vectors * machine.lanes, out.channels)
    columns = ceil(out.width / knobs.columns) * knobs.columns
    channels = ceil(out.channels / block) * block
    return out.batch * out.height * columns * channels * prod(conv.kernel)


@dataclass(frozen=True)
class Depthwise(CpuAlgorithm[Conv, DepthwiseKnobs]):
    """A tile of pixels by channels, tap by tap; nothing is broadcast."""

    names = ("depthwise",)
    computes = Conv

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """A convolution whose groups are single channels."""
        return is_depthwise(workload)

    def knobs(self) -> Iterator[DepthwiseKnobs]:
        return tiles(self.workload, self.machine)

    def cost(self, knobs: DepthwiseKnobs) -> Cost:
        return cost(self.workload, self.machine, knobs)

    def packing(self, knobs: DepthwiseKnobs) -> DepthwiseTapsFirst:
        return DepthwiseTapsFirst(self.workload.weight_shape)

    def macs(self, knobs: DepthwiseKnobs) -> int:
        return macs(self.workload, self.machine, knobs)

    def emit(self, knobs: DepthwiseKnobs, buffers: Buffers) -> None:
        conv, machine = self.workload, self.machine
        x, weight, bias, y = buffers.values()
        source, out = conv.input, conv.output
        (kh, kw), (stride_y, stride_x), (down, right) = conv.kernel, conv.stride, conv.dilation
        top, left = (source.halo - padding for padding in conv.padding)
        multiplier = out.channels // source.channels
        block = min(knobs.vectors * machine.lanes, out.channels)
        num_columns = ceil(out.width / knobs.columns)
        pixels = (knobs.columns,)

        @contextmanager
        def taps_of_row() -> Iterator[Iterator[Expr | int]]:
            if kw <= MAX_TERMS:
                yield iter(range(kw))
            else:
                with serial("dx", kw) as dx:
                    yield iter([dx])

        clear_halo(y, out)
        with parallel("task", out.batch * out.height * num_columns) as task:
            n, i = task // (out.height * num_columns), task // num_columns % out.height
            x0 = tile_origin(task % num_columns, knobs.columns, out.width)
            with serial("index", ceil(out.channels / block)) as index:
                c0 = tile_origin(index, block, out.channels)
                sums = scratch("sums", *pixels, block)
                for at in elements(pixels, block, machine.lanes):
                    sums[at] = 0
                with serial("dy", kh) as dy, taps_of_row() as taps:
                    for dx in taps:
                        for j, c in elements(pixels, block, machine.lanes):
                            row = i * stride_y + top + dy * down
                            column = (x0 + j) * stride_x + left + dx * right
                            factor = x[n, row, column, (c0 + c) // multiplier]
                            product = factor * weight[dy, dx, c0 + c]
                            sums[j, c] += product
                for value, (j, c) in finished(
                    conv.act, lambda *at: sums[at], pixels, block, machine.lanes
                ):
                    result = activate(conv.act, value + bias[c0 + c])
                    y[inside(out, n, i, x0 + j, c0 + c)] = result

"""A dense layer over one row: a matrix-vector product, bound by reading the weight once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm.tirx.script import builder as T

from vggc.kernels.activation import activate
from vggc.kernels.algorithm import Buffers
from vggc.kernels.builder import serial, unrolled, when
from vggc.kernels.cuda.algorithm import CudaAlgorithm
from vggc.kernels.cuda.emit import fetch, flat, launch, registers, shared, tree_reduce
from vggc.kernels.cuda.packing import ChannelOrder, RowPacking
from vggc.kernels.workloads import Dense

WARP = 32
WARPS = 4
ROWS = 2
"""Rows of the weight that a warp reads at once."""
VECTORS = 4
"""Vectors of each row that are in flight."""


@dataclass(frozen=True)
class GemvKnobs:
    """The warps of a block, the rows that a warp reads at once, the vectors of each that are in
    flight.
    """

    warps: int = WARPS
    rows: int = ROWS
    vectors: int = VECTORS


@dataclass(frozen=True)
class Gemv(CudaAlgorithm[Dense, GemvKnobs]):
    """A warp reads two rows of the weight at once."""

    names = ("gemv",)
    computes = Dense

    @classmethod
    def applies(cls, workload: Dense) -> bool:
        """Dense layers of one image."""
        return workload.batch == 1

    def knobs(self) -> tuple[GemvKnobs]:
        return (GemvKnobs(),)

    def packing(self, knobs: GemvKnobs) -> RowPacking:
        return RowPacking(self.workload.weight_shape, ChannelOrder.of(self.workload))

    def emit(self, knobs: GemvKnobs, buffers: Buffers) -> None:
        dense = self.workload
        length = dense.in_features
        lanes = 4 if length % 4 == 0 else 1
        chunk = WARP * lanes * VECTORS
        rows_per_block = WARPS * ROWS
        x, y, rows = (flat(buffers[name]) for name in ("x", "y", "weight"))
        bias = buffers["bias"]

        with launch((math.ceil(dense.out_features / rows_per_block),), WARP * WARPS) as (
            block,
            thread,
        ):
            warp, lane = thread // WARP, thread % WARP
            first_row = block * rows_per_block + warp * ROWS
            inputs = registers("inputs", VECTORS * lanes)
            weights = registers("weights", ROWS * VECTORS * lanes)
            sums = registers("sums", ROWS)
            with unrolled("r", ROWS) as (r,):
                sums[r] = 0

            with serial("step", math.ceil(length / chunk)) as step:
                for vector in range(VECTORS):
                    col = step * chunk + (vector * WARP + lane) * lanes
                    fetch(inputs, vector * lanes, x, col, lanes, col < length)
                    for r in range(ROWS):
                        row = T.min(first_row + r, dense.out_features - 1)
                        at = (r * VECTORS + vector) * lanes
                        fetch(weights, at, rows, row * length + col, lanes, col < length)
                with unrolled("r", ROWS) as (r,), unrolled("i", VECTORS * lanes) as (i,):
                    product = weights[r * VECTORS * lanes + i] * inputs[i]
                    sums[r] += product

            parts = shared("parts", rows_per_block, WARP)
            for r in range(ROWS):
                parts[warp * ROWS + r, lane] = sums[r]
            for r in range(ROWS):
                tree_reduce(parts, warp * ROWS + r, lane, lambda a, b: a + b)
            for r in range(ROWS):
                row = first_row + r
                with when(T.And(lane == 0, row < dense.out_features)):
                    total = parts[warp * ROWS + r, 0] + bias[row]
                    y[row] = activate(dense.act, total)

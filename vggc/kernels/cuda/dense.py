"""A dense layer over one row: a matrix-vector product, bound by reading the weight once."""

from __future__ import annotations

import math

from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from vggc.kernels.activation import activate
from vggc.kernels.cuda.emit import fetch, flat, launch, registers, shared, tree_reduce
from vggc.kernels.workloads import Dense

WARP = 32
WARPS = 4
# Rows a warp reads at once, and vectors of each that are in flight.
ROWS = 2
VECTORS = 4
KNOBS = {"warps": WARPS, "rows": ROWS, "vectors": VECTORS}


def multiply_vector(dense: Dense, x: Buffer, weight: Buffer, bias: Buffer, output: Buffer) -> None:
    """Emit the kernel of `dense` (batch 1): a warp reads `ROWS` rows of the weight."""
    length = dense.in_features
    lanes = 4 if length % 4 == 0 else 1
    chunk = WARP * lanes * VECTORS
    rows_per_block = WARPS * ROWS
    x, y, rows = flat(x), flat(output), flat(weight)

    with launch((math.ceil(dense.out_features / rows_per_block),), WARP * WARPS) as (block, thread):
        warp, lane = thread // WARP, thread % WARP
        first_row = block * rows_per_block + warp * ROWS
        inputs = registers(VECTORS * lanes)
        weights = registers(ROWS * VECTORS * lanes)
        sums = registers(ROWS)
        with T.unroll(ROWS) as r:
            T.buffer_store(sums, T.float32(0), [r])

        with T.serial(math.ceil(length / chunk)) as step:
            for vector in range(VECTORS):
                col = step * chunk + (vector * WARP + lane) * lanes
                fetch(inputs, vector * lanes, x, col, lanes, col < length)
                for r in range(ROWS):
                    row = T.min(first_row + r, dense.out_features - 1)
                    at = (r * VECTORS + vector) * lanes
                    fetch(weights, at, rows, row * length + col, lanes, col < length)
            with T.unroll(ROWS) as r, T.unroll(VECTORS * lanes) as i:
                product = weights[r * VECTORS * lanes + i] * inputs[i]
                T.buffer_store(sums, sums[r] + product, [r])

        parts = shared(rows_per_block, WARP)
        for r in range(ROWS):
            T.buffer_store(parts, sums[r], [warp * ROWS + r, lane])
        for r in range(ROWS):
            tree_reduce(parts, warp * ROWS + r, lane, lambda a, b: a + b)
        for r in range(ROWS):
            row = first_row + r
            with T.If(T.And(lane == 0, row < dense.out_features)), T.Then():
                total = parts[warp * ROWS + r, 0] + bias[row]
                T.buffer_store(y, activate(dense.act, total), [row])

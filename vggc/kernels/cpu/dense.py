"""Dense layers: a GEMV for one image, a GEMM of few rows for several.

Both are bound by reading the weights, which are as many as the multiplications of one image. So
the reduction is cut into parts, some of which are read side by side, as streams, each with sums of
its own in registers: the memory delivers several streams faster than one. What a stream needs soon
is asked for in time. The parts are the same for any number of streams, and are added up in the same
order, so that an image's result does not depend on it.

The weight is packed as that of the convolution that covers the layer's map, its columns in the
order in which a map lies in memory, H, W, C: a flattened map is read where it is, and a net that is
applied densely to larger images shares the weight. Long sums are summed in pieces, as those of
`conv`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.activation import activate
from vggc.kernels.algorithm import Buffers, Cost
from vggc.kernels.builder import Buffer, parallel, serial
from vggc.kernels.cpu.algorithm import CpuAlgorithm
from vggc.kernels.cpu.conv import MULTIPLY_ADDS_IN_FLIGHT, PIECE, BlockedWeight
from vggc.kernels.cpu.loops import (
    elements,
    finished,
    in_block,
    prefetch,
    registers,
    tile_origin,
)
from vggc.kernels.cpu.machine import FLOAT, Machine
from vggc.kernels.workloads import Dense

MAX_ROWS = 16
MAX_VECTORS = 8
PARTS = 4
"""Parts of a reduction; a divisor of it is how many are read side by side."""
STREAMS = (1, 2, 4)
AHEAD_BYTES = 4096
"""How far ahead of its use a cache line of the weights is asked for."""


@dataclass(frozen=True)
class DenseKnobs:
    """The register tile: `rows` images by `vectors` of outputs, once for each of the `streams`, the
    parts of the reduction that are read side by side.
    """

    rows: int
    vectors: int
    streams: int


def tiles(dense: Dense, machine: Machine) -> Iterator[DenseKnobs]:
    """Tiles that leave registers for the operands."""
    for vectors in range(1, min(ceil(dense.out_features / machine.lanes), MAX_VECTORS) + 1):
        for streams in STREAMS:
            most = (machine.registers - 2) // (vectors * streams)
            for rows in range(1, min(dense.batch, most, MAX_ROWS) + 1):
                if parts(dense) % streams == 0:
                    yield DenseKnobs(rows, vectors, streams)


def parts(dense: Dense) -> int:
    """The parts of equal length that a layer's reduction is cut into; one where it is short."""
    return PARTS if dense.in_features >= PARTS else 1


def cost(dense: Dense, machine: Machine, knobs: DenseKnobs) -> Cost:
    """The half cycles that all cores spend until the last is done, then what decides between
    equals.

    A step starts a multiply-add or a load a half cycle, unless its weights take longer to come.
    Then the fewest rounds; then as many streams as possible.
    """
    panels = ceil(dense.out_features / (knobs.vectors * machine.lanes))
    tasks = panels * ceil(dense.batch / knobs.rows)
    sums = knobs.rows * knobs.vectors * knobs.streams
    loads = (knobs.rows + knobs.vectors) * knobs.streams
    computing = max(sums, loads, MULTIPLY_ADDS_IN_FLIGHT) / knobs.streams
    line = FLOAT * machine.lanes
    size = FLOAT * dense.in_features * dense.out_features
    fetching = knobs.vectors * line / machine.delivery(size)
    step = max(computing, fetching)
    rounds = ceil(tasks / machine.cores)
    return (machine.cores * rounds * dense.in_features * step, computing, -knobs.streams)


def name_of(dense: Dense) -> str:
    """`gemv` for a dense layer of one image, `gemm` for one of several."""
    return "gemv" if dense.batch == 1 else "gemm"


@dataclass(frozen=True)
class DenseStreams(CpuAlgorithm[Dense, DenseKnobs]):
    """Several parts of the weights are read side by side, each with sums in registers."""

    names = ("gemv", "gemm")
    computes = Dense

    @classmethod
    def applies(cls, workload: Dense) -> bool:
        """Dense layers, of one image and of several."""
        return True

    @property
    def name(self) -> str:
        return name_of(self.workload)

    def knobs(self) -> Iterator[DenseKnobs]:
        return tiles(self.workload, self.machine)

    def cost(self, knobs: DenseKnobs) -> Cost:
        return cost(self.workload, self.machine, knobs)

    def packing(self, knobs: DenseKnobs) -> BlockedWeight:
        dense, source = self.workload, self.workload.source
        read = (
            (source.channels, source.height, source.width) if source else (dense.in_features, 1, 1)
        )
        return BlockedWeight((dense.out_features, *read), knobs.vectors * self.machine.lanes)

    def macs(self, knobs: DenseKnobs) -> int:
        rows = ceil(self.workload.batch / knobs.rows) * knobs.rows
        return rows * prod(self.packing(knobs).packed_shape)

    def emit(self, knobs: DenseKnobs, buffers: Buffers) -> None:
        dense, machine = self.workload, self.machine
        x, weight, bias, y = buffers.values()
        rows, streams, lanes = knobs.rows, knobs.streams, machine.lanes
        panel = knobs.vectors * lanes
        panels = ceil(dense.out_features / panel)
        images = x.view("images", dense.batch, dense.in_features)
        columns = weight.view("columns", panels, dense.in_features, panel)
        lines = weight.view("lines", panels * dense.in_features * knobs.vectors, lanes)
        length = dense.in_features // parts(dense)
        num_pieces = ceil(length / PIECE)
        piece = ceil(length / num_pieces)
        num_groups = ceil(dense.batch / rows)

        with parallel("task", panels * num_groups) as task:
            k, n0 = task // num_groups, tile_origin(task % num_groups, rows, dense.batch)
            totals = [registers("totals", panel) for _ in range(rows)]
            parts_of_total, sums = (
                [[registers(name, panel) for _ in range(rows)] for _ in range(streams)]
                for name in ("part", "sums")
            )

            def fill_with_zeros(buffers: list[Buffer]) -> None:
                for buffer in buffers:
                    for at in elements((), panel, lanes):
                        buffer[at] = 0

            def accumulate(target: list[Buffer], at: Expr) -> None:
                for row, buffer in enumerate(target):
                    for (c,) in elements((), panel, lanes):
                        product = images[n0 + row, at] * columns[k, at, c]
                        buffer[c] += product

            def add_up(target: list[Buffer], source: list[Buffer]) -> None:
                for total, part in zip(target, source, strict=True):
                    for (c,) in elements((), panel, lanes):
                        total[c] += part[c]

            fill_with_zeros(totals)
            with serial("turn", parts(dense) // streams) as turn:
                for part in parts_of_total:
                    fill_with_zeros(part)
                with serial("index", num_pieces) as index:
                    start = index * piece
                    for stream in sums:
                        fill_with_zeros(stream)
                    cut = length % piece != 0
                    with serial("t", T.min(piece, length - start) if cut else piece) as t:
                        for number, stream in enumerate(sums):
                            at = (turn * streams + number) * length + start + t
                            first = (k * dense.in_features + at) * knobs.vectors
                            for vector in range(knobs.vectors):
                                ahead = first + AHEAD_BYTES // (FLOAT * lanes) + vector
                                prefetch(lines.address(ahead, 0))
                            accumulate(stream, at)
                    for part, stream in zip(parts_of_total, sums, strict=True):
                        add_up(part, stream)
                for part in parts_of_total:
                    add_up(totals, part)
            for rest in range(parts(dense) * length, dense.in_features):
                accumulate(totals, rest)

            for count in in_block(k, panel, dense.out_features):
                for row, total in enumerate(totals):
                    for value, (c,) in finished(dense.act, total.__getitem__, (), count, lanes):
                        result = activate(dense.act, value + bias[k * panel + c])
                        y[n0 + row, k * panel + c] = result

"""Dense layers that read fewer bytes: weights of 24 bits, and none that are multiplied by zero.

A dense layer of few images takes as long as it takes to read its weights. Many need not be read:
behind a ReLU half of the inputs are zero, and so are their products. So the kernel first lists
the inputs that are not, and then reads the columns of those alone, each a long run of memory:
what a processor fetches ahead of itself is then seldom in vain.

The rest is read in three bytes a weight, in *block floating point*: the weights of an output are
cut into pieces of at most `PIECE`, whose products are summed before they meet the others', and
are multiples of one scale a piece, by numbers of 24 bits with their sign. None is off by more than
2⁻²⁴ of the largest of its piece, which is what float32 rounds that one by. Four numbers lie in
three words of 32 bits: the upper three bytes of each are one, the lowest bytes together the fourth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial, reduce
from math import ceil

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from vggc.kernels.activation import activate
from vggc.kernels.cpu.conv import PIECE
from vggc.kernels.cpu.loops import function, in_block, prefetch, tile_origin, vectors, view
from vggc.kernels.cpu.machine import FLOAT, Machine
from vggc.kernels.cpu.template import Cost, Template
from vggc.kernels.workloads import Dense, Kernel

ERROR = 1.1e-7
"""The relative L2 error of normal weights, whose largest of a piece is 3.1 of their deviations.
Source: rounding to multiples of `s` is off by `s/√12` in the mean square.
"""

LARGEST = 2**23 - 1
QUAD = 4
"""Vectors of numbers that lie in three vectors of words."""
SHIFT = 8
"""Numbers are read in the upper bits of a word."""

MAX_ROWS = 4
MAX_SUMS = 64
"""Vectors of sums, which the cache of one core holds beside what comes from memory."""
COLUMNS_AT_ONCE = 4
"""Columns that are added while a sum is in a register."""
AHEAD_BYTES = 12 << 10
LINE = 64


@dataclass(frozen=True)
class BlockFloatKnobs:
    """The sums of a task: `rows` images by `vectors` of outputs."""

    rows: int
    vectors: int


def applies(dense: Dense) -> bool:
    """Where the weights can be counted in an index of 32 bits."""
    return dense.out_features * dense.in_features < 2**31


def tiles(dense: Dense, machine: Machine) -> Iterator[BlockFloatKnobs]:
    """Powers of two of vectors, no more than hold the outputs."""
    vectors = QUAD
    while vectors <= MAX_SUMS:
        for rows in range(1, min(dense.batch, MAX_ROWS, MAX_SUMS // vectors) + 1):
            yield BlockFloatKnobs(rows, vectors)
        if vectors * machine.lanes >= dense.out_features:
            break
        vectors *= 2


def template(dense: Dense, machine: Machine) -> Template:
    """A GEMV for one image, a GEMM of few rows for several."""
    return Template(
        algorithm(dense),
        tiles(dense, machine),
        partial(cost, dense, machine),
        partial(kernel, dense, machine),
        ERROR,
    )


def algorithm(dense: Dense) -> str:
    return "gemv-bfp24" if dense.batch == 1 else "gemm-bfp24"


def cost(dense: Dense, machine: Machine, knobs: BlockFloatKnobs) -> Cost:
    """The half cycles that all cores spend until the last is done, were no input zero.

    A step takes a vector of words of `COLUMNS_AT_ONCE` columns apart, some 24 instructions of
    which two start a half cycle, and multiplies it; or it waits for it. Then the longest columns.
    """
    panels = ceil(dense.out_features / (knobs.vectors * machine.lanes))
    tasks = panels * ceil(dense.batch / knobs.rows)
    computing = 12 + 2 * QUAD * knobs.rows
    size = 3 * dense.in_features * dense.out_features
    fetching = 3 * machine.lanes * FLOAT / machine.delivery(size)
    step = max(computing, fetching)
    steps = dense.in_features * knobs.vectors // QUAD
    rounds = ceil(tasks / machine.cores)
    return (machine.cores * rounds * steps * step, computing, -knobs.vectors)


@dataclass(frozen=True)
class BlockFloatColumns:
    """`(O, C·H·W)` as `(O/panel, pieces, words)` of int32, filled up with zeros.

    The words of a piece are a panel of scales, in float32, and the piece's columns, in the order
    H, W, C, each `panel` numbers in three words for four.
    """

    shape: tuple[int, int]
    channels: int
    lanes: int
    vectors: int

    @property
    def panel(self) -> int:
        return self.lanes * self.vectors

    @property
    def column(self) -> int:
        """The words of a column."""
        return self.panel * 3 // QUAD

    @property
    def num_pieces(self) -> int:
        return ceil(self.shape[1] / PIECE)

    @property
    def piece(self) -> int:
        """The columns of a piece."""
        return ceil(self.shape[1] / self.num_pieces)

    @property
    def packed_shape(self) -> tuple[int, ...]:
        panels = ceil(self.shape[0] / self.panel)
        return (panels, self.num_pieces, self.panel + self.piece * self.column)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        packed = np.zeros(self.packed_shape, np.int32)
        for index, pieces in enumerate(packed):
            rows = weight[index * self.panel : (index + 1) * self.panel]
            maps = rows.reshape(len(rows), self.channels, -1)
            columns = maps.transpose(2, 1, 0).reshape(-1, len(rows))
            for number, words in enumerate(pieces):
                part = columns[number * self.piece : (number + 1) * self.piece]
                largest = np.abs(part).max(0).astype(np.float32)
                # The next number up, so that none is beyond `LARGEST`, nor a scale zero.
                scale = np.nextafter(largest / np.float32(LARGEST), np.float32(np.inf))
                numbers = np.zeros((self.piece, self.panel), np.int32)
                numbers[: len(part), : len(rows)] = np.rint(part / scale.astype(np.float64))
                words[: len(rows)] = scale.view(np.int32)
                words[self.panel :] = self._in_words(numbers)
        return packed

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        outputs, inputs = self.shape
        scale = packed[..., : self.panel].view(np.float32)[:, :, None]
        numbers = self._numbers(packed[..., self.panel :]).astype(np.float32)
        columns = (scale * numbers).reshape(len(packed), -1, self.panel)[:, :inputs]
        rows = columns.transpose(0, 2, 1).reshape(-1, inputs)[:outputs]
        maps = rows.reshape(outputs, -1, self.channels).transpose(0, 2, 1)
        return np.ascontiguousarray(maps).reshape(self.shape)

    def _in_words(self, numbers: NDArray[np.int32]) -> NDArray[np.int32]:
        """Columns of numbers as words, one after another."""
        quads = numbers.view(np.uint32).reshape(self.piece, -1, QUAD, self.lanes)
        fourth = quads[:, :, 3:] >> np.array([[0], [8], [16]], np.uint32) & 0xFF
        words: NDArray[np.int32] = (quads[:, :, :3] << SHIFT | fourth).view(np.int32)
        return words.ravel()

    def _numbers(self, words: NDArray[np.int32]) -> NDArray[np.int32]:
        """The columns `(…, piece, panel)` of numbers in words."""
        threes = words.reshape(*words.shape[:-1], self.piece, -1, 3, self.lanes)
        fourth = (threes & 0xFF) << np.array([[8], [16], [24]], np.int32)
        quads = np.concatenate([threes, fourth.sum(-2, np.int32, keepdims=True)], -2)
        return (quads >> SHIFT).reshape(*words.shape[:-1], self.piece, self.panel)


def kernel(dense: Dense, machine: Machine, knobs: BlockFloatKnobs) -> Kernel:
    """Code for `dense` with these knobs, one of `tiles`."""
    channels = dense.source.channels if dense.source else dense.in_features
    packing = BlockFloatColumns(
        (dense.out_features, dense.in_features), channels, machine.lanes, knobs.vectors
    )
    func = function(
        Emitter(dense, machine, knobs, packing).emit,
        {"weight": "int32"},
        x=dense.source.shape if dense.source else (dense.batch, dense.in_features),
        weight=packing.packed_shape,
        bias=(dense.out_features,),
        y=(dense.batch, dense.out_features),
    )
    return Kernel(algorithm(dense), asdict(knobs), func, packing)


@dataclass(frozen=True)
class Columns:
    """The columns to be read, by groups of images: those where an image's input is not zero."""

    places: Buffer
    """`(groups, inputs)`: the line of a panel's at which the column begins."""
    values: Buffer
    """`(groups, rows, inputs)`."""
    ends: Buffer
    """`(groups, pieces + 1)`: how many are listed before each piece, and in all."""


@dataclass(frozen=True)
class Emitter:
    """Writes the body of a kernel. A *line* is a vector of words."""

    dense: Dense
    machine: Machine
    knobs: BlockFloatKnobs
    packing: BlockFloatColumns

    @property
    def num_groups(self) -> int:
        return ceil(self.dense.batch / self.knobs.rows)

    @property
    def lines(self) -> int:
        """The lines of a piece."""
        return self.packing.packed_shape[-1] // self.machine.lanes

    @property
    def ahead(self) -> int:
        """How many columns ahead of its use one is asked for."""
        return ceil(AHEAD_BYTES / (FLOAT * self.packing.column))

    def emit(self, x: Buffer, weight: Buffer, bias: Buffer, y: Buffer) -> None:
        panels, num_pieces, _ = self.packing.packed_shape
        listed = self.dense.in_features + self.ahead
        columns = Columns(
            T.alloc_buffer((self.num_groups, listed), "int32"),
            T.alloc_buffer((self.num_groups, self.knobs.rows, listed), "float32"),
            T.alloc_buffer((self.num_groups, num_pieces + 1), "int32"),
        )
        with T.parallel(self.num_groups) as group:
            self.list_columns(columns, x, group)

        lines = view(weight, (panels * num_pieces * self.lines, self.machine.lanes))
        with T.parallel(panels * self.num_groups) as task:
            panel, group = task // self.num_groups, task % self.num_groups
            first = panel * num_pieces * self.lines
            totals, sums = self.zeros(), self.zeros()
            with T.serial(num_pieces) as piece:
                begin, end = columns.ends[group, piece], columns.ends[group, piece + 1]
                whole = (end - begin) // COLUMNS_AT_ONCE * COLUMNS_AT_ONCE
                with T.serial(whole // COLUMNS_AT_ONCE) as block:
                    at = begin + block * COLUMNS_AT_ONCE
                    self.add(sums, lines, first, columns, group, at, COLUMNS_AT_ONCE)
                with T.serial(end - begin - whole) as rest:
                    self.add(sums, lines, first, columns, group, begin + whole + rest, 1)
                self.add_up(totals, sums, lines, first + piece * self.lines)
            self.store(totals, bias, y, panel, group)

    def list_columns(self, columns: Columns, x: Buffer, group: Expr) -> None:
        """List the columns of a group of images."""
        dense, rows, packing = self.dense, self.knobs.rows, self.packing
        images = view(x, (dense.batch, dense.in_features))
        n0 = tile_origin(group, rows, dense.batch)
        count = T.alloc_buffer((1,), "int32", scope="local")
        T.buffer_store(count, T.int32(0), [0])
        with T.serial(packing.num_pieces) as piece:
            T.buffer_store(columns.ends, count[0], [group, piece])
            start = piece * packing.piece
            left = dense.in_features - start
            cut = dense.in_features % packing.piece != 0
            with T.serial(T.min(packing.piece, left) if cut else packing.piece) as t:
                words = packing.panel + t * packing.column
                line = piece * self.lines + words // self.machine.lanes
                T.buffer_store(columns.places, line, [group, count[0]])
                inputs = [images[n0 + row, start + t] for row in range(rows)]
                for row, value in enumerate(inputs):
                    T.buffer_store(columns.values, value, [group, row, count[0]])
                nonzero = reduce(T.Or, [not_zero(value) for value in inputs])
                T.buffer_store(count, count[0] + T.Cast("int32", nonzero), [0])
        T.buffer_store(columns.ends, count[0], [group, packing.num_pieces])
        with T.serial(self.ahead) as t:
            T.buffer_store(columns.places, T.int32(0), [group, count[0] + t])

    def zeros(self) -> list[Buffer]:
        """A panel of sums for each image, in the cache."""
        panel = self.packing.panel
        sums = [T.alloc_buffer((panel,), "float32", scope="local") for _ in range(self.knobs.rows)]
        for buffer in sums:
            for c in vectors(panel, self.machine.lanes):
                T.buffer_store(buffer, T.float32(0), [c])
        return sums

    def add(
        self,
        sums: list[Buffer],
        lines: Buffer,
        first: Expr,
        columns: Columns,
        group: Expr,
        at: Expr,
        count: int,
    ) -> None:
        """Add the products of `count` columns from the one listed at `at`."""
        lanes = self.machine.lanes
        with T.serial(self.knobs.vectors // QUAD) as quad:
            for k in range(count):
                later = first + columns.places[group, at + k + self.ahead] + 3 * quad
                for line in range(0, 3 * lanes * FLOAT, LINE):
                    prefetch(T.address_of(lines[later + line // (lanes * FLOAT), 0]))
            for part in range(QUAD):
                with T.vectorized(lanes) as lane:
                    c = (QUAD * quad + part) * lanes + lane
                    for row, buffer in enumerate(sums):
                        total = buffer[c]
                        for k in range(count):
                            line = first + columns.places[group, at + k] + 3 * quad
                            words = [lines[line + i, lane] for i in range(3)]
                            number = T.Cast("float32", shifted(words, part))
                            total = total + columns.values[group, row, at + k] * number
                        T.buffer_store(buffer, total, [c])

    def add_up(self, totals: list[Buffer], sums: list[Buffer], lines: Buffer, scales: Expr) -> None:
        """Add the sums of a piece, each as often as its scale says, and begin the next."""
        lanes = self.machine.lanes
        for total, part in zip(totals, sums, strict=True):
            for c in vectors(self.packing.panel, lanes):
                scale = T.reinterpret("float32", lines[scales + c // lanes, c % lanes])
                value = part[c] * T.float32(2.0**-SHIFT) * scale
                T.buffer_store(total, total[c] + value, [c])
                T.buffer_store(part, T.float32(0), [c])

    def store(
        self, totals: list[Buffer], bias: Buffer, y: Buffer, panel: Expr, group: Expr
    ) -> None:
        """Write the outputs of a task."""
        n0 = tile_origin(group, self.knobs.rows, self.dense.batch)
        size, outputs = self.packing.panel, self.dense.out_features
        for count in in_block(panel, size, outputs):
            for row, total in enumerate(totals):
                for c in vectors(count, self.machine.lanes):
                    value = activate(self.dense.act, total[c] + bias[panel * size + c])
                    T.buffer_store(y, value, [n0 + row, panel * size + c])


def not_zero(value: Expr) -> Expr:
    """Whether a float is neither 0 nor -0: by its bits, since TVM takes NaN to equal any number."""
    return T.bitwise_and(T.reinterpret("int32", value), T.int32(0x7FFFFFFF)) != T.int32(0)


def shifted(words: list[Expr], part: int) -> Expr:
    """Number `part` of the four in three words, shifted to the left by `SHIFT`."""
    if part < 3:
        return T.bitwise_and(words[part], T.int32(-1 << SHIFT))
    lowest = [T.bitwise_and(word, T.int32(0xFF)) for word in words]
    bytes_ = [T.shift_left(low, T.int32(8 * (1 + i))) for i, low in enumerate(lowest)]
    return reduce(T.bitwise_or, bytes_)

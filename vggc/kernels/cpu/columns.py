"""Products of few images with a matrix, of which only the columns that matter are read.

A dense layer of few images takes as long as it takes to read its weights. Many need not be read:
behind a ReLU half of the inputs are zero, and so are their products. So the kernel first lists
the inputs that are not, and then reads the columns of those alone, each a long run of memory:
what a processor fetches ahead of itself is then seldom in vain.

How weights are written is left open here: `block_float` and `word_columns` fill it in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from math import ceil
from typing import Protocol

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Cost
from vggc.kernels.builder import Buffer, allocated, parallel, serial, vectorized
from vggc.kernels.cpu.conv import PIECE
from vggc.kernels.cpu.loops import each_vector, in_block, prefetch, scratch, tile_origin
from vggc.kernels.cpu.machine import FLOAT, LINE, Machine

MAX_ROWS = 4
MAX_SUMS = 64
"""Vectors of sums, which the cache of one core holds beside what comes from memory."""
COLUMNS_AT_ONCE = 4
"""Columns that are added while a sum is in a register."""
AHEAD_BYTES = 12 << 10


@dataclass(frozen=True)
class Product:
    """`batch` images of `inputs` values times a matrix `(outputs, inputs)`, whose numbers lie in
    words.

    `group` vectors of numbers lie in `words` vectors of words of 32 bits, that many lanes each.
    """

    batch: int
    inputs: int
    outputs: int
    group: int
    words: int

    @property
    def bytes(self) -> int:
        """The bytes of all packed weights, headers not counted."""
        return self.inputs * self.outputs * FLOAT * self.words // self.group

    @property
    def num_pieces(self) -> int:
        """The pieces that each output's sum is cut into, of up to `PIECE` terms, so that its
        rounding error stays small.
        """
        return ceil(self.inputs / PIECE)

    @property
    def piece(self) -> int:
        """The columns of a piece; the last one need not be full."""
        return ceil(self.inputs / self.num_pieces)


@dataclass(frozen=True)
class ColumnKnobs:
    """The sums of a task: `rows` images by `vectors` vectors of outputs."""

    rows: int
    vectors: int


def applies(product: Product) -> bool:
    """Whether an index of 32 bits counts the weights, as the kernel needs it."""
    return product.inputs * product.outputs < 2**31


def tiles(product: Product, machine: Machine) -> Iterator[ColumnKnobs]:
    """The knobs that there is code for: vectors in powers of two, no more than hold the outputs."""
    number = product.group
    while number <= MAX_SUMS:
        for rows in range(1, min(product.batch, MAX_ROWS, MAX_SUMS // number) + 1):
            yield ColumnKnobs(rows, number)
        if number * machine.lanes >= product.outputs:
            break
        number *= 2


def cost(product: Product, machine: Machine, read: float, knobs: ColumnKnobs) -> Cost:
    """The half cycles that all cores spend until the last is done, were the share `read` of the
    inputs not zero.

    A step takes a group of vectors of a column apart, some three instructions a vector and three
    more a vector of words, and multiplies it; or it waits for it. Then the longest columns.
    """
    panels = ceil(product.outputs / (knobs.vectors * machine.lanes))
    tasks = panels * ceil(product.batch / knobs.rows)
    computing = (3 + 2 * (knobs.rows - 1)) * product.group + 3 * product.words
    fetching = product.words * machine.lanes * FLOAT / machine.delivery(product.bytes)
    steps = read * product.inputs * knobs.vectors / product.group
    rounds = ceil(tasks / machine.cores)
    return (machine.cores * rounds * steps * max(computing, fetching), computing, -knobs.vectors)


@dataclass(frozen=True)
class Columns:
    """The columns to be read, listed by groups of images: where an input of one of the group is not
    zero.
    """

    places: Buffer
    """`(groups, inputs)`: the line of a panel at which the column begins."""
    values: Buffer
    """`(groups, rows, inputs)`."""
    ends: Buffer
    """`(groups, pieces + 1)`: how many are listed before each piece, and in all."""


class NumberFormat(Protocol):
    """How the numbers of a kernel are written: its inputs, weights and outputs."""

    @property
    def total_type(self) -> str:
        """The type in which the sums of pieces are added up."""

    @property
    def header(self) -> int:
        """The words of each output that stand before the columns of a piece."""

    def input(self, image: Expr, index: Expr) -> Expr:
        """Input `index` of an image, as float32."""

    def number(self, words: list[Expr], part: int) -> Expr:
        """Number `part` of a group that lies in `words`, as float32."""

    def piece_sum(self, total: Expr, header: Expr) -> Expr:
        """What the sum of a piece adds to an output's total; `header` is the output's word before
        the piece.
        """

    def store(self, image: Expr, channel: Expr, total: Expr) -> None:
        """Write the output `channel` of an image, whose sum is `total`."""


@dataclass(frozen=True)
class ColumnsEmitter:
    """Writes the body of a kernel that reads listed columns. A *line* is a vector of words."""

    product: Product
    machine: Machine
    knobs: ColumnKnobs
    numbers: NumberFormat

    @property
    def num_groups(self) -> int:
        """The groups of `rows` images that the batch is cut into."""
        return ceil(self.product.batch / self.knobs.rows)

    @property
    def panel(self) -> int:
        """The output channels of a panel: as many as `vectors` vectors have lanes."""
        return self.knobs.vectors * self.machine.lanes

    @property
    def column(self) -> int:
        """The lines of a column."""
        return self.knobs.vectors // self.product.group * self.product.words

    @property
    def lines(self) -> int:
        """The lines of a piece, its header included."""
        return self.numbers.header * self.knobs.vectors + self.product.piece * self.column

    @property
    def ahead(self) -> int:
        """How many columns ahead of its use a column is asked for."""
        return ceil(AHEAD_BYTES / (self.column * self.machine.lanes * FLOAT))

    def emit(self, weight: Buffer) -> None:
        """Write the kernel: list the columns of every group, then a task for each panel
        and group.
        """
        product = self.product
        panels = ceil(product.outputs / self.panel)
        listed = product.inputs + self.ahead
        columns = Columns(
            allocated("places", self.num_groups, listed, dtype="int32"),
            allocated("values", self.num_groups, self.knobs.rows, listed),
            allocated("ends", self.num_groups, product.num_pieces + 1, dtype="int32"),
        )
        with parallel("group", self.num_groups) as group:
            self.list_columns(columns, group)

        total_lines = panels * product.num_pieces * self.lines
        lines = weight.view("lines", total_lines, self.machine.lanes, dtype="int32")
        with parallel("task", panels * self.num_groups) as task:
            panel, group = task // self.num_groups, task % self.num_groups
            first = panel * product.num_pieces * self.lines
            totals, sums = self.zeros(self.numbers.total_type), self.zeros("float32")
            with serial("piece", product.num_pieces) as piece:
                begin, end = columns.ends[group, piece], columns.ends[group, piece + 1]
                whole = (end - begin) // COLUMNS_AT_ONCE * COLUMNS_AT_ONCE
                with serial("block", whole // COLUMNS_AT_ONCE) as block:
                    at = begin + block * COLUMNS_AT_ONCE
                    self.add(sums, lines, first, columns, group, at, COLUMNS_AT_ONCE)
                with serial("rest", end - begin - whole) as rest:
                    self.add(sums, lines, first, columns, group, begin + whole + rest, 1)
                self.add_up(totals, sums, lines, first + piece * self.lines)
            self.store(totals, panel, group)

    def list_columns(self, columns: Columns, group: Expr) -> None:
        """List the columns of a group of images."""
        product, rows = self.product, self.knobs.rows
        n0 = tile_origin(group, rows, product.batch)
        count = scratch("count", 1, dtype="int32")
        count[0] = 0
        with serial("piece", product.num_pieces) as piece:
            columns.ends[group, piece] = count[0]
            start = piece * product.piece
            left = product.inputs - start
            cut = product.inputs % product.piece != 0
            with serial("t", T.min(product.piece, left) if cut else product.piece) as t:
                header = self.numbers.header * self.knobs.vectors
                line = piece * self.lines + header + t * self.column
                columns.places[group, count[0]] = line
                inputs = [self.numbers.input(n0 + row, start + t) for row in range(rows)]
                for row, value in enumerate(inputs):
                    columns.values[group, row, count[0]] = value
                some = reduce(T.Or, [not_zero(value) for value in inputs])
                count[0] += T.Cast("int32", some)
        columns.ends[group, product.num_pieces] = count[0]
        with serial("t", self.ahead) as t:
            columns.places[group, count[0] + t] = 0

    def zeros(self, dtype: str) -> list[Buffer]:
        """A panel of sums for each image, zero at first, in the cache."""
        sums = [scratch("sums", self.panel, dtype=dtype) for _ in range(self.knobs.rows)]
        for buffer in sums:
            for c in each_vector(self.panel, self.machine.lanes):
                buffer[c] = T.Cast(dtype, T.int32(0))
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
        lanes, size, words = self.machine.lanes, self.product.group, self.product.words
        with serial("index", self.knobs.vectors // size) as index:
            for k in range(count):
                later = first + columns.places[group, at + k + self.ahead] + words * index
                for line in range(0, words * lanes * FLOAT, LINE):
                    prefetch(lines.address(later + line // (lanes * FLOAT), 0))
            for part in range(size):
                with vectorized("lane", lanes) as lane:
                    c = (size * index + part) * lanes + lane
                    for row, buffer in enumerate(sums):
                        total = buffer[c]
                        for k in range(count):
                            line = first + columns.places[group, at + k] + words * index
                            held = [lines[line + i, lane] for i in range(words)]
                            number = self.numbers.number(held, part)
                            total = total + columns.values[group, row, at + k] * number
                        buffer[c] = total

    def add_up(self, totals: list[Buffer], sums: list[Buffer], lines: Buffer, header: Expr) -> None:
        """Add the sums of a piece to the totals, and begin the next."""
        lanes = self.machine.lanes
        for total, part in zip(totals, sums, strict=True):
            for c in each_vector(self.panel, lanes):
                more = self.numbers.piece_sum(part[c], lines[header + c // lanes, c % lanes])
                total[c] += more
                part[c] = 0

    def store(self, totals: list[Buffer], panel: Expr, group: Expr) -> None:
        """Write the outputs of a task."""
        n0 = tile_origin(group, self.knobs.rows, self.product.batch)
        for count in in_block(panel, self.panel, self.product.outputs):
            for row, total in enumerate(totals):
                for c in each_vector(count, self.machine.lanes):
                    self.numbers.store(n0 + row, panel * self.panel + c, total[c])


def not_zero(value: Expr) -> Expr:
    """Whether a float is neither 0 nor -0: by its bits, since TVM takes NaN to equal any number."""
    return T.bitwise_and(T.reinterpret("int32", value), T.int32(0x7FFFFFFF)) != T.int32(0)

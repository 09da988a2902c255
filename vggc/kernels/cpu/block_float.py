"""Dense layers in block floating point: fewer bytes a weight, of columns that are not zero alone.

The weights of an output are cut into the pieces of its sum, and are multiples of one scale a
piece, by numbers of 24 or 20 bits with their sign. With 24 none is off by more than 2⁻²⁴ of the
largest of its piece, which is what float32 rounds that one by; with 20 it is sixteen times as
much, no more than Winograd's transforms cost a convolution.

The upper bits of a word of 32 are one number, and what is left of a few words makes another:
four numbers of 24 bits lie in three words, eight of 20 in five.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from math import ceil, inf, sqrt
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.activation import activate
from vggc.kernels.algorithm import Buffers, Cost
from vggc.kernels.builder import Buffer
from vggc.kernels.cpu import columns
from vggc.kernels.cpu.algorithm import CpuAlgorithm
from vggc.kernels.cpu.columns import ColumnKnobs, ColumnsEmitter, Product
from vggc.kernels.cpu.dense import name_of
from vggc.kernels.workloads import Dense, by_panels


@dataclass(frozen=True)
class Bits:
    """`size` bits of word `word`, from bit `low` on, are those of a number from `place` on."""

    word: int
    low: int
    size: int
    place: int


@dataclass(frozen=True)
class WordFormat:
    """How signed numbers of `bits` bits lie in words of 32 bits.

    A number is read in the upper bits of a word. The upper bits of each of the `words` are a
    number, and the `rest` are put together.
    """

    bits: int
    words: int
    rest: tuple[tuple[Bits, ...], ...]

    @property
    def group(self) -> int:
        """The numbers that `words` words hold."""
        return self.words + len(self.rest)

    @property
    def shift(self) -> int:
        """The bits of a word below its number."""
        return 32 - self.bits

    @property
    def largest(self) -> int:
        """The largest number of `bits` bits with their sign."""
        return (1 << self.bits - 1) - 1

    @property
    def error(self) -> float:
        """The relative L2 error of rounding normal weights, the largest of which in a piece is 3.2
        deviations.

        Source: rounding to multiples of `s` is off by `s/√12` in the mean square.
        """
        return 3.2 / self.largest / sqrt(12)


BITS_24 = WordFormat(24, 3, ((Bits(0, 0, 8, 8), Bits(1, 0, 8, 16), Bits(2, 0, 8, 24)),))
BITS_20 = WordFormat(
    20,
    5,
    (
        (Bits(0, 0, 12, 20), Bits(3, 4, 8, 12)),
        (Bits(1, 0, 12, 20), Bits(4, 4, 8, 12)),
        (Bits(2, 0, 12, 20), Bits(3, 0, 4, 16), Bits(4, 0, 4, 12)),
    ),
)
FORMATS = (BITS_24, BITS_20)

BYTES_AT_ONCE = 1 << 22
"""Bytes of the rows of a weight whose error is told at once, one row at least."""
SAMPLED = 64
"""Weights of a piece among which the usual size is looked for."""


def product(dense: Dense, form: WordFormat) -> Product:
    """The product of images with a matrix that a dense layer with weights in `form` is."""
    return Product(dense.batch, dense.in_features, dense.out_features, form.group, form.words)


def error_of(dense: Dense, form: WordFormat, weight: NDArray[np.float32]) -> float:
    """The relative L2 error that `form` adds to a dense layer with the weight `(O, C·H·W)`.

    The weights of a piece are rounded alike, as the largest asks for, which may be far beyond the
    others, and its input zero. So the error is told beside those of usual size, of which half are
    larger than 0.67 deviations; infinite where most are zero.
    """
    size = product(dense, form).piece
    rounding, signal = 0.0, 0.0
    count = max(1, BYTES_AT_ONCE // weight[0].nbytes)
    for first in range(0, len(weight), count):
        rows = np.abs(weight[first : first + count])
        if dense.source:
            maps = rows.reshape(len(rows), dense.source.channels, -1)
            rows = maps.transpose(0, 2, 1).reshape(len(rows), -1)
        for start in range(0, rows.shape[1], size):
            piece = rows[:, start : start + size]
            usual = np.median(piece[:, :: ceil(size / SAMPLED)], 1) / 0.6745
            step = piece.max(1) / form.largest
            rounding += piece.shape[1] * float((step.astype(np.float64) ** 2).sum()) / 12
            signal += piece.shape[1] * float((usual.astype(np.float64) ** 2).sum())
    if rounding == 0:
        return 0.0
    return sqrt(rounding / signal) if signal > 0 else inf


@dataclass(frozen=True)
class BlockFloatColumns:
    """Packs a dense weight `(O, C·H·W)` as `(O/panel, pieces, words)` of int32, filled up with
    zeros.

    The words of a piece are a panel of scales, in float32, and the piece's columns, in the order
    H, W, C, each `panel` numbers.
    """

    shape: tuple[int, int]
    channels: int
    lanes: int
    vectors: int
    form: WordFormat

    @property
    def panel(self) -> int:
        """The output channels of a panel: as many as `vectors` vectors have lanes."""
        return self.lanes * self.vectors

    @property
    def piece(self) -> int:
        """The columns of a piece, which share a scale for each output."""
        outputs, inputs = self.shape
        return Product(1, inputs, outputs, self.form.group, self.form.words).piece

    packed_type = "int32"

    @property
    def packed_shape(self) -> tuple[int, ...]:
        outputs, inputs = self.shape
        words = self.panel + self.piece * self.panel * self.form.words // self.form.group
        return (ceil(outputs / self.panel), ceil(inputs / self.piece), words)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        packed = np.zeros(self.packed_shape, np.int32)
        order = np.arange(self.shape[1]).reshape(self.channels, -1).T.ravel()
        for index, pieces in enumerate(packed):
            rows = weight[index * self.panel : (index + 1) * self.panel]
            for number, words in enumerate(pieces):
                part = rows[:, order[number * self.piece : (number + 1) * self.piece]].T
                largest = np.abs(part).max(0).astype(np.float32)
                # The next number up, so that none is beyond the largest, nor a scale zero.
                scale = np.nextafter(largest / np.float32(self.form.largest), np.float32(np.inf))
                numbers = np.zeros((self.piece, self.panel), np.int32)
                numbers[: len(part), : len(rows)] = np.rint(part / scale.astype(np.float64))
                words[: len(rows)] = scale.view(np.int32)
                words[self.panel :] = self._in_words(numbers)
        return packed

    def pieces(self, weight: np.ndarray) -> Iterator[np.ndarray]:
        return by_panels(self, self.panel, weight)

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        outputs, inputs = self.shape
        scale = packed[..., : self.panel].view(np.float32)[:, :, None]
        numbers = self._numbers(packed[..., self.panel :]).astype(np.float32)
        columns = (scale * numbers).reshape(len(packed), -1, self.panel)[:, :inputs]
        rows = columns.transpose(0, 2, 1).reshape(-1, inputs)[:outputs]
        maps = rows.reshape(outputs, -1, self.channels).transpose(0, 2, 1)
        return np.ascontiguousarray(maps).reshape(self.shape)

    def _in_words(self, numbers: NDArray[np.int32]) -> NDArray[np.int32]:
        """Columns of numbers as 32-bit words, one after another."""
        form = self.form
        groups = numbers.view(np.uint32).reshape(self.piece, -1, form.group, self.lanes)
        upper = groups << form.shift
        words = upper[:, :, : form.words].copy()
        for number, pieces in enumerate(form.rest, form.words):
            for each in pieces:
                bits = upper[:, :, number] >> each.place & (1 << each.size) - 1
                words[:, :, each.word] |= bits << each.low
        return words.view(np.int32).ravel()

    def _numbers(self, words: NDArray[np.int32]) -> NDArray[np.int32]:
        """The columns `(…, piece, panel)` of numbers in words."""
        form = self.form
        groups = words.view(np.uint32).reshape(*words.shape[:-1], -1, form.words, self.lanes)
        upper = np.zeros((*groups.shape[:-2], form.group, self.lanes), np.uint32)
        upper[..., : form.words, :] = groups
        for number, pieces in enumerate(form.rest, form.words):
            for each in pieces:
                bits = groups[..., each.word, :] >> each.low & (1 << each.size) - 1
                upper[..., number, :] |= bits << each.place
        found: NDArray[np.int32] = upper.view(np.int32) >> form.shift
        return found.reshape(*words.shape[:-1], self.piece, self.panel)


@dataclass(frozen=True)
class BlockFloat:
    """A kernel's numbers in float32, its weights in `form` with a scale for each output
    and piece.
    """

    dense: Dense
    form: WordFormat
    x: Buffer
    bias: Buffer
    y: Buffer
    total_type: str = "float32"
    header: int = 1

    def input(self, image: Expr, index: Expr) -> Expr:
        return self.x[image, index]

    def number(self, words: list[Expr], part: int) -> Expr:
        """Number `part` of a group, `2**shift` times as large, as float32."""
        form = self.form
        if part < form.words:
            return T.Cast("float32", T.bitwise_and(words[part], T.int32(-1 << form.shift)))
        parts = [part_of(words[each.word], each) for each in form.rest[part - form.words]]
        return T.Cast("float32", reduce(T.bitwise_or, parts))

    def piece_sum(self, total: Expr, header: Expr) -> Expr:
        return total * T.float32(2.0**-self.form.shift) * T.reinterpret("float32", header)

    def store(self, image: Expr, channel: Expr, total: Expr) -> None:
        value = activate(self.dense.act, total + self.bias[channel])
        self.y[image, channel] = value


def part_of(word: Expr, bits: Bits) -> Expr:
    """The bits of a word that `bits` names, moved to where they stand in their number."""
    mask = (1 << bits.size) - 1 << bits.low
    return T.shift_left(T.bitwise_and(word, T.int32(mask)), T.int32(bits.place - bits.low))


@dataclass(frozen=True)
class DenseBlockFloat24(CpuAlgorithm[Dense, ColumnKnobs]):
    """Only the weights, in block floating point of 24 bits, of inputs other than zero are read."""

    names = ("gemv-bfp24", "gemm-bfp24")
    computes = Dense
    form: ClassVar[WordFormat] = BITS_24

    @classmethod
    def applies(cls, workload: Dense) -> bool:
        """Dense layers of up to four images at a time."""
        return all(columns.applies(product(workload, form)) for form in FORMATS)

    @property
    def name(self) -> str:
        return f"{name_of(self.workload)}-bfp{self.form.bits}"

    @property
    def product(self) -> Product:
        """The layer as a product of images with a matrix of numbers in `form`."""
        return product(self.workload, self.form)

    def knobs(self) -> Iterator[ColumnKnobs]:
        return columns.tiles(self.product, self.machine)

    def cost(self, knobs: ColumnKnobs) -> Cost:
        """The cost as if no input were zero: how many are is not known beforehand."""
        return columns.cost(self.product, self.machine, 1.0, knobs)

    @property
    def error(self) -> float:
        return self.form.error

    def error_with(self, weight: NDArray[np.float32]) -> float:
        return max(self.error, error_of(self.workload, self.form, weight))

    def packing(self, knobs: ColumnKnobs) -> BlockFloatColumns:
        dense, lanes = self.workload, self.machine.lanes
        channels = dense.source.channels if dense.source else dense.in_features
        shape = (dense.out_features, dense.in_features)
        return BlockFloatColumns(shape, channels, lanes, knobs.vectors, self.form)

    def emit(self, knobs: ColumnKnobs, buffers: Buffers) -> None:
        dense = self.workload
        x, weight, bias, y = buffers.values()
        images = x.view("images", dense.batch, dense.in_features)
        numbers = BlockFloat(dense=dense, form=self.form, x=images, bias=bias, y=y)
        ColumnsEmitter(self.product, self.machine, knobs, numbers).emit(weight)


class DenseBlockFloat20(DenseBlockFloat24):
    """Only the weights, in block floating point of 20 bits, of inputs other than zero are read."""

    names = ("gemv-bfp20", "gemm-bfp20")
    form = BITS_20

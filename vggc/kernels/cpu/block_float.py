"""Dense layers in block floating point: three bytes a weight, of columns that are not zero alone.

The weights of an output are cut into the pieces of its sum, and are multiples of one scale a
piece, by numbers of 24 bits with their sign. None is off by more than 2⁻²⁴ of the largest of its
piece, which is what float32 rounds that one by. Four numbers lie in three words of 32 bits: the
upper three bytes of each are one, the lowest bytes together the fourth.
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
from vggc.kernels.cpu import columns
from vggc.kernels.cpu import dense as in_float32
from vggc.kernels.cpu.columns import ColumnKnobs, Emitter, Product
from vggc.kernels.cpu.loops import function, view
from vggc.kernels.cpu.machine import Machine
from vggc.kernels.cpu.template import Cost, Template
from vggc.kernels.workloads import Dense, Kernel

ERROR = 1.1e-7
"""The relative L2 error of normal weights, whose largest of a piece is 3.1 of their deviations.
Source: rounding to multiples of `s` is off by `s/√12` in the mean square.
"""

LARGEST = 2**23 - 1
GROUP, WORDS = 4, 3
"""So many vectors of numbers lie in so many of words."""
SHIFT = 8
"""Numbers are read in the upper bits of a word."""


def product(dense: Dense) -> Product:
    return Product(dense.batch, dense.in_features, dense.out_features, GROUP, WORDS)


def applies(dense: Dense) -> bool:
    return columns.applies(product(dense))


def tiles(dense: Dense, machine: Machine) -> Iterator[ColumnKnobs]:
    """The tiles that there is code for."""
    return columns.tiles(product(dense), machine)


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
    return f"{in_float32.algorithm(dense)}-bfp24"


def cost(dense: Dense, machine: Machine, knobs: ColumnKnobs) -> Cost:
    """As if no input were zero."""
    return columns.cost(product(dense), machine, 1.0, knobs)


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
    def piece(self) -> int:
        """The columns of a piece."""
        outputs, inputs = self.shape
        return Product(1, inputs, outputs, GROUP, WORDS).piece

    @property
    def packed_shape(self) -> tuple[int, ...]:
        outputs, inputs = self.shape
        words = self.panel + self.piece * self.panel * WORDS // GROUP
        return (ceil(outputs / self.panel), ceil(inputs / self.piece), words)

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
        quads = numbers.view(np.uint32).reshape(self.piece, -1, GROUP, self.lanes)
        fourth = quads[:, :, 3:] >> np.array([[0], [8], [16]], np.uint32) & 0xFF
        words: NDArray[np.int32] = (quads[:, :, :3] << SHIFT | fourth).view(np.int32)
        return words.ravel()

    def _numbers(self, words: NDArray[np.int32]) -> NDArray[np.int32]:
        """The columns `(…, piece, panel)` of numbers in words."""
        threes = words.reshape(*words.shape[:-1], self.piece, -1, 3, self.lanes)
        fourth = (threes & 0xFF) << np.array([[8], [16], [24]], np.int32)
        quads = np.concatenate([threes, fourth.sum(-2, np.int32, keepdims=True)], -2)
        return (quads >> SHIFT).reshape(*words.shape[:-1], self.piece, self.panel)


def kernel(dense: Dense, machine: Machine, knobs: ColumnKnobs) -> Kernel:
    """Code for `dense` with these knobs, one of `tiles`."""
    channels = dense.source.channels if dense.source else dense.in_features
    packing = BlockFloatColumns(
        (dense.out_features, dense.in_features), channels, machine.lanes, knobs.vectors
    )

    def body(x: Buffer, weight: Buffer, bias: Buffer, y: Buffer) -> None:
        images = view(x, (dense.batch, dense.in_features))
        numbers = BlockFloat(dense, images, bias, y)
        Emitter(product(dense), machine, knobs, numbers).emit(weight)

    func = function(
        body,
        {"weight": "int32"},
        x=dense.source.shape if dense.source else (dense.batch, dense.in_features),
        weight=packing.packed_shape,
        bias=(dense.out_features,),
        y=(dense.batch, dense.out_features),
    )
    return Kernel(algorithm(dense), asdict(knobs), func, packing)


@dataclass(frozen=True)
class BlockFloat:
    """Weights with a scale a piece."""

    dense: Dense
    x: Buffer
    bias: Buffer
    y: Buffer
    total_type: str = "float32"
    header: int = 1

    def input(self, image: Expr, index: Expr) -> Expr:
        return self.x[image, index]

    def number(self, words: list[Expr], part: int) -> Expr:
        """`2**SHIFT` times as large."""
        if part < WORDS:
            return T.Cast("float32", T.bitwise_and(words[part], T.int32(-1 << SHIFT)))
        lowest = [T.bitwise_and(word, T.int32(0xFF)) for word in words]
        parts = [T.shift_left(low, T.int32(SHIFT + 8 * i)) for i, low in enumerate(lowest)]
        return T.Cast("float32", reduce(T.bitwise_or, parts))

    def piece_sum(self, total: Expr, header: Expr) -> Expr:
        return total * T.float32(2.0**-SHIFT) * T.reinterpret("float32", header)

    def store(self, image: Expr, channel: Expr, total: Expr) -> None:
        value = activate(self.dense.act, total + self.bias[channel])
        T.buffer_store(self.y, value, [image, channel])

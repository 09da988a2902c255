"""Dense layers in fewer bits that read only the columns of inputs other than zero.

Such a layer is a convolution whose kernel covers the map. A word of 32 bits holds weights of one
input: two in bfloat16 or four in int8, of outputs a vector apart. They are multiplied in float32,
which holds the sums of a piece of int8 exactly; those of pieces are added up in int32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod
from typing import ClassVar

import numpy as np
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Buffers, Cost
from vggc.kernels.bfloat16 import from_bfloat16, to_bfloat16
from vggc.kernels.builder import Buffer
from vggc.kernels.cpu import columns, dot
from vggc.kernels.cpu.algorithm import CpuAlgorithm
from vggc.kernels.cpu.columns import ColumnKnobs, ColumnsEmitter, Product
from vggc.kernels.cpu.conv import PIECE
from vggc.kernels.cpu.formats import read, rounded
from vggc.kernels.workloads import WORD, Conv, Format, by_panels

READ = 0.75
"""The share of inputs that is counted as not zero: behind a ReLU half are, behind a pool more."""

assert PIECE * 255 * 127 < 2**24, "float32 counts no further"


def product(conv: Conv) -> Product:
    """The product of images with a matrix that a dense layer is, given as a convolution that covers
    its map.
    """
    inputs = prod(conv.weight_shape[1:])
    return Product(conv.output.batch, inputs, conv.output.channels, WORD[conv.input.format], 1)


@dataclass(frozen=True)
class WordColumns:
    """Packs a weight `(K, C, kh, kw)` as `(K/panel, kh·kw·C, panel/(lanes·word), lanes, word)`,
    padded with zeros.

    Words of four take int8, words of two float32, which is rounded to bfloat16.
    """

    shape: tuple[int, ...]
    panel: int
    lanes: int
    word: int

    @property
    def inputs(self) -> int:
        """The inputs that there is room for: the pieces of a sum are equally long."""
        real = Product(1, prod(self.shape[1:]), self.shape[0], self.word, 1)
        return real.num_pieces * real.piece

    @property
    def packed_type(self) -> str:
        return "uint16" if self.word == WORD["bfloat16"] else "int8"

    @property
    def packed_shape(self) -> tuple[int, ...]:
        groups = self.panel // (self.lanes * self.word)
        return (ceil(self.shape[0] / self.panel), self.inputs, groups, self.lanes, self.word)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        panels, _, groups, lanes, word = self.packed_shape
        is_bfloat16 = word == WORD["bfloat16"]
        packed = np.zeros(self.packed_shape, np.uint16 if is_bfloat16 else weight.dtype)
        # A few rows at a time: a panel of a wide layer is a quarter of it.
        for number, (panel, group, place) in enumerate(np.ndindex(panels, groups, word)):
            rows = weight[number * lanes : (number + 1) * lanes]
            if not len(rows):
                break
            columns = rows.transpose(2, 3, 1, 0).reshape(-1, len(rows))
            columns = to_bfloat16(columns) if is_bfloat16 else columns
            packed[panel, : len(columns), group, : len(rows), place] = columns
        return packed

    def pieces(self, weight: np.ndarray) -> Iterator[np.ndarray]:
        return by_panels(self, self.panel, weight)

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        k, c, kh, kw = self.shape
        rows = packed.transpose(0, 2, 4, 3, 1).reshape(-1, self.inputs)[:k, : c * kh * kw]
        weight = np.ascontiguousarray(rows.reshape(k, kh, kw, c).transpose(0, 3, 1, 2))
        return from_bfloat16(weight) if self.word == WORD["bfloat16"] else weight


@dataclass(frozen=True)
class Words:
    """A kernel's numbers in fewer bits, of whose weights a word holds several."""

    conv: Conv
    x: Buffer
    y: Buffer
    buffers: Buffers
    header: int = 0

    @property
    def total_type(self) -> str:
        return "int32" if self.conv.input.format == "uint8" else "float32"

    def input(self, image: Expr, index: Expr) -> Expr:
        return read(self.x[image, index], self.conv.input.format)

    def number(self, words: list[Expr], part: int) -> Expr:
        bits = 32 // WORD[self.conv.input.format]
        upper = T.shift_left(words[0], T.int32(32 - bits * (part + 1)))
        if self.conv.input.format == "bfloat16":
            alone = T.bitwise_and(upper, T.int32(-1 << bits))
            return T.reinterpret("float32", alone)
        return T.Cast("float32", T.shift_right(upper, T.int32(32 - bits)))

    def piece_sum(self, total: Expr, header: Expr) -> Expr:
        return T.Cast(self.total_type, total)

    def store(self, image: Expr, channel: Expr, total: Expr) -> None:
        out = self.conv.output
        value = dot.result(self.conv, self.buffers, total, channel)
        self.y[image, channel] = rounded(value, out.format, out.zero)


@dataclass(frozen=True)
class ColumnsBfloat16(CpuAlgorithm[Conv, ColumnKnobs]):
    """Only the weights, in bfloat16, of inputs other than zero are read."""

    names = ("columns-bfloat16",)
    computes = Conv
    format: ClassVar[Format] = "bfloat16"

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """Dense layers in bfloat16, where zero is stored as such and nothing is padded."""
        source, out = workload.input, workload.output
        covers = workload.kernel == (source.height, source.width) and workload.padding == (0, 0)
        bare = source.halo == out.halo == 0 and out.height == out.width == 1 and not workload.pool
        whole = all(map_.shape[-1] == map_.channels for map_ in (source, out))
        fewer = source.format == cls.format and source.zero == 0 and workload.groups == 1
        return covers and bare and whole and fewer and columns.applies(product(workload))

    def knobs(self) -> Iterator[ColumnKnobs]:
        return columns.tiles(product(self.workload), self.machine)

    def cost(self, knobs: ColumnKnobs) -> Cost:
        """The cost as if the share `READ` of the inputs were not zero."""
        return columns.cost(product(self.workload), self.machine, READ, knobs)

    def packing(self, knobs: ColumnKnobs) -> WordColumns:
        lanes = self.machine.lanes
        shape, word = self.workload.weight_shape, WORD[self.format]
        return WordColumns(shape, knobs.vectors * lanes, lanes, word)

    def emit(self, knobs: ColumnKnobs, buffers: Buffers) -> None:
        conv = self.workload
        images = buffers["x"].view("images", conv.input.batch, product(conv).inputs)
        results = buffers["y"].view("results", conv.output.batch, conv.output.channels)
        numbers = Words(conv, images, results, buffers)
        ColumnsEmitter(product(conv), self.machine, knobs, numbers).emit(buffers["weight"])


class ColumnsUint8(ColumnsBfloat16):
    """Only the weights, in int8, of inputs other than zero are read."""

    names = ("columns-uint8",)
    format = "uint8"

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """Dense layers in uint8, where zero is stored as such and nothing is padded."""
        return super().applies(workload)

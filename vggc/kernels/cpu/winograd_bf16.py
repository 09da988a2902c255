"""Winograd convolution F(2×2) whose products are of bfloat16, summed in float32 by `vdpbf16ps`.

The stages are those of `winograd`. Transforms are computed in float32; their results, of the
input as of the weights, are rounded to bfloat16, which costs as much as rounding the layer's
input and weight does (`tests/kernels/test_low_precision.py`). Larger tiles would cost thrice as
much and more.

A word pairs a channel with the one a vector's width behind it, not with its neighbour: two
vectors of transformed input become words without a permutation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr
from tvm.tirx import Let, Var
from tvm.tirx.script import builder as T

from vggc.kernels.bfloat16 import from_bfloat16, to_bfloat16
from vggc.kernels.builder import Buffer, serial, vectorized
from vggc.kernels.cpu import winograd
from vggc.kernels.cpu.dot import add_products
from vggc.kernels.cpu.intrinsics import DOT_BFLOAT16, LANES
from vggc.kernels.cpu.winograd import (
    PixelValue,
    TransformedWeight,
    WinogradInWords,
    WinogradKnobs,
    has_tiles,
    to_input,
)
from vggc.kernels.workloads import Conv, by_panels

M = 2
PAIR = 2 * LANES
"""The channels of a vector of words."""


@dataclass(frozen=True)
class PairedWeight:
    """Packs a weight `(K, C, 3, 3)`, C a multiple of 32, as words `(K/panel, 16, C/2, panel, 2)`.

    Takes float32, transforms in float64 and rounds once to bfloat16.
    """

    shape: tuple[int, ...]
    panel: int

    @property
    def transformed(self) -> TransformedWeight:
        """The packing in float32 whose numbers are rounded and paired."""
        return TransformedWeight(self.shape, M, self.panel)

    packed_type = "uint16"

    @property
    def packed_shape(self) -> tuple[int, ...]:
        panels, size, channels, panel = self.transformed.packed_shape
        return (panels, size, channels // 2, panel, 2)

    def pack(self, weight: NDArray[np.float32]) -> NDArray[np.uint16]:
        moved = self.transformed.pack(weight)
        panels, size, channels, panel = moved.shape
        pairs = moved.reshape(panels, size, channels // PAIR, 2, LANES, panel)
        words = pairs.transpose(0, 1, 2, 4, 5, 3).reshape(self.packed_shape)
        return to_bfloat16(words)

    def pieces(self, weight: np.ndarray) -> Iterator[np.ndarray]:
        return by_panels(self, self.panel, weight)

    def unpack(self, packed: NDArray[np.uint16]) -> NDArray[np.float32]:
        panels, size, words, panel, _ = packed.shape
        pairs = from_bfloat16(packed).reshape(panels, size, words // LANES, LANES, panel, 2)
        moved = pairs.transpose(0, 1, 2, 5, 3, 4).reshape(panels, size, 2 * words, panel)
        return self.transformed.unpack(np.ascontiguousarray(moved))


class Emitter(winograd.Emitter):
    """Writes the body of a Winograd kernel that keeps words of two channels in bfloat16."""

    @property
    def steps(self) -> int:
        return self.conv.input.channels // 2

    def kept(self) -> Buffer:
        moved = super().kept()
        return moved.view("words", *self.kept_shape, dtype="int32")

    def emit(self, x: Buffer, weight: Buffer, y: Buffer, result: PixelValue) -> None:
        shape = (self.num_panels, self.n**2, self.steps, self.panel)
        words = weight.view("words", *shape, dtype="int32")
        with T.attr(0, "pragma_import_llvm", DOT_BFLOAT16):
            super().emit(x, words, y, result)

    def keep(
        self, half: Buffer, size: int, step: int, moved: Buffer, row: Expr, first: Expr | int
    ) -> None:
        n = self.n
        with serial("pair", size // PAIR) as pair, vectorized("lane", LANES) as lane:
            for i in range(n):
                low, high = (
                    to_input(self.by, [half[i, j, pair * PAIR + part + lane] for j in range(n)])
                    for part in (0, LANES)
                )
                for j in range(n):
                    at = row + first // 2 + pair * LANES + lane
                    moved[i * n + j, at] = _word(low[j], high[j])

    def add(
        self, sums: Buffer, first: int, factor: Expr, weight: Buffer, place: tuple[Expr, ...]
    ) -> None:
        lanes = T.Ramp(first, 1, LANES)
        sums[lanes] = add_products("bfloat16", sums[lanes], factor, weight[*place, lanes])


class Winograd2Bfloat16(WinogradInWords):
    """Winograd's algorithm by tiles of 2×2 pixels, whose products are of bfloat16."""

    names = ("winograd2-bfloat16",)
    m = M

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """A convolution 3×3 with stride 1 and no dilation of a bfloat16 map, of whole vectors of
        words.
        """
        source, out = workload.input, workload.output
        whole = source.channels % PAIR == 0 and out.shape[-1] == out.channels
        return source.format == "bfloat16" and whole and has_tiles(workload)

    def emitter(self, knobs: WinogradKnobs) -> Emitter:
        return Emitter(self.workload, self.machine, M, knobs)

    def packing(self, knobs: WinogradKnobs) -> PairedWeight:
        return PairedWeight(self.workload.weight_shape, self.emitter(knobs).panel)


def _word(low: Expr, high: Expr) -> Expr:
    """Two floats rounded to bfloat16, in one word."""
    first, second = (_upper_half(value) for value in (low, high))
    return T.reinterpret("int32", T.bitwise_or(T.shift_right(first, T.uint32(16)), second))


def _upper_half(value: Expr) -> Expr:
    """The bits of a float rounded to bfloat16, the lower half zero."""
    bits = Var("bits", "uint32")
    odd = T.bitwise_and(T.shift_right(bits, T.uint32(16)), T.uint32(1))
    upper = T.bitwise_and(bits + T.uint32(0x7FFF) + odd, T.uint32(0xFFFF0000))
    return Let(bits, T.reinterpret("uint32", value), upper)

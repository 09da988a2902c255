"""Winograd convolution F(4×4) of uint8 maps: products of int16, summed in int32 by `vpdpwssd`.

The stages are those of `winograd`, by the points 0, ±1, ±2 and infinity. Of these the transform of
the input has whole coefficients, that of a uint8 fits 16 bits, and is exact. Transformed weights
are rounded: each output channel has a scale for each of the 36 elements, such that no input
whatever makes a sum overflow. That leaves normal weights 14 bits with 64 channels and 11 with 512,
which costs less than the eight bits did that they come in (`tests/kernels/test_winograd_int16.py`).

Inputs are taken as they differ from what stands for zero, or what is rounded off the weights would
be multiplied with that. The bias expects it to be in the sum: all of it is in one element.

Two products a lane are half of what `vpdpbusd` gives the direct convolution, a fourth of as many
are left to be done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Buffers
from vggc.kernels.builder import Buffer, serial, vectorized
from vggc.kernels.cpu import winograd
from vggc.kernels.cpu.dot import result
from vggc.kernels.cpu.intrinsics import LANES, dot_int16
from vggc.kernels.cpu.winograd import (
    WinogradInWords,
    WinogradKnobs,
    has_tiles,
    to_input,
    transform_of_filters,
)
from vggc.kernels.toom_cook import TAPS, Transforms, transforms
from vggc.kernels.workloads import Conv, by_panels

M = 4
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0)
ELEMENTS = (M + TAPS - 1) ** 2
WORD = 2
"""The numbers of a word."""
MAX_CHANNELS = 512
"""The more are summed, the coarser the weights: with so many it costs what their eight bits do."""
LARGEST_SUM, LARGEST = 2**31 - 1, 2**15 - 1


def largest_inputs(zero: int) -> NDArray[np.float64]:
    """How large each element of the transformed input may be, for values from 0 to 255
    less `zero`.
    """
    matrix = transforms(POINTS).input
    both = np.kron(matrix, matrix)
    above, below = np.maximum(both, 0).sum(1), np.maximum(-both, 0).sum(1)
    high, low = 255 - zero, zero
    return np.asarray(np.maximum(above * high + below * low, above * low + below * high))


def constant_part() -> NDArray[np.float64]:
    """What each element of the transformed input is where all inputs are 1."""
    ones = transforms(POINTS).input.sum(1)
    return np.outer(ones, ones).ravel()


@dataclass(frozen=True)
class Int16Weight:
    """Packs a weight `(K, C, 3, 3)` of int8 as words `(K/panel, 36, header + C/2, panel)`, padded
    with zeros.

    The first word of each output channel is its scale, a float32; where the input's `zero` is
    not 0 the second is what that adds to the products, a float32; the others hold two channels
    each, the even one in the lower half. `scale·number` is the transformed weight.
    """

    shape: tuple[int, ...]
    panel: int
    zero: int = 0

    @property
    def header(self) -> int:
        """The words of each output channel that stand before those of its channels."""
        return 2 if self.zero else 1

    packed_type = "int32"

    @property
    def packed_shape(self) -> tuple[int, ...]:
        k, c, _, _ = self.shape
        return (ceil(k / self.panel), ELEMENTS, self.header + c // WORD, self.panel)

    def pack(self, weight: NDArray[np.int8]) -> NDArray[np.int32]:
        packed = np.zeros(self.packed_shape, np.int32)
        for index, words in enumerate(packed):
            filters = weight[index * self.panel : (index + 1) * self.panel]
            moved = filters.reshape(*filters.shape[:2], -1) @ transform_of_filters(self.by).T
            moved = np.ascontiguousarray(moved.transpose(2, 0, 1))  # elements, outputs, inputs
            scale = self._scales(moved)
            numbers = np.rint(moved / scale[:, :, None]).astype(np.int16)
            words[:, 0, : len(filters)] = scale.view(np.int32)
            if self.zero:
                added = self.zero * constant_part()[:, None] * moved.sum(2)
                words[:, 1, : len(filters)] = added.astype(np.float32).view(np.int32)
            pairs = numbers.view(np.int32).transpose(0, 2, 1)
            words[:, self.header :, : len(filters)] = pairs
        return packed

    def pieces(self, weight: np.ndarray) -> Iterator[np.ndarray]:
        return by_panels(self, self.panel, weight)

    def unpack(self, packed: NDArray[np.int32]) -> NDArray[np.int8]:
        k, c, _, _ = self.shape
        scale = packed[:, :, 0].view(np.float32).astype(np.float64)
        words = np.ascontiguousarray(packed[:, :, self.header :].transpose(0, 1, 3, 2))
        moved = words.view(np.int16) * scale[..., None]
        rows = moved.transpose(0, 2, 3, 1).reshape(-1, c, ELEMENTS)[:k]
        weight = rows @ np.linalg.pinv(transform_of_filters(self.by)).T
        return np.rint(weight).astype(np.int8).reshape(self.shape)

    @property
    def by(self) -> Transforms:
        """The matrices of the transforms."""
        return transforms(POINTS)

    def _scales(self, moved: NDArray[np.float64]) -> NDArray[np.float32]:
        """The least with which numbers fit 16 bits and sums 32, for each element and output."""
        inputs = largest_inputs(self.zero)[:, None]
        # Rounding adds at most a half to each number.
        room = LARGEST_SUM - 0.5 * self.shape[1] * inputs
        size = np.abs(moved)
        least = np.maximum(size.sum(2) * inputs / room, size.max(2) / (LARGEST - 1))
        scale = np.nextafter(least.astype(np.float32), np.float32(np.inf))
        return np.asarray(np.where(least > 0, scale, 1), np.float32)


class Emitter(winograd.Emitter):
    """Writes the body of a Winograd kernel that keeps words of two channels in int16."""

    @property
    def by(self) -> Transforms:
        return transforms(POINTS)

    @property
    def element(self) -> str:
        return "int16"

    @property
    def sum_type(self) -> str:
        return "int32"

    @property
    def header(self) -> int:
        return 2 if self.conv.input.zero else 1

    @property
    def steps(self) -> int:
        return self.conv.input.channels // WORD

    def kept(self) -> Buffer:
        return super().kept().view("words", *self.kept_shape, dtype="int32")

    def input(self, stored: Expr) -> Expr:
        return T.Cast("int16", stored) - T.int16(self.conv.input.zero)

    def keep(
        self, half: Buffer, size: int, step: int, moved: Buffer, row: Expr, first: Expr | int
    ) -> None:
        n, (elements, words) = self.n, self.kept_shape
        numbers = moved.view("numbers", elements, words * WORD, dtype="int16")
        with serial("vector", size // step) as vector, vectorized("lane", step) as lane:
            c = vector * step + lane
            for i in range(n):
                values = to_input(self.by, [half[i, j, c] for j in range(n)], self.element)
                for j, value in enumerate(values):
                    numbers[i * n + j, row * WORD + first + c] = value

    def add(
        self, sums: Buffer, first: int, factor: Expr, weight: Buffer, place: tuple[Expr, ...]
    ) -> None:
        panel, e, step = place
        lanes = T.Ramp(first, 1, LANES)
        pairs = weight[panel, e, self.header + step, lanes]
        sums[lanes] = dot_int16(sums[lanes], T.Broadcast(factor, LANES), pairs)

    def product(self, total: Expr, weight: Buffer, place: tuple[Expr, ...], k: Expr) -> Expr:
        value = T.Cast("float32", total) * T.reinterpret("float32", weight[*place, 0, k])
        return value + T.reinterpret("float32", weight[*place, 1, k]) if self.header > 1 else value


class Winograd4Int16(WinogradInWords):
    """Winograd's algorithm by tiles of 4×4 pixels of a uint8 map, whose products are of int16."""

    names = ("winograd4-int16",)
    m = M

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """A convolution 3×3 with stride 1 and no dilation of a uint8 map, of whole vectors of at
        most 512 channels.
        """
        source, out = workload.input, workload.output
        return (
            source.format == "uint8"
            and source.channels % (WORD * LANES) == 0
            and source.channels <= MAX_CHANNELS
            and out.shape[-1] == out.channels
            and max(workload.grid) > M
            and has_tiles(workload)
        )

    def emitter(self, knobs: WinogradKnobs) -> Emitter:
        return Emitter(self.workload, self.machine, M, knobs)

    def packing(self, knobs: WinogradKnobs) -> Int16Weight:
        zero = self.workload.input.zero
        return Int16Weight(self.workload.weight_shape, self.emitter(knobs).panel, zero)

    def value(self, buffers: Buffers, total: Expr, channel: Expr) -> Expr:
        return result(self.workload, buffers, total, channel)

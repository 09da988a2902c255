"""Direct convolution in fewer bits: each instruction adds two or four products a lane.

The register tile and the loops are those of `conv`; what is broadcast is a word of 32 bits,
which holds neighbouring channels of a pixel: two in bfloat16, multiplied by `vdpbf16ps`
(AVX512-BF16) and summed in float32, or four in uint8, multiplied with int8 weights by
`vpdpbusd` (AVX512-VNNI) and summed in int32, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import ClassVar

import numpy as np
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.activation import activate
from vggc.kernels.algorithm import Buffers, Cost
from vggc.kernels.bfloat16 import from_bfloat16, to_bfloat16
from vggc.kernels.builder import serial, unrolled, when
from vggc.kernels.cpu import conv as direct
from vggc.kernels.cpu.algorithm import CpuAlgorithm
from vggc.kernels.cpu.conv import ConvKnobs
from vggc.kernels.cpu.formats import clear_padding, rounded
from vggc.kernels.cpu.intrinsics import DOT_BFLOAT16, LANES, dot_bfloat16, dot_uint8_int8
from vggc.kernels.cpu.loops import clear_halo, elements, in_block, inside, scratch
from vggc.kernels.cpu.machine import FLOAT, Machine
from vggc.kernels.workloads import WORD, Conv, Format, by_panels

INSTRUCTIONS: dict[Format, str] = {"bfloat16": "avx512bf16", "uint8": "avx512vnni"}
"""What a CPU must have to multiply each format, in LLVM's words."""


@dataclass(frozen=True)
class WordWeight:
    """Packs a weight `(K, C, kh, kw)` as `(K/block, kh, kw, C/word, block, word)`, padded with
    zeros.

    Words of four take int8, words of two float32, which is rounded to bfloat16.
    """

    shape: tuple[int, ...]
    block: int
    word: int

    @property
    def packed_type(self) -> str:
        return "uint16" if self.word == WORD["bfloat16"] else "int8"

    @property
    def packed_shape(self) -> tuple[int, ...]:
        k, c, kh, kw = self.shape
        return (ceil(k / self.block), kh, kw, ceil(c / self.word), self.block, self.word)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        k, c, kh, kw = self.shape
        blocks, _, _, words, block, word = self.packed_shape
        weight = to_bfloat16(weight) if word == WORD["bfloat16"] else weight
        padded = np.zeros((blocks * block, words * word, kh, kw), weight.dtype)
        padded[:k, :c] = weight
        split = padded.reshape(blocks, block, words, word, kh, kw)
        return np.ascontiguousarray(split.transpose(0, 4, 5, 2, 1, 3))

    def pieces(self, weight: np.ndarray) -> Iterator[np.ndarray]:
        return by_panels(self, self.block, weight)

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        k, c, kh, kw = self.shape
        split = packed.transpose(0, 4, 3, 5, 1, 2)
        padded = split.reshape(packed.shape[0] * self.block, -1, kh, kw)
        weight = np.ascontiguousarray(padded[:k, :c])
        return from_bfloat16(weight) if self.word == WORD["bfloat16"] else weight


def in_words(conv: Conv) -> Conv:
    """The float32 convolution that reads, multiplies and adds as often as `conv` does in words."""
    source = conv.input
    words = source.shape[-1] // WORD[source.format]
    as_floats = replace(source, channels=words, format="float32", zero=0)
    return replace(conv, input=as_floats)


def cost(conv: Conv, machine: Machine, knobs: ConvKnobs) -> Cost:
    """The cost of `conv` in float32 over words, or the half cycles in which all weights come, where
    these are more.

    They come once: what reads them again gets them from a cache.
    """
    computing, *rest = direct.cost(in_words(conv), machine, knobs)
    size = FLOAT * prod(conv.weight_shape) // WORD[conv.input.format]
    return (max(computing, size / machine.delivery(size)), *rest)


def add_products(form: Format, sums: Expr, word: Expr, weights: Expr) -> Expr:
    """The lanes of `sums`, each with the products of `word` and its own word of `weights` added.

    A function that holds this must have the pragma `import_llvm` of `DOT_BFLOAT16`.
    """
    broadcast = T.Broadcast(word, LANES)
    if form == "bfloat16":
        return dot_bfloat16(sums, broadcast, weights)
    return dot_uint8_int8(sums, broadcast, weights)


def result(conv: Conv, buffers: Buffers, total: Expr, channel: Expr) -> Expr:
    """What a channel's sum gives with scale, bias and activation, as a float to be rounded to the
    output's format.
    """
    scale, bias = T.float32(1), buffers["bias"][channel]
    if conv.input.format == "uint8":
        total, scale = T.Cast("float32", total), buffers["scale"][channel]
    if conv.output.format != "uint8":
        return activate(conv.act, total * scale + bias)
    steps = T.float32(1) / buffers["out_scale"][0]
    if conv.act is None or conv.act.homogeneous:
        # Then scale and bias are multiplied once for all pixels of a tile.
        return activate(conv.act, total * (scale * steps) + bias * steps)
    return activate(conv.act, total * scale + bias) * steps


@dataclass(frozen=True)
class DirectBfloat16(CpuAlgorithm[Conv, ConvKnobs]):
    """A tile stays in registers; each multiply-add is of words of two bfloat16."""

    names = ("direct-bfloat16",)
    computes = Conv
    format: ClassVar[Format] = "bfloat16"

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """Any convolution of a bfloat16 map, and dense layers in the form of one."""
        return workload.input.format == cls.format

    def knobs(self) -> Iterator[ConvKnobs]:
        return direct.tiles(self.workload, self.machine)

    def cost(self, knobs: ConvKnobs) -> Cost:
        return cost(self.workload, self.machine, knobs)

    def packing(self, knobs: ConvKnobs) -> WordWeight:
        return WordWeight(self.workload.weight_shape, knobs.vectors * LANES, WORD[self.format])

    def macs(self, knobs: ConvKnobs) -> int:
        words = direct.macs(in_words(self.workload), self.machine, knobs)
        return WORD[self.format] * words

    def emit(self, knobs: ConvKnobs, buffers: Buffers) -> None:
        conv = self.workload
        source, out = conv.input, conv.output
        (kh, kw), (stride_y, stride_x), (down, right) = conv.kernel, conv.stride, conv.dilation
        num_runs, num_steps = (kh, kw) if direct.has_row_runs(conv) else (kh * kw, 1)
        top, left = (source.halo - padding for padding in conv.padding)
        block = knobs.vectors * LANES
        num_blocks = ceil(out.channels / block)
        pixels = (knobs.images, knobs.rows, knobs.columns)

        batch, height, width, stored = source.shape
        words = stored // WORD[source.format]
        x = buffers["x"].view("x", batch, height, width * words, dtype="int32")
        weight = buffers["weight"].view(
            "weight", num_blocks, num_runs, num_steps * words, block, dtype="int32"
        )
        y = buffers["y"]
        sum_type = "int32" if source.format == "uint8" else "float32"

        clear_halo(y, out)
        with (
            T.attr(0, "pragma_import_llvm", DOT_BFLOAT16),
            direct.each_tile(conv, knobs, num_blocks) as tile,
        ):
            k, (n0, y0, x0) = tile.block, tile.origin
            sums = scratch("sums", *pixels, block, dtype=sum_type)
            for at in elements(pixels, block, LANES):
                sums[at] = T.Cast(sum_type, T.int32(0))
            with (
                direct.runs(conv) as (index, dy, dx),
                serial("t", num_steps * words) as t,
                unrolled(
                    "n i j vector",
                    *pixels,
                    knobs.vectors,
                ) as (n, i, j, vector),
            ):
                row = (y0 + i) * stride_y + dy * down + top
                first = ((x0 + j) * stride_x + left + dx * right) * words
                lanes = T.Ramp(vector * LANES, 1, LANES)
                word = x[n0 + n, row, first + t]
                value = add_products(
                    source.format, sums[n, i, j, lanes], word, weight[k, index, t, lanes]
                )
                sums[n, i, j, lanes] = value

            for num_channels in in_block(k, block, out.channels):
                for total, c, pixel in direct.results(
                    conv, knobs, tile.origin, sums, num_channels, LANES
                ):
                    value = result(conv, buffers, total, k * block + c)
                    place = inside(out, *pixel, k * block + c)
                    y[place] = rounded(value, out.format, out.zero)

            if out.shape[-1] > out.channels:
                side = 2 if conv.pool else 1
                kept = (knobs.images, knobs.rows // side, knobs.columns // side)
                with (
                    when(k == num_blocks - 1),
                    unrolled("n i j", *kept) as (n, i, j),
                ):
                    clear_padding(y, out, n0 + n, y0 // side + i, x0 // side + j)


class DirectUint8(DirectBfloat16):
    """A tile stays in registers; each multiply-add is of words of four uint8 and int8."""

    names = ("direct-uint8",)
    format = "uint8"

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """Any convolution of a uint8 map, and dense layers in the form of one."""
        return super().applies(workload)

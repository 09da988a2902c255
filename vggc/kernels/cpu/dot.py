"""Direct convolution in fewer bits: each instruction adds two or four products a lane.

The register tile and the loops are those of `conv`; what is broadcast is a word of 32 bits,
which holds neighbouring channels of a pixel: two in bfloat16, multiplied by `vdpbf16ps`
(AVX512-BF16) and summed in float32, or four in uint8, multiplied with int8 weights by
`vpdpbusd` (AVX512-VNNI) and summed in int32, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import ceil, prod

import numpy as np
from tvm.ir import Expr
from tvm.tirx import PrimFunc
from tvm.tirx.script import builder as T

from vggc.kernels.activation import activate
from vggc.kernels.array import Array, serial, unrolled, when
from vggc.kernels.bfloat16 import from_bfloat16, to_bfloat16
from vggc.kernels.cpu import conv as direct
from vggc.kernels.cpu.conv import ConvKnobs
from vggc.kernels.cpu.formats import clear_padding, rounded
from vggc.kernels.cpu.loops import clear_halo, elements, function, in_block, inside, scratch
from vggc.kernels.cpu.machine import FLOAT, Machine
from vggc.kernels.cpu.template import Cost, Template
from vggc.kernels.workloads import WORD, Conv, Format, Kernel, by_panels

INSTRUCTIONS: dict[Format, str] = {"bfloat16": "avx512bf16", "uint8": "avx512vnni"}
"""What a CPU must have to multiply each format, in LLVM's words."""

LANES = 16

# TVM would compute bfloat16 in float32, so it is shown words, and LLVM what they hold.
DOT_BFLOAT16 = """
declare <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(<16 x float>, <32 x bfloat>, <32 x bfloat>)

define <16 x float> @vggc_dot_bfloat16(<16 x float> %sums, <16 x i32> %a, <16 x i32> %b) {
  %x = bitcast <16 x i32> %a to <32 x bfloat>
  %y = bitcast <16 x i32> %b to <32 x bfloat>
  %result = call <16 x float> @llvm.x86.avx512bf16.dpbf16ps.512(
    <16 x float> %sums, <32 x bfloat> %x, <32 x bfloat> %y)
  ret <16 x float> %result
}
"""


@dataclass(frozen=True)
class WordWeight:
    """`(K, C, kh, kw)` as `(K/block, kh, kw, C/word, block, word)`, padded with zeros.

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


def template(conv: Conv, machine: Machine) -> Template:
    """Products of words; `conv` reads a map of fewer bits than float32."""
    return Template(
        f"direct-{conv.input.format}",
        direct.tiles(conv, machine),
        partial(cost, conv, machine),
        partial(kernel, conv, machine),
    )


def cost(conv: Conv, machine: Machine, knobs: ConvKnobs) -> Cost:
    """That of `conv` in float32, or the half cycles in which all weights come, where that is more.

    They come once: what reads them again gets them from a cache.
    """
    computing, *rest = direct.cost(in_words(conv), machine, knobs)
    size = FLOAT * prod(conv.weight_shape) // WORD[conv.input.format]
    return (max(computing, size / machine.delivery(size)), *rest)


def kernel(conv: Conv, machine: Machine, knobs: ConvKnobs) -> Kernel:
    """Code for `conv` with these knobs, one of `tiles`."""
    word = WORD[conv.input.format]
    packing = WordWeight(conv.weight_shape, knobs.vectors * LANES, word)
    func = function_of(conv, packing.packed_shape, partial(emit, conv, knobs))
    macs = word * direct.macs(in_words(conv), machine, knobs)
    return Kernel(f"direct-{conv.input.format}", asdict(knobs), func, packing, macs)


def function_of(
    conv: Conv,
    weight: tuple[int, ...],
    body: Callable[[dict[str, Array]], None],
    weight_type: str | None = None,
) -> PrimFunc:
    """The function for `conv` with a packed weight of this shape; `body` writes it.

    It is given the buffers by name: x, weight, scale (of int8), bias, out_scale (to uint8), y.
    The weight is of int8 or of bfloat16 unless `weight_type` says otherwise.
    """
    source, out = conv.input, conv.output
    integer = source.format == "uint8"
    shapes: dict[str, tuple[int, ...]] = {"x": source.shape, "weight": weight}
    if integer:
        shapes["scale"] = (out.channels,)
    shapes["bias"] = (out.channels,)
    if out.format == "uint8":
        shapes["out_scale"] = (1,)
    shapes["y"] = out.shape
    weight_type = weight_type or ("int8" if integer else "uint16")
    types = {"x": source.storage, "weight": weight_type, "y": out.storage}
    return function(lambda *buffers: body(dict(zip(shapes, buffers, strict=True))), types, **shapes)


def add_products(form: Format, sums: Expr, word: Expr, weights: Expr) -> Expr:
    """The lanes of `sums`, each with the products of `word` and its word of `weights` added.

    What holds it must have the pragma `import_llvm` of `DOT_BFLOAT16`.
    """
    broadcast = T.Broadcast(word, LANES)
    if form == "bfloat16":
        return T.call_pure_extern("float32x16", "vggc_dot_bfloat16", sums, broadcast, weights)
    return T.call_llvm_pure_intrin(
        "int32x16",
        "llvm.x86.avx512.vpdpbusd.512",
        sums,
        T.reinterpret("int8x64", broadcast),
        T.reinterpret("int8x64", weights),
    )


def result(conv: Conv, buffers: dict[str, Array], total: Expr, channel: Expr) -> Expr:
    """What a sum gives, as a float that is to be rounded to the format of the output."""
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


def emit(conv: Conv, knobs: ConvKnobs, buffers: dict[str, Array]) -> None:
    """Write the body of a kernel."""
    source, out = conv.input, conv.output
    (kh, kw), (stride_y, stride_x) = conv.kernel, conv.stride
    top, left = (source.halo - padding for padding in conv.padding)
    block = knobs.vectors * LANES
    num_blocks = ceil(out.channels / block)
    pixels = (knobs.images, knobs.rows, knobs.columns)

    batch, height, width, stored = source.shape
    words = stored // WORD[source.format]
    x = buffers["x"].view("x", batch, height, width * words, dtype="int32")
    weight = buffers["weight"].view("weight", num_blocks, kh, kw * words, block, dtype="int32")
    y = buffers["y"]
    sum_type = "int32" if source.format == "uint8" else "float32"

    clear_halo(y, out)
    with (
        T.attr(0, "pragma_import_llvm", DOT_BFLOAT16),
        direct.each_tile(conv, knobs, num_blocks) as (k, origin),
    ):
        n0, y0, x0 = origin
        sums = scratch("sums", *pixels, block, dtype=sum_type)
        for at in elements(pixels, block, LANES):
            sums[at] = T.Cast(sum_type, T.int32(0))
        with (
            serial("dy", kh) as dy,
            serial("t", kw * words) as t,
            unrolled(
                "n i j vector",
                *pixels,
                knobs.vectors,
            ) as (n, i, j, vector),
        ):
            row = (y0 + i) * stride_y + dy + top
            first = ((x0 + j) * stride_x + left) * words
            lanes = T.Ramp(vector * LANES, 1, LANES)
            word = x[n0 + n, row, first + t]
            value = add_products(source.format, sums[n, i, j, lanes], word, weight[k, dy, t, lanes])
            sums[n, i, j, lanes] = value

        for num_channels in in_block(k, block, out.channels):
            for total, c, pixel in direct.results(conv, knobs, origin, sums, num_channels, LANES):
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

"""Values of fewer bits than float32: read, rounded and written, a row of pixels per task."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.tirx import Let, Var, const
from tvm.tirx.script import builder as T

from vggc.kernels.builder import Buffer, serial
from vggc.kernels.cpu.loops import clear_halo, function, inside, parallel_rows
from vggc.kernels.workloads import Convert, Format, Kernel, Map

# Added to a float of at most 255 it rounds it, ties to even, and its low byte is the number.
SHIFTER = 1.5 * 2**23
# The bits of these values: in float32 the first, in bfloat16 the second.
INFINITY = 0x7F800000
BFLOAT16_NAN = 0x7FC0


def read(value: Expr, format: Format, zero: int = 0) -> Expr:
    """A stored value as a float32; of a uint8 its distance to `zero`."""
    match format:
        case "float32":
            return value
        case "bfloat16":
            return T.reinterpret("float32", T.shift_left(T.Cast("uint32", value), T.uint32(16)))
        case "uint8":
            return T.Cast("float32", T.Cast("int32", value) - T.int32(zero))


def rounded(value: Expr, format: Format, zero: int = 0) -> Expr:
    """A float32 as it is stored, ties to even; to a uint8 its distance to `zero`, cut off."""
    match format:
        case "float32":
            return value
        case "bfloat16":
            bits = Var("bits", "uint32")
            odd = T.bitwise_and(T.shift_right(bits, T.uint32(16)), T.uint32(1))
            upper = T.shift_right(bits + T.uint32(0x7FFF) + odd, T.uint32(16))
            is_nan = T.bitwise_and(bits, T.uint32(0x7FFFFFFF)) > T.uint32(INFINITY)
            stored = T.Cast("uint16", T.Select(is_nan, T.uint32(BFLOAT16_NAN), upper))
            return Let(bits, T.reinterpret("uint32", value), stored)
        case "uint8":
            held = T.min(T.max(value, T.float32(-zero)), T.float32(255 - zero))
            bits = T.reinterpret("int32", held + T.float32(SHIFTER + zero))
            return T.Cast("uint8", bits)


def read_ordered(value: Expr, format: Format) -> Expr:
    """A number that is larger the larger the stored value is; a uint8 is such a number."""
    return value if format == "uint8" else read(value, format)


def write_ordered(value: Expr, format: Format) -> Expr:
    """The stored value behind one of the numbers of `read_ordered`."""
    return value if format == "uint8" else rounded(value, format)


def clear_padding(buffer: Buffer, map: Map, image: Expr, y: Expr, x: Expr) -> None:
    """Write the zeros that pad the channels of a pixel."""
    for channel in range(map.channels, map.shape[-1]):
        zero = const(map.zero, map.storage)
        buffer[inside(map, image, y, x, channel)] = zero


def convert(conversion: Convert) -> Kernel:
    """Code for `conversion`."""
    source, out = conversion.input, conversion.output
    scaled = "uint8" in (source.format, out.format)

    def body(x: Buffer, *others: Buffer) -> None:
        *scale, y = others
        clear_halo(y, out)
        with parallel_rows(out) as (n, i), serial("j", out.width) as j:
            with serial("c", out.channels) as c:
                value = read(x[inside(source, n, i, j, c)], source.format, source.zero)
                if out.format == "uint8":
                    value = value / scale[0][0]
                elif source.format == "uint8":
                    value = value * scale[0][0]
                stored = rounded(value, out.format, out.zero)
                y[inside(out, n, i, j, c)] = stored
            clear_padding(y, out, n, i, j)

    shapes = {"x": source.shape} | ({"scale": (1,)} if scaled else {}) | {"y": out.shape}
    types = {"x": source.storage, "y": out.storage}
    return Kernel("convert", {}, function(body, types, **shapes))

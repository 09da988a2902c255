"""Values of fewer bits than float32: read, rounded and written, a row of pixels per task."""

from __future__ import annotations

from tvm.ir import Expr
from tvm.tirx import Let, Var, const
from tvm.tirx.script import builder as T

from vggc.kernels.builder import Buffer
from vggc.kernels.cpu.loops import inside
from vggc.kernels.workloads import Format, Map

SHIFTER = 1.5 * 2**23
"""Added to a float of at most 255 it rounds it, ties to even, and its low byte is the number."""
INFINITY = 0x7F800000
"""The bits of infinity in float32."""
BFLOAT16_NAN = 0x7FC0
"""The bits of NaN in bfloat16."""
NOT_HERE = "kernels for CPUs know no float16 and no tf32"


def read(value: Expr, format: Format, zero: int = 0) -> Expr:
    """A stored value as a float32; for a uint8, its distance to `zero`."""
    match format:
        case "float32":
            return value
        case "bfloat16":
            return T.reinterpret("float32", T.shift_left(T.Cast("uint32", value), T.uint32(16)))
        case "float16" | "tf32":
            raise AssertionError(NOT_HERE)
        case "uint8":
            return T.Cast("float32", T.Cast("int32", value) - T.int32(zero))


def rounded(value: Expr, format: Format, zero: int = 0) -> Expr:
    """A float32 as it is stored in `format`, rounded ties to even; for a uint8, plus `zero` and cut
    off at its range.
    """
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
        case "float16" | "tf32":
            raise AssertionError(NOT_HERE)
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

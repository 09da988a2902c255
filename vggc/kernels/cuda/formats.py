"""Numbers of formats of fewer bits in registers: read as floats, and rounded from floats.

A word of 32 bits holds as many numbers as fit, the first in its low bits. Those of uint8 are read
and rounded as their distance to what stands for zero, in steps of a map's scale.
"""

from __future__ import annotations

from functools import reduce

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.builder import Buffer
from vggc.kernels.cuda import ptx
from vggc.kernels.workloads import WORD, Map

SHIFTER = 1.5 * 2**23
"""Added to a float of at most 255 it rounds it, ties to even, and its low byte is the number."""


def distance(map: Map, byte: Expr) -> Expr:
    """The float of a number of a uint8 map."""
    return T.Cast("float32", T.Cast("int32", byte) - T.int32(map.zero))


def widen_segment(map: Map, target: Buffer, at: int, words: Buffer, first: int) -> None:
    """The floats of the numbers in a segment of a map, four words from the `first` on."""
    per_word = WORD[map.format]
    for index in range(4):
        here, word = at + per_word * index, words[first + index]
        match map.format:
            case "uint8":
                for byte in range(per_word):
                    number = word >> T.uint32(8 * byte) & T.uint32(0xFF)
                    target[here + byte] = distance(map, number)
            case "float16" | "bfloat16":
                ptx.widen_pair(map.format, target, here, word)
            case "float32" | "tf32":
                target[here] = T.reinterpret("float32", word)


def round_words(map: Map, words: Buffer, values: Buffer, first: int, count: int) -> None:
    """The nearest numbers to `count` floats, from the `first` on, as a map has them, in the first
    words.
    """
    per_word = WORD[map.format]
    for word in range(count // per_word):
        some = [values[first + per_word * word + index] for index in range(per_word)]
        match map.format:
            case "uint8":
                numbers = [nearest_byte(map, value) for value in some]
                shifted = (each << T.uint32(8 * byte) for byte, each in enumerate(numbers))
                words[word] = reduce(T.bitwise_or, shifted)
            case "float16" | "bfloat16":
                ptx.round_pair(map.format, words[word], *some)
            case "tf32":
                ptx.round_to_tf32(words[word], *some)
            case "float32":
                words[word] = T.reinterpret("uint32", *some)


def nearest_byte(map: Map, value: Expr) -> Expr:
    """The nearest number of a uint8 map to a float, cut off at its range, as a uint32."""
    held = T.min(T.max(value, T.float32(-map.zero)), T.float32(255 - map.zero))
    bits = T.reinterpret("uint32", held + T.float32(SHIFTER + map.zero))
    return bits & T.uint32(0xFF)


def zero_word(map: Map) -> Expr:
    """A word of what stands for zero."""
    return T.uint32(map.zero * 0x01010101)


def segment_of(words: Buffer, first: int = 0) -> list[Expr]:
    """The four words of a segment, from the `first` on."""
    return [words[first + word] for word in range(4)]

"""Numbers of formats of fewer bits in registers: read as floats, and rounded from floats.

A word of 32 bits holds as many numbers as fit, the first in its low bits.
"""

from __future__ import annotations

from typing import cast

from tvm.tirx import Expr

from vggc.kernels.builder import Buffer
from vggc.kernels.cuda import ptx
from vggc.kernels.cuda.operands import operands_of
from vggc.kernels.cuda.ptx import HalfFormat
from vggc.kernels.workloads import Format

WORD_BYTES = 4


def widen_words(
    format: Format, target: Buffer, at: int, words: Buffer, first: int, count: int = 4
) -> None:
    """The floats of the numbers in some words."""
    per_word = WORD_BYTES // operands_of(format).size
    for word in range(count):
        here = at + per_word * word
        ptx.widen_pair(cast("HalfFormat", format), target, here, words[first + word])


def round_words(format: Format, words: Buffer, values: Buffer, first: int, count: int = 4) -> None:
    """The nearest numbers to floats, from the `first` on, in the first `count` words."""
    per_word = WORD_BYTES // operands_of(format).size
    for word in range(count):
        some = [values[first + per_word * word + index] for index in range(per_word)]
        ptx.round_pair(cast("HalfFormat", format), words[word], *some)


def segment_of(words: Buffer) -> list[Expr]:
    """The four words of a segment."""
    return [words[word] for word in range(4)]

"""Instructions that TVM has no words for, each beside its meaning in plain Python.

All are of AVX-512: a register holds 16 lanes of 32 bits, and each lane is treated by itself.
`tests/kernels/test_intrinsics.py` compares machine code and meaning where a processor has them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.bfloat16 import from_bfloat16

LANES = 16

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
"""What code that uses `dot_bfloat16` must bring along, in a pragma `import_llvm`.

TVM would compute bfloat16 in float32, so it is shown words, and LLVM what they hold.
"""


def dot_bfloat16(sums: Expr, a: Expr, b: Expr) -> Expr:
    """`vdpbf16ps` (AVX512-BF16): adds products of bfloat16 to 16 sums; a and b are 16 words of
    int32.
    """
    return T.call_pure_extern("float32x16", "vggc_dot_bfloat16", sums, a, b)


def dot_bfloat16_means(
    sums: NDArray[np.float32], a: NDArray[np.uint16], b: NDArray[np.uint16]
) -> NDArray[np.float32]:
    """What `vdpbf16ps` gives: the sums `(16,)`, each with the products of two bfloat16; a and b are
    `(16, 2)`.

    The products are exact, and each addition is rounded to float32. Denormals count as zero.
    """
    x, y = from_bfloat16(a), from_bfloat16(b)
    for pair in (1, 0):
        sums = sums + x[:, pair] * y[:, pair]
    return sums


def dot_uint8_int8(sums: Expr, a: Expr, b: Expr) -> Expr:
    """`vpdpbusd` (AVX512-VNNI): adds products of uint8 and int8 to 16 sums; a and b are 16 words of
    int32.
    """
    words = (T.reinterpret("int8x64", word) for word in (a, b))
    return T.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.vpdpbusd.512", sums, *words)


def dot_uint8_int8_means(
    sums: NDArray[np.int32], a: NDArray[np.uint8], b: NDArray[np.int8]
) -> NDArray[np.int32]:
    """What `vpdpbusd` gives: the sums `(16,)`, each with the products of four uint8 and int8; a and
    b are `(16, 4)`.

    Exact but for what goes beyond an int32, which wraps around.
    """
    products = a.astype(np.int32) * b.astype(np.int32)
    return np.asarray(sums + products.sum(1, dtype=np.int32), np.int32)


def dot_int16(sums: Expr, a: Expr, b: Expr) -> Expr:
    """`vpdpwssd` (AVX512-VNNI): adds products of int16 to 16 sums; a and b are 16 words of
    int32.
    """
    words = (T.reinterpret("int16x32", word) for word in (a, b))
    return T.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.vpdpwssd.512", sums, *words)


def dot_int16_means(
    sums: NDArray[np.int32], a: NDArray[np.int16], b: NDArray[np.int16]
) -> NDArray[np.int32]:
    """What `vpdpwssd` gives: the sums `(16,)`, each with the products of two int16; a and b are
    `(16, 2)`.

    Exact but for what goes beyond an int32, which wraps around.
    """
    products = a.astype(np.int32) * b.astype(np.int32)
    return np.asarray(sums + products.sum(1, dtype=np.int32), np.int32)

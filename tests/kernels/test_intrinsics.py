"""Instructions mean what the plain Python beside them says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm
from tvm.tirx.script import builder as T

from tests.support.low_precision_kernels import HAS, HOST
from vggc.kernels.bfloat16 import to_bfloat16
from vggc.kernels.builder import Argument, Buffer, function
from vggc.kernels.cpu import intrinsics
from vggc.kernels.cpu.intrinsics import DOT_BFLOAT16, LANES

RANDOM = np.random.default_rng(0)


def whole(low: int, high: int, count: int, kind: type[np.integer[Any]]) -> np.ndarray:
    """Lanes of whole numbers from `low` to `high`, the largest of either sign among them."""
    found = RANDOM.integers(low, high, (LANES, count), endpoint=True).astype(kind)
    found[0], found[1] = low, high
    return found


def rounded(count: int) -> np.ndarray:
    return to_bfloat16(RANDOM.standard_normal((LANES, count), np.float32))


CASES: dict[
    str, tuple[str, Callable[..., Any], Callable[..., Any], str, np.ndarray, np.ndarray]
] = {
    "vdpbf16ps": (
        "avx512bf16",
        intrinsics.dot_bfloat16,
        intrinsics.dot_bfloat16_means,
        "float32",
        rounded(2),
        rounded(2),
    ),
    "vpdpbusd": (
        "avx512vnni",
        intrinsics.dot_uint8_int8,
        intrinsics.dot_uint8_int8_means,
        "int32",
        whole(0, 255, 4, np.uint8),
        whole(-128, 127, 4, np.int8),
    ),
    "vpdpwssd": (
        "avx512vnni",
        intrinsics.dot_int16,
        intrinsics.dot_int16_means,
        "int32",
        whole(-(2**15), 2**15 - 1, 2, np.int16),
        whole(-(2**15) + 1, 2**15 - 1, 2, np.int16),
    ),
}


def compiled(emit: Callable[..., Any], sum_type: str) -> Any:
    """A function of sums and two vectors of words that stores what `emit` makes of them."""

    def body(sums: Buffer, a: Buffer, b: Buffer, y: Buffer) -> None:
        lanes = T.Ramp(0, 1, LANES)
        with T.attr(0, "pragma_import_llvm", DOT_BFLOAT16), T.serial(1):
            y[lanes] = emit(sums[lanes], a[lanes], b[lanes])

    kinds = {"sums": sum_type, "a": "int32", "b": "int32", "y": sum_type}
    arguments = [Argument(name, (LANES,), kind) for name, kind in kinds.items()]
    func = function(body, arguments, {}).with_attr("global_symbol", "f")
    return tvm.compile(tvm.IRModule({"f": func}), target=HOST)


@pytest.mark.parametrize("name", CASES)
def test_an_instruction_means_what_stands_beside_it(name: str) -> None:
    feature, emit, means, sum_type, a, b = CASES[name]
    if not HAS(feature, HOST):
        pytest.skip(f"this processor has no {name}")
    sums = (1000 * RANDOM.standard_normal(LANES)).astype(sum_type)
    y = tvm.runtime.tensor(np.zeros(LANES, sum_type))
    words = (np.ascontiguousarray(each).view(np.int32).ravel() for each in (a, b))
    compiled(emit, sum_type)["f"](*map(tvm.runtime.tensor, (sums, *words)), y)
    np.testing.assert_array_equal(y.numpy(), means(sums, a, b))


def test_meanings_by_hand() -> None:
    sums = np.zeros(LANES, np.int32)
    a, b = np.full((LANES, 4), 255, np.uint8), np.full((LANES, 4), -128, np.int8)
    assert (intrinsics.dot_uint8_int8_means(sums, a, b) == -4 * 255 * 128).all()
    pair = np.tile(np.array([3, -5], np.int16), (LANES, 1))
    assert (intrinsics.dot_int16_means(sums + 1, pair, pair) == 1 + 9 + 25).all()
    twos = to_bfloat16(np.full((LANES, 2), 2.0, np.float32))
    ones = intrinsics.dot_bfloat16_means(np.ones(LANES, np.float32), twos, twos)
    assert (ones == 9).all()

"""Winograd in 16 bits: what the packing keeps, and that no input makes a sum overflow."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray

from tests.support.low_precision_kernels import HOST, LACKS, conv, exact_conv, library, winograds
from vggc.kernels.cpu import Machine
from vggc.kernels.cpu.winograd_int16 import (
    LARGEST,
    LARGEST_SUM,
    POINTS,
    Int16Weight,
    Winograd4Int16,
    largest_inputs,
)
from vggc.kernels.toom_cook import transforms
from vggc.kernels.workloads import Conv, Map

on_this_cpu = pytest.mark.skipif(bool(LACKS), reason=f"this CPU lacks {', '.join(LACKS)}")

WEIGHTS = {
    "any": lambda rng, shape: rng.integers(-127, 128, shape),
    "all as large as can be": lambda rng, shape: np.full(shape, 127),
    "all of one sign or the other": lambda rng, shape: 127 * rng.choice([-1, 1], shape),
    "mostly zero": lambda rng, shape: rng.integers(-127, 128, shape) * (rng.random(shape) < 0.01),
    "zero": lambda rng, shape: np.zeros(shape),
    "one": lambda rng, shape: np.arange(np.prod(shape)).reshape(shape) == 5,
}
each_kind = pytest.mark.parametrize("kind", WEIGHTS)
each_zero = pytest.mark.parametrize("zero", [0, 128])


def some(kind: str, shape: tuple[int, ...]) -> NDArray[np.int8]:
    return np.asarray(WEIGHTS[kind](np.random.default_rng(0), shape), np.int8)


def numbers(packing: Int16Weight, weight: NDArray[np.int8]) -> NDArray[np.int16]:
    """`(panels, elements, panel, C)`."""
    words = packing.pack(weight)[:, :, packing.header :]
    return np.ascontiguousarray(words.transpose(0, 1, 3, 2)).view(np.int16)


@each_zero
def test_a_transformed_input_fits_16_bits_whatever_it_is(zero: int) -> None:
    matrix = transforms(POINTS).input
    assert (matrix == np.rint(matrix)).all()
    assert largest_inputs(zero).max() <= LARGEST
    # And so does all that is added up on the way, in either dimension.
    terms = np.abs(matrix).sum(1)
    assert 255 * np.outer(terms, terms).max() <= LARGEST


@each_kind
@each_zero
@pytest.mark.parametrize("shape", [(5, 32, 3, 3), (40, 96, 3, 3), (33, 512, 3, 3)], ids=str)
def test_no_input_makes_a_sum_overflow(kind: str, shape: tuple[int, ...], zero: int) -> None:
    found = numbers(Int16Weight(shape, 32, zero), some(kind, shape))
    sizes = np.abs(found.astype(np.int64))
    sums = sizes.sum(3) * largest_inputs(zero).astype(np.int64)[:, None]
    assert sums.max() <= LARGEST_SUM
    assert sizes.max() <= LARGEST


@each_kind
@each_zero
@pytest.mark.parametrize("shape", [(5, 32, 3, 3), (40, 96, 3, 3), (33, 512, 3, 3)], ids=str)
def test_unpacking_gives_the_weight_back(kind: str, shape: tuple[int, ...], zero: int) -> None:
    packing, weight = Int16Weight(shape, 32, zero), some(kind, shape)
    packed = packing.pack(weight)
    assert packed.shape == packing.packed_shape
    assert packed.flags.c_contiguous
    np.testing.assert_array_equal(packing.unpack(packed), weight)


@on_this_cpu
@pytest.mark.parametrize("element", [0, 7, 8, 14, 21, 35])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_largest_sums_are_right(element: int, sign: int) -> None:
    """An image that makes one element of its transform as large as it can be, in all channels
    alike, as are the weights. An overflow would be off by more than the largest sum.
    """
    work = conv(Map(1, 6, 6, 512, 0, "uint8"), 16, padding=(0, 0), act=None)
    matrix = transforms(POINTS).input
    coefficients = np.kron(matrix, matrix)[element].reshape(6, 6)
    x = np.where(sign * coefficients > 0, 255, 0).astype(np.uint8)
    x = np.broadcast_to(x[None, :, :, None], work.input.shape)
    weight = np.broadcast_to(some("any", (16, 1, 3, 3)), work.weight_shape)
    packed = numbers(Int16Weight(work.weight_shape, 16), weight)[0, element].astype(int)
    reached = np.abs(packed.sum(1)).max() * largest_inputs(0)[element]
    assert 0.99 * LARGEST_SUM < reached <= LARGEST_SUM

    off, size = computed(work, np.ascontiguousarray(x), np.ascontiguousarray(weight))
    assert off < 0.06 * size


@on_this_cpu
@pytest.mark.parametrize(("channels", "error"), [(64, 1e-3), (128, 2e-3), (512, 8e-3)])
def test_rounding_costs_less_than_the_eight_bits_of_weights(channels: int, error: float) -> None:
    """Those that are normal are off by 0.9 % of their size in int8."""
    rng = np.random.default_rng(0)
    work = conv(Map(1, 20, 20, channels, 1, "uint8"), 32, act=None)
    x = np.zeros(work.input.shape, np.uint8)
    x[:, 1:-1, 1:-1] = np.clip(60 * rng.standard_normal((1, 20, 20, channels)), 0, 255)
    weight = np.clip(np.rint(32 * rng.standard_normal(work.weight_shape)), -127, 127)
    off, size = computed(work, x, weight.astype(np.int8))
    assert off < error * size


@on_this_cpu
@pytest.mark.parametrize("spread", [3, 30])
def test_what_stands_for_zero_is_not_rounded(spread: int) -> None:
    """Values that differ little from it are as exact as any."""
    rng = np.random.default_rng(0)
    work = conv(Map(1, 20, 20, 256, 1, "uint8", 128), 32, act=None)
    values = np.rint(spread * rng.standard_normal((1, 20, 20, 256)))
    x = np.full(work.input.shape, 128, np.uint8)
    x[:, 1:-1, 1:-1] = np.clip(128 + values, 0, 255)
    weight = np.clip(np.rint(32 * rng.standard_normal(work.weight_shape)), -127, 127)
    off, size = computed(work, x, weight.astype(np.int8))
    assert off < 6e-3 * size


def computed(work: Conv, x: NDArray[np.uint8], weight: NDArray[np.int8]) -> tuple[float, float]:
    """The sizes of the error and of the exact output, in L2."""
    algorithm = Winograd4Int16(work, Machine.of(HOST))
    made = algorithm.kernel(min(algorithm.knobs(), key=algorithm.cost))
    assert made.packing is not None
    one = np.ones(work.output.channels, np.float32)
    zero = work.input.zero
    bias = (-zero * weight.sum((1, 2, 3), int)).astype(np.float32)
    y = tvm.runtime.tensor(np.zeros(work.output.shape, np.float32))
    library([made])(0)(*map(tvm.runtime.tensor, (x, made.packing.pack(weight), one, bias)), y)
    halo = work.input.halo
    content = x[:, halo:-halo, halo:-halo] if halo else x
    exact = exact_conv(work, content.astype(float) - zero, weight.astype(float), 0 * one)
    found = y.numpy()
    assert found.shape == exact.shape
    return float(np.linalg.norm(found - exact)), float(np.linalg.norm(exact))


@on_this_cpu
def test_the_machine_code_holds_the_instruction() -> None:
    algorithm = Winograd4Int16(winograds("uint8")["even"], Machine.of(HOST))
    chosen = algorithm.kernel(min(algorithm.knobs(), key=algorithm.cost))
    module = tvm.IRModule({"f": chosen.func.with_attr("global_symbol", "f")})
    code = tvm.compile(module, target=HOST).mod.inspect_source("asm")
    assert code.count("\tvpdpwssd\t") >= chosen.knobs["rows"] * chosen.knobs["vectors"]

"""Kernels of GPUs in fewer bits, run on the CPU and held to float64."""

from __future__ import annotations

import ctypes
import random
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.cuda_on_cpu import CudaCode, call
from tests.support.kernel_draws import activation, finished
from tests.support.low_precision_kernels import (
    conv_weights,
    exact_conv,
    filled,
    inner,
    meaning,
    stored_range,
)
from tests.support.workload_reference import Side, group_norm, grouped, layer_norm, pool
from vggc.ir.ops import RELU, Activation, Pair
from vggc.kernels.cuda import H200, AnyCudaAlgorithm, algorithms
from vggc.kernels.cuda.accesses import Accesses
from vggc.kernels.cuda.operands import OPERANDS
from vggc.kernels.cuda.packing import restored, stored
from vggc.kernels.reference import reference
from vggc.kernels.workloads import (
    PIECE,
    Add,
    AvgPool,
    Concat,
    Conv,
    Convert,
    Format,
    Kernel,
    Layout,
    Lrn,
    Map,
    MaxPool,
    Mul,
    Pointwise,
    PRelu,
    Shuffle,
    Take,
    ToNhwc,
    Upsample,
    Workload,
)

FORMATS: tuple[Format, ...] = ("float32", "tf32", "float16", "bfloat16", "uint8")
ROUNDING: dict[Format, float] = {
    "float32": 0.0,
    "tf32": 2**-11,
    "float16": 2**-11,
    "bfloat16": 2**-8,
}
"""The most that a value changes when it is rounded to a format, relative to it."""
IN_SCALE, OUT_SCALE = 0.02, 0.05
"""What a step of a uint8 input stands for, and one of an output."""
SUMS = 2e-6
"""The relative L2 error of sums in float32 of exact products."""
MAX_MACS = 20_000_000


def in_format(map: Map, form: Format, zero: int = 0) -> Map:
    """A map of a format, of fewer bits in whole segments; `zero` stands for zero."""
    if form == "float32":
        return map
    return replace(map, format=form, vector=OPERANDS[form].segment, zero=zero)


def conv(
    shape: tuple[int, int, int, int],
    channels: int,
    kernel: Pair = (3, 3),
    stride: Pair = (1, 1),
    padding: Pair = (1, 1),
    halos: Pair = (1, 1),
    act: Activation | None = RELU,
    pool: bool = False,
    form: Format = "float16",
    to_float32: bool = False,
    zeros: Pair = (0, 0),
) -> Conv:
    """A convolution in fewer bits of the map `(N, H, W, C)`.

    `zeros` stand for zero in its input and its output.
    """
    batch, height, width, _ = shape
    sizes = zip((height, width), padding, kernel, stride, strict=True)
    out = [(extent + 2 * pad - size) // step + 1 for extent, pad, size, step in sizes]
    if pool:
        out = [extent // 2 for extent in out]
    target = Map(batch, out[0], out[1], channels, halos[1])
    return Conv(
        input=in_format(Map(*shape, halo=halos[0]), form, zeros[0]),
        output=target if to_float32 else in_format(target, form, zeros[1]),
        kernel=kernel,
        stride=stride,
        padding=padding,
        act=act,
        pool=pool,
    )


def dense(
    source: tuple[int, int, int, int], features: int, form: Format = "float16", **more: bool
) -> Conv:
    """A dense layer in fewer bits, as the plan has it: a convolution that covers its map."""
    return conv(source, features, source[1:3], padding=(0, 0), halos=(0, 0), form=form, **more)


@dataclass(frozen=True)
class TensorDraw:
    """A workload and one way to carry it out."""

    algorithm: AnyCudaAlgorithm
    knobs: Any

    @property
    def workload(self) -> Workload:
        return self.algorithm.workload

    @property
    def accesses(self) -> Accesses | None:
        return self.algorithm.accesses(self.knobs)

    def kernel(self) -> Kernel:
        return self.algorithm.kernel(self.knobs)

    def __str__(self) -> str:
        return f"{self.workload} by {self.algorithm.name} {self.knobs}"


def draws(seed: int, count: int) -> list[TensorDraw]:
    """Convolutions in fewer bits of random shapes, each by any algorithm with any of its knobs."""
    rng = random.Random(seed)
    found: list[TensorDraw] = []
    while len(found) < count:
        work = drawn(rng)
        if work is None:
            continue
        # What float32 has on ordinary cores is tested by itself.
        on_tensor_cores = [each for each in algorithms(work, H200) if each.name != "implicit_gemm"]
        if not on_tensor_cores:
            continue
        algorithm = rng.choice(on_tensor_cores)
        knobs = list(algorithm.knobs())
        # Any number of blocks that share a tile, and not mostly many.
        splits = rng.choice(sorted({getattr(each, "splits", 1) for each in knobs}))
        some = [each for each in knobs if getattr(each, "splits", 1) == splits]
        found.append(TensorDraw(algorithm, rng.choice(some)))
    return found


def drawn(rng: random.Random) -> Conv | None:
    form = rng.choice(FORMATS)
    if rng.random() < 0.15:
        source = (rng.randint(1, 5), rng.randint(1, 4), rng.randint(1, 4), rng.randint(1, 90))
        return dense(source, rng.randint(1, 150), form, to_float32=rng.random() < 0.5)
    size = rng.choice([1, 3, 3, 3, 5])
    kernel = rng.choice([(size, size), (size, size), (1, 3), (3, 2)])
    stride = rng.choice([(1, 1), (1, 1), (1, 1), (2, 2), (1, 2)])
    shape = (
        rng.choice([1, 1, 2, 3]),
        rng.randint(1, 20),
        rng.randint(1, 36),
        rng.choice([rng.randint(1, 24), 32 * rng.randint(1, 4), rng.randint(1, 130)]),
    )
    outputs = rng.choice([rng.randint(1, 40), 32 * rng.randint(1, 5), rng.randint(1, 200)])
    padding = (kernel[0] // 2, kernel[1] // 2)
    work = finished(rng, shape, outputs, 1, kernel, stride, padding)
    if work is None or prod(work.grid) * shape[0] * prod(work.weight_shape) > MAX_MACS:
        return None
    act = activation(rng) if not work.pool and rng.random() < 0.3 else rng.choice([None, RELU])
    zeros = [rng.choice([0, 128]) if form == "uint8" else 0 for _ in range(2)]
    output = work.output if rng.random() < 0.3 else in_format(work.output, form, zeros[1])
    return replace(work, input=in_format(work.input, form, zeros[0]), output=output, act=act)


def rounded(values: NDArray[Any], form: Format) -> NDArray[np.float32]:
    """Floats as a format holds them."""
    if form == "float32":
        return np.asarray(values, np.float32)
    return restored(form, stored(form, np.asarray(values, np.float32)))


@dataclass(frozen=True)
class TensorCase:
    """The arrays that a kernel takes, and the content of its output; the scale of a uint8 one."""

    arrays: list[NDArray[Any]]
    expected: NDArray[np.float64]
    scale: float = 1.0


def case(workload: Workload, kernel: Kernel, seed: int = 0) -> TensorCase:
    """Random inputs and weights, and what comes of them in float64."""
    rng = np.random.default_rng(seed)
    if isinstance(workload, Conv | Convert | MaxPool) and _in_bytes(workload):
        return _case_in_bytes(workload, kernel, rng)
    arrays, contents = [], []
    for layout in workload.inputs:
        array, content = _input(layout, rng, padded=isinstance(workload, Conv))
        arrays.append(array)
        contents.append(content)
    weights = [rng.standard_normal(shape, np.float32) for shape in workload.weights.values()]
    if isinstance(workload, Conv):
        weights[0] /= np.float32(np.sqrt(prod(weights[0].shape[1:])))
    packed = [*weights]
    if kernel.packing is not None:
        packed[0] = kernel.packing.pack(weights[0])
        weights[0] = np.asarray(kernel.packing.unpack(packed[0]), np.float32)
    assert isinstance(workload.output, Map)
    y = _unwritten(workload.output)
    return TensorCase([*arrays, *packed, y], reference(workload, contents, weights))


def _in_bytes(workload: Conv | Convert | MaxPool) -> bool:
    return "uint8" in (workload.input.format, workload.output.format)


def _unwritten(map: Map) -> NDArray[Any]:
    """A buffer without a number that is one in any format of floats."""
    y = np.empty(map.shape, map.storage)
    y.view(np.uint8)[...] = 0xFF
    return y


def _case_in_bytes(
    workload: Conv | Convert | MaxPool, kernel: Kernel, rng: np.random.Generator
) -> TensorCase:
    """Random numbers of 8 bits, and what comes of what they stand for, as the CPU's are tested."""
    source, out = workload.input, workload.output
    x, weights = filled(source, rng), list[NDArray[Any]]()
    match workload:
        case Conv():
            weights, exact = conv_weights(workload, rng, IN_SCALE)
            assert kernel.packing is not None
            weights[0] = kernel.packing.pack(weights[0])
            expected = exact_conv(workload, meaning(x, source, IN_SCALE), *exact)
            if out.format == "uint8":
                weights.append(np.float32([OUT_SCALE]))
            return TensorCase([x, *weights, _unwritten(out)], expected, OUT_SCALE)
        case Convert():
            weights = [np.float32([IN_SCALE])]
    expected = reference(workload, [meaning(x, source, IN_SCALE)], [])
    return TensorCase([x, *weights, _unwritten(out)], expected, IN_SCALE)


def _input(
    layout: Layout, rng: np.random.Generator, *, padded: bool
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """The buffer of an input, and the values in it; only a convolution may read what is around
    them.
    """
    side = Side.of(layout)
    x = np.full(side.shape, 0.0 if padded else np.nan, np.float32)
    if not isinstance(layout, Map):
        x[...] = rng.standard_normal(side.shape)
        return x, x
    content = side.content(x)
    content[...] = 0
    values = rounded(rng.standard_normal((*content.shape[:3], layout.channels)), layout.format)
    content[..., : layout.channels] = values
    return (x if layout.format == "float32" else stored(layout.format, x)), values


def check(library: ctypes.CDLL, code: CudaCode, workload: Workload, made: TensorCase) -> None:
    """The content is right, and the halo and what pads the channels are zero.

    Raises: AssertionError where not.
    """
    arrays = [array.copy() for array in made.arrays]
    call(library, code, *arrays)
    out = workload.output
    assert isinstance(out, Map)
    result = arrays[-1].copy()
    if out.format == "uint8":
        _check_bytes(result, out, made)
        return
    whole = result if out.format == "float32" else restored(out.format, result)
    content = Side.of(out).content(whole)
    got = content[..., : out.channels].copy()
    assert np.isfinite(got).all()
    content[..., : out.channels] = 0
    assert not whole.any(), "the halo or the padding is not zero"
    norm = np.linalg.norm(made.expected)
    assert np.linalg.norm(got - made.expected) <= (SUMS + ROUNDING[out.format]) * (norm + 1e-3)


def check_packing(draw: TensorDraw) -> None:
    """A convolution's weight comes back from how it is packed, up to rounding, and is packed the
    same piece by piece.

    Raises: AssertionError where not.
    """
    work, packing = draw.workload, draw.algorithm.packing(draw.knobs)
    assert isinstance(work, Conv)
    assert packing is not None
    rng = np.random.default_rng(1)
    if work.input.format == "uint8":
        weight = rng.integers(-127, 128, work.weight_shape).astype(np.int8)
    else:
        weight = rng.standard_normal(work.weight_shape, np.float32)
    packed = packing.pack(weight)
    assert packed.shape == packing.packed_shape
    assert packed.dtype == packing.packed_type
    kind = work.input.format if work.groups == 1 else "float32"
    same = weight if kind == "uint8" else rounded(weight, kind)
    np.testing.assert_array_equal(packing.unpack(packed), same)
    for few in (4 * PIECE, 100):  # bytes at once: all, or a row
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("vggc.kernels.workloads.PIECE", few)
            pieces = [piece.ravel() for piece in packing.pieces(weight)]
        np.testing.assert_array_equal(np.concatenate(pieces), packed.ravel())


def _check_bytes(result: NDArray[np.uint8], out: Map, made: TensorCase) -> None:
    """What is stored is the nearest number, and around it lies what stands for zero."""
    got, (low, high) = meaning(result, out, made.scale), stored_range(out, made.scale)
    allowed = 0.501 * made.scale + 1e-5 * np.abs(made.expected).max()
    assert np.abs(got - np.clip(made.expected, low, high)).max() <= allowed
    inner(result, out)[...] = out.zero
    assert (result == out.zero).all(), "the halo or the padding is not zero"


def kept(workload: Workload, form: Format = "float16") -> Workload:
    """A workload whose maps are all in fewer bits."""
    changed = {
        name: in_format(value, form) if isinstance(value, Map) else value
        for name, value in vars(workload).items()
    }
    if isinstance(workload, Add | Mul | Concat):
        changed["inputs"] = tuple(in_format(each, form) for each in workload.inputs)
    return type(workload)(**changed)


OTHERS: dict[str, Workload] = {
    "planes": kept(ToNhwc(Map(2, 4, 6, 3, 1))),
    "mean": kept(pool(AvgPool, (1, 13, 12, 20), (3, 3), (2, 2), (1, 1), halos=(1, 2))),
    "mean of the whole map": kept(pool(AvgPool, (2, 7, 7, 20), (7, 7), (1, 1)), "bfloat16"),
    "lrn": kept(Lrn(Map(1, 4, 3, 11, 1), Map(1, 4, 3, 11, 2), 5, 1e-2, 0.75, 2.0)),
    "lrn of many": kept(Lrn(Map(1, 3, 2, 40), Map(1, 3, 2, 40, 1), 31, 1e-2, 0.75, 2.0)),
    "group norm": kept(group_norm((1, 5, 3, 20), 4, (1, 2), RELU)),
    "layer norm": kept(layer_norm((1, 2, 5, 37), (1, 2))),
    "silu": kept(Pointwise(Map(2, 5, 3, 18, 1), Map(2, 5, 3, 18, 2), Activation("silu"))),
    "sigmoid of padding": kept(Pointwise(Map(1, 2, 3, 5), Map(1, 2, 3, 5), Activation("sigmoid"))),
    "prelu": kept(PRelu(Map(2, 5, 3, 19, 1), Map(2, 5, 3, 19)), "bfloat16"),
    "add": kept(Add((Map(2, 4, 3, 19), Map(2, 4, 3, 19, 1)), Map(2, 4, 3, 19, 2), RELU)),
    "mul": kept(Mul((Map(2, 1, 1, 19), Map(2, 4, 3, 19, 1)), Map(2, 4, 3, 19, 2), RELU)),
    "shuffle": kept(Shuffle(Map(2, 4, 3, 18, 1), Map(2, 4, 3, 18), 3)),
    "take": kept(Take(Map(2, 4, 3, 18, 1), Map(2, 4, 3, 11), 5)),
    "upsample": kept(Upsample(Map(2, 4, 3, 11, 1), Map(2, 8, 9, 11), (2, 3), "bilinear")),
    "concat": kept(
        Concat((Map(2, 4, 3, 5), Map(2, 4, 3, 16, 1), Map(2, 4, 3, 1, 2)), Map(2, 4, 3, 22, 1))
    ),
    "two groups": kept(grouped((1, 9, 7, 40), 70, 2, halos=(1, 2), act=RELU)),
    "depthwise": kept(grouped((1, 14, 11, 35), 35, 35, halos=(1, 1)), "bfloat16"),
    "to float16": Convert(Map(2, 5, 4, 3, 1), in_format(Map(2, 5, 4, 3, 2), "float16")),
    "to bfloat16": Convert(Map(1, 3, 4, 40), in_format(Map(1, 3, 4, 40, 1), "bfloat16")),
    "of float16": Convert(in_format(Map(2, 5, 4, 11, 1), "float16"), Map(2, 5, 4, 11)),
    "of bfloat16": Convert(in_format(Map(1, 3, 4, 8), "bfloat16"), Map(1, 3, 4, 8, 1)),
    "pool": MaxPool(
        input=in_format(Map(2, 9, 8, 20, 1), "float16"),
        output=in_format(Map(2, 5, 4, 20, 1), "float16"),
        kernel=(3, 3),
        stride=(2, 2),
        padding=(1, 1),
    ),
    "to tf32": Convert(Map(2, 5, 4, 3, 1), in_format(Map(2, 5, 4, 3, 2), "tf32")),
    "of tf32": Convert(in_format(Map(2, 5, 4, 11, 1), "tf32"), Map(2, 5, 4, 11)),
    "pool of tf32": kept(pool(MaxPool, (2, 9, 8, 21), (3, 3), (2, 2), (1, 1)), "tf32"),
    "concat in tf32": kept(
        Concat((Map(2, 4, 3, 5), Map(2, 4, 3, 1, 2)), Map(2, 4, 3, 6, 1)), "tf32"
    ),
    "to uint8": Convert(Map(2, 5, 4, 3, 1), in_format(Map(2, 5, 4, 3, 2), "uint8", 128)),
    "to uint8, of many": Convert(Map(1, 3, 4, 40), in_format(Map(1, 3, 4, 40, 1), "uint8")),
    "of uint8": Convert(in_format(Map(2, 5, 4, 19, 1), "uint8", 128), Map(2, 5, 4, 19, 2)),
    "pool of uint8": MaxPool(
        input=in_format(Map(2, 9, 8, 20, 1), "uint8", 128),
        output=in_format(Map(2, 5, 4, 20, 1), "uint8", 128),
        kernel=(3, 3),
        stride=(2, 2),
        padding=(1, 1),
    ),
    "large pool": MaxPool(
        input=in_format(Map(1, 11, 9, 8), "bfloat16"),
        output=in_format(Map(1, 2, 2, 8, 2), "bfloat16"),
        kernel=(7, 5),
        stride=(4, 4),
    ),
}

"""The CPU kernels against float64 numpy, on shapes that no tile divides."""

from __future__ import annotations

import os

os.environ.setdefault("TVM_NUM_THREADS", "2")

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, TypeAlias, assert_never

import numpy as np
import pytest
import tvm
import tvm_ffi
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from vggc.kernels.cpu import Machine, kernel
from vggc.kernels.cpu import conv as conv_template
from vggc.kernels.cpu import dense as dense_template
from vggc.kernels.workloads import (
    Conv,
    Dense,
    Lrn,
    Map,
    MaxPool,
    Packing,
    Pair,
    Relu,
    Softmax,
    ToNchw,
    ToNhwc,
    Workload,
)

Array: TypeAlias = NDArray[np.floating[Any]]

HOST = {"kind": "llvm", "mcpu": tvm.get_global_func("target.llvm_get_system_cpu")()}
AVX2 = {"kind": "llvm", "mcpu": "haswell"}


# Workloads


def conv(
    shape: tuple[int, int, int, int],
    channels: int,
    kernel: int = 3,
    stride: int = 1,
    padding: int | None = None,
    halos: Pair | None = None,
    relu: bool = True,
) -> Conv:
    """A convolution of the map `(N, H, W, C)`; `halos` of its input and output."""
    padding = kernel // 2 if padding is None else padding
    halos = (padding, 0) if halos is None else halos
    batch, height, width, _ = shape
    out = [(extent + 2 * padding - kernel) // stride + 1 for extent in (height, width)]
    return Conv(
        input=Map(*shape, halo=halos[0]),
        output=Map(batch, out[0], out[1], channels, halo=halos[1]),
        kernel=(kernel, kernel),
        stride=(stride, stride),
        padding=(padding, padding),
        relu=relu,
    )


def max_pool(
    shape: tuple[int, int, int, int], kernel: int, stride: int, halos: Pair = (0, 0)
) -> MaxPool:
    batch, height, width, channels = shape
    out = [(extent - kernel) // stride + 1 for extent in (height, width)]
    return MaxPool(
        input=Map(*shape, halo=halos[0]),
        output=Map(batch, out[0], out[1], channels, halo=halos[1]),
        kernel=(kernel, kernel),
        stride=(stride, stride),
    )


def lrn(shape: tuple[int, int, int, int], size: int, beta: float, halos: Pair = (0, 0)) -> Lrn:
    return Lrn(Map(*shape, halo=halos[0]), Map(*shape, halo=halos[1]), size, 0.3, beta, 2.0)


CONVS = {
    "first layer": conv((1, 30, 30, 3), 64, halos=(1, 1)),
    "odd extents": conv((1, 13, 17, 5), 33, halos=(1, 2)),
    "batch of odd maps": conv((3, 7, 7, 9), 40, halos=(1, 1)),
    "1×1 maps": conv((1, 1, 1, 24), 64, halos=(1, 1)),
    "batch of 1×1 maps": conv((5, 1, 1, 24), 64, halos=(1, 1)),
    "2×2 maps": conv((2, 2, 2, 24), 48, halos=(1, 1)),
    "fewer channels than lanes": conv((1, 9, 9, 4), 10),
    "1000 channels": conv((1, 3, 3, 4), 1000),
    "1×1 kernel": conv((2, 9, 9, 20), 70, kernel=1, halos=(0, 1)),
    "1×1 kernel in a halo": conv((1, 9, 9, 20), 16, kernel=1, halos=(2, 1)),
    "5×5 kernel": conv((1, 11, 8, 6), 17, kernel=5, halos=(2, 0)),
    "5×5 kernel, less padding than halo": conv((1, 9, 9, 6), 17, kernel=5, padding=1, halos=(2, 2)),
    "no padding": conv((1, 9, 9, 6), 32, padding=0, halos=(1, 1)),
    "stride 2": conv((1, 15, 12, 6), 32, stride=2, halos=(1, 1)),
    "1×1 kernel, stride 2": conv((2, 9, 9, 6), 32, kernel=1, stride=2),
    "5×5 kernel, stride 2": conv((1, 16, 15, 3), 20, kernel=5, stride=2, halos=(2, 1)),
    "linear": conv((1, 9, 9, 6), 32, relu=False),
    "oblong": Conv(
        Map(2, 6, 11, 7, halo=2), Map(2, 3, 11, 19, halo=1), (3, 1), (2, 1), (1, 0), relu=True
    ),
}

DENSES = {
    "odd features": Dense(1, 77, 130, relu=True),
    "10 ways": Dense(1, 64, 10, relu=False),
    "1000 ways": Dense(1, 40, 1000, relu=False),
    "one output": Dense(3, 40, 1, relu=False),
    "batch": Dense(5, 77, 130, relu=True),
    "batch larger than the tile": Dense(37, 40, 70, relu=True),
    "map": Dense(1, 3 * 2 * 5, 70, relu=True, source=Map(1, 3, 2, 5)),
    "batch of maps": Dense(4, 3 * 2 * 5, 70, relu=True, source=Map(4, 3, 2, 5)),
    "1×1 map": Dense(2, 24, 48, relu=False, source=Map(2, 1, 1, 24)),
}

OTHERS: dict[str, Workload] = {
    "pool 2×2": max_pool((2, 8, 6, 20), 2, 2, halos=(0, 1)),
    "pool 2×2 of odd maps": max_pool((1, 7, 5, 33), 2, 2, halos=(1, 2)),
    "pool 3×3, stride 2": max_pool((1, 13, 13, 16), 3, 2, halos=(2, 0)),
    "pool to 1×1": max_pool((2, 2, 2, 5), 2, 2, halos=(0, 1)),
    "pool 50×50": max_pool((1, 56, 56, 20), 50, 3, halos=(1, 2)),
    "lrn": lrn((1, 5, 4, 40), 5, 0.75, halos=(0, 1)),
    "lrn over an even window": lrn((2, 3, 3, 7), 4, 0.5, halos=(1, 0)),
    "lrn over more than the channels": lrn((1, 3, 3, 3), 9, 1.0, halos=(1, 2)),
    "lrn over 101 of 128": lrn((1, 4, 3, 128), 101, 0.75, halos=(1, 2)),
    "lrn over far more than the channels": lrn((1, 2, 2, 3), 1023, 0.75),
    "lrn with another exponent": lrn((1, 3, 3, 18), 5, 0.6),
    "relu": Relu(Map(2, 5, 3, 18, halo=1), Map(2, 5, 3, 18, halo=2)),
    "soft-max": Softmax(3, 1000),
    "soft-max of 10": Softmax(1, 10),
    "to nhwc": ToNhwc(Map(2, 9, 5, 3, halo=1)),
    "to nhwc without halo": ToNhwc(Map(1, 4, 4, 33)),
    "to nchw": ToNchw(Map(2, 9, 5, 35, halo=2)),
}

WORKLOADS: dict[str, Workload] = {**CONVS, **DENSES, **OTHERS}


# What they mean


def windows(x: Array, kernel: Pair, stride: Pair) -> Array:
    """`(N, H, W, C)` to `(N, H', W', C, kh, kw)`."""
    return sliding_window_view(x, kernel, axis=(1, 2))[:, :: stride[0], :: stride[1]]


def positive(y: Array, relu: bool) -> Array:
    return np.maximum(y, 0) if relu else y


def reference(workload: Workload, x: Array, weight: Array, bias: Array) -> Array:
    """The result without halo in float64, from an input without halo."""
    y: Array
    match workload:
        case Conv(kernel=kernel, stride=stride, padding=(top, left), relu=relu):
            padded = np.pad(x, ((0, 0), (top, top), (left, left), (0, 0)))
            y = np.einsum("nyxcij,kcij->nyxk", windows(padded, kernel, stride), weight)
            return positive(y + bias, relu)
        case Dense(source=source, relu=relu):
            rows = x if source is None else x.transpose(0, 3, 1, 2).reshape(source.batch, -1)
            return positive(rows @ weight.T + bias, relu)
        case MaxPool():
            y = windows(x, workload.kernel, workload.stride).max((-2, -1))
            return y
        case Lrn(size=size):
            before = size // 2
            squares = np.pad(x**2, ((0, 0), (0, 0), (0, 0), (before, size - 1 - before)))
            total = sliding_window_view(squares, size, axis=3).sum(-1)
            y = x / (workload.k + workload.alpha * total) ** workload.beta
            return y
        case Relu():
            return np.maximum(x, 0)
        case Softmax():
            exponentials = np.exp(x - x.max(1, keepdims=True))
            y = exponentials / exponentials.sum(1, keepdims=True)
            return y
        case ToNhwc():
            return x.transpose(0, 2, 3, 1)
        case ToNchw():
            return x.transpose(0, 3, 1, 2)
    assert_never(workload)


# Running them


@dataclass(frozen=True)
class Side:
    """An input or output: the shape of its buffer, and the halo around its content."""

    shape: tuple[int, ...]
    halo: int = 0

    @classmethod
    def of(cls, map: Map) -> Side:
        return cls(map.shape, map.halo)

    def content(self, buffer: Array) -> Array:
        if self.halo == 0:
            return buffer
        inside = slice(self.halo, -self.halo)
        return buffer[:, inside, inside]


def sides(workload: Workload) -> tuple[Side, Side]:
    match workload:
        case Dense(batch=batch, source=source):
            flat = Side((batch, workload.in_features))
            return Side.of(source) if source else flat, Side((batch, workload.out_features))
        case Softmax(batch=batch, features=features):
            return Side((batch, features)), Side((batch, features))
        case ToNhwc(output=out):
            return Side((out.batch, out.channels, out.height, out.width)), Side.of(out)
        case ToNchw(input=source):
            planes = (source.batch, source.channels, source.height, source.width)
            return Side.of(source), Side(planes)
        case _:
            return Side.of(workload.input), Side.of(workload.output)


def library(functions: list[Any], target: tvm.target.Target) -> Callable[[int], Any]:
    """All functions in one module, because each compilation has a fixed cost."""
    named = {f"f{i}": func.with_attr("global_symbol", f"f{i}") for i, func in enumerate(functions)}
    compiled = tvm.compile(tvm.IRModule(named), target=target)
    return lambda index: compiled[f"f{index}"]


def check(run: Any, workload: Workload, packing: Packing | None) -> None:
    """The content is right, the halo zero, and no byte of the output left as it was."""
    rng = np.random.default_rng(0)
    source, out = sides(workload)
    x = np.zeros(source.shape, np.float32)
    source.content(x)[...] = rng.standard_normal(source.content(x).shape)
    y = tvm.runtime.tensor(np.full(out.shape, np.nan, np.float32))
    weight = bias = np.zeros(0, np.float32)
    arguments = [x]
    if packing is not None:
        assert isinstance(workload, Conv | Dense)
        weight = rng.standard_normal(workload.weight_shape, np.float32)
        bias = rng.standard_normal(workload.weight_shape[0], np.float32)
        arguments = [x, packing.pack(weight), bias]

    run(*map(tvm.runtime.tensor, arguments), y)

    result = y.numpy()
    expected = reference(workload, source.content(x).astype(float), weight, bias)
    content = out.content(result)
    error = np.linalg.norm(content - expected) / np.linalg.norm(expected)
    assert error < 1e-5
    content[...] = 0
    assert not result.any()


@pytest.fixture(scope="module", params=[HOST, AVX2], ids=["host", "avx2"])
def compiled(request: pytest.FixtureRequest) -> Callable[[str], tuple[Any, Packing | None]]:
    """The compiled kernel and the packing of each workload."""
    target = tvm.target.Target(request.param)
    kernels = {name: kernel(work, Machine.of(target)) for name, work in WORKLOADS.items()}
    run = library([each.func for each in kernels.values()], target)
    runs = {name: run(index) for index, name in enumerate(kernels)}
    return lambda name: (runs[name], kernels[name].packing)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_kernel_computes_its_workload(
    name: str, compiled: Callable[[str], tuple[Any, Packing | None]]
) -> None:
    run, packing = compiled(name)
    check(run, WORKLOADS[name], packing)


@pytest.mark.parametrize(
    ("workload", "template"),
    [
        pytest.param(CONVS["odd extents"], conv_template, id="conv"),
        pytest.param(CONVS["batch of odd maps"], conv_template, id="conv of a batch"),
        pytest.param(DENSES["batch of maps"], dense_template, id="dense"),
    ],
)
def test_every_tile_computes_the_same(workload: Any, template: ModuleType) -> None:
    target = tvm.target.Target(AVX2)
    machine = Machine.of(target)
    tiles = list(template.tiles(workload, machine))
    sample = np.random.default_rng(0).choice(len(tiles), 8, replace=False)
    kernels = [template.kernel(workload, machine, tiles[index]) for index in sample]
    run = library([each.func for each in kernels], target)
    for index, each in enumerate(kernels):
        check(run(index), workload, each.packing)


# The rest of the contract


@pytest.mark.parametrize("workload", [*CONVS.values(), *DENSES.values()])
def test_unpacking_gives_the_weight_back_bit_for_bit(workload: Conv | Dense) -> None:
    packing = kernel(workload, Machine(lanes=8, registers=16)).packing
    assert packing is not None
    weight = np.random.default_rng(0).standard_normal(workload.weight_shape, np.float32)
    packed = packing.pack(weight)
    assert packed.shape == packing.packed_shape
    assert packed.flags.c_contiguous
    assert packing.unpack(packed).tobytes() == weight.tobytes()


def test_a_dense_layer_reads_no_halo() -> None:
    with pytest.raises(AssertionError):
        Dense(1, 12, 5, relu=False, source=Map(1, 2, 2, 3, halo=1))


@pytest.mark.parametrize("name", WORKLOADS)
def test_equal_workloads_make_equal_functions(name: str) -> None:
    machine = Machine(lanes=16, registers=32)
    workload = WORKLOADS[name]
    first, second = kernel(workload, machine).func, kernel(replace(workload), machine).func
    assert tvm_ffi.structural_equal(first, second)


@pytest.mark.parametrize(
    ("target", "machine"),
    [
        ({"mcpu": "znver4"}, Machine(lanes=16, registers=32)),
        ({"mcpu": "haswell"}, Machine(lanes=8, registers=16)),
        ({"mcpu": "nehalem"}, Machine(lanes=4, registers=16)),
        (
            {"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"},
            Machine(lanes=4, registers=32),
        ),
    ],
)
def test_a_machine_has_its_targets_registers(target: dict[str, str], machine: Machine) -> None:
    assert Machine.of(tvm.target.Target({"kind": "llvm", **target})) == machine


@pytest.mark.parametrize("extent", [224, 112, 56, 28, 14])
def test_tiles_cover_the_maps_of_vgg_exactly(extent: int) -> None:
    knobs = kernel(conv((1, extent, extent, 64), 512), Machine(lanes=16, registers=32)).knobs
    assert extent % knobs["rows"] == extent % knobs["columns"] == 0
    assert 512 % (16 * knobs["vectors"]) == 0

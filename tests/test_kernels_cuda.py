"""The CUDA kernels, run on the CPU, against references in float64."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import generate, run

from vggc.kernels.cuda import gemm, kernel
from vggc.kernels.cuda.emit import function
from vggc.kernels.workloads import (
    Conv,
    Dense,
    Lrn,
    Map,
    MaxPool,
    Relu,
    Softmax,
    ToNchw,
    ToNhwc,
    Workload,
)

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
TOLERANCE = 2e-6


def conv(
    shape: tuple[int, int, int, int],
    channels: int,
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
    halos: tuple[int, int] = (1, 1),
    relu: bool = True,
) -> Conv:
    batch, height, width, in_channels = shape
    out = [
        (extent + 2 * pad - size) // step + 1
        for extent, pad, size, step in zip((height, width), padding, kernel, stride, strict=True)
    ]
    source = Map(batch, height, width, in_channels, halos[0])
    return Conv(source, Map(batch, *out, channels, halos[1]), kernel, stride, padding, relu)


CONVS = {
    "image": conv((1, 13, 11, 3), 8),
    "image-with-alpha": conv((2, 9, 9, 4), 5, halos=(1, 0)),
    "odd": conv((1, 9, 7, 5), 6),
    "deep": conv((1, 6, 6, 70), 20),
    "wide": conv((1, 5, 5, 16), 130, halos=(2, 1)),
    "batch": conv((3, 6, 5, 12), 7, halos=(1, 2)),
    "strided": conv((1, 23, 19, 3), 9, (11, 11), (4, 4), (2, 2), halos=(2, 2)),
    "rectangular": conv((2, 8, 9, 6), 4, (1, 5), (1, 2), (0, 2), halos=(3, 0), relu=False),
    "pointwise": conv((2, 4, 3, 40), 33, (1, 1), (1, 1), (0, 0), halos=(0, 0)),
    "one-pixel": conv((1, 4, 4, 8), 10, (4, 4), (1, 1), (0, 0), halos=(0, 1)),
}

DENSES = {
    "vector": Dense(1, 300, 21, relu=False),
    "vector-odd": Dense(1, 77, 5, relu=True),
    "vector-of-map": Dense(1, 5 * 3 * 12, 19, relu=True, source=Map(1, 5, 3, 12)),
    "batch": Dense(5, 50, 70, relu=True),
    "batch-of-map": Dense(3, 2 * 3 * 7, 12, relu=False, source=Map(3, 2, 3, 7)),
    "large-batch": Dense(40, 24, 9, relu=False),
}

OTHERS = {
    "pool": MaxPool(Map(2, 8, 6, 5, 1), Map(2, 4, 3, 5, 1), (2, 2), (2, 2)),
    "pool-overlapping": MaxPool(Map(1, 7, 9, 3), Map(1, 3, 4, 3, 2), (3, 3), (2, 2)),
    "pool-rectangular": MaxPool(Map(1, 5, 9, 4, 1), Map(1, 3, 4, 4), (3, 2), (1, 2)),
    "pool-large": MaxPool(Map(1, 56, 56, 3, 1), Map(1, 3, 3, 3, 2), (50, 50), (3, 3)),
    "lrn": Lrn(Map(1, 4, 3, 7, 1), Map(1, 4, 3, 7, 2), 5, 1e-2, 0.75, 2.0),
    "lrn-even": Lrn(Map(1, 2, 3, 6), Map(1, 2, 3, 6), 4, 1.0, 0.5, 1.0),
    "lrn-large": Lrn(Map(1, 3, 2, 128, 1), Map(1, 3, 2, 128, 1), 101, 1e-2, 0.75, 2.0),
    "lrn-all": Lrn(Map(1, 2, 2, 3), Map(1, 2, 2, 3, 1), 1023, 1.0, 0.75, 1.0),
    "relu": Relu(Map(2, 3, 5, 3, 1), Map(2, 3, 5, 3)),
    "softmax": Softmax(3, 10),
    "softmax-long": Softmax(2, 1000),
    "to-nhwc": ToNhwc(Map(2, 4, 6, 3, 1)),
    "to-nchw": ToNchw(Map(2, 4, 6, 3, 1)),
}


@needs_compiler
@pytest.mark.parametrize("name", CONVS)
def test_conv(name: str, tmp_path: Path) -> None:
    check_conv(CONVS[name], kernel(CONVS[name]).func, tmp_path)


@needs_compiler
@pytest.mark.parametrize("tile", [gemm.LARGE, gemm.MEDIUM, gemm.FLAT])
@pytest.mark.parametrize("splits", [1, 3])
def test_conv_with_every_tile(tile: gemm.Tile, splits: int, tmp_path: Path) -> None:
    workload = conv((1, 13, 12, 20), 70, halos=(1, 1))
    check_conv(workload, convolution(workload, gemm.Tiling(tile, splits)), tmp_path)


@needs_compiler
@pytest.mark.parametrize("name", DENSES)
def test_dense(name: str, tmp_path: Path) -> None:
    dense = DENSES[name]
    random = np.random.default_rng(0)
    code = kernel(dense)
    assert code.packing is not None
    weight = normal(random, dense.weight_shape)
    bias = normal(random, (dense.out_features,))
    if dense.source is None:
        x = rows = normal(random, (dense.batch, dense.in_features))
    else:
        x = normal(random, dense.source.shape)
        rows = x.transpose(0, 3, 1, 2).reshape(dense.batch, -1)
    y = undefined((dense.batch, dense.out_features))
    run(generate(code.func), tmp_path, x, code.packing.pack(weight), bias, y)
    expected = rows.astype(np.float64) @ weight.T + bias
    assert_close(y, np.maximum(expected, 0) if dense.relu else expected)


@needs_compiler
@pytest.mark.parametrize("name", OTHERS)
def test_other(name: str, tmp_path: Path) -> None:
    workload = OTHERS[name]
    x, expected = example(workload)
    y = undefined(expected.shape)
    run(generate(kernel(workload).func), tmp_path, x, y)
    assert_close(y, expected)


@pytest.mark.parametrize("workload", [*CONVS.values(), *DENSES.values()])
def test_packing_is_exact(workload: Conv | Dense) -> None:
    packing = kernel(workload).packing
    assert packing is not None
    weight = normal(np.random.default_rng(1), workload.weight_shape)
    packed = packing.pack(weight)
    assert packed.shape == packing.packed_shape
    np.testing.assert_array_equal(packing.unpack(packed), weight)


@pytest.mark.parametrize(
    ("size", "channels", "splits"), [(224, 64, 1), (56, 256, 2), (28, 512, 3), (14, 512, 8)]
)
def test_a_reduction_is_split_where_tiles_are_few(size: int, channels: int, splits: int) -> None:
    assert kernel(conv((1, size, size, channels), channels)).knobs["splits"] == splits


@pytest.mark.parametrize("tile", [gemm.LARGE, gemm.MEDIUM, gemm.FLAT])
def test_shared_memory_is_within_48_kib(tile: gemm.Tile) -> None:
    workload = conv((1, 13, 12, 20), 70)
    source = generate(convolution(workload, gemm.Tiling(tile, 1))).source
    sizes = re.findall(r"__shared__ alignas\(64\) (float4?) \w+\[(\d+)\]", source)
    assert len(sizes) == 2
    assert sum({"float": 4, "float4": 16}[kind] * int(count) for kind, count in sizes) <= 48 << 10


@needs_compiler
def test_the_emulator_sees_a_missing_barrier(tmp_path: Path) -> None:
    code = generate(kernel(Softmax(1, 1000)).func)
    broken = replace(code, source=code.source.replace("__syncthreads();", ""))
    x, expected = example(Softmax(1, 1000))
    y = undefined(expected.shape)
    run(broken, tmp_path, x, y)
    with pytest.raises(AssertionError):
        assert_close(y, expected)


def check_conv(workload: Conv, func: Any, folder: Path) -> None:
    random = np.random.default_rng(0)
    packing = gemm.packing(workload, gemm.tiling(workload).tile)
    weight = normal(random, workload.weight_shape)
    bias = normal(random, (workload.output.channels,))
    x = embed(workload.input, normal(random, interior(workload.input)))
    y = undefined(workload.output.shape)
    run(generate(func), folder, x, packing.pack(weight), bias, y)
    assert_close(y, embed(workload.output, convolve(workload, x, weight, bias)))


def convolution(workload: Conv, tiling: gemm.Tiling) -> Any:
    packing = gemm.packing(workload, tiling.tile)
    return function(
        lambda *buffers: gemm.convolve(workload, tiling, *buffers),
        x=workload.input.shape,
        weight=packing.packed_shape,
        bias=(workload.output.channels,),
        y=workload.output.shape,
    )


def convolve(workload: Conv, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The interior of the output, in float64."""
    target, source = workload.output, workload.input
    y = np.zeros(interior(target)) + bias
    for dy in range(workload.kernel[0]):
        for dx in range(workload.kernel[1]):
            top = source.halo - workload.padding[0] + dy
            left = source.halo - workload.padding[1] + dx
            bottom = top + workload.stride[0] * target.height
            right = left + workload.stride[1] * target.width
            window = x[:, top : bottom : workload.stride[0], left : right : workload.stride[1]]
            y += window.astype(np.float64) @ weight[:, :, dy, dx].T
    return np.maximum(y, 0) if workload.relu else y


def example(workload: Workload) -> tuple[np.ndarray, np.ndarray]:
    """An input, its halo not zero, and what the kernel must make of it."""
    random = np.random.default_rng(0)
    match workload:
        case MaxPool():
            x = normal(random, workload.input.shape)
            inner = crop(workload.input, x)
            target = workload.output
            y = np.empty(interior(target))
            for i in range(target.height):
                for j in range(target.width):
                    top, left = i * workload.stride[0], j * workload.stride[1]
                    bottom, right = top + workload.kernel[0], left + workload.kernel[1]
                    y[:, i, j] = inner[:, top:bottom, left:right].max((1, 2))
            return x, embed(target, y)
        case Lrn():
            x = normal(random, workload.input.shape)
            inner = crop(workload.input, x).astype(np.float64)
            before, after = workload.size // 2, (workload.size - 1) // 2
            squares = np.pad(inner**2, [(0, 0)] * 3 + [(before, after)])
            channels = workload.input.channels
            total = sum(squares[..., d : d + channels] for d in range(workload.size))
            scale = (workload.k + workload.alpha * total) ** workload.beta
            return x, embed(workload.output, inner / scale)
        case Relu():
            x = normal(random, workload.input.shape)
            return x, embed(workload.output, np.maximum(crop(workload.input, x), 0))
        case Softmax():
            x = normal(random, (workload.batch, workload.features)) * 30
            powers = np.exp(x - x.max(1, keepdims=True).astype(np.float64))
            return x, powers / powers.sum(1, keepdims=True)
        case ToNhwc():
            inner = normal(random, interior(workload.output))
            return inner.transpose(0, 3, 1, 2).copy(), embed(workload.output, inner)
        case ToNchw():
            x = normal(random, workload.input.shape)
            return x, crop(workload.input, x).transpose(0, 3, 1, 2)
    raise AssertionError(workload)


def interior(map: Map) -> tuple[int, int, int, int]:
    return replace(map, halo=0).shape


def embed(map: Map, inner: np.ndarray) -> np.ndarray:
    """`inner` with the zeros of its halo around it."""
    return np.pad(inner, [(0, 0), (map.halo, map.halo), (map.halo, map.halo), (0, 0)])


def crop(map: Map, x: np.ndarray) -> np.ndarray:
    return x[:, map.halo : map.halo + map.height, map.halo : map.halo + map.width]


def normal(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.standard_normal(shape, np.float32)


def undefined(shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, np.nan, np.float32)


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    """Within `TOLERANCE` of the largest value expected; zeros of a halo are exact."""
    assert np.isfinite(actual).all()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * scale)

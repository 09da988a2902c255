"""Workloads for the kernels of CPUs, and how a kernel is checked."""

from __future__ import annotations

import os

os.environ.setdefault("TVM_NUM_THREADS", "2")

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm

from tests.support.workload_reference import sides, weight_shapes
from vggc.ir.ops import RELU, Activation, Pair
from vggc.kernels.cpu import Machine
from vggc.kernels.reference import reference
from vggc.kernels.workloads import (
    Conv,
    Dense,
    Lrn,
    Map,
    Packing,
    Softmax,
    ToNchw,
    ToNhwc,
    Workload,
)

HOST = {"kind": "llvm", "mcpu": tvm.get_global_func("target.llvm_get_system_cpu")()}


AVX2 = {"kind": "llvm", "mcpu": "haswell"}

SAME = Machine.of(tvm.target.Target(HOST)) == Machine.of(tvm.target.Target(AVX2))
"""Whether this machine's kernels are those of AVX2."""
not_the_same = pytest.mark.skipif(SAME, reason="this machine's kernels are those of AVX2")
TARGETS = [pytest.param(HOST, id="host"), pytest.param(AVX2, id="avx2", marks=not_the_same)]
"""This machine, and one with AVX2 where that is another."""


def conv(
    shape: tuple[int, int, int, int],
    channels: int,
    kernel: int = 3,
    stride: int = 1,
    padding: int | None = None,
    halos: Pair | None = None,
    act: Activation | None = RELU,
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
        act=act,
    )


def pooled(workload: Conv) -> Conv:
    """The same convolution with a 2×2 pool behind it."""
    out = workload.output
    halves = replace(out, height=out.height // 2, width=out.width // 2)
    return replace(workload, output=halves, pool=True)


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
    "1×1 kernel and an addend": replace(
        conv((2, 9, 9, 20), 70, kernel=1, halos=(0, 1)), addend=Map(2, 9, 9, 70, halo=2)
    ),
    "3×3 kernel and an addend": replace(conv((1, 9, 9, 4), 10), addend=Map(1, 9, 9, 10)),
    "5×5 kernel": conv((1, 11, 8, 6), 17, kernel=5, halos=(2, 0)),
    "5×5 kernel, less padding than halo": conv((1, 9, 9, 6), 17, kernel=5, padding=1, halos=(2, 2)),
    "weights that fill a cache": conv((2, 5, 9, 260), 40, halos=(1, 1)),
    "no padding": conv((1, 9, 9, 6), 32, padding=0, halos=(1, 1)),
    "stride 2": conv((1, 15, 12, 6), 32, stride=2, halos=(1, 1)),
    "1×1 kernel, stride 2": conv((2, 9, 9, 6), 32, kernel=1, stride=2),
    "5×5 kernel, stride 2": conv((1, 16, 15, 3), 20, kernel=5, stride=2, halos=(2, 1)),
    "linear": conv((1, 9, 9, 6), 32, act=None),
    "oblong": Conv(
        Map(2, 6, 11, 7, halo=2), Map(2, 3, 11, 19, halo=1), (3, 1), (2, 1), (1, 0), act=RELU
    ),
}

CONVS |= {
    f"{name}, pooled": pooled(CONVS[name])
    for name in ("odd extents", "batch of odd maps", "2×2 maps", "5×5 kernel, stride 2", "linear")
}

DENSES = {
    "odd features": Dense(1, 77, 130, act=RELU),
    "10 ways": Dense(1, 64, 10, act=None),
    "1000 ways": Dense(1, 40, 1000, act=None),
    "gelu": Dense(5, 30, 21, Activation("gelu")),
    "one output": Dense(3, 40, 1, act=None),
    "batch": Dense(5, 77, 130, act=RELU),
    "batch larger than the tile": Dense(37, 40, 70, act=RELU),
    "map": Dense(1, 3 * 2 * 5, 70, act=RELU, source=Map(1, 3, 2, 5)),
    "batch of maps": Dense(4, 3 * 2 * 5, 70, act=RELU, source=Map(4, 3, 2, 5)),
    "1×1 map": Dense(2, 24, 48, act=None, source=Map(2, 1, 1, 24)),
}

OTHERS: dict[str, Workload] = {
    "lrn": lrn((1, 5, 4, 40), 5, 0.75, halos=(0, 1)),
    "lrn over an even window": lrn((2, 3, 3, 7), 4, 0.5, halos=(1, 0)),
    "lrn over more than the channels": lrn((1, 3, 3, 3), 9, 1.0, halos=(1, 2)),
    "lrn over 101 of 128": lrn((1, 4, 3, 128), 101, 0.75, halos=(1, 2)),
    "lrn over far more than the channels": lrn((1, 2, 2, 3), 1023, 0.75),
    "lrn with another exponent": lrn((1, 3, 3, 18), 5, 0.6),
    "soft-max": Softmax(3, 1000),
    "soft-max of 10": Softmax(1, 10),
    "to nhwc": ToNhwc(Map(2, 9, 5, 3, halo=1)),
    "to nhwc without halo": ToNhwc(Map(1, 4, 4, 33)),
    "to nchw": ToNchw(Map(2, 9, 5, 35, halo=2)),
}


def library(functions: list[Any], target: tvm.target.Target) -> Callable[[int], Any]:
    """All functions in one module, because each compilation has a fixed cost."""
    named = {f"f{i}": func.with_attr("global_symbol", f"f{i}") for i, func in enumerate(functions)}
    compiled = tvm.compile(tvm.IRModule(named), target=target)
    return lambda index: compiled[f"f{index}"]


def check(run: Any, workload: Workload, packing: Packing | None) -> None:
    """The content is right, the halo zero, and no byte of the output left as it was."""
    rng = np.random.default_rng(0)
    sources, out = sides(workload)
    # Only a convolution may read what is around a map.
    around = 0.0 if isinstance(workload, Conv) else np.nan
    inputs = [np.full(source.shape, around, np.float32) for source in sources]
    contents = [source.content(x) for source, x in zip(sources, inputs, strict=True)]
    for content in contents:
        content[...] = rng.standard_normal(content.shape)
    weights = [rng.standard_normal(shape, np.float32) for shape in weight_shapes(workload)]
    packed = [packing.pack(weights[0]), *weights[1:]] if packing else weights
    y = tvm.runtime.tensor(np.full(out.shape, np.nan, np.float32))

    run(*map(tvm.runtime.tensor, [*inputs, *packed]), y)

    result = y.numpy()
    expected = reference(workload, contents, weights)
    content = out.content(result)
    assert content.shape == expected.shape
    error = np.linalg.norm(content - expected) / np.linalg.norm(expected)
    assert error < 1e-5
    content[...] = 0
    assert not result.any()

"""Kernels in bfloat16 and int8: workloads of Winograd, and how a kernel is checked."""

from __future__ import annotations

import os

os.environ.setdefault("TVM_NUM_THREADS", "2")

from collections.abc import Callable
from math import inf, sqrt
from typing import Any, TypeAlias

import numpy as np
import tvm
from numpy.typing import NDArray

from vggc.ir.ops import RELU, Activation, Pair
from vggc.kernels.bfloat16 import from_bfloat16, to_bfloat16
from vggc.kernels.cpu import dot
from vggc.kernels.reference import activate, halved, products, reference
from vggc.kernels.workloads import Conv, Convert, Format, Kernel, Map, MaxPool

Array: TypeAlias = NDArray[Any]

Few: TypeAlias = Conv | Convert | MaxPool

HOST = tvm.target.Target(
    {"kind": "llvm", "mcpu": str(tvm.get_global_func("target.llvm_get_system_cpu")())}
)

HAS = tvm.get_global_func("target.target_has_feature")

LACKS = [feature for feature in dot.INSTRUCTIONS.values() if not HAS(feature, HOST)]


def conv(
    source: Map,
    channels: int,
    kernel: Pair = (3, 3),
    stride: Pair = (1, 1),
    padding: Pair = (1, 1),
    act: Activation | None = RELU,
    out: tuple[int, Format, int] = (0, "float32", 0),
    pools: bool = False,
) -> Conv:
    """A convolution of `source`; `out` are halo, format and zero of its output."""
    extents = (source.height, source.width)
    height, width = (
        (extent + 2 * p - k) // s + 1
        for extent, p, k, s in zip(extents, padding, kernel, stride, strict=True)
    )
    if pools:
        height, width = height // 2, width // 2
    output = Map(source.batch, height, width, channels, *out)
    return Conv(source, output, kernel, stride, padding, act, pool=pools)


def winograds(form: Format) -> dict[str, Conv]:
    """What Winograd is for: 3×3, stride 1, whole vectors of words."""
    found: dict[str, Conv] = {}
    signed = 128 if form == "uint8" else 0
    for name, shape, channels, out, options in (
        ("even", (1, 12, 10, 64), 48, (1, form, 0), {}),
        ("odd extents", (1, 9, 13, 32), 36, (0, form, signed), {"act": None}),
        ("to float32", (3, 7, 5, 96), 33, (2, "float32", 0), {"act": Activation("silu")}),
        ("no padding", (2, 8, 9, 32), 68, (1, form, 0), {"padding": (0, 0)}),
        ("pooled", (2, 10, 13, 32), 100, (1, form, 0), {"pools": True}),
        ("small maps", (5, 2, 5, 64), 40, (0, form, 0), {}),
    ):
        source = Map(*shape, 2, form, signed if name == "odd extents" else 0)
        found[name] = conv(source, channels, out=out, **options)  # type: ignore[arg-type]
    return found


def inner(buffer: Array, map: Map) -> Array:
    """A map's content, without its halo and what pads its channels."""
    rows, columns = (slice(map.halo, map.halo + extent) for extent in (map.height, map.width))
    return buffer[:, rows, columns, : map.channels]


def filled(map: Map, rng: np.random.Generator) -> Array:
    """A buffer of the map with random content."""
    buffer = np.full(map.shape, map.zero, map.storage)
    content = inner(buffer, map)
    match map.format:
        case "float32":
            content[...] = rng.standard_normal(content.shape)
        case "bfloat16":
            content[...] = to_bfloat16(rng.standard_normal(content.shape))
        case "uint8":
            content[...] = rng.integers(0, 256, content.shape)
    content[rng.random(content.shape) < 0.3] = map.zero
    return buffer


def meaning(buffer: Array, map: Map, scale: float) -> Array:
    """The content in float64."""
    content = inner(buffer, map)
    match map.format:
        case "bfloat16":
            return from_bfloat16(content).astype(float)
        case "uint8":
            return scale * (content.astype(float) - map.zero)
        case _:
            return content.astype(float)


WINOGRAD_ERROR = 6e-3
"""Relative, in L2. In bfloat16 rounding the output alone costs 1.7e-3, and rounding weights as
much; in int8 the transformed weights are rounded."""


def check(run: Any, workload: Few, made: Kernel, seed: int = 0) -> None:
    """The content is right to the last bit that is stored, and around it lies zero."""
    rng = np.random.default_rng(seed)
    source, out = workload.input, workload.output
    x = filled(source, rng)
    weights: list[Array] = []
    in_scale, out_scale = (0.02, 0.05) if isinstance(workload, Conv) else (0.02, 0.02)
    match workload:
        case Conv():
            weights, values = conv_weights(workload, rng, in_scale)
            exact = exact_conv(workload, meaning(x, source, in_scale), *values)
            packing = made.packing
            assert packing is not None
            weights[0] = packing.pack(weights[0])
            if out.format == "uint8":
                weights.append(np.float32([out_scale]))
        case Convert():
            exact = meaning(x, source, in_scale)
            if "uint8" in (source.format, out.format):
                weights = [np.float32([0.02])]
        case MaxPool():
            exact = reference(workload, [meaning(x, source, in_scale)], [])
    start = 0xFF if out.format != "float32" else np.nan
    y = tvm.runtime.tensor(np.full(out.shape, start, out.storage))

    run(*map(tvm.runtime.tensor, [x, *weights]), y)

    result = y.numpy()
    got = meaning(result, out, out_scale)
    size = np.abs(exact).max()
    if made.algorithm.startswith("winograd"):
        low, high = stored_range(out, out_scale)
        exact = np.clip(exact, low, high)
        step = out_scale if out.format == "uint8" else 0
        allowed = WINOGRAD_ERROR * np.linalg.norm(exact) + step * sqrt(exact.size / 12)
        assert np.linalg.norm(got - exact) < allowed
        exact = got
    match out.format:
        case "float32":
            np.testing.assert_allclose(got, exact, rtol=1e-4, atol=1e-5 * size)
        case "bfloat16":
            np.testing.assert_allclose(got, exact, rtol=1.01 * 2**-8, atol=1e-5 * size)
        case "uint8":
            low, high = stored_range(out, out_scale)
            np.testing.assert_allclose(
                got, np.clip(exact, low, high), rtol=0, atol=0.501 * out_scale + 1e-5 * size
            )
    inner(result, out)[...] = out.zero
    assert (result == out.zero).all()


def stored_range(map: Map, scale: float) -> tuple[float, float]:
    """The least and the largest value that a map may hold."""
    if map.format != "uint8":
        return -inf, inf
    return -map.zero * scale, (255 - map.zero) * scale


def conv_weights(
    workload: Conv, rng: np.random.Generator, in_scale: float
) -> tuple[list[Array], tuple[Array, Array]]:
    """The weights that a kernel takes, the first not packed, and what they mean."""
    shape = workload.weight_shape
    bias = rng.standard_normal(shape[0]).astype(np.float32)
    if workload.input.format == "bfloat16":
        weight = from_bfloat16(to_bfloat16(rng.standard_normal(shape, np.float32)))
        return [weight, bias], (weight.astype(float), bias.astype(float))
    weight = rng.integers(-127, 128, shape).astype(np.int8)
    scales = rng.uniform(0.5, 1.5, shape[0]) / 400
    rescale = (scales * in_scale).astype(np.float32)
    # What the zero of the input adds to every sum goes off the bias.
    shift = workload.input.zero * weight.astype(float).sum((1, 2, 3)) * rescale
    corrected = (bias - shift).astype(np.float32)
    exact = weight * scales[:, None, None, None]
    return [weight, rescale, corrected], (exact, bias.astype(float))


def exact_conv(workload: Conv, x: Array, weight: Array, bias: Array) -> Array:
    y = activate(workload.act, products(workload, x, weight) + bias)
    return halved(y, workload.output) if workload.pool else y


def library(kernels: list[Kernel]) -> Callable[[int], Any]:
    named = {
        f"f{i}": each.func.with_attr("global_symbol", f"f{i}") for i, each in enumerate(kernels)
    }
    compiled = tvm.compile(tvm.IRModule(named), target=HOST)
    return lambda index: compiled[f"f{index}"]

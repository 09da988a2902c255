"""The CUDA kernels, run on the CPU, against references in float64."""

from __future__ import annotations

import ctypes
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
import tvm_ffi

from tests.support.compiled_kernels import Made
from tests.support.cuda_on_cpu import call, compile_kernels, generate, generate_all, run
from tests.support.workload_reference import (
    ACTIVATIONS,
    ELEMENTWISE,
    GROUPED,
    NORMS,
    PLACES,
    POOLS,
    STOCHASTIC_POOLS,
    draws,
    sides,
    weight_shapes,
)
from vggc.ir.ops import RELU, Activation
from vggc.kernels.cuda import H200, algorithms, gemm, kernel
from vggc.kernels.cuda.mma import MmaKnobs
from vggc.kernels.cuda.mma_dense import MmaDense
from vggc.kernels.reference import activate, reference
from vggc.kernels.workloads import (
    PIECE,
    Conv,
    Dense,
    Format,
    Lrn,
    Map,
    Packing,
    Pointwise,
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
    act: Activation | None = RELU,
) -> Conv:
    batch, height, width, in_channels = shape
    out = [
        (extent + 2 * pad - size) // step + 1
        for extent, pad, size, step in zip((height, width), padding, kernel, stride, strict=True)
    ]
    source = Map(batch, height, width, in_channels, halos[0])
    return Conv(source, Map(batch, *out, channels, halos[1]), kernel, stride, padding, act)


CONVS = {
    "image": conv((1, 13, 11, 3), 8),
    "image-with-alpha": conv((2, 9, 9, 4), 5, halos=(1, 0)),
    "odd": conv((1, 9, 7, 5), 6),
    "deep": conv((1, 6, 6, 70), 20),
    "wide": conv((1, 5, 5, 16), 130, halos=(2, 1)),
    "batch": conv((3, 6, 5, 12), 7, halos=(1, 2)),
    "strided": conv((1, 23, 19, 3), 9, (11, 11), (4, 4), (2, 2), halos=(2, 2)),
    "rectangular": conv((2, 8, 9, 6), 4, (1, 5), (1, 2), (0, 2), halos=(3, 0), act=None),
    "dilated": replace(conv((1, 9, 7, 5), 6, halos=(3, 1)), dilation=(2, 3), padding=(2, 3)),
    "uneven": replace(conv((1, 8, 8, 6), 7, (3, 3), (2, 2), halos=(1, 0)), padding=(0, 0)),
    "pointwise": conv((2, 4, 3, 40), 33, (1, 1), (1, 1), (0, 0), halos=(0, 0)),
    "silu": conv((1, 6, 5, 12), 8, act=Activation("silu")),
    "gelu": conv((1, 6, 5, 5), 7, act=Activation("gelu")),
    "one-pixel": conv((1, 4, 4, 8), 10, (4, 4), (1, 1), (0, 0), halos=(0, 1)),
}

DENSES = {
    "vector": Dense(1, 300, 21, act=None),
    "vector-odd": Dense(1, 77, 5, act=RELU),
    "vector-of-map": Dense(1, 5 * 3 * 12, 19, act=RELU, source=Map(1, 5, 3, 12)),
    "batch": Dense(5, 50, 70, act=RELU),
    "batch-of-map": Dense(3, 2 * 3 * 7, 12, act=None, source=Map(3, 2, 3, 7)),
    "vector-elu": Dense(1, 33, 9, Activation("elu", 1.5)),
    "batch-tanh": Dense(3, 33, 8, Activation("tanh")),
    "large-batch": Dense(40, 24, 9, act=None),
}

TENSOR_DENSES: dict[str, tuple[Dense, MmaKnobs]] = {
    "batch": (Dense(5, 148, 70, act=RELU), MmaKnobs(32, 64, 32, 32, 16, 3, 2, 128)),
    "large-batch-of-map": (
        Dense(33, 2 * 3 * 20, 200, act=None, source=Map(33, 2, 3, 20)),
        MmaKnobs(64, 64, 32, 32, 32, 2, 1, 256),
    ),
}
"""Dense layers in float32 on tensor cores, from panels that are wider than tiles."""

OTHERS: dict[str, Workload] = {
    "lrn": Lrn(Map(1, 4, 3, 7, 1), Map(1, 4, 3, 7, 2), 5, 1e-2, 0.75, 2.0),
    "lrn-even": Lrn(Map(1, 2, 3, 6), Map(1, 2, 3, 6), 4, 1.0, 0.5, 1.0),
    "lrn-large": Lrn(Map(1, 3, 2, 128, 1), Map(1, 3, 2, 128, 1), 101, 1e-2, 0.75, 2.0),
    "lrn-all": Lrn(Map(1, 2, 2, 3), Map(1, 2, 2, 3, 1), 1023, 1.0, 0.75, 1.0),
    "softmax": Softmax(3, 10),
    "softmax-long": Softmax(2, 1000),
    "to-nhwc": ToNhwc(Map(2, 4, 6, 3, 1)),
    "to-nchw": ToNchw(Map(2, 4, 6, 3, 1)),
}


WORKLOADS: dict[str, Workload] = {
    **CONVS,
    **GROUPED,
    **DENSES,
    **POOLS,
    **ELEMENTWISE,
    **NORMS,
    **PLACES,
    **STOCHASTIC_POOLS,
    **OTHERS,
    **{f"draw {index}": workload for index, workload in enumerate(draws(1, 12))},
}

TILED = conv((1, 13, 12, 20), 70, halos=(1, 1))
TILINGS = {
    f"{name} tile, {splits} splits": gemm.Tiling(tile, splits)
    for name, tile in {"large": gemm.LARGE, "medium": gemm.MEDIUM, "flat": gemm.FLAT}.items()
    for splits in (1, 3)
}
ENDS = [-1e30, -200, -89, -1e-30, -0.0, 0.0, 1e-30, 89, 200, 1e30]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """The kernel of each workload, of each activation at its ends and of each tile of a
    convolution, in one library.
    """
    layout = Map(1, 1, 1, len(ENDS))
    alone = {f"{name} at its ends": Pointwise(layout, layout, a) for name, a in ACTIVATIONS.items()}
    kernels = {name: kernel(work, max_error=0) for name, work in {**WORKLOADS, **alone}.items()}
    kernels |= {name: gemm.ImplicitGemm(TILED).kernel(each) for name, each in TILINGS.items()}
    numbered = {name: f"f{index}" for index, name in enumerate(kernels)}
    codes = generate_all({numbered[name]: made.func for name, made in kernels.items()})
    source = next(iter(codes.values())).source
    library = ctypes.CDLL(str(compile_kernels(source, tmp_path_factory.mktemp("kernels"))))
    return lambda name: (library, codes[numbered[name]], kernels[name])


@needs_compiler
@pytest.mark.parametrize("name", WORKLOADS)
def test_a_kernel_computes_its_workload(name: str, compiled: Callable[[str], Made]) -> None:
    library, code, made = compiled(name)
    check(WORKLOADS[name], made.packing, lambda *arrays: call(library, code, *arrays))


@needs_compiler
@pytest.mark.parametrize("tiling", TILINGS)
def test_conv_with_every_tile(tiling: str, compiled: Callable[[str], Made]) -> None:
    library, code, made = compiled(tiling)
    check(TILED, made.packing, lambda *arrays: call(library, code, *arrays))


@needs_compiler
@pytest.mark.parametrize("name", TENSOR_DENSES)
def test_a_dense_layer_on_tensor_cores(name: str, tmp_path: Path) -> None:
    workload, knobs = TENSOR_DENSES[name]
    assert knobs in MmaDense(workload).knobs()
    made = MmaDense(workload).kernel(knobs)
    check_alone(workload, made.func, made.packing, tmp_path)


@needs_compiler
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_at_its_ends(name: str, compiled: Callable[[str], Made]) -> None:
    """Large values neither overflow nor turn up as NaN."""
    x, y = np.float32(ENDS), undefined((1, 1, 1, len(ENDS)))
    library, code, _ = compiled(f"{name} at its ends")
    call(library, code, x.reshape(y.shape), y)
    expected = activate(ACTIVATIONS[name], x.astype(float))
    np.testing.assert_allclose(y.ravel(), expected, rtol=TOLERANCE, atol=1e-30)


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("odd", "implicit_gemm"),
        ("two groups", "grouped"),
        ("depthwise", "depthwise"),
        ("mean 3×3, every pixel", "avg_pool"),
        ("mean of the whole map", "global_mean"),
        ("mean 13×13 of a smaller map", "avg_pool"),
    ],
)
def test_the_algorithm_suits_the_workload(name: str, algorithm: str) -> None:
    assert kernel(WORKLOADS[name], max_error=0).algorithm == algorithm


def test_a_pool_is_left_to_kernels_that_pool() -> None:
    work = conv((1, 9, 12, 20), 70, halos=(1, 1))
    pooled = replace(work, output=replace(work.output, height=4, width=6), pool=True)
    names, pooling = ({each.name for each in algorithms(some)} for some in (work, pooled))
    assert names - pooling == {"implicit_gemm"}
    assert pooling


@pytest.mark.parametrize("workload", [*CONVS.values(), *GROUPED.values(), *DENSES.values()])
def test_packing_is_exact(workload: Conv | Dense) -> None:
    check_packing(workload, kernel(workload, max_error=0).packing)


@pytest.mark.parametrize("name", TENSOR_DENSES)
def test_packing_of_dense_layers_for_tensor_cores_is_exact(name: str) -> None:
    workload, knobs = TENSOR_DENSES[name]
    check_packing(workload, MmaDense(workload).packing(knobs))


@pytest.mark.parametrize(
    ("size", "channels", "splits"), [(224, 64, 1), (56, 256, 2), (28, 512, 3), (14, 512, 8)]
)
def test_a_reduction_is_split_where_tiles_are_few(size: int, channels: int, splits: int) -> None:
    made = kernel(conv((1, size, size, channels), channels), max_error=0)
    assert made.knobs["splits"] == splits


@pytest.mark.parametrize(
    ("form", "vector", "names"),
    [
        ("float32", 1, {"implicit_gemm", "mma", "mma_patches"}),
        ("float16", 8, {"mma", "mma_patches", "wgmma_patches"}),
    ],
)
def test_what_blocks_share_is_lent_to_a_kernel_for_each_call(
    form: Format, vector: int, names: set[str]
) -> None:
    """None asks for memory by itself: a CUDA graph would replay where that once lay."""
    output = Map(1, 14, 14, 512, 0, form, vector=vector)
    work = Conv(replace(output, halo=1), output, (3, 3), (1, 1), (1, 1))
    found = algorithms(work, H200)
    assert {algorithm.name for algorithm in found} == names
    for algorithm in found:
        made = algorithm.kernel(max(algorithm.knobs(), key=lambda knobs: knobs.splits))
        (parts,) = made.scratch
        assert prod(parts.shape) >= made.knobs["splits"] * prod(output.shape)
        assert [each.name for each in made.func.params] == ["x", "weight", "bias", "y", parts.name]
        assert [each.name for each in made.arguments] == ["x", "weight", "bias", "y"]
        assert scopes(made.func) <= {"local", "shared", "shared.dyn"}


def scopes(func: Any) -> set[str]:
    """The kinds of memory that a function asks for."""
    found: set[str] = set()

    def add(allocation: Any) -> None:
        found.add(str(allocation.buffer.scope()))

    tvm_ffi.structural_walk(func.body, (tvm.tirx.AllocBuffer, add))
    return found


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
    x = normal(np.random.default_rng(0), (1, 1000)) * 30
    y = undefined(x.shape)
    run(broken, tmp_path, x, y)
    with pytest.raises(AssertionError):
        assert_close(y, reference(Softmax(1, 1000), [x], []))


def check_packing(workload: Conv | Dense, packing: Packing | None) -> None:
    """A weight comes back as it was, and is packed the same piece by piece."""
    assert packing is not None
    weight = normal(np.random.default_rng(1), workload.weight_shape)
    packed = packing.pack(weight)
    assert packed.shape == packing.packed_shape
    np.testing.assert_array_equal(packing.unpack(packed), weight)
    for few in (4 * PIECE, 100):  # bytes at once: all, or a row
        with pytest.MonkeyPatch.context() as patch:
            for module in ("workloads", "cuda.packing"):
                patch.setattr(f"vggc.kernels.{module}.PIECE", few)
            pieces = [piece.ravel() for piece in packing.pieces(weight)]
        np.testing.assert_array_equal(np.concatenate(pieces), packed.ravel())


def check_alone(workload: Workload, func: Any, packing: Packing | None, folder: Path) -> None:
    """Checks a function that is compiled by itself."""
    code = generate(func)
    check(workload, packing, lambda *arrays: run(code, folder, *arrays))


def check(workload: Workload, packing: Packing | None, called: Callable[..., None]) -> None:
    """The content is right and the halo zero."""
    random = np.random.default_rng(0)
    sources, out = sides(workload)
    # Only a convolution may read what is around a map.
    around = 0.0 if isinstance(workload, Conv) else np.nan
    inputs = [np.full(source.shape, around, np.float32) for source in sources]
    contents = [source.content(x) for source, x in zip(sources, inputs, strict=True)]
    for content in contents:
        content[...] = normal(random, content.shape)
    weights = [normal(random, shape) for shape in weight_shapes(workload)]
    packed = [packing.pack(weights[0]), *weights[1:]] if packing else weights
    y = undefined(out.shape)
    called(*inputs, *packed, y)
    expected = np.zeros(out.shape)
    out.content(expected)[...] = reference(workload, contents, weights)
    assert_close(y, expected)


def convolution(workload: Conv, tiling: gemm.Tiling) -> Any:
    return gemm.ImplicitGemm(workload).kernel(tiling).func


def normal(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.standard_normal(shape, np.float32)


def undefined(shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, np.nan, np.float32)


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    """Within `TOLERANCE` of the largest value expected; zeros of a halo are exact."""
    assert np.isfinite(actual).all()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * scale)

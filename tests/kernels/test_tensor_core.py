"""The kernels in fewer bits for GPUs, run on the CPU, against references in float64."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.support.compiled_kernels import Made, check_always, compiled, unnoticed
from tests.support.cuda_on_cpu import counting, generate
from tests.support.split_error import errors
from tests.support.tensor_core_kernels import (
    OTHERS,
    TensorCase,
    TensorDraw,
    case,
    check,
    check_packing,
    conv,
    dense,
    draws,
)
from tests.support.touched import check_touched
from vggc.compiler.error_budget import allotment
from vggc.compiler.targets import resolve
from vggc.ir.ops import Activation
from vggc.kernels.algorithm import NoKnobs
from vggc.kernels.cuda import algorithms
from vggc.kernels.cuda.mma import MmaKnobs, MmaWindows
from vggc.kernels.cuda.mma_dense import MmaDense
from vggc.kernels.cuda.mma_image import ImageKnobs, MmaImage
from vggc.kernels.cuda.mma_patches import MmaPatches, PatchKnobs
from vggc.kernels.cuda.mma_tile import ALIGNMENT
from vggc.kernels.cuda.segment_dense import SegmentGemv, SegmentGemvKnobs
from vggc.kernels.workloads import Conv, Dense
from vggc.program import load
from vggc.runtime.plans import plan_for

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")

PATCHES = PatchKnobs(8, 8, 64, 32, 32, 32, 3, 1)

CASES: dict[str, TensorDraw] = {
    "an image": TensorDraw(
        MmaWindows(conv((1, 13, 11, 3), 70)), MmaKnobs(128, 128, 64, 64, 64, 4, 1, 128)
    ),
    "windows, pooled": TensorDraw(
        MmaWindows(conv((1, 13, 11, 64), 128, pool=True)), MmaKnobs(128, 128, 64, 32, 64, 3, 1, 128)
    ),
    "windows, shared": TensorDraw(
        MmaWindows(conv((2, 9, 11, 24), 40)), MmaKnobs(64, 64, 32, 32, 32, 2, 7, 64)
    ),
    "windows with stride": TensorDraw(
        MmaWindows(conv((2, 15, 9, 64), 64, stride=(2, 1), halos=(2, 0), form="bfloat16")),
        MmaKnobs(256, 128, 64, 64, 32, 3, 1, 128),
    ),
    "windows to float32": TensorDraw(
        MmaWindows(conv((2, 9, 11, 32), 33, to_float32=True)),
        MmaKnobs(128, 64, 64, 32, 32, 5, 1, 64),
    ),
    "windows, dilated": TensorDraw(
        MmaWindows(
            replace(conv((1, 9, 11, 64), 33, halos=(4, 1)), dilation=(2, 4), padding=(2, 4))
        ),
        MmaKnobs(64, 64, 32, 32, 32, 3, 2, 64),
    ),
    "wide": TensorDraw(
        MmaWindows(conv((1, 7, 9, 64), 256, to_float32=True)),
        MmaKnobs(128, 256, 64, 64, 32, 3, 2, 256),
    ),
    "a dense layer of a batch": TensorDraw(
        MmaWindows(dense((40, 3, 2, 64), 70)), MmaKnobs(64, 64, 32, 32, 64, 3, 2, 64)
    ),
    "a dense layer from wider panels": TensorDraw(
        MmaWindows(dense((40, 3, 2, 24), 200)), MmaKnobs(64, 64, 32, 32, 32, 3, 5, 256)
    ),
    "a dense layer from narrower panels": TensorDraw(
        MmaWindows(dense((3, 3, 2, 20), 200, "tf32")), MmaKnobs(128, 256, 64, 64, 16, 3, 2, 64)
    ),
    "patches, pooled": TensorDraw(
        MmaPatches(conv((2, 17, 19, 64), 70, pool=True)), PatchKnobs(8, 16, 64, 64, 32, 64, 2, 1)
    ),
    "patches, shared": TensorDraw(
        MmaPatches(conv((1, 17, 19, 128), 70, form="bfloat16")),
        PatchKnobs(16, 8, 128, 64, 64, 64, 4, 2),
    ),
    "patches 5×5": TensorDraw(
        MmaPatches(conv((1, 9, 33, 64), 40, (5, 5), padding=(2, 2), halos=(3, 0))),
        PatchKnobs(8, 32, 128, 64, 64, 32, 5, 1),
    ),
    "patches to float32": TensorDraw(
        MmaPatches(conv((1, 17, 19, 64), 40, act=None, to_float32=True)),
        PatchKnobs(16, 16, 128, 64, 64, 32, 3, 1),
    ),
    "an image by itself": TensorDraw(
        MmaImage(conv((2, 19, 21, 3), 70)), ImageKnobs(16, 16, 64, 32, 64)
    ),
    "an image by itself, pooled": TensorDraw(
        MmaImage(conv((1, 19, 21, 5), 64, (3, 2), pool=True, form="bfloat16")),
        ImageKnobs(8, 16, 64, 32, 32),
    ),
    "float32 windows": TensorDraw(
        MmaWindows(conv((1, 9, 8, 12), 70, form="float32")), MmaKnobs(128, 64, 64, 32, 16, 4, 1, 64)
    ),
    "float32 windows, shared": TensorDraw(
        MmaWindows(conv((2, 5, 7, 24), 41, form="float32", act=None)),
        MmaKnobs(64, 64, 32, 32, 16, 2, 7, 64),
    ),
    "float32 patches": TensorDraw(
        MmaPatches(conv((2, 9, 9, 32), 70, form="float32")), PatchKnobs(8, 8, 64, 32, 32, 32, 2, 1)
    ),
    "float32 patches, shared": TensorDraw(
        MmaPatches(conv((1, 9, 9, 64), 70, form="float32", halos=(1, 2))),
        PatchKnobs(8, 8, 64, 32, 32, 16, 4, 2),
    ),
    "float32 of four channels": TensorDraw(
        MmaImage(conv((1, 19, 21, 4), 64, form="float32")), ImageKnobs(8, 16, 64, 32, 32)
    ),
    "tf32 windows of an odd image": TensorDraw(
        MmaWindows(conv((1, 13, 11, 6), 70, form="tf32")), MmaKnobs(64, 64, 32, 32, 16, 4, 1, 64)
    ),
    "tf32 windows, shared": TensorDraw(
        MmaWindows(conv((2, 9, 11, 24), 41, form="tf32", act=None)),
        MmaKnobs(64, 64, 32, 32, 16, 2, 7, 64),
    ),
    "tf32 patches, pooled": TensorDraw(
        MmaPatches(conv((2, 17, 19, 32), 70, pool=True, form="tf32")),
        PatchKnobs(8, 16, 64, 64, 32, 32, 2, 1),
    ),
    "tf32 patches, shared": TensorDraw(
        MmaPatches(conv((1, 17, 19, 64), 70, form="tf32")),
        PatchKnobs(8, 8, 64, 32, 32, 32, 4, 2),
    ),
    "tf32 of an image by itself, pooled": TensorDraw(
        MmaImage(conv((1, 19, 21, 3), 64, pool=True, form="tf32")), ImageKnobs(8, 16, 64, 32, 32)
    ),
    "a tf32 dense layer of three images": TensorDraw(
        SegmentGemv(dense((3, 3, 4, 40), 37, "tf32")), SegmentGemvKnobs(8, 1, 2)
    ),
    "int8 windows of an odd image": TensorDraw(
        MmaWindows(conv((1, 13, 11, 19), 70, form="uint8", zeros=(128, 0))),
        MmaKnobs(128, 64, 64, 32, 64, 4, 1, 64),
    ),
    "int8 windows, shared": TensorDraw(
        MmaWindows(conv((2, 9, 11, 48), 40, form="uint8", zeros=(128, 128), act=None)),
        MmaKnobs(64, 64, 32, 32, 64, 2, 7, 64),
    ),
    "int8 windows of an activation that steps wait for": TensorDraw(
        MmaWindows(conv((1, 5, 7, 64), 40, form="uint8", act=Activation("silu"), zeros=(0, 128))),
        MmaKnobs(64, 64, 32, 32, 64, 3, 1, 64),
    ),
    "int8 patches, pooled": TensorDraw(
        MmaPatches(conv((2, 17, 19, 128), 70, pool=True, form="uint8", zeros=(128, 0))),
        PatchKnobs(8, 16, 64, 64, 32, 128, 2, 1),
    ),
    "int8 patches, shared": TensorDraw(
        MmaPatches(conv((1, 17, 19, 256), 70, form="uint8")),
        PatchKnobs(8, 8, 64, 32, 32, 128, 4, 2),
    ),
    "int8 of an image by itself, pooled": TensorDraw(
        MmaImage(conv((1, 19, 21, 3), 64, pool=True, form="uint8", zeros=(128, 0))),
        ImageKnobs(8, 16, 64, 32, 32),
    ),
    "an int8 dense layer of three images": TensorDraw(
        SegmentGemv(dense((3, 3, 4, 40), 37, "uint8", to_float32=True)), SegmentGemvKnobs(8, 1, 2)
    ),
    "an int8 dense layer": TensorDraw(
        SegmentGemv(dense((1, 2, 2, 300), 37, "uint8")), SegmentGemvKnobs(4, 2, 4)
    ),
    "a dense layer": TensorDraw(SegmentGemv(dense((1, 3, 4, 40), 37)), SegmentGemvKnobs(4, 2, 4)),
    "a dense layer of three images": TensorDraw(
        SegmentGemv(dense((3, 1, 1, 300), 37, "bfloat16", to_float32=True)),
        SegmentGemvKnobs(8, 1, 2),
    ),
    **{f"draw {index}": draw for index, draw in enumerate(draws(1, 10))},
    **{name: TensorDraw(algorithms(work)[0], NoKnobs()) for name, work in OTHERS.items()},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    return compiled(CASES, tmp_path_factory.mktemp("half"))


@pytest.fixture(scope="module")
def example(made: Callable[[str], Made]) -> Callable[[str], TensorCase]:
    return cache(lambda name: case(CASES[name].workload, made(name)[2]))


@needs_compiler
@pytest.mark.parametrize("name", CASES)
def test_a_kernel_computes_its_workload(
    name: str, made: Callable[[str], Made], example: Callable[[str], TensorCase]
) -> None:
    library, code, _ = made(name)
    check_always(library, code, CASES[name].workload, example(name))


@needs_compiler
@pytest.mark.parametrize("name", [name for name, each in CASES.items() if each.accesses])
def test_blocks_touch_what_their_kernel_says(
    name: str, made: Callable[[str], Made], example: Callable[[str], TensorCase]
) -> None:
    library, code, _ = made(name)
    check_touched(library, code, CASES[name], example(name))


@needs_compiler
@pytest.mark.parametrize("name", CASES)
def test_what_a_thread_holds_is_not_in_memory(name: str, made: Callable[[str], Made]) -> None:
    """A kernel takes what its function takes, the sums of blocks that share a tile, and the means
    and deviations of a group normalisation.
    """
    _, code, _ = made(name)
    taken = {buffer for launch in code.launches for buffer in launch.buffers}
    of_groups = {"row_means", "row_squares", "means", "scales"}
    assert taken - set(code.parameters) <= {"parts", *of_groups}


@pytest.mark.slow
@needs_compiler
def test_many_draws_compute_what_they_should(tmp_path: Path) -> None:
    cases = {str(index): draw for index, draw in enumerate(draws(2, 20))}
    get = compiled(cases, tmp_path)
    for name, draw in cases.items():
        library, code, kernel = get(name)
        example = case(draw.workload, kernel, seed=int(name))
        try:
            check(library, code, draw.workload, example)
            if draw.accesses:
                check_touched(library, code, draw, example)
        except AssertionError as error:
            raise AssertionError(f"{draw}: {error}") from None


@pytest.mark.parametrize("name", [name for name in CASES if isinstance(CASES[name].workload, Conv)])
def test_packing_is_exact_up_to_rounding(name: str) -> None:
    check_packing(CASES[name])


# ---------------------------------------------------------------- the error of float32


@needs_compiler
def test_float32_in_three_products_errs_as_it_states() -> None:
    """The emulator cuts sums off as tensor cores do."""
    _, three, one, stated = errors(64)
    assert 0.7 * stated <= three <= stated
    assert three < one / 1000


@pytest.mark.parametrize("budget", [1e-5, 1e-6, 0.0])
def test_float32_is_split_only_where_the_error_of_a_net_allows_it(budget: float) -> None:
    target = resolve("cuda", ["sm_90"])
    may = allotment([plan_for(load("vgg16").graph, 32, target, "float32")], target, budget)
    split = [each for each, choice in may.by_cost.items() if choice.algorithm.startswith("mma")]
    algorithms = [MmaWindows(each) if isinstance(each, Conv) else MmaDense(each) for each in split]
    assert sum(each.error**2 for each in algorithms) <= budget**2
    assert bool(split) == (budget > 0)
    assert (len(split) > 8) == (budget == 1e-5)
    assert any(isinstance(each, Dense) for each in split) == (budget == 1e-5)


def test_gpus_without_these_tensor_cores_multiply_float32_on_ordinary_cores() -> None:
    target = resolve("cuda", ["sm_75", "sm_90"])
    may = allotment([plan_for(load("vgg16").graph, 8, target, "float32")], target, 1e-5)
    assert {choice.algorithm for choice in may.by_cost.values()} <= {"implicit_gemm", "gemm"}


# ---------------------------------------------------------------- waits

WAITING = {
    "windows": TensorDraw(
        MmaWindows(conv((1, 9, 11, 64), 40)), MmaKnobs(64, 64, 32, 32, 32, 3, 1, 64)
    ),
    "patches": TensorDraw(MmaPatches(conv((1, 9, 11, 96), 40, (3, 1), padding=(1, 0))), PATCHES),
    "int8 windows, shared": TensorDraw(
        MmaWindows(conv((1, 9, 11, 128), 40, form="uint8")), MmaKnobs(64, 64, 32, 32, 64, 3, 3, 64)
    ),
}


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name", WAITING)
def test_each_wait_is_needed(name: str, tmp_path: Path) -> None:
    assert unnoticed(WAITING[name], tmp_path) == []


# ---------------------------------------------------------------- counts

COUNTED: dict[str, tuple[str, Conv, tuple[int, ...]]] = {
    "windows 128×64": ("mma", conv((1, 24, 24, 64), 128), (128, 64, 64, 32, 32, 4, 1, 64)),
    "windows 256×128": ("mma", conv((1, 24, 24, 64), 128), (256, 128, 64, 64, 64, 3, 1, 128)),
    "windows, shared": ("mma", conv((1, 24, 24, 64), 128), (128, 128, 64, 64, 64, 3, 3, 128)),
    "an image by itself": ("mma_image", conv((1, 32, 32, 3), 64), (16, 16, 64, 32, 64)),
    "an image": ("mma", conv((1, 24, 24, 3), 64), (128, 64, 64, 32, 32, 4, 1, 64)),
    "a dense layer": ("mma", dense((64, 3, 3, 64), 128), (64, 64, 32, 32, 32, 4, 1, 64)),
    "few rows": ("mma", dense((32, 3, 3, 64), 256), (32, 128, 32, 32, 32, 4, 1, 256)),
    "patches 16×8": ("mma_patches", conv((1, 32, 32, 64), 128), (16, 8, 128, 64, 64, 64, 4, 1)),
    "patches 16×16": (
        "mma_patches",
        conv((1, 32, 32, 128), 128, pool=True),
        (16, 16, 128, 64, 64, 32, 4, 1),
    ),
}
"""Tiles that are chosen for VGG, on maps that they divide; with their knobs."""


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    return compiled({name: chosen(name) for name in COUNTED}, tmp_path_factory.mktemp("counted"))


def chosen(name: str) -> TensorDraw:
    algorithm_name, work, sizes = COUNTED[name]
    (algorithm,) = (each for each in algorithms(work) if each.name == algorithm_name)
    kinds = {"mma": MmaKnobs, "mma_patches": PatchKnobs, "mma_image": ImageKnobs}
    return TensorDraw(algorithm, kinds[algorithm_name](*sizes))


@needs_compiler
@pytest.mark.parametrize("name", COUNTED)
def test_accesses_cost_no_more_than_they_must(name: str, counted: Callable[[str], Made]) -> None:
    """Shared memory has no conflicts of banks, and global memory is read and written in whole
    sectors; of what lies between them, a hundredth.
    """
    library, code, kernel = counted(name)
    work = chosen(name).workload
    with counting(library) as counts:
        check(library, code, work, case(work, kernel))
    (found,) = counts
    assert found.shared_accesses > 0
    assert found.shared_passes == found.shared_accesses
    assert found.global_sectors * 32 <= 1.01 * found.global_bytes


@needs_compiler
@pytest.mark.parametrize("name", ["a dense layer", "an int8 dense layer of three images"])
def test_weights_of_few_images_are_read_in_whole_sectors(
    name: str, made: Callable[[str], Made]
) -> None:
    library, code, kernel = made(name)
    work = CASES[name].workload
    with counting(library) as counts:
        check(library, code, work, case(work, kernel))
    (found,) = counts
    assert found.global_sectors * 32 == found.global_bytes > 0


@pytest.mark.parametrize("name", COUNTED)
def test_a_launch_asks_for_the_shared_memory_that_is_used(name: str) -> None:
    draw = chosen(name)
    (launch,) = generate(draw.kernel().func).launches
    knobs = draw.knobs
    operands = draw.algorithm.operands
    sizes = knobs.tile(operands) if isinstance(knobs, MmaKnobs) else knobs
    assert launch.shared == draw.algorithm.shared_bytes(sizes) + ALIGNMENT

"""Convolutions by warpgroups, run on the CPU, against references in float64."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path

import pytest

from tests.support.compiled_kernels import Made, check_always, compiled, unnoticed
from tests.support.cuda_on_cpu import counting
from tests.support.tensor_core_kernels import (
    FORMATS,
    TensorCase,
    TensorDraw,
    case,
    check,
    check_packing,
    conv,
)
from tests.support.touched import check_touched
from vggc.ir.ops import RELU, Activation, Pair
from vggc.kernels.cuda import H200
from vggc.kernels.cuda.mma_tile import ALIGNMENT
from vggc.kernels.cuda.operands import OPERANDS
from vggc.kernels.cuda.patch_planes import steps_of_pairs
from vggc.kernels.cuda.wgmma import GroupKnobs, WgmmaPatches
from vggc.kernels.workloads import round_up

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")

SMALL = replace(H200, multiprocessors=1)
"""A card on which a block goes on from tile to tile."""

CASES: dict[str, TensorDraw] = {
    "one tile": TensorDraw(
        WgmmaPatches(conv((1, 16, 16, 128), 128)),
        GroupKnobs(images=1, height=16, width=16, cols=128, planes=8, stages=4, splits=1),
    ),
    "pooled": TensorDraw(
        WgmmaPatches(conv((2, 19, 17, 64), 70, pool=True, form="bfloat16")),
        GroupKnobs(images=1, height=8, width=16, cols=256, planes=8, stages=4, splits=1),
    ),
    "shared": TensorDraw(
        WgmmaPatches(conv((1, 17, 20, 128), 70)),
        GroupKnobs(images=1, height=8, width=16, cols=128, planes=8, stages=4, splits=2),
    ),
    "5×5 of a wide halo": TensorDraw(
        WgmmaPatches(conv((1, 9, 33, 64), 40, (5, 5), padding=(2, 2), halos=(3, 0))),
        GroupKnobs(images=1, height=8, width=32, cols=128, planes=8, stages=6, splits=1),
    ),
    "int8, pooled": TensorDraw(
        WgmmaPatches(conv((2, 17, 19, 256), 70, pool=True, form="uint8", zeros=(128, 0))),
        GroupKnobs(images=1, height=8, width=16, cols=64, planes=8, stages=4, splits=1),
    ),
    "int8, shared, to float32": TensorDraw(
        WgmmaPatches(conv((1, 9, 19, 256), 130, form="uint8", to_float32=True)),
        GroupKnobs(images=1, height=8, width=16, cols=64, planes=8, stages=6, splits=2),
    ),
    "tf32, 1×3": TensorDraw(
        WgmmaPatches(conv((1, 17, 9, 64), 33, (1, 3), padding=(0, 1), form="tf32", act=None)),
        GroupKnobs(images=1, height=16, width=8, cols=128, planes=8, stages=8, splits=1),
    ),
    "from tile to tile": TensorDraw(
        WgmmaPatches(conv((2, 17, 20, 128), 70, pool=True), SMALL),
        GroupKnobs(images=1, height=8, width=16, cols=64, planes=8, stages=4, splits=1),
    ),
    "from tile to tile, a chunk each": TensorDraw(
        WgmmaPatches(conv((3, 9, 11, 64), 140, act=Activation("silu")), SMALL),
        GroupKnobs(images=1, height=16, width=16, cols=64, planes=8, stages=4, splits=1),
    ),
    "five images, four a tile, of stride 2": TensorDraw(
        WgmmaPatches(conv((5, 15, 13, 128), 40, stride=(2, 2), pool=True)),
        GroupKnobs(images=4, height=8, width=8, cols=64, planes=4, stages=4, splits=2),
    ),
    "channels of 64 bytes": TensorDraw(
        WgmmaPatches(conv((1, 17, 19, 96), 70, act=None, to_float32=True)),
        GroupKnobs(images=1, height=8, width=16, cols=64, planes=4, stages=4, splits=3),
    ),
    "channels of 32 bytes": TensorDraw(
        WgmmaPatches(conv((1, 11, 19, 48), 40, form="bfloat16"), SMALL),
        GroupKnobs(images=1, height=8, width=16, cols=64, planes=2, stages=4, splits=1),
    ),
    "stride 2, int8, all planes": TensorDraw(
        WgmmaPatches(
            conv((1, 16, 37, 128), 40, stride=(2, 2), halos=(1, 2), form="uint8", zeros=(128, 128)),
            SMALL,
        ),
        GroupKnobs(images=1, height=8, width=16, cols=64, planes=8, stages=4, splits=1),
    ),
    "image": TensorDraw(
        WgmmaPatches(conv((2, 19, 21, 3), 70, pool=True), SMALL),
        GroupKnobs(images=1, height=16, width=16, cols=96, planes=1, stages=4, splits=1),
    ),
    "image, 7×7 of stride 2": TensorDraw(
        WgmmaPatches(conv((1, 37, 51, 3), 64, (7, 7), (2, 2), padding=(3, 3), halos=(3, 1))),
        GroupKnobs(images=1, height=8, width=16, cols=64, planes=1, stages=4, splits=1),
    ),
    "image, 11×11 of stride 4, int8": TensorDraw(
        WgmmaPatches(
            conv(
                (1, 80, 79, 3),
                90,
                (11, 11),
                (4, 4),
                padding=(2, 2),
                halos=(2, 0),
                form="uint8",
                zeros=(128, 0),
            ),
            SMALL,
        ),
        GroupKnobs(images=1, height=8, width=16, cols=128, planes=1, stages=4, splits=1),
    ),
    "image, tf32, three taps": TensorDraw(
        WgmmaPatches(conv((1, 9, 19, 3), 33, (1, 3), padding=(0, 1), form="tf32", act=None)),
        GroupKnobs(images=1, height=8, width=16, cols=64, planes=1, stages=8, splits=1),
    ),
}


def draws(seed: int, count: int) -> dict[str, TensorDraw]:
    """Convolutions of random shapes with any knobs, by what they are."""
    rng = random.Random(seed)
    found: dict[str, TensorDraw] = {}
    while len(found) < count:
        size = rng.choice([(3, 3), (3, 3), (3, 3), (2, 3), (5, 1), (5, 5)])
        stride = rng.choice([(1, 1), (1, 1), (2, 2), (1, 3)])
        form = rng.choice([each for each in FORMATS if not OPERANDS[each].split])
        channels = OPERANDS[form].segment * rng.choice([1, 1, 2, 4, 6, 8, 16, 24])
        shape = (rng.randint(1, 5), rng.randint(3, 24), rng.randint(3, 36), channels)
        padding = (rng.randint(0, size[0] // 2), rng.randint(0, size[1] // 2))
        if shape[1] + 2 * padding[0] <= size[0] or shape[2] + 2 * padding[1] <= size[1]:
            continue
        work = conv(
            shape,
            rng.choice([rng.randint(1, 40), 64, 128, rng.randint(1, 200)]),
            size,
            stride,
            padding=padding,
            halos=(max(padding) + rng.randint(0, 1), rng.randint(0, 2)),
            act=rng.choice([RELU, None]),
            pool=rng.random() < 0.4,
            form=form,
            to_float32=rng.random() < 0.2,
            zeros=(rng.choice([0, 128]), 0) if form == "uint8" else (0, 0),
        )
        if min(work.output.height, work.output.width) < 1 or not WgmmaPatches.applies(work):
            continue
        algorithm = WgmmaPatches(work, rng.choice([H200, SMALL]))
        knobs = rng.choice(list(algorithm.knobs()))
        found[f"{len(found)}: {work} by {knobs}"] = TensorDraw(algorithm, knobs)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    return compiled(CASES, tmp_path_factory.mktemp("groups"))


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


TOUCHED_BY_DEFAULT = (
    "one tile",
    "from tile to tile, a chunk each",
    "five images, four a tile, of stride 2",
    "channels of 64 bytes",
    "stride 2, int8, all planes",
    "image",
    "image, 7×7 of stride 2",
)
"""Cases that have all ways to touch memory; of the others it is slow to tell."""


@needs_compiler
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in TOUCHED_BY_DEFAULT else pytest.mark.slow)
        for name in CASES
    ],
)
def test_blocks_touch_what_their_kernel_says(
    name: str, made: Callable[[str], Made], example: Callable[[str], TensorCase]
) -> None:
    library, code, _ = made(name)
    check_touched(library, code, CASES[name], example(name))


@pytest.mark.slow
@needs_compiler
def test_draws_compute_what_they_should(tmp_path: Path) -> None:
    cases = draws(1, 10)
    get = compiled(cases, tmp_path)
    for name, draw in cases.items():
        library, code, kernel = get(name)
        example = case(draw.workload, kernel)
        try:
            check(library, code, draw.workload, example)
            check_touched(library, code, draw, example)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


@pytest.mark.parametrize("name", CASES)
def test_packing_is_exact_up_to_rounding(name: str) -> None:
    check_packing(CASES[name])


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [(1, 2), (3, 3), (5, 5), (7, 7), (11, 11)])
def test_taps_are_paired_in_steps(kernel: Pair, stride: int) -> None:
    """Each tap has one place, those of a step follow one another, and a missing one is last."""
    steps = steps_of_pairs(kernel, stride, most=6)
    assert steps is not None
    taps = [sorted(tap for pair in step for tap in pair) for step in steps]
    assert [tap for step in taps for tap in step] == list(range(round_up(prod(kernel), 2)))
    assert all(
        len(step) <= 6 and step[0][0] == some[0] for step, some in zip(steps, taps, strict=True)
    )
    assert all(one < other for step in steps for one, other in step)


def test_taps_that_cannot_be_paired_are_left_to_others() -> None:
    """At a stride of 2 an odd column lies behind the even one that follows it."""
    assert steps_of_pairs((2, 3), 2, most=1) is None
    assert steps_of_pairs((2, 3), 2, most=2) == (((0, 1),), ((2, 4), (3, 5)))


def test_channels_must_fill_a_slice_or_half_of_one() -> None:
    assert WgmmaPatches.applies(conv((1, 9, 19, 8), 8))
    assert not WgmmaPatches.applies(conv((1, 9, 19, 24), 8))


WAITING = {
    "planes": TensorDraw(
        WgmmaPatches(
            conv((2, 16, 16, 192), 40, (3, 1), padding=(1, 0)), replace(SMALL, multiprocessors=2)
        ),
        GroupKnobs(images=1, height=8, width=16, cols=64, planes=8, stages=4, splits=1),
    ),
    "pairs": TensorDraw(
        WgmmaPatches(conv((2, 17, 17, 3), 140, (4, 4)), SMALL),
        GroupKnobs(images=1, height=8, width=16, cols=64, planes=1, stages=2, splits=1),
    ),
}
"""Kernels whose blocks go on, to other columns or with other channels."""


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name", WAITING)
def test_each_wait_is_needed(name: str, tmp_path: Path) -> None:
    assert unnoticed(WAITING[name], tmp_path) == []


@needs_compiler
@pytest.mark.parametrize(
    "name",
    [
        "one tile",
        "from tile to tile",
        "channels of 64 bytes",
        "channels of 32 bytes",
        "five images, four a tile, of stride 2",
        "stride 2, int8, all planes",
        "image, 7×7 of stride 2",
        "image, 11×11 of stride 4, int8",
    ],
)
def test_accesses_cost_no_more_than_they_must(name: str, made: Callable[[str], Made]) -> None:
    """Patches are written without conflicts of banks, and read in whole sectors from memory."""
    library, code, kernel = made(name)
    work = CASES[name].workload
    with counting(library) as counts:
        check(library, code, work, case(work, kernel))
    (found,) = counts
    assert found.shared_accesses > 0
    assert found.shared_passes == found.shared_accesses
    assert found.global_sectors * 32 <= 1.01 * found.global_bytes


@needs_compiler
@pytest.mark.parametrize("name", CASES)
def test_a_launch_asks_for_the_shared_memory_that_is_used(
    name: str, made: Callable[[str], Made]
) -> None:
    draw = CASES[name]
    assert draw.knobs in draw.algorithm.knobs()
    (launch,) = made(name)[1].launches
    assert launch.shared == draw.algorithm.shared_bytes(draw.knobs) + ALIGNMENT
    assert launch.grid == (draw.algorithm.blocks(draw.knobs), 1, 1)

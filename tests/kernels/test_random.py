"""Random shapes, options and knobs find no wrong answer; see `tests/support/kernel_draws.py`."""

from __future__ import annotations

import os

os.environ.setdefault("TVM_NUM_THREADS", "2")

from collections import Counter

import numpy as np
import pytest
import tvm

from tests.support import low_precision_kernels as low_precision
from tests.support.cpu_kernels import AVX2, HOST, TARGETS, not_the_same
from tests.support.kernel_draws import Draw, check, check_all, compiled, draws, draws_of_fewer_bits
from tests.support.workload_reference import ACTIVATIONS
from vggc.kernels.cpu import Machine
from vggc.kernels.workloads import Conv, Format

ALGORITHMS = {
    "depthwise",
    "direct",
    "gemm",
    "gemm-bfp20",
    "gemm-bfp24",
    "gemv",
    "gemv-bfp20",
    "gemv-bfp24",
    "grouped",
    "pad",
    "pixels",
    "rows",
    "squares",
    "walk",
    "window",
    "winograd2",
    "winograd4",
    "winograd6",
}


def drawn(seed: int, count: int, description: dict[str, str]) -> tuple[list[Draw], object]:
    target = tvm.target.Target(description)
    return list(draws(seed, count, Machine.of(target))), target


@pytest.mark.parametrize("target", TARGETS)
def test_draws_compute_what_they_should(target: dict[str, str]) -> None:
    found, machine = drawn(0, 30, target)
    check_all(found, machine)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "count"),
    [
        pytest.param(HOST, 80, id="host"),
        pytest.param(AVX2, 70, id="avx2", marks=not_the_same),
    ],
)
def test_many_draws_compute_what_they_should(target: dict[str, str], count: int) -> None:
    """As many draws, and behind them the first of each algorithm that they did not reach."""
    machine = tvm.target.Target(target)
    found: list[Draw] = []
    reached: set[str] = set()
    for each in draws(4, 1000, Machine.of(machine)):
        if len(found) < count or each.kernel.algorithm not in reached:
            found.append(each)
            reached.add(each.kernel.algorithm)
        if len(found) >= count and reached == ALGORITHMS:
            break
    assert set(check_all(found, machine)) == ALGORITHMS


@pytest.mark.skipif(bool(low_precision.LACKS), reason=f"this CPU lacks {low_precision.LACKS}")
@pytest.mark.parametrize("form", ["bfloat16", "uint8"])
@pytest.mark.parametrize("count", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_draws_of_fewer_bits_compute_what_they_should(form: Format, count: int) -> None:
    machine = Machine.of(low_precision.HOST)
    found = list(draws_of_fewer_bits(4, count, machine, form))
    for each, run in compiled(found, low_precision.HOST):
        low_precision.check(run, each.workload, each.kernel, each.seed)
    if count >= 100:
        winograd = {"bfloat16": "winograd2-bfloat16", "uint8": "winograd4-int16"}[form]
        assert {each.kernel.algorithm for each in found} == {f"direct-{form}", winograd}


def test_draws_reach_all_that_there_is() -> None:
    found, _ = drawn(1, 500, HOST)
    reached = Counter(each.kernel.algorithm for each in found)
    assert set(reached) == ALGORITHMS
    convs = [each.workload for each in found if isinstance(each.workload, Conv)]
    sides = {side for conv in convs for side in conv.kernel}
    assert sides == set(range(1, 12))
    assert {step for conv in convs for step in conv.stride} == {1, 2, 3, 4}
    assert {conv.input.batch for conv in convs} == {1, 2, 3, 5}
    assert {conv.output.halo for conv in convs} == {0, 1, 2}
    assert {conv.act for conv in convs} == {None, *ACTIVATIONS.values()}
    assert {apart for conv in convs for apart in conv.dilation} == {1, 2, 3}
    assert sum(conv.pool for conv in convs) > 20
    by_winograd = [each for each in found if each.kernel.algorithm.startswith("winograd")]
    assert {each.kernel.knobs["shared"] for each in by_winograd} == {0, 1}
    assert any(isinstance(each.workload, Conv) and each.workload.pool for each in by_winograd)


@pytest.mark.parametrize("mistake", ["value", "hole", "halo", "input"])
def test_the_check_sees_what_is_wrong(mistake: str) -> None:
    """Otherwise no draw could fail."""
    found, machine = drawn(2, 60, HOST)
    each = next(
        each
        for each in found
        if isinstance(each.workload, Conv) and each.workload.output.halo and each.workload.act
    )
    ((_, run),) = compiled([each], machine)
    check(run, each)

    def wrong(*buffers: object) -> None:
        run(*buffers)
        x, *_, y = (np.from_dlpack(buffer) for buffer in buffers)
        halo = each.workload.output.halo
        match mistake:
            case "value":
                y[0, halo, halo, 0] += 1
            case "hole":
                y[0, halo, halo, 0] = np.nan
            case "halo":
                y[0, 0, 0, 0] = 1e-9
            case "input":
                x[0, 0, 0, 0] += 1

    with pytest.raises(AssertionError):
        check(wrong, each)

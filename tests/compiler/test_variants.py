"""Which kernels are chosen by themselves, and what the code for each architecture has of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.device import needs_nvcc, needs_nvrtc
from tests.support.machine_code import cubins
from tests.support.nets import graph_of
from vggc.compiler import device_code
from vggc.compiler.cards import variants
from vggc.compiler.device_code import compile_fatbin, with_conditions
from vggc.compiler.error_budget import GIVEN_WAY, Allotment, allotment
from vggc.compiler.targets import resolve
from vggc.kernels.workloads import Packing, Workload
from vggc.runtime.plans import plan_for
from vggc.support.precision import ArtifactPrecision


@pytest.mark.parametrize(
    ("archs", "expected"),
    [
        (["sm_80"], {"": ("sm_80",)}),
        (["sm_90a"], {"": ("sm_90a",)}),
        (["sm_80", "sm_90", "compute_90"], {"": ("sm_80", "sm_90", "compute_90")}),
        (["sm_80", "sm_90a"], {"": ("sm_80",), "sm_90a": ("sm_90a",)}),
        (["sm_90", "sm_90a"], {"": ("sm_90",), "sm_90a": ("sm_90a",)}),
        ([], {"": ("sm_80", "compute_90"), "sm_90a": ("sm_90a",)}),
        (["sm_90a", "sm_100a"], {"": ("sm_100a",), "sm_90a": ("sm_90a",)}),
    ],
    ids=str,
)
def test_an_architecture_with_instructions_of_its_own_has_kernels_of_its_own(
    archs: list[str], expected: dict[str, tuple[str, ...]]
) -> None:
    found = variants(resolve("cuda", archs))
    assert {name: target.archs for name, target in found.items()} == expected


def test_a_cpu_has_one_choice_of_kernels() -> None:
    target = resolve("cpu")
    assert variants(target) == {"": target}


SOURCE = """
__forceinline__ __device__ float helper(float x) {
  return 2 * x;
}
extern "C" __global__ void __launch_bounds__(32) old_kernel(float* __restrict__ x);
extern "C" __global__ void __launch_bounds__(32) old_kernel(float* __restrict__ x) {
  if (threadIdx.x < 8) {
    x[threadIdx.x] = helper(x[threadIdx.x]);
  }
}

extern "C" __global__ void __launch_bounds__(32) hopper_kernel(float* __restrict__ x) {
  x[0] = 1;
}

extern "C" __global__ void __launch_bounds__(32) hopper_kernel_1(float* __restrict__ x) {
  x[0] = 2;
}

extern "C" __global__ void __launch_bounds__(32) common_kernel(float* __restrict__ x) {
  x[0] = 3;
}
"""
ARCHS = ("sm_80", "sm_90a")
FUNCTIONS = {"old": ("sm_80",), "hopper": ("sm_90a",), "common": ARCHS}
KERNELS = {
    "sm_80": {"old_kernel", "common_kernel"},
    "sm_90": {"hopper_kernel", "hopper_kernel_1", "common_kernel"},
}


def kernels_in(fatbin: bytes) -> dict[str, set[str]]:
    """The kernels in the machine code for each architecture."""
    names = set.union(*KERNELS.values())
    return {
        arch: {name for name in names if f".text.{name}\0".encode() in cubin}
        for arch, cubin in cubins(fatbin)
    }


@needs_nvrtc
def test_each_architecture_has_the_kernels_that_it_needs() -> None:
    code = with_conditions(SOURCE, ARCHS, FUNCTIONS)
    assert kernels_in(compile_fatbin(code, ARCHS)) == KERNELS


@needs_nvcc
@pytest.mark.slow
def test_nvcc_leaves_out_the_same_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_code, "_has_nvrtc", lambda: False)
    code = with_conditions(SOURCE, ARCHS, FUNCTIONS)
    assert kernels_in(compile_fatbin(code, ARCHS)) == KERNELS


@pytest.mark.parametrize("functions", [{}, {"common": ARCHS}], ids=str)
def test_code_that_all_need_has_no_condition(functions: dict[str, tuple[str, ...]]) -> None:
    assert with_conditions(SOURCE, ARCHS, functions) == SOURCE


@pytest.fixture(scope="module")
def may() -> Allotment:
    """What dense layers on an A100 may choose, which leave several packings."""
    target = resolve("cuda", ["sm_80"])
    graph = graph_of("conv3-64 | fc-512 | fc-100", "3x16x16")
    return allotment([plan_for(graph, batch, target, "float16") for batch in (1, 8)], target, 1)


def costs(may: Allotment) -> list[float]:
    """The stated cost of each batch's net."""
    made = may.by_cost
    return [
        sum(may._offer(work, made[work]).cost[0] for work in calls if work in made)
        for calls in may.calls
    ]


def packings(may: Allotment) -> list[tuple[tuple[Workload, ...], Packing]]:
    """Every packing that is common to the batches, with the workloads that may have it."""
    return [
        (place, packing)
        for place in zip(*may.calls, strict=True)
        if place[0] in may.offers
        for packing in dict.fromkeys(offer.form.packing for offer in may.offers[place[0]])
        if packing and all(any(o.form.packing == packing for o in may.offers[w]) for w in place)
    ]


def test_a_packing_that_is_stored_already_is_taken_where_it_costs_little(may: Allotment) -> None:
    least, own = costs(may), may.packings(may.by_cost)
    outcomes = set()
    for place, packing in packings(may):
        stored = replace(may, stored=dict.fromkeys(place, packing))
        taken = {stored.packings(stored.by_cost)[work] for work in place}
        assert len(taken) == 1
        (found,) = taken
        assert found in (packing, own[place[0]])
        if found == packing:
            added = [cost / before - 1 for cost, before in zip(costs(stored), least, strict=True)]
            assert sum(added) / len(added) <= GIVEN_WAY + 1e-9
        outcomes.add((found == packing, packing == own[place[0]]))
    assert {(True, True), (False, False)} <= outcomes


def test_a_measured_choice_does_not_give_way_to_what_is_stored(may: Allotment) -> None:
    (place, packing), *others = packings(may)
    other = next(each for other_place, each in others if other_place == place)
    measured = {
        work: next(each.choice for each in may.offers[work] if each.form.packing == other)
        for work in place
    }
    stored = replace(may, stored=dict.fromkeys(place, packing))
    times = {work: {choice: 1.0} for work, choice in measured.items()}
    assert measured.items() <= stored.chosen(times).items()


@pytest.mark.parametrize("precision", ["tf32", "float16", "int8"])
def test_dense_layers_are_stored_once_for_all_gpus_at_no_cost(precision: ArtifactPrecision) -> None:
    graph, target = graph_of("fc-4096 | fc-1000", "512x7x7"), resolve("cuda")
    plans = [plan_for(graph, batch, target, precision) for batch in (1, 8, 32)]
    of_others, of_hopper = (allotment(plans, each, 1) for each in variants(target).values())
    stored = of_hopper.packings(of_hopper.by_cost)
    shared = replace(of_others, stored=stored)
    assert shared.packings(shared.by_cost) == stored
    assert costs(shared) == pytest.approx(costs(of_others))

"""Winograd: the transforms themselves, and kernels of every tile on maps that no tile divides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest
import tvm
import tvm_ffi

from tests.support.cpu_kernels import CONVS, HOST, TARGETS, check, conv, library, pooled
from tests.support.lowering import lowered
from tests.support.tensor_core_kernels import conv as tensor_conv
from tests.support.winograd_on_gpus import direct_seconds, winograd_seconds
from tests.support.winograd_on_gpus import errors as errors_in_halves
from vggc.compiler.error_budget import allotment
from vggc.compiler.targets import resolve, tvm_target
from vggc.kernels.cpu import Machine, alternatives, choices, kernel, winograd
from vggc.kernels.cpu.winograd import ROUNDING, TransformedWeight, Winograd2, Winograd4, Winograd6
from vggc.kernels.toom_cook import POINTS, filtering
from vggc.kernels.workloads import Choice, Conv, Workload
from vggc.plan.plan import Plan
from vggc.program import load
from vggc.runtime.plans import plan_for

BY_TILE = {each.m: each for each in (Winograd2, Winograd4, Winograd6)}

MAPS = {
    "odd extents": conv((1, 13, 17, 5), 33, halos=(1, 2)),
    "one tile": conv((1, 4, 4, 16), 16, halos=(1, 1)),
    "smaller than a tile": conv((1, 2, 3, 8), 24, halos=(1, 1)),
    "a row more than a tile": conv((1, 7, 5, 40), 130, halos=(1, 1)),
    "batch": conv((3, 7, 6, 20), 40, halos=(1, 0)),
    "few channels": conv((1, 9, 9, 1), 3, halos=(1, 1)),
    "many channels": conv((1, 6, 6, 130), 20, act=None),
    "no padding": conv((1, 9, 12, 6), 32, padding=0, halos=(1, 1)),
    "less padding than halo": conv((2, 8, 9, 6), 17, halos=(2, 1)),
    "more padding than a tap": conv((1, 5, 6, 6), 17, padding=2, halos=(2, 1)),
    "gelu": conv((1, 6, 7, 6), 17, act=CONVS["linear"].act),
}
MAPS |= {f"{name}, pooled": pooled(work) for name, work in MAPS.items()}
MAPS_OF_FIVE_TAPS = {
    "odd extents": conv((1, 13, 17, 5), 33, kernel=5, padding=2, halos=(2, 1)),
    "no padding": conv((2, 9, 12, 6), 32, kernel=5, padding=0),
    "pooled": pooled(conv((1, 7, 6, 20), 40, kernel=5, padding=2, halos=(2, 1))),
}
TILES = [(taps, m) for taps, of_tiles in ROUNDING.items() for m in of_tiles]
"""The taps of a filter in each direction, and the pixels of a tile."""


@pytest.mark.parametrize(("taps", "m"), TILES)
def test_the_transforms_filter_exactly(taps: int, m: int) -> None:
    rng = np.random.default_rng(0)
    data, filter_ = rng.standard_normal(m + taps - 1), rng.standard_normal(taps)
    of = filtering(m, taps)
    found = of.output @ ((of.filter @ filter_) * (of.input @ data))
    np.testing.assert_allclose(found, np.correlate(data, filter_, "valid"), atol=1e-12)


@pytest.mark.parametrize(("taps", "m"), TILES)
def test_a_packed_weight_gives_back_its_filters_up_to_rounding(taps: int, m: int) -> None:
    weight = np.random.default_rng(0).standard_normal((37, 5, taps, taps), np.float32)
    packing = TransformedWeight(weight.shape, m, 16)
    packed = packing.pack(weight)
    assert packed.shape == packing.packed_shape == (3, (m + taps - 1) ** 2, 5, 16)
    assert not packed[2, :, :, 37 % 16 :].any()
    np.testing.assert_allclose(packing.unpack(packed), weight, atol=1e-6)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("taps", "m"), TILES)
def test_every_tile_convolves_every_map(taps: int, m: int, target: dict[str, str]) -> None:
    machine = Machine.of(tvm.target.Target(target))
    rng = np.random.default_rng(m)
    maps = {3: MAPS, 5: MAPS_OF_FIVE_TAPS}[taps]
    cases = []
    for index, workload in enumerate(maps.values()):
        assert BY_TILE[m].applies(workload) or max(workload.grid) <= m
        # Threads share a tile's products or do not; a map and its pooled twin meet both.
        shared = (index + index // (len(MAPS) // 2)) % 2
        of_kind = [k for k in winograd.blocks(workload, machine, m) if k.shared == shared]
        cases.append((workload, of_kind[rng.integers(len(of_kind))]))
    kernels = [BY_TILE[m](workload, machine).kernel(knobs) for workload, knobs in cases]
    run = library([each.func for each in kernels], tvm.target.Target(target))
    for index, ((workload, _), each) in enumerate(zip(cases, kernels, strict=True)):
        check(run(index), workload, each.packing)


def test_it_is_chosen_where_it_saves_work_and_only_where_it_applies() -> None:
    machine = Machine.of(tvm.target.Target(HOST))

    def algorithm(workload: Conv) -> str:
        return kernel(workload, machine).algorithm

    deep = conv((1, 28, 28, 256), 256, halos=(1, 1))
    assert algorithm(deep).startswith("winograd")
    of_five_taps = conv((1, 27, 27, 96), 256, kernel=5, padding=2, halos=(2, 0))
    assert algorithm(of_five_taps) == "winograd4"
    assert not Winograd6.applies(of_five_taps)
    assert algorithm(conv((1, 56, 56, 3), 64)) == "direct"
    assert (
        algorithm(replace(deep, stride=(2, 2), output=replace(deep.output, height=14, width=14)))
        == "direct"
    )
    assert algorithm(conv((1, 28, 28, 256), 256, kernel=1)) == "direct"
    assert algorithm(conv((1, 1, 1, 256), 256)) == "direct"


def test_the_tile_stays_within_the_error_that_is_allowed() -> None:
    machine = Machine.of(tvm.target.Target(HOST))
    work = conv((1, 24, 24, 256), 256, halos=(1, 1))

    def algorithms(max_error: float) -> set[str]:
        return {choice.algorithm for choice in choices(work, machine, max_error)}

    assert algorithms(0) == {"direct"}
    assert algorithms(1e-6) == {"direct", "winograd2"}
    assert algorithms(2e-6) == {"direct", "winograd2", "winograd4"}
    assert algorithms(1) == {"direct", "winograd2", "winograd4", "winograd6"}
    six = next(each for each in choices(work, machine, 1) if each.algorithm == "winograd6")
    assert isinstance(six, Choice)
    assert kernel(work, machine, six).algorithm == "winograd6"


def here() -> Machine:
    return Machine.of(tvm_target(resolve("cpu")))


def errors(workload: Workload) -> dict[str, float]:
    """By algorithm."""
    return {each.name: each.error for each in alternatives(workload, here())}


def together(calls: Plan, chosen: Mapping[Workload, Choice]) -> float:
    """What the layers of a net add, by the choice for each."""
    found = (step.workload for step in calls.steps if step.workload in chosen)
    return sum(errors(work)[chosen[work].algorithm] ** 2 for work in found) ** 0.5


@pytest.mark.parametrize("budget", [0, 1e-7, 1e-6, 1e-5, 1e-4])
def test_layers_share_the_error_of_a_net_in_squares(budget: float) -> None:
    """What VGG-16's layers add is within the budget; with more for each it would be beyond."""
    calls = plan_for(load("vgg16").graph, 1, resolve("cpu"), "float32")

    def of_least_cost(share: float) -> dict[Workload, Choice]:
        found = {step.workload: choices(step.workload, here(), share) for step in calls.steps}
        return {work: offered[0] for work, offered in found.items() if offered}

    share = allotment([calls], resolve("cpu"), budget).share
    assert together(calls, of_least_cost(share)) <= budget
    levels = sorted({error for step in calls.steps for error in errors(step.workload).values()})
    assert share in levels
    for more in levels:
        if share < more <= budget:
            assert together(calls, of_least_cost(more)) > budget


def test_measured_choices_that_are_beyond_the_error_of_a_net_give_way() -> None:
    """Those that add most, to the choices of least cost."""
    target = resolve("cpu")
    calls = plan_for(load("vgg16").graph, 1, target, "float32")
    measured = {
        step.workload: choice
        for step in calls.steps
        for choice in reversed(choices(step.workload, here()))
        if choice.algorithm == "winograd6"
    }
    assert len(measured) > 8
    for budget in (1e-5, 1.5e-5, 1e-4):
        chosen = allotment([calls], target, budget).chosen(
            {work: {choice: 1.0} for work, choice in measured.items()}
        )
        kept = {work: choice for work, choice in measured.items() if chosen[work] == choice}
        assert together(calls, chosen) <= budget
        given_way = [errors(work)["winograd6"] for work in measured if work not in kept]
        still = [errors(work)["winograd6"] for work in kept]
        assert min(given_way, default=1) >= max(still)
        assert (not given_way) == (budget == 1e-4)


def test_a_net_keeps_to_its_error() -> None:
    graph = load("vgg_tiny_cifar").graph

    def algorithms(budget: float) -> set[str]:
        _, code = lowered(graph, 1, resolve("cpu"), max_error=budget)
        steps = code.calls["net"].steps
        return {made.algorithm for step, made in steps if isinstance(step.workload, Conv)}

    assert algorithms(0) == {"direct"}
    assert "winograd4" not in algorithms(6e-7)
    assert "winograd4" in algorithms(1e-5)


def test_a_kernel_says_how_many_multiplications_it_really_does() -> None:
    machine = Machine(lanes=16, registers=32)
    work = conv((1, 8, 8, 32), 64, halos=(1, 1))
    for strips in (1, 3):
        knobs = winograd.WinogradKnobs(rows=3, vectors=2, strips=strips, shared=0)
        assert Winograd4(work, machine).kernel(knobs).macs == 6 * 36 * 32 * 64


# Machine code


def spills(code: str, rows: int, vectors: int) -> list[str]:
    """Stores to the stack where the GEMM multiplies: in runs of code that use all of its sums."""
    found = []
    for run in re.split(r"(?m)^\S+:$|^\tj\w+\t.*$", code):
        sums = len(re.findall(r"\tvfmadd231ps\t.*zmm", run))
        factors = len(re.findall(r"\tvbroadcastss\t[^,]*\(.*zmm", run))
        if sums >= rows * vectors and factors >= rows:
            found += re.findall(r"\tvmov[au]ps\t%zmm\d+, -?\d*\(%r[sb]p\)", run) or [""]
    return found


def spilled(rows: int, vectors: int) -> bool:
    """Whether code for a batch of VGG's last maps, which blocks of 64 tiles divide, does."""
    target = tvm.target.Target({"kind": "llvm", "mcpu": "znver5"})
    work = conv((16, 14, 14, 512), 512, halos=(1, 1))
    knobs = winograd.WinogradKnobs(rows, vectors, strips=8, shared=0)
    func = Winograd4(work, Machine.of(target)).kernel(knobs).func
    module = tvm.IRModule({"f": func.with_attr("global_symbol", "f")})
    found = spills(tvm.compile(module, target=target).mod.inspect_source("asm"), rows, vectors)
    assert found, "no loop of the GEMM was found"
    return any(found)


def test_the_sums_of_a_register_tile_stay_in_registers() -> None:
    """But for those of one tile, which is no choice."""
    work, machine = conv((16, 14, 14, 512), 512, halos=(1, 1)), Machine(lanes=16, registers=32)
    offered = {(knobs.rows, knobs.vectors) for knobs in winograd.blocks(work, machine, 4)}
    for tile in ((14, 2), (13, 2), (9, 3), (7, 3), (6, 4), (5, 4)):
        assert tile in offered
        assert not spilled(*tile)
    assert winograd.SPILLED not in offered
    assert spilled(*winograd.SPILLED)


# Memory


def allocated(part: Any) -> int:
    """The bytes of all buffers that a piece of code asks for."""
    sizes: list[int] = []

    def add(found: Any) -> None:
        extents = (int(extent) for extent in found.buffer.shape)
        sizes.append(np.dtype(found.buffer.dtype).itemsize * prod(extents))

    tvm_ffi.structural_walk(part, (tvm.tirx.AllocBuffer, add))
    return sum(sizes)


def bodies_of_tasks(func: Any) -> list[Any]:
    found: list[Any] = []

    def add(loop: Any) -> None:
        if loop.kind == tvm.tirx.ForKind.PARALLEL:
            found.append(loop.body)

    tvm_ffi.structural_walk(func.body, (tvm.tirx.For, add))
    return found


def offers(batch: int, cores: int) -> Iterator[tuple[Conv, Machine, int, winograd.WinogradKnobs]]:
    """Everything that there is to choose for the layers of VGG-16 that Winograd is for."""
    machine = Machine(lanes=16, registers=32, cache=1 << 20, cores=cores)
    calls = plan_for(load("vgg16").graph, batch, resolve("cpu"), "float32")
    for work in {step.workload for step in calls.steps if isinstance(step.workload, Conv)}:
        for m in POINTS:
            for knobs in winograd.blocks(work, machine, m):
                yield work, machine, m, knobs


@pytest.mark.parametrize("cores", [1, 2, 64])
@pytest.mark.parametrize("batch", [1, 4, 16])
def test_whatever_is_chosen_a_net_keeps_to_its_memory(batch: int, cores: int) -> None:
    """VGG-16 runs in 130 MB beside its weights on two cores, and may in 200 on any number."""
    emitters = [winograd.Emitter(*offer) for offer in offers(batch, cores)]
    assert max(emitter.scratch_bytes for emitter in emitters) < 60e6
    assert len({emitter.conv for emitter in emitters}) == 12
    for emitter in np.random.default_rng(batch).choice(np.array(emitters, object), 6):
        func = BY_TILE[emitter.m](emitter.conv, emitter.machine).kernel(emitter.knobs).func
        inside = sum(map(allocated, bodies_of_tasks(func)))
        beside = allocated(func.body) - inside
        # Registers and the halves of a transform are a few vectors more.
        excess = beside + cores * inside - emitter.scratch_bytes
        assert 0 <= excess < cores * (64 << 10)


def test_a_layer_too_large_for_the_memory_of_many_cores_has_fewer_choices() -> None:
    work = conv((16, 56, 56, 512), 512, halos=(1, 1))
    most = [
        max(knobs.block for knobs in winograd.blocks(work, Machine(16, 32, cores=cores), 6))
        for cores in (1, 8, 64)
    ]
    assert most[0] > most[1] > most[2]


def test_what_it_would_be_worth_on_gpus_in_halves() -> None:
    """Of VGG-16's fourth part F(4×4) takes less time by counts, and errs several times as much."""
    work = tensor_conv((32, 28, 28, 512), 512)
    assert winograd_seconds(work, 4) < winograd_seconds(work, 2) < direct_seconds(work)
    found = errors_in_halves(64, outputs=16, side=16)
    assert 3 * found["direct"] < found["F(4×4)"]
    assert found["direct"] < found["F(2×2)"] < found["F(4×4)"]

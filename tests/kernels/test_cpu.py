"""The CPU kernels against float64 numpy, on shapes that no tile divides."""

from __future__ import annotations

import os

os.environ.setdefault("TVM_NUM_THREADS", "2")

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm
import tvm_ffi

from tests.support.cpu_kernels import (
    AVX2,
    CONVS,
    DENSES,
    HOST,
    OTHERS,
    TARGETS,
    check,
    conv,
    library,
)
from tests.support.workload_reference import (
    ACTIVATIONS,
    ELEMENTWISE,
    GROUPED,
    NORMS,
    PLACES,
    POOLS,
    STOCHASTIC_POOLS,
    draws,
    pool,
)
from vggc.ir.ops import Activation
from vggc.kernels.cpu import Machine, algorithms, choices, kernel
from vggc.kernels.cpu.conv import ConvKnobs, Direct
from vggc.kernels.cpu.depthwise import Depthwise, DepthwiseKnobs
from vggc.kernels.cpu.dot import DirectBfloat16, DirectUint8
from vggc.kernels.reference import activate
from vggc.kernels.workloads import (
    AvgPool,
    Choice,
    Conv,
    Dense,
    Map,
    Packing,
    Pointwise,
    Softmax,
    Workload,
)

# Workloads


WORKLOADS: dict[str, Workload] = {
    **CONVS,
    **{
        f"conv, {name}": conv((2, 5, 6, 7), 19, halos=(1, 1), act=ACTIVATIONS[name])
        for name in ("leaky", "elu", "gelu", "tanh", "clip", "mish")
    },
    **GROUPED,
    **DENSES,
    **POOLS,
    **ELEMENTWISE,
    **NORMS,
    **PLACES,
    **STOCHASTIC_POOLS,
    **OTHERS,
    **{f"draw {index}": workload for index, workload in enumerate(draws(0, 40))},
}


# Running them


@pytest.fixture(scope="module", params=TARGETS)
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
    ("workload", "algorithm"),
    [
        pytest.param(CONVS["odd extents"], "direct", id="conv"),
        pytest.param(CONVS["batch of odd maps"], "direct", id="conv of a batch"),
        pytest.param(CONVS["odd extents, pooled"], "direct", id="conv that pools"),
        pytest.param(DENSES["batch of maps"], "gemm", id="dense"),
        pytest.param(DENSES["batch of maps"], "gemm-bfp24", id="dense of 24 bits"),
        pytest.param(DENSES["batch of maps"], "gemm-bfp20", id="dense of 20 bits"),
        pytest.param(DENSES["1000 ways"], "gemv-bfp24", id="gemv of 24 bits"),
        pytest.param(DENSES["1000 ways"], "gemv-bfp20", id="gemv of 20 bits"),
        pytest.param(GROUPED["two groups"], "grouped", id="groups"),
        pytest.param(GROUPED["depthwise"], "depthwise", id="depthwise"),
    ],
)
def test_every_tile_computes_the_same(workload: Any, algorithm: str) -> None:
    target = tvm.target.Target(AVX2)
    found = algorithms(workload, Machine.of(target))
    (chosen,) = (each for each in found if each.name == algorithm)
    tiles = list(chosen.knobs())
    sample = np.random.default_rng(0).choice(len(tiles), min(8, len(tiles)), replace=False)
    kernels = [chosen.kernel(tiles[index]) for index in sample]
    run = library([each.func for each in kernels], target)
    for index, each in enumerate(kernels):
        check(run(index), workload, each.packing)


def test_choices_begin_with_the_default_and_each_is_a_kernel() -> None:
    machine = Machine.of(tvm.target.Target(AVX2))
    for workload in (CONVS["odd extents"], DENSES["batch"], GROUPED["depthwise"]):
        found = choices(workload, machine)
        default = kernel(workload, machine)
        assert Choice(default.algorithm, tuple(default.knobs.items())) == found[0]
        assert len(set(found)) == len(found) > 8
        assert dict(kernel(workload, machine, found[-1]).knobs) == dict(found[-1].knobs)
    assert choices(Softmax(1, 10), machine) == ()
    for workload in (CONVS["odd extents"], Softmax(1, 10)):
        with pytest.raises(ValueError, match="no"):
            kernel(workload, machine, Choice("direct", (("rows", 3),)))


# Accuracy


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_exact_to_a_few_units_in_the_last_place(
    name: str, target: dict[str, str]
) -> None:
    points = [np.linspace(-r, r, 5000, dtype=np.float32) for r in (1e-4, 0.1, 1, 10, 100)]
    x = np.concatenate([*points, np.float32([1e-29, -1e-29, 1e30, -1e30])])
    y = apply(ACTIVATIONS[name], x, target)
    expected = activate(ACTIVATIONS[name], x.astype(float))
    units = 10 if name == "gelu" else 4
    unit = np.spacing(np.abs(expected).astype(np.float32))
    tiny = np.abs(expected) < 1e-30
    assert np.where(tiny, np.abs(y) < 1e-30, np.abs(y - expected) <= units * unit).all()


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("relu", (0, np.inf, 0)),
        ("relu6", (0, 6, 0)),
        ("leaky", (-np.inf, np.inf, np.nan)),
        ("elu", (-1.5, np.inf, np.nan)),
        ("gelu", (np.nan, np.inf, np.nan)),
        ("silu", (np.nan, np.inf, np.nan)),
        ("sigmoid", (0, 1, np.nan)),
        ("tanh", (-1, 1, np.nan)),
        ("hardsigmoid", (0, 1, 0)),
        ("hardswish", (np.nan, np.inf, np.nan)),
        ("softplus", (0, np.inf, np.nan)),
        ("mish", (np.nan, np.inf, np.nan)),
        ("clip", (-0.4, 1.3, -0.4)),
    ],
)
def test_an_activation_at_the_ends_and_at_nan(
    name: str, limits: tuple[float, float, float]
) -> None:
    """x·Φ(x) and x·sigmoid(x) are ∞·0 at their lower end, as in PyTorch."""
    y = apply(ACTIVATIONS[name], np.float32([-np.inf, np.inf, np.nan]), HOST)
    np.testing.assert_array_equal(y, np.float32(limits))


def apply(act: Activation, x: np.ndarray, target: dict[str, str]) -> np.ndarray:
    layout = Map(1, 1, 1, x.size)
    goal = tvm.target.Target(target)
    func = kernel(Pointwise(layout, layout, act), Machine.of(goal)).func
    y = tvm.runtime.tensor(np.zeros(layout.shape, np.float32))
    library([func], goal)(0)(tvm.runtime.tensor(x.reshape(layout.shape)), y)
    return y.numpy().ravel()


def test_a_mean_of_many_is_as_good_as_that_of_few() -> None:
    """A plain sum of these 3025 floats is wrong by 2e-6."""
    workload = pool(AvgPool, (1, 55, 55, 40), (55, 55), (55, 55))
    target = tvm.target.Target(HOST)
    x = np.random.default_rng(0).random(workload.input.shape, np.float32)
    y = tvm.runtime.tensor(np.zeros(workload.output.shape, np.float32))
    library([kernel(workload, Machine.of(target)).func], target)(0)(tvm.runtime.tensor(x), y)
    np.testing.assert_allclose(y.numpy()[:, 0, 0], x.mean((1, 2), float), rtol=5e-7)


# The rest of the contract


@pytest.mark.parametrize("workload", [*CONVS.values(), *GROUPED.values(), *DENSES.values()])
def test_unpacking_gives_the_weight_back_bit_for_bit(workload: Conv | Dense) -> None:
    packing = kernel(workload, Machine(lanes=8, registers=16), max_error=0).packing
    assert packing is not None
    weight = np.random.default_rng(0).standard_normal(workload.weight_shape, np.float32)
    packed = packing.pack(weight)
    assert packed.shape == packing.packed_shape
    assert packed.flags.c_contiguous
    assert packing.unpack(packed).tobytes() == weight.tobytes()


def test_a_dense_layer_reads_no_halo() -> None:
    with pytest.raises(AssertionError):
        Dense(1, 12, 5, act=None, source=Map(1, 2, 2, 3, halo=1))


@pytest.mark.parametrize(
    ("workload", "algorithm"),
    [
        (CONVS["odd extents"], "direct"),
        (conv((1, 4, 4, 1), 8), "direct"),
        (GROUPED["two groups"], "grouped"),
        (GROUPED["depthwise"], "depthwise"),
        (GROUPED["depthwise with a multiplier"], "depthwise"),
        (DENSES["odd features"], "gemv"),
        (DENSES["batch"], "gemm"),
        (POOLS["mean 2×2"], "window"),
        (POOLS["mean of the whole map"], "walk"),
    ],
)
def test_the_algorithm_suits_the_workload(workload: Workload, algorithm: str) -> None:
    assert kernel(workload, Machine(lanes=16, registers=32)).algorithm == algorithm


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
    found = Machine.of(tvm.target.Target({"kind": "llvm", **target}))
    assert (found.lanes, found.registers) == (machine.lanes, machine.registers)
    two = Machine.of(tvm.target.Target({"kind": "llvm", "num-cores": 2, **target}))
    assert (found.cores, two.cores) == (1, 2)


def test_no_core_waits_for_the_last_task_of_another() -> None:
    """1000 channels are 63 vectors, 9 blocks of 7: two cores would take as long as for 10."""
    work = conv((1, 1, 1, 256), 1000, kernel=1)
    blocks = {}
    for cores in (1, 2, 4, 16):
        best = choices(work, Machine(lanes=16, registers=32, cores=cores))[0]
        blocks[cores] = math.ceil(1000 / (16 * dict(best.knobs)["vectors"]))
    assert blocks == {1: 9, 2: 8, 4: 8, 16: 16}


def test_no_core_waits_for_the_last_columns_of_another() -> None:
    """Of a depthwise 1×20 map, one core prefers wide tiles, four a quarter of the map each."""
    work = GROUPED["depthwise"]
    work = replace(
        work,
        input=replace(work.input, batch=1, height=1, width=20),
        output=replace(work.output, batch=1, height=1, width=20),
    )
    columns = {
        cores: dict(choices(work, Machine(16, 32, cores=cores))[0].knobs)["columns"]
        for cores in (1, 4)
    }
    assert columns[1] > columns[4] == 5


@pytest.mark.parametrize(("mcpu", "beyond"), [("znver5", 20), ("haswell", 10)])
def test_a_depthwise_tile_stays_in_registers(mcpu: str, beyond: int) -> None:
    """Of the tiles offered the widest do; one beyond them is kept on the stack."""
    target = tvm.target.Target({"kind": "llvm", "mcpu": mcpu})
    work = replace(conv((1, 40, 40, 32), 32, kernel=7), groups=32)
    algorithm = Depthwise(work, Machine.of(target))

    def stores_to_stack(knobs: DepthwiseKnobs) -> int:
        func = algorithm.kernel(knobs).func.with_attr("global_symbol", "f")
        module = tvm.compile(tvm.IRModule({"f": func}), target=target).mod
        stores = r"\tvmov[au]ps\t%[yz]mm\d+, -?\d*\(%r[sb]p\)"
        return len(re.findall(stores, module.inspect_source("asm")))

    widest = max(knobs.columns for knobs in algorithm.knobs() if knobs.vectors == 1)
    assert widest < beyond
    assert stores_to_stack(DepthwiseKnobs(widest, 1)) <= 1
    assert stores_to_stack(DepthwiseKnobs(beyond, 1)) > widest


def test_a_kernel_says_how_many_multiplications_it_really_does() -> None:
    """A 5×7 map in tiles of 2×3 is 6×9 pixels; a depthwise one has rows of its own."""
    machine = Machine(lanes=16, registers=32)
    work = conv((2, 5, 7, 6), 40)
    direct = Direct(work, machine).kernel(ConvKnobs(1, 2, 3, 2))
    assert direct.macs == 2 * (6 * 9) * 64 * (3 * 3 * 6)
    own = replace(work, input=replace(work.input, channels=40), groups=40)
    depthwise = Depthwise(own, machine).kernel(DepthwiseKnobs(3, 2))
    assert depthwise.macs == 2 * (5 * 9) * 64 * (3 * 3)


def test_words_are_multiplied_whole() -> None:
    """6 channels are 3 words of bfloat16 and 2 of uint8, which hold 8."""
    machine, knobs = Machine(lanes=16, registers=32), ConvKnobs(1, 2, 3, 2)
    for algorithm, channels in ((DirectBfloat16, 6), (DirectUint8, 8)):
        work = conv((2, 5, 7, 6), 40)
        work = replace(work, input=replace(work.input, format=algorithm.format))
        made = algorithm(work, machine).kernel(knobs)
        assert made.macs == 2 * (6 * 9) * 64 * (3 * 3 * channels)


def test_cores_share_the_memory_but_not_their_caches() -> None:
    far = 1 << 30
    one, two, many = (Machine(16, 32, 1 << 20, cores) for cores in (1, 2, 32))
    assert one.delivery(far) == two.delivery(far) > 2 * many.delivery(far)
    for size in (1 << 20, 8 << 20):
        assert one.delivery(size) == many.delivery(size) > one.delivery(far)


@pytest.mark.parametrize("extent", [224, 112, 56, 28, 14])
def test_tiles_cover_the_maps_of_vgg_exactly(extent: int) -> None:
    found = choices(conv((1, extent, extent, 64), 512), Machine(lanes=16, registers=32))
    knobs = next(dict(each.knobs) for each in found if each.algorithm == "direct")
    assert extent % knobs["rows"] == extent % knobs["columns"] == 0
    assert 512 % (16 * knobs["vectors"]) == 0


@pytest.mark.parametrize(("size", "asks"), [(7, True), (14, True), (56, False)])
def test_weights_are_asked_for_where_few_pixels_share_them(size: int, asks: bool) -> None:
    """Of many tiles one alone waits for the weights of its channels."""
    work = Conv(Map(1, size, size, 64), Map(1, size, size, 128), (1, 1), (1, 1), (0, 0))
    machine = Machine(lanes=16, registers=32, cores=2)
    knobs = ConvKnobs(1, 7, 1, 2)
    assert ("llvm.prefetch" in Direct(work, machine).kernel(knobs).func.script()) == asks

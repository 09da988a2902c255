"""Plans: what is fused, which layouts values have, and nets that branch anyhow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.support.lowering import lowered
from tests.support.nets import graph_of
from tests.support.op_samples import assert_agree, torch_outputs, weights_of
from tests.support.virtual_machine import compile_for
from vggc.compiler.packing import pack
from vggc.compiler.relax import lower, with_kernels
from vggc.compiler.targets import resolve, tvm_target
from vggc.ir.graph import Graph, Head, Layer, Node
from vggc.ir.ops import (
    RELU,
    Activation,
    Add,
    AvgPool2d,
    BatchNorm,
    Concat,
    Conv2d,
    GlobalAvgPool,
    Input,
    MaxPool2d,
    Mul,
    Op,
    PRelu,
    around,
)
from vggc.kernels import cpu, workloads
from vggc.kernels.workloads import Conv, Dense, Map, Pointwise
from vggc.passes.fold import fold
from vggc.passes.joins import MAX_READS
from vggc.plan.plan import INPUT, Plan, plan
from vggc.support.source import Source, Span
from vggc.support.tvm_alone import relax, tvm

Noise = Callable[..., np.ndarray]


def calls(body: str, input_: str = "3x13x11") -> Plan:
    return plan(graph_of(body, input_), 2)


def kinds(plan_: Plan) -> list[str]:
    return [type(step.workload).__name__ for step in plan_.steps]


def test_an_activation_is_part_of_what_it_alone_reads() -> None:
    body = "conv3-4 act=gelu | add(conv3-4 norm=batch, skip) | leaky | mul(gap, skip) | silu | fc-5"
    assert kinds(calls(body)) == ["ToNhwc", "Conv", "Conv", "Add", "AvgPool", "Mul", "Dense"]


@pytest.mark.parametrize(
    "body",
    ["a: conv3-4 act=none | relu | concat(skip, @a)", "a: conv3-4 act=none | relu head h: @a"],
)
def test_an_activation_of_what_others_see_too_stands_alone(body: str) -> None:
    steps = [step.workload for step in calls(body).steps]
    (pointwise,) = [workload for workload in steps if isinstance(workload, Pointwise)]
    assert pointwise.act == RELU
    assert all(workload.act is None for workload in steps if isinstance(workload, Conv))


@pytest.mark.parametrize(
    ("body", "fused"),
    [
        ("conv3-4 | pool", True),
        ("conv3-4 act=none norm=batch | pool | conv3-4", True),
        ("conv3-4 act=gelu | pool", False),
        ("conv3-4 | pool3", False),
        ("conv3-4 | pool stride=1", False),
        ("conv3-4 | pool round=up", False),
        ("conv3-3 groups=3 | pool", False),
        ("a: conv3-4 | pool | conv3-4 | pool round=up | concat(gap, @a | gap)", False),
        ("a: conv3-4 | pool | gap head h: @a", False),
    ],
)
def test_a_convolution_takes_in_a_pool_of_whole_windows_that_alone_reads_it(
    body: str, fused: bool
) -> None:
    steps = plan(graph_of(body, "3x13x11"), 2, fuse_pools=True).steps
    conv = next(step for step in steps if isinstance(step.workload, Conv))
    assert conv.workload.pool == fused
    assert conv.layer.startswith(("conv", "a"))
    assert not any(
        step.workload.pool for step in calls(body).steps if hasattr(step.workload, "pool")
    )


def test_a_global_pool_is_a_pool_over_the_whole_map_to_a_map_of_one_pixel() -> None:
    _, pool = (step.workload for step in calls("gap").steps)
    assert (pool.kernel, pool.output) == ((13, 11), Map(2, 1, 1, 3))


def test_a_map_has_the_halo_that_the_neediest_of_its_readers_wants() -> None:
    steps = calls("conv3-4 | concat(conv5-2, conv3-2, conv1-2)").steps
    assert [step.output.halo for step in steps if isinstance(step.output, Map)][:2] == [1, 2]


def test_fully_connected_layers_read_a_map_where_all_of_its_readers_take_it_bare() -> None:
    shared = calls("conv3-4 | add(fc-6, fc-6)")
    assert "ToNchw" not in kinds(shared)
    dense = next(s.workload for s in shared.steps if isinstance(s.workload, Dense))
    assert dense.source == Map(2, 13, 11, 4)
    assert "ToNchw" in kinds(calls("conv3-4 | concat(fc-6, flatten)"))
    assert "ToNchw" in kinds(calls("conv3-4 | concat(fc-6, conv3-4 | fc-6)"))
    assert "ToNchw" not in kinds(calls("gap | concat(fc-6, skip)"))


def test_the_outputs_are_the_heads_in_order_and_two_of_one_value_share_it() -> None:
    planned = calls("a: conv3-4 | fc-5 head b: @a head c: @a | gap head d: @a")
    names, values = zip(*((out.name, out.step) for out in planned.outputs), strict=True)
    assert names == ("output", "b", "c", "d")
    assert values[1] == values[3] != values[2]
    assert planned.steps[0].reads == (INPUT,)


def test_equal_layers_share_one_kernel() -> None:
    steps = [step.workload for step in plan(graph_of("conv3-8 ×5", "8x16x16"), 1).steps]
    assert len(set(steps)) < len(steps)


# ---------------------------------------------------------------- nets that branch anyhow

CHANNELS, SIDE = 5, 6


def random_graph(seed: int, length: int = 24) -> Graph:
    """Maps of one size that are read by whoever comes later, and four heads among them."""
    random = np.random.default_rng(seed)
    span = Span(Source("random.vgg", ""), 0, 0)
    shape = (CHANNELS, SIDE, SIDE)
    same: list[Op] = [
        Conv2d(CHANNELS, (3, 3), padding=around(1, 1)),
        Conv2d(CHANNELS, (1, 1), bias=False),
        MaxPool2d((3, 3), (1, 1), around(1, 1)),
        AvgPool2d((3, 3), (1, 1), around(1, 1)),
        BatchNorm(),
        RELU,
        Activation("leaky", 0.1),
        PRelu(),
        Add(),
        Mul(),
        Concat(),
    ]
    nodes = [Node("input", Input(shape), (), shape, Layer("input", "input", "", span))]
    places = [0]
    """The nodes of that one size."""

    def append(op: Op, *reads: int) -> int:
        name = f"n{len(nodes)}"
        result = op.output(*(nodes[read].shape for read in reads))
        nodes.append(Node(name, op, reads, result, Layer(name, "", "", span)))
        return len(nodes) - 1

    for _ in range(length):
        op = same[random.integers(len(same))]
        count = int(random.integers(2, 4)) if isinstance(op, Add | Mul | Concat) else 1
        last = append(op, *(places[i] for i in random.integers(len(places), size=count)))
        if isinstance(op, Concat):
            last = append(Conv2d(CHANNELS, (3, 3), padding=around(1, 1)), last)
        places.append(last)
    pooled = append(GlobalAvgPool(), places[-1])
    ends = [pooled, *(int(place) for place in random.choice(places, 3))]
    heads = tuple(Head(f"h{i}", "features", end) for i, end in enumerate(ends))
    graph = Graph("random", tuple(nodes), heads)
    graph.verify()
    return graph


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 30))]
)
def test_no_value_is_overwritten_before_its_last_reader_in_a_net_that_branches_anyhow(
    seed: int, noise: Noise
) -> None:
    graph = random_graph(seed)
    x = noise(2, *graph.input)
    run = compiled(graph, x)
    for _ in range(2):
        assert_agree(run(), torch_outputs(graph, x))


def compiled(graph: Graph, x: np.ndarray) -> Callable[[], list[np.ndarray]]:
    """A net of several heads compiled for the CPU, and run on `x`."""
    target = resolve("cpu")
    planned, code = lowered(graph, len(x), target)
    pieces = pack(code.calls.values(), fold(graph).weights(weights_of(graph)))
    packed = {name: each.whole() for name, each in pieces.items()}
    machine = relax.VirtualMachine(compile_for(code.module, target), tvm.cpu())
    tensors = [tvm.runtime.tensor(array) for array in (x, *(packed[n] for n in planned.weights))]
    return lambda: [output.numpy() for output in machine["main_net"](*tensors)]


def test_calls_of_equal_workloads_have_one_kernel_which_is_made_once() -> None:
    calls = plan(graph_of("conv1-4 ×30 | concat(conv1-4, conv1-4) | conv1-4"), 1)
    made: list[workloads.Workload] = []

    def kernel_of(workload: workloads.Workload) -> workloads.Kernel:
        made.append(workload)
        return cpu.kernel(workload, cpu.Machine.of(tvm_target(resolve("cpu"))))

    code = lower(with_kernels({"net": calls, "again": calls}, kernel_of))
    assert len(code.calls["again"].kernels) == len(calls.steps)
    assert len({*code.functions["again"]}) == len(made)
    assert made == [*dict.fromkeys(step.workload for step in calls.steps)]


PATHS = [MAX_READS + 1, pytest.param(500, marks=pytest.mark.slow)]


@pytest.mark.parametrize("paths", PATHS)
def test_joins_of_many_paths_are_calls_of_few_inputs_with_the_right_values(
    paths: int, noise: Noise
) -> None:
    """Path by path another value, some of them maps with a halo, one with an activation."""
    path = ["conv1-2", "@halo", "@input", "pool3 stride=1 padding=1"]
    many = ", ".join(path[i % 4] for i in range(paths))
    sums = ", ".join(["conv1-2", "@halo | conv1-2"][i % 2] for i in range(paths))
    body = f"halo: conv3-3 | conv3-3 | all: concat({many}) | conv3-3 | add({sums}) | relu | conv3-4"
    graph = graph_of(f"{body} head joined: @all", "3x5x4")
    joins = [
        step.workload
        for step in plan(graph, 2).steps
        if isinstance(step.workload, workloads.Add | workloads.Concat)
    ]
    assert max(len(join.inputs) for join in joins) <= MAX_READS
    *before, last = (join.act for join in joins if isinstance(join, workloads.Add))
    assert last == RELU
    assert not any(before)
    x = noise(2, *graph.input)
    assert_agree(compiled(graph, x)(), torch_outputs(graph, x))

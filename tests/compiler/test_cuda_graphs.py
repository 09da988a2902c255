"""What becomes a CUDA graph, in the code for the virtual machine, and who may ask for one."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Collection
from math import prod
from pathlib import Path

import pytest

from tests.support import gpu_on_cpu
from tests.support.device import needs_compilers
from tests.support.nets import TINY, program
from vggc.api.compile import CompileOptions, plan
from vggc.compiler.choose import by_cost, kernels_for
from vggc.compiler.relax import PIPELINE, Lowered, graphs_made, lower, with_kernels
from vggc.compiler.targets import resolve, tvm_target
from vggc.runtime.artifact import Target
from vggc.runtime.plans import plan_for
from vggc.support.diagnostics import UserError
from vggc.support.records import from_json, to_json
from vggc.support.tvm_alone import relax

BATCHES = (1, 8)
CUDA = resolve("cuda", ["sm_80"])


@pytest.fixture(scope="module")
def lowered() -> Lowered:
    graph = program(TINY).graph
    plans = {str(batch): plan_for(graph, batch, CUDA, "float32") for batch in BATCHES}
    return lower(with_kernels(plans, kernels_for(CUDA, by_cost)))


def functions(code: Lowered, *, graphs: bool) -> dict[str, str]:
    """The functions of the virtual machine's code by name, as text."""
    with tvm_target(CUDA), graphs_made(graphs):
        module = PIPELINE(code.module)
    return {
        found.name_hint: function.script()
        for found, function in module.functions.items()
        if isinstance(function, relax.Function)
    }


def called(names: Collection[str], script: str) -> list[str]:
    """The kernels that a function calls, in order."""
    return [name for name in re.findall(r"^    (\w+)\(", script, re.M) if name in names]


def rooms(script: str) -> list[int]:
    """The bytes of each piece of memory that a function asks for, the largest first."""
    return sorted(
        map(int, re.findall(r"alloc_storage\(R.shape\(\[(\d+)\]\)", script)), reverse=True
    )


def test_each_batch_has_a_graph_of_all_but_its_first_and_last_kernel(lowered: Lowered) -> None:
    found = functions(lowered, graphs=True)
    for batch in BATCHES:
        names = lowered.functions[str(batch)]
        main, graph = found[f"main_{batch}"], found[f"main_{batch}_cuda_graph_capture"]
        assert len(called(names, graph)) == len(lowered.calls[str(batch)].steps) - 2
        first, last = called(names, main)
        assert (first.startswith("tonhwc"), last.startswith("softmax")) == (True, True)
        assert main.count("cuda_graph.run_or_capture") == 1


def test_weights_are_checked_in_each_call_as_the_input_is(lowered: Lowered) -> None:
    for batch in BATCHES:
        taken = 1 + len({*lowered.calls[str(batch)].plan.weights})
        script = functions(lowered, graphs=True)[f"main_{batch}"]
        assert script.count("vm.builtin.check_tensor_info") == taken


def test_the_value_of_every_layer_is_computed_without_a_graph(lowered: Lowered) -> None:
    for name, script in functions(lowered, graphs=True).items():
        assert not (name.startswith("layers") and "run_or_capture" in script)


def test_without_graphs_there_are_none(lowered: Lowered) -> None:
    found = functions(lowered, graphs=False)
    assert {*found} == {f"{kind}_{batch}" for kind in ("main", "layers") for batch in BATCHES}
    assert not any("cuda_graph" in script for script in found.values())


def test_the_graphs_of_all_batches_have_the_room_of_the_largest(lowered: Lowered) -> None:
    apart, together = (functions(lowered, graphs=graphs) for graphs in (False, True))
    *values, scores = rooms(apart["main_8"])
    assert scores == 8 * 10 * 4  # given to the caller
    assert rooms(together["cuda_graph_alloc"]) == values
    assert sum(rooms(apart["main_1"])) < sum(rooms(apart["main_8"]))


def test_scratch_memory_lies_where_no_value_is_needed(lowered: Lowered) -> None:
    steps = lowered.calls["1"].steps
    scratch = sum(4 * prod(each.shape) for _, kernel in steps for each in kernel.scratch)
    assert sum(rooms(functions(lowered, graphs=False)["main_1"])) < scratch / 2


# ---------------------------------------------------------------- who has graphs


@pytest.mark.parametrize("graphs", [True, False])
def test_artifacts_for_gpus_have_graphs_unless_told(graphs: bool) -> None:
    asked = CompileOptions(target="cuda", archs=("sm_80",), seed=0, graphs=graphs)
    assert plan(program(TINY), asked, lambda _: None).machine.graphs == graphs


def test_those_for_cpus_are_asked_for_none() -> None:
    assert not plan(program(TINY), CompileOptions(seed=0), lambda _: None).machine.graphs
    with pytest.raises(UserError, match="`--no-graph` has nothing to say here"):
        plan(program(TINY), CompileOptions(seed=0, graphs=False), lambda _: None)


def test_what_was_compiled_before_there_were_graphs_has_none() -> None:
    written = to_json(CUDA)
    del written["graphs"]
    assert from_json(Target, written) == CUDA
    assert not CUDA.graphs


# ---------------------------------------------------------------- the emulated driver

UNSUPPORTED, INVALIDATED, IMPLICIT = 900, 901, 906
"""Of the CUDA runtime's errors, those of captures."""


@pytest.mark.slow
@needs_compilers
def test_a_capture_ends_without_a_graph_where_memory_is_asked_for(tmp_path: Path) -> None:
    """As on a card: what allocates, or works on another stream, does not go unnoticed."""
    cuda = ctypes.CDLL(f"{gpu_on_cpu.driver(tmp_path)}/libcudart.so.13")
    stream, graph, memory = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    assert cuda.cudaStreamCreate(ctypes.byref(stream)) == 0
    size = ctypes.c_size_t(64)
    for error, refused in (
        (UNSUPPORTED, lambda: cuda.cudaMalloc(ctypes.byref(memory), size)),
        (UNSUPPORTED, lambda: cuda.cudaStreamSynchronize(stream)),
        (IMPLICIT, lambda: cuda.cudaStreamSynchronize(None)),
        (IMPLICIT, lambda: cuda.cudaMemcpyAsync(None, None, size, 0, None)),
    ):
        assert cuda.cudaStreamBeginCapture(stream, 0) == 0
        assert refused() == error
        assert cuda.cudaStreamEndCapture(stream, ctypes.byref(graph)) == INVALIDATED
        assert not graph
    assert cuda.cudaStreamBeginCapture(stream, 0) == 0
    assert cuda.cudaStreamEndCapture(stream, ctypes.byref(graph)) == 0
    assert graph

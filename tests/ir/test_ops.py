"""The op matrix: one sample of every op on every backend, and its costs against torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.linalg import norm
from torch.utils.flop_counter import FlopCounterMode

from tests.support.lowering import lowered
from tests.support.nets import graph_of
from tests.support.op_samples import (
    BATCH,
    SAMPLES,
    assert_agree,
    torch_outputs,
    weights_of,
)
from tests.support.virtual_machine import compile_for
from vggc.analysis.report import report
from vggc.backends.onnx import to_onnx
from vggc.backends.torch import build
from vggc.compiler.error_budget import MAX_ERROR
from vggc.compiler.packing import pack
from vggc.compiler.targets import resolve
from vggc.ir.graph import Graph
from vggc.ir.ops import Op
from vggc.passes.fold import fold
from vggc.support.tvm_alone import relax, tvm

Noise = Callable[..., np.ndarray]


@pytest.fixture(params=SAMPLES)
def graph(request: pytest.FixtureRequest) -> Graph:
    return graph_of(SAMPLES[request.param])


def test_every_op_has_a_sample() -> None:
    graphs = [graph_of(text) for text in SAMPLES.values()]
    graphs += [fold(graph).graph for graph in graphs]
    assert {type(node.op) for graph in graphs for node in graph.nodes} == set(get_args(Op))


def test_shapes_and_weights_are_what_torch_makes_of_them(graph: Graph, noise: Noise) -> None:
    net = build(graph).eval()
    with torch.inference_mode():
        outputs = list(net.outputs(torch.from_numpy(noise(BATCH, *graph.input))))
    for node, output in zip(graph.nodes, outputs, strict=True):
        assert tuple(output.shape) == (BATCH, *node.shape), node.name
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    assert shapes == {name: weight.shape for name, weight in graph.all_weights.items()}


def test_macs_are_half_of_the_flops_that_torch_counts(graph: Graph, noise: Noise) -> None:
    net = build(graph).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net(torch.from_numpy(noise(BATCH, *graph.input)))
    assert report(graph, BATCH).totals.flops == counter.get_total_flops()


def test_compiled_for_the_cpu_it_agrees_with_float64(graph: Graph, noise: Noise) -> None:
    x = noise(BATCH, *graph.input)
    target = resolve("cpu")
    calls, code = lowered(graph, BATCH, target)
    pieces = pack(code.calls.values(), fold(graph).weights(weights_of(graph)))
    packed = {name: each.whole() for name, each in pieces.items()}
    machine = relax.VirtualMachine(compile_for(code.module, target), tvm.cpu())
    tensors = [tvm.runtime.tensor(array) for array in (x, *(packed[n] for n in calls.weights))]
    result = machine["main_net"](*tensors)
    outputs = [result] if len(graph.heads) == 1 else result
    for output, wanted in zip(outputs, torch_outputs(graph, x).values(), strict=True):
        # Its convolutions may be Winograd's, whose tiles round as much as the budget allows.
        assert norm(output.numpy() - wanted) <= MAX_ERROR * norm(wanted)


@pytest.mark.parametrize("folded", [False, True])
def test_as_onnx_it_agrees_with_float64(graph: Graph, noise: Noise, folded: bool) -> None:
    x, weights = noise(BATCH, *graph.input), weights_of(graph)
    expected = torch_outputs(graph, x)
    if folded:
        weights, graph = fold(graph).weights(weights), fold(graph).graph
    model = b"".join(to_onnx(graph, weights).pieces())
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == list(expected)
    assert_agree(session.run(None, {"input": x}), expected)


def test_the_module_gives_a_tensor_or_one_for_each_head(graph: Graph, noise: Noise) -> None:
    x = noise(BATCH, *graph.input)
    with torch.inference_mode():
        result = build(graph, weights_of(graph)).eval()(torch.from_numpy(x))
    outputs = list(result.values()) if isinstance(result, dict) else [result]
    assert not isinstance(result, dict) or list(result) == [head.name for head in graph.heads]
    assert_agree((output.numpy() for output in outputs), torch_outputs(graph, x))

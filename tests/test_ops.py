"""The op matrix: one sample of every op on every backend, and its costs against torch's."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import graph_of
from torch.utils.flop_counter import FlopCounterMode

from vggc.analysis.receptive import receptive_fields
from vggc.analysis.report import report
from vggc.backends import torch as torch_backend
from vggc.backends.onnx import to_onnx
from vggc.backends.plan import plan
from vggc.backends.torch import build, reference
from vggc.deploy.build import compile_for, lowered, pack
from vggc.deploy.targets import resolve
from vggc.ir.graph import Graph
from vggc.ir.ops import Op
from vggc.tvm_alone import relax, tvm
from vggc.weights import seeded

Noise = Callable[..., np.ndarray]

SAMPLES = {
    "conv": "conv3-5",
    "conv_then_relu": "conv3-5 | relu",
    "conv_strided": "conv5-4 stride=2",
    "conv_unpadded": "conv3-4 padding=0 act=none | conv1-6",
    "conv_wide": "conv3-33 ×2",
    "pool": "conv3-4 | pool",
    "pool_overlapping": "conv3-4 | pool3 stride=2 | conv3-2",
    "lrn": "conv3-9 | lrn",
    "lrn_strong": "lrn size=3 alpha=0.5 beta=0.5 k=1 | conv3-4",
    "relu": "relu",
    "relu_of_vector": "fc-7 | softmax | relu",
    "fc": "fc-7",
    "fc_of_map": "conv3-4 | pool | fc-40 | fc-5",
    "dropout": "fc-40 | dropout p=0.3 | fc-5",
    "flatten": "conv3-2 | flatten",
    "flatten_then_softmax": "pool3 | flatten | softmax",
    "flatten_then_relu": "conv3-2 act=none | flatten | relu | fc-5",
    "softmax": "fc-7 | softmax",
    "nothing": "dropout",
}
BATCH = 2


@pytest.fixture(params=SAMPLES)
def graph(request: pytest.FixtureRequest) -> Graph:
    return graph_of(SAMPLES[request.param])


def torch_output(graph: Graph, x: np.ndarray) -> np.ndarray:
    return reference(graph, seeded(graph, 0))(x)[graph.nodes[-1].name]


def test_every_op_has_a_sample() -> None:
    seen = {type(node.op) for text in SAMPLES.values() for node in graph_of(text).nodes}
    assert seen == set(get_args(Op))


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
    packed = pack(calls, code.kernels, seeded(graph, 0))
    machine = relax.VirtualMachine(compile_for(code.module, target), tvm.cpu())
    tensors = [tvm.runtime.tensor(array) for array in (x, *(packed[n] for n in calls.weights))]
    output = machine["main"](*tensors).numpy()
    np.testing.assert_allclose(output, torch_output(graph, x), rtol=1e-5, atol=1e-6)


def test_as_onnx_it_agrees_with_float64(graph: Graph, noise: Noise) -> None:
    x = noise(BATCH, *graph.input)
    model = to_onnx(graph, seeded(graph, 0)).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"input": x})
    np.testing.assert_allclose(output, torch_output(graph, x), rtol=1e-5, atol=1e-6)


FIELDS = {
    "one_layer": "conv3-2 act=none",
    "two_layers": "conv3-2 act=none | conv5-2 act=none",
    "strides": "conv3-2 stride=2 act=none | conv3-2 act=none | conv3-2 stride=3 act=none",
    "unpadded": "conv7-2 padding=0 act=none | conv1-2 act=none",
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_receptive_field_is_where_the_gradient_of_one_value_is_not_zero(name: str) -> None:
    graph = graph_of(FIELDS[name], "1x41x41")
    net = build(graph)
    for weight in net.parameters():
        torch.nn.init.constant_(weight, 1.0)
    x = torch.zeros(1, *graph.input, requires_grad=True)
    output = net(x)
    row, column = output.shape[2] // 2, output.shape[3] // 2
    output[0, 0, row, column].backward()
    assert x.grad is not None
    seen = x.grad[0, 0].nonzero()
    extent = seen.max(dim=0).values - seen.min(dim=0).values + 1
    assert tuple(extent.tolist()) == receptive_fields(graph)[-1].size


@pytest.mark.parametrize("training", [False, True])
def test_the_torch_module_lets_go_of_maps_that_nobody_reads(
    training: bool, noise: Noise, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training those stay that the backward pass reads: none from before a ReLU."""
    made: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def counted(*arguments: Any) -> torch.Tensor:
        nonlocal most
        output = apply(*arguments)
        made.append(weakref.ref(output))
        most = max(most, sum(ref() is not None for ref in made))
        return output

    apply = torch_backend._apply
    monkeypatch.setattr(torch_backend, "_apply", counted)
    num_layers, in_flight = 6, 3
    graph = graph_of(f"conv3-4 ×{num_layers}")
    with torch.inference_mode(not training):
        build(graph).train(training)(torch.from_numpy(noise(1, *graph.input)))
    assert most <= in_flight + (num_layers if training else 0)


def test_dropout_is_active_in_training_only() -> None:
    net = build(graph_of("dropout p=0.5", "1x8x8"))
    x = torch.ones(1, 1, 8, 8)
    assert sorted(net.train()(x).unique().tolist()) == [0.0, 2.0]
    assert net.eval()(x).equal(x)


def test_the_memory_of_training_is_what_autograd_keeps(noise: Noise) -> None:
    """Distinct storages saved for the backward pass, weights aside, within a twentieth."""
    graph = graph_of("(conv3-16 ×2 | pool) ×2 | (fc-64 | dropout) ×2 | fc-10", "3x32x32")
    net = build(graph).train()
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = net(torch.from_numpy(noise(8, *graph.input)))
    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    measured = sum(size for place, size in kept.items() if place not in weights)
    params = 3 * 4 * sum(weight.size for weight in graph.all_weights.values())
    estimate = report(graph, batch=8).totals.training_bytes
    assert estimate is not None
    assert output.requires_grad
    assert estimate - params == pytest.approx(measured, rel=0.05)


def test_equal_layers_share_one_kernel() -> None:
    graph = graph_of("conv3-8 ×5", "8x16x16")
    steps = [step.workload for step in plan(graph, 1).steps]
    assert len(set(steps)) < len(steps)

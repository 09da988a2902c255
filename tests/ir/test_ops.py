"""The op matrix: one sample of every op on every backend, and its costs against torch's."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, get_args

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
from vggc.analysis.receptive import receptive_fields
from vggc.analysis.report import report
from vggc.analysis.training import TrainingSetup, parts_of
from vggc.backends import torch as torch_backend
from vggc.backends.onnx import to_onnx
from vggc.backends.torch import BatchRows, build
from vggc.compiler.codegen import compile_for
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
    pieces = pack(calls, code.kernels, fold(graph).weights(weights_of(graph)))
    packed = {name: each.whole() for name, each in pieces.items()}
    machine = relax.VirtualMachine(compile_for(code.module, target), tvm.cpu())
    tensors = [tvm.runtime.tensor(array) for array in (x, *(packed[n] for n in calls.weights))]
    result = machine["main"](*tensors)
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


FIELDS = {
    "one_layer": "conv3-2 act=none",
    "two_layers": "conv3-2 act=none | conv5-2 act=none",
    "strides": "conv3-2 stride=2 act=none | conv3-2 act=none | conv3-2 stride=3 act=none",
    "unpadded": "conv7-2 padding=0 act=none | conv1-2 act=none",
    "pools": "avgpool3 stride=2 padding=1 | conv3-2 act=none | avgpool2 round=up",
    "residual": "conv3-2 act=none | add(conv3-2 act=none | conv5-2 act=none, skip)",
    "projected": "add(conv3-2 stride=2 act=none | conv3-2 act=none, conv1-2 stride=2 act=none)",
    "inception": "conv3-2 stride=2 act=none | concat(conv1-2 act=none, conv5-2 act=none, avgpool3"
    " stride=1 padding=1 | conv3-2 act=none) | conv3-2 act=none",
    "asymmetric": "concat(conv3-2 padding=0 act=none | conv3-2 padding=0 act=none,"
    " conv5-2 padding=2 act=none | avgpool5 stride=1) | conv3-2 stride=2 act=none",
    "shifted": "concat(conv3-2 padding=1 act=none | avgpool2 stride=1, conv5-2 padding=2 act=none"
    " | avgpool2 stride=1 | conv1-2 act=none)",
    "one_side_only": "concat(avgpool2 stride=2, conv3-2 stride=2 padding=1 act=none | avgpool1)",
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_receptive_field_is_where_the_gradient_of_one_value_is_not_zero(name: str) -> None:
    graph = graph_of(FIELDS[name], "1x40x42")
    net = build(graph)
    for weight in net.parameters():
        torch.nn.init.constant_(weight, 1.0)
    x = torch.zeros(1, *graph.input, requires_grad=True)
    output = net(x)
    position = output.shape[2] // 2, output.shape[3] // 2
    output[0, :, *position].sum().backward()
    assert x.grad is not None
    seen = x.grad[0, 0].nonzero()
    field = receptive_fields(graph)[-1]
    first = [b + i * j for b, i, j in zip(field.start, position, field.stride, strict=True)]
    last = [begin + length - 1 for begin, length in zip(first, field.size, strict=True)]
    assert (seen.min(dim=0).values.tolist(), seen.max(dim=0).values.tolist()) == (first, last)


def test_after_a_flatten_or_a_global_pool_the_field_is_that_of_the_whole_map() -> None:
    for tail in ("gap | fc-3", "fc-3", "flatten"):
        graph = graph_of(f"conv3-2 | pool | conv3-2 | {tail}", "3x12x20")
        field = receptive_fields(graph)[-1]
        assert (field.start, field.size) == ((-3, -3), (18, 26))


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


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("p", [0.001, 0.25, 0.3, 0.5, 0.99])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float, layout: torch.memory_format) -> None:
    net = build(graph_of(f"dropout p={p}", "8x32x32"))
    torch.manual_seed(1)
    images = torch.ones(64, 8, 32, 32).to(memory_format=layout)
    result = net.train()(images)
    deviation = (p * (1 - p) / images.numel()) ** 0.5
    assert float((result == 0).float().mean()) == pytest.approx(p, abs=5 * deviation)
    assert float(result.mean()) == pytest.approx(1, abs=5 * deviation / (1 - p))
    assert result[result > 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=0.02)
    assert result.is_contiguous(memory_format=layout)
    # Neighbours in each direction are dropped as if they knew nothing of each other.
    dropped = (result == 0).double()
    for dim in range(4):
        both = (dropped * dropped.roll(1, dim)).mean()
        assert float(both) == pytest.approx(p * p, abs=5 * deviation)


def test_a_part_drops_what_it_would_within_the_whole() -> None:
    net = build(graph_of("dropout p=0.4", "8x4x4")).train()
    for layout in (torch.contiguous_format, torch.channels_last):
        images = torch.ones(6, 8, 4, 4).to(memory_format=layout)
        torch.manual_seed(1)
        net.whole = None
        whole = net(images)
        torch.manual_seed(1)
        net.whole = BatchRows(torch.tensor([1, 4, 5]), 6)
        assert torch.equal(net(images[[1, 4, 5]].to(memory_format=layout)), whole[[1, 4, 5]])


def test_dropout_is_active_in_training_only() -> None:
    net = build(graph_of("dropout p=0.5", "1x8x8"))
    x = torch.ones(1, 1, 8, 8)
    assert sorted(net.train()(x).unique().tolist()) == [0.0, 2.0]
    assert net.eval()(x).equal(x)


MEMORY = {
    "plain": "(conv3-16 ×2 | pool) ×2 | (fc-64 | dropout) ×2 | fc-10",
    "normalised": "(conv3-16 norm=batch ×2 | pool) ×2 | fc-64 norm=batch | fc-10",
    "activations": "conv3-16 act=gelu | conv3-16 act=tanh | conv3-16 act=elu | conv3-16 act=none"
    " | prelu | conv3-16 act=sigmoid | conv3-16 act=silu | avgpool | fc-10",
    "inception": "conv3-16 | concat(conv1-8, conv3-8 | conv3-8, pool3 stride=1 padding=1 | conv1-8)"
    " | conv3-16 | gap | fc-10",
    "residual": "conv3-16 | add(conv3-16 norm=batch | conv3-16 norm=batch act=none, skip) | relu"
    " | gap | fc-10",
}


@pytest.mark.parametrize("name", MEMORY)
def test_the_memory_of_training_is_what_autograd_keeps(name: str, noise: Noise) -> None:
    """Distinct storages saved for the backward pass, weights aside, within a twentieth."""
    graph = graph_of(MEMORY[name], "3x32x32")
    net = build(graph).train()
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = net(torch.from_numpy(noise(8, *graph.input)))
    weights = {p.untyped_storage().data_ptr() for p in net.state_dict().values()}
    measured = sum(size for place, size in kept.items() if place not in weights)
    estimate = sum(layer.saved for layer in parts_of(graph, TrainingSetup(images=8)))
    assert output.requires_grad
    assert estimate == pytest.approx(measured, rel=0.05)


def test_statistics_are_stored_and_are_no_parameters() -> None:
    totals = report(graph_of("conv3-8 bias=off norm=batch | fc-5")).totals
    assert totals.params == 3 * 8 * 9 + 2 * 8 + 8 * 13 * 11 * 5 + 5
    assert totals.weight_bytes == 4 * (totals.params + 2 * 8)


def test_a_join_has_a_row_and_its_paths_know_it() -> None:
    graph = graph_of("conv3-4 | outer: add(inner: concat(conv1-2, conv3-2), skip) | fc-5")
    rows = {row.name: (row.kind, row.path) for row in report(graph).rows}
    assert rows["outer"] == ("add", ())
    assert rows["inner"] == ("concat", ("outer",))
    assert [path for _, path in rows.values()].count(("outer", "inner")) == 2

"""Windows of any size, step, dilation and padding: what they see, on every backend."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.support.nets import graph_of
from tests.support.op_samples import weights_of
from vggc.backends.onnx import to_onnx
from vggc.backends.torch import build, reference
from vggc.ir.graph import Graph
from vggc.ir.ops import AvgPool2d, Conv2d, Misfit, Op, Pad2d, Shape, Window
from vggc.kernels import reference as kernels
from vggc.kernels.workloads import Conv, Map, workload_of
from vggc.layers.kinds import BORDERS
from vggc.support.diagnostics import UserError

INPUT = (2, 9, 12)


def extents(low: int, high: int) -> st.SearchStrategy[str]:
    one = st.integers(low, high)
    return st.one_of(one.map(str), st.tuples(one, one).map(lambda two: f"{two[0]}x{two[1]}"))


def sides(high: int) -> st.SearchStrategy[str]:
    four = st.tuples(*[st.integers(0, high)] * 4)
    return st.one_of(extents(0, high), four.map(lambda each: "x".join(map(str, each))))


CONVOLUTIONS = st.builds(
    "conv{}-{} stride={} dilation={} border={} groups={}{}".format,
    extents(1, 4),
    st.sampled_from([2, 6]),
    extents(1, 3),
    extents(1, 3),
    st.sampled_from(BORDERS),
    st.sampled_from([1, 2]),
    st.one_of(st.just(""), sides(4).map(" padding={}".format)),
)
MEANS = st.builds(
    "avgpool{} stride={} padding={} border={} round={}".format,
    extents(1, 4),
    extents(1, 3),
    sides(3),
    st.sampled_from(["ignore", "zeros"]),
    st.sampled_from(["up", "down"]),
)
VALUES = st.builds(
    "{}{} stride={} padding={} round={}".format,
    st.sampled_from(["pool", "stochasticpool"]),
    extents(1, 4),
    extents(1, 3),
    sides(3),
    st.sampled_from(["up", "down"]),
)
PADS = st.builds("pad padding={} border={}".format, sides(9), st.sampled_from(BORDERS))


def fitting(text: str) -> Graph | None:
    """The net of a layer; None where that says itself that it does not fit."""
    try:
        return graph_of(text, "x".join(map(str, INPUT)))
    except UserError:
        return None


def meant(op: Op, source: Shape, x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """What an op gives by the definition of its workload, in numpy."""
    before, after = (Map(len(x), *shape[1:], shape[0]) for shape in (source, op.output(source)))
    work = (
        Conv(
            input=before,
            output=after,
            kernel=op.kernel,
            stride=op.stride,
            padding=op.padding[:2],
            groups=op.groups,
            dilation=op.dilation,
        )
        if isinstance(op, Conv2d)
        else workload_of(op, (before,), after)
    )
    values = kernels.reference(work, [x.transpose(0, 2, 3, 1)], weights)
    return values.transpose(0, 3, 1, 2)


@settings(max_examples=150, deadline=None)
@given(st.one_of(CONVOLUTIONS, CONVOLUTIONS, MEANS, VALUES, PADS))
def test_torch_and_onnx_compute_what_the_definition_says(text: str) -> None:
    graph = fitting(text)
    assume(graph is not None)
    assert graph is not None
    weights = weights_of(graph)
    x = np.random.default_rng(0).standard_normal((2, *INPUT), np.float32)
    values = reference(graph, weights)(x)
    found = x.astype(float)
    for node in graph.nodes[1:]:
        own = [weights[name].astype(float) for name in graph.weights(node)]
        found = meant(node.op, graph.source(node), found, own)
        assert found.shape[1:] == node.shape == values[node.name].shape[1:]
        np.testing.assert_allclose(values[node.name], found, 1e-9, 1e-9)
    model = b"".join(to_onnx(graph, weights).pieces())
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"input": x})[0], found, 1e-4, 1e-5)


def test_onnx_is_told_even_padding_though_the_last_windows_do_not_reach_it() -> None:
    """Where the sides differ, pnnx pads twice, and ncnn computes another net than ours."""
    graph = graph_of("pad padding=0x0x1x0 | pool3 stride=2 padding=1 | gap")
    model = onnx.load_from_string(b"".join(to_onnx(graph, weights_of(graph)).pieces()))
    (pool,) = (node for node in model.graph.node if node.op_type == "MaxPool")
    (pads,) = (each.ints for each in pool.attribute if each.name == "pads")
    assert list(pads) == [1, 1, 1, 1]


@pytest.mark.parametrize("size", ["1", "2", "3", "1x7", "4x5", "8"])
@pytest.mark.parametrize("dilation", ["1", "2", "3x1"])
def test_a_convolution_that_says_no_padding_keeps_the_resolution(size: str, dilation: str) -> None:
    graph = graph_of(f"conv{size}-4 dilation={dilation}")
    assert graph.nodes[1].shape == (4, *graph.input[1:])
    conv = graph.nodes[1].op
    assert isinstance(conv, Conv2d)
    top, left, bottom, right = conv.padding
    assert 0 <= bottom - top <= 1
    assert 0 <= right - left <= 1


def test_rows_come_before_columns_and_top_and_left_before_bottom_and_right() -> None:
    conv = graph_of("conv1×7-4 stride=2x1 padding=0x3x1x4 dilation=1x2").nodes[1].op
    assert isinstance(conv, Conv2d)
    assert conv.window(INPUT) == Window((1, 7), (2, 1), (0, 3, 1, 4), (1, 2))
    mean = graph_of("avgpool1x4 padding=0x2 border=zeros").nodes[1].op
    assert mean == AvgPool2d((1, 4), (1, 4), (0, 2, 0, 2), counts_padding=True)


def test_a_border_other_than_zeros_is_a_map_that_is_padded_before() -> None:
    graph = graph_of("conv3-4 border=wrap | conv1-4 border=edge")
    assert [node.name for node in graph.nodes[1:]] == [
        *("conv1_1.pad", "conv1_1", "conv1_1.relu", "conv1_2"),
    ]
    assert graph.nodes[1].op == Pad2d((1, 1, 1, 1), "wrap")
    assert list(graph.all_weights) == [
        f"conv1_{n}.{role}" for n in (1, 2) for role in ("weight", "bias")
    ]


@pytest.mark.parametrize(("border", "most"), [("reflect", 8), ("wrap", 9)])
def test_what_is_reflected_or_wrapped_around_is_no_more_than_the_map_has(
    border: str, most: int
) -> None:
    fits = Pad2d((most, 0, most, 0), border)  # type: ignore[arg-type]
    assert fits.output(INPUT) == (2, 9 + 2 * most, 12)
    with pytest.raises(Misfit, match=f"{most} can at most"):
        Pad2d((0, 0, most + 1, 0), border).output(INPUT)  # type: ignore[arg-type]


def test_training_keeps_a_copy_of_what_is_padded_unevenly() -> None:
    even, uneven = (Conv2d(4, (3, 3), padding=padding) for padding in ((1, 1, 1, 1), (0, 0, 2, 2)))
    assert uneven.saved(4, INPUT) - even.saved(4, INPUT) == 4 * 2 * 11 * 14


def test_training_through_uneven_windows_reaches_every_weight() -> None:
    graph = graph_of("conv2x3-4 padding=0x1x3x0 border=reflect | pool3 padding=0x0x2x1 | fc-3")
    net = build(graph, weights_of(graph)).train()
    net(torch.ones(2, *graph.input)).sum().backward()
    assert all(weight.grad is not None for weight in net.parameters())

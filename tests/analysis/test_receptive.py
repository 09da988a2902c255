"""The receptive field: what of the input a value of a map depends on."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from tests.support.nets import graph_of
from vggc.analysis.receptive import receptive_fields
from vggc.backends.torch import build

FIELDS = {
    "one_layer": "conv3-2 act=none",
    "two_layers": "conv3-2 act=none | conv5-2 act=none",
    "strides": "conv3-2 stride=2 act=none | conv3-2 act=none | conv3-2 stride=3 act=none",
    "unpadded": "conv7-2 padding=0 act=none | conv1-2 act=none",
    "oblong": "conv2x5-2 act=none | conv4x1-2 stride=1x2 padding=1x0x3x0 act=none",
    "dilated": "conv3-2 dilation=2x4 act=none | conv2-2 dilation=3 stride=2 act=none",
    "padded": "pad padding=3x0x1x2 | conv3-2 act=none | avgpool3x2 padding=2x0x0x1 stride=2",
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


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("factors", ["2", "3x4"])
def test_behind_an_upsampling_a_place_sees_those_that_it_lies_between(
    mode: str, factors: str
) -> None:
    graph = graph_of(f"conv3-1 stride=2 act=none | upsample{factors} mode={mode}", "1x16x18")
    net = build(graph)
    for weight in net.parameters():
        torch.nn.init.constant_(weight, 1.0)
    x = torch.zeros(1, *graph.input, requires_grad=True)
    output, field = net(x), receptive_fields(graph)[-1]
    for place in range(6, 11):
        (grad,) = torch.autograd.grad(output[0, 0, place, place], x, retain_graph=True)
        seen = grad[0, 0].nonzero()
        first, last = seen.min(dim=0).values.tolist(), seen.max(dim=0).values.tolist()
        told = field.first((place, place))
        for begin, end, low, size in zip(first, last, told, field.size, strict=True):
            assert low <= begin + 1
            assert end - 1 <= low + size
            assert end - begin < size


@pytest.mark.parametrize(
    "text",
    [
        "deconv4-2 stride=2 act=none",
        "deconv3x5-2 stride=2x3 act=none",
        "conv3-2 stride=2 act=none | deconv4-2 stride=2 padding=0 act=none",
        "conv3-2 stride=4 act=none | deconv2-2 stride=2 act=none | conv1-2 act=none",
    ],
)
def test_behind_a_transposed_convolution_fields_are_as_large_and_half_a_stride_away(
    text: str,
) -> None:
    graph = graph_of(text, "1x40x42")
    net = build(graph)
    for weight in net.parameters():
        torch.nn.init.constant_(weight, 1.0)
    x = torch.zeros(1, *graph.input, requires_grad=True)
    output = net(x)
    field = receptive_fields(graph)[-1]
    apart = 4 if "stride=4" in text else 2 if text.startswith("conv3-2 stride=2") else 1
    sizes = []
    for row, column in product(range(10, 16), range(10, 16)):
        (grad,) = torch.autograd.grad(output[0, :, row, column].sum(), x, retain_graph=True)
        seen = grad[0, 0].nonzero()
        first, last = seen.min(dim=0).values, seen.max(dim=0).values
        sizes.append((last - first + 1).tolist())
        for told, found in zip(field.first((row, column)), first.tolist(), strict=True):
            assert abs(told - found) <= (apart + 1) // 2
    assert tuple(map(max, zip(*sizes, strict=True))) == field.size


def test_after_a_flatten_or_a_global_pool_the_field_is_that_of_the_whole_map() -> None:
    for tail in ("gap | fc-3", "fc-3", "flatten"):
        graph = graph_of(f"conv3-2 | pool | conv3-2 | {tail}", "3x12x20")
        field = receptive_fields(graph)[-1]
        assert (field.start, field.size) == ((-3, -3), (18, 26))

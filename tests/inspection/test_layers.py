"""Which maps of a net are looked at, and what of an image each of their units sees."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.inspected import inspected, pixels
from tests.support.nets import graph_of
from vggc.inspection.layers import PixelBox, chosen_layers, last_of_blocks, map_layers
from vggc.program import from_zoo
from vggc.support.diagnostics import UserError

LAST = {
    "vgg11": ["conv1_1", "conv2_1", "conv3_2", "conv4_2", "conv5_2"],
    "vgg16": ["conv1_2", "conv2_2", "conv3_3", "conv4_3", "conv5_3"],
    "vgg16_gap": ["conv1_2", "conv2_2", "conv3_3", "conv4_3", "cam"],
    "vgg_tiny_cifar": ["conv1_2", "conv2_2"],
    "nin": ["conv1_3", "conv2_3", "conv3_3", "conv4_3"],
    "resnet18": ["conv1_1", "add2", "add4", "add6", "add8"],
    "googlenet": ["conv1_1", "conv2_2", "inception3b", "inception4e", "inception5b"],
}


@pytest.mark.parametrize("net", LAST)
def test_blocks_end_in_their_last_convolution_or_the_join_that_it_stands_in(net: str) -> None:
    assert [layer.name for layer in last_of_blocks(from_zoo(net).graph)] == LAST[net]


def test_a_layer_is_looked_at_behind_its_normalisation_and_its_activation() -> None:
    for text in ("conv3-2 norm=batch", "conv3-2 act=none | batchnorm | relu"):
        graph = graph_of(f"{text} | pool | fc-2")
        node = graph.nodes[map_layers(graph)["conv1_1"].node]
        assert str(node.op).startswith("Activation")
    graph = graph_of("add(conv3-3 act=none, skip) | relu | gap | fc-2")
    layers = map_layers(graph)
    assert graph.nodes[layers["add1"].node].layer.name == "relu1"
    assert graph.nodes[layers["add1_conv1"].node].name == "add1_conv1"


def test_maps_of_a_single_place_are_none_to_look_at() -> None:
    graph = graph_of("conv3-2 | pool | conv3-3 padding=0 | conv1-5 | fc-2", "1x6x6")
    assert [layer.name for layer in last_of_blocks(graph)] == ["conv1_1"]
    assert last_of_blocks(graph_of("flatten | fc-2")) == ()


def test_layers_and_filters_are_named() -> None:
    graph = graph_of("conv3-4 | pool | conv3-6 | pool | fc-2")
    assert [each.layer.name for each in chosen_layers(graph, None)] == ["conv1_1", "conv2_1"]
    found = chosen_layers(graph, "conv2_1:5, pool1,conv2_1:0,conv2_1:5")
    assert [(each.layer.name, each.filters) for each in found] == [
        ("conv2_1", (5, 0)),
        ("pool1", ()),
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("conv2-1", "did you mean `conv2_1`?"),
        ("fc3", "the layer `fc3` gives no map to look at"),
        ("fc3", "it gives 2, without rows and columns"),
        ("conv2_1:6", "the last one is `conv2_1:5`"),
        ("conv2_1:-1", "there is no filter `conv2_1:-1`"),
        ("conv2_1:", "there is no filter `conv2_1:`"),
        ("input", "gives no map"),
        ("", "has no layer ``"),
    ],
)
def test_names_of_nothing_are_a_mistake(words: str, told: str) -> None:
    graph = graph_of("conv3-4 | pool | conv3-6 | pool | fc-2")
    with pytest.raises(UserError) as caught:
        chosen_layers(graph, words)
    assert told in str(caught.value)


def test_every_mistake_in_names_is_told_at_once() -> None:
    graph = graph_of("conv3-4 | pool | fc-2")
    with pytest.raises(UserError) as caught:
        chosen_layers(graph, "conv1,conv1_1,conv1_1:9")
    assert len(caught.value.diagnostics) == 2


# What a unit sees

BODIES = {
    "vgg": "conv3-4 ×2 | pool | conv3-6 ×2 | pool | conv3-5 act=none",
    "normalised": "conv3-4 norm=batch | pool3 stride=2 padding=1 | conv3-6 act=none",
    "residual": "conv3-4 stride=2 | add(conv3-4 | conv3-4 act=none, skip) | conv1-5 act=none",
    "inception": "concat(conv1-2, conv3-2, conv5-2, pool3 stride=1 padding=1 | conv1-2 act=none)",
    "unpadded": "conv5-4 stride=2 padding=0 | lrn | avgpool3 stride=2 round=up | conv3-6 act=none",
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (0.0, 1.0), (0.3, 0.8)])
def test_what_lies_outside_of_a_patch_changes_no_bit_of_its_unit(
    name: str, place: tuple[float, float]
) -> None:
    graph = graph_of(f"{BODIES[name]} | gap | fc-2", "3x37x41")
    net, image = inspected(graph, std=0.3), pixels(37, 41, 3)
    layer = last_of_blocks(graph)[-1]
    sides = zip(place, layer.shape[1:], strict=True)
    row, column = (round(share * (side - 1)) for share, side in sides)
    box = layer.seen(row, column, (37, 41))
    outside = pixels(37, 41, 3, seed=1)
    outside[box.top : box.bottom, box.left : box.right] = box.cut(image)
    inside = image.copy()
    box.cut(inside)[:] = pixels(*box.cut(image).shape, seed=2)
    before, same, other = (
        net.maps(each, {layer.node})[layer.node][:, row, column]
        for each in (image, outside, inside)
    )
    assert (before == same).all()
    assert (before != other).any()


def test_a_patch_is_cut_at_the_border() -> None:
    graph = graph_of("conv3-2 | pool | conv3-2 | gap | fc-2", "1x12x12")
    layer = last_of_blocks(graph)[-1]
    assert layer.field.size == (8, 8)
    assert layer.seen(0, 0, (12, 12)) == PixelBox(0, 0, 5, 5)
    assert layer.seen(2, 3, (12, 12)) == PixelBox(1, 3, 9, 11)
    assert layer.seen(5, 5, (12, 12)) == PixelBox(7, 7, 12, 12)
    image = np.arange(144, dtype=np.uint8).reshape(12, 12, 1)
    assert PixelBox(1, 3, 9, 11).cut(image).shape == (8, 8, 1)

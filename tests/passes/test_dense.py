"""A net over whole images: the same on its own size, and on larger ones the net slid over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.support.nets import graph_of, program
from tests.support.op_samples import weights_of
from vggc.backends.torch import reference
from vggc.data.windows import centres_of, corners_of, to_picture
from vggc.ir.graph import Graph
from vggc.ir.ops import AvgPool2d, Conv2d, GlobalAvgPool, Linear, Softmax
from vggc.ir.weights import Weights, seeded
from vggc.passes.dense import DenseGraph, Positions, dense, peak, resized
from vggc.passes.fold import fold
from vggc.passes.inference import drop_final_softmax
from vggc.program import Program, from_zoo, zoo
from vggc.support.diagnostics import UserError
from vggc.support.source import Source
from vggc.syntax.parse import parse_arguments

Noise = Callable[..., np.ndarray]

WIDTH = parse_arguments(Source("width", "(width=0.125)"))


def outputs(graph: Graph, weights: dict[str, np.ndarray], x: np.ndarray) -> dict[str, np.ndarray]:
    """What the heads of a graph give, in float64."""
    values = reference(graph, weights)(x)
    return {head.name: values[graph.nodes[head.node].name] for head in graph.heads}


def assert_dense_is_plain(graph: Graph, noise: Noise) -> None:
    weights, x = seeded(graph, 1), noise(2, *graph.input)
    spread = dense(graph)
    spread.graph.verify()
    before = outputs(graph, weights, x)
    after = outputs(spread.graph, spread.weights(weights), x)
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_allclose(after[name], before[name], 1e-9, 1e-13, err_msg=name)


@pytest.mark.parametrize("name", zoo())
def test_on_its_own_size_a_narrow_net_gives_what_it_gives(name: str, noise: Noise) -> None:
    """What a net says of its training, which may ask for the width of another, is not looked at."""
    graph = Program(from_zoo(name).written, WIDTH).graph
    assert_dense_is_plain(graph, noise)


BODIES = {
    "flattened after an activation": "conv3-4 act=none | flatten | relu | fc-5 | softmax",
    "normalised": "conv3-4 | pool | fc-6 norm=batch | batchnorm | prelu | fc-5 | softmax",
    "no bias": "conv3-4 | pool | fc-6 bias=off | fc-5 bias=off",
    "dropped out": "conv3-4 | flatten | dropout | fc-6 | dropout | fc-5 | softmax",
    "a single place": "conv13-4 padding=0 | flatten | prelu | batchnorm | fc-5 | softmax",
    "joined where they slide together": (
        "conv3-4 | pool | fc-6 | concat(fc-3, fc-2 | fc-4) | add(fc-5, fc-5 act=none) | fc-4"
    ),
    "joined with another window": "concat(conv3-4 | pool | fc-3, conv5-2 stride=2 | fc-2) | fc-4",
    "joined with a mean": "conv3-4 | concat(gap, pool | fc-3) | fc-4 | softmax",
    "sums of maps": "conv3-4 | flatten | add(skip, relu) | fc-4",
    "squeezed": "conv3-4 | mul(gap | fc-2 | fc-4 act=sigmoid, skip) | pool | fc-5 | softmax",
    "products": "conv3-4 | flatten | mul(skip, relu) | fc-4",
    "normalised by layers": "conv3-4 norm=layer | pool | fc-6 norm=layer | fc-5 | softmax",
    "groups of a mean": "conv3-4 | gap | fc-6 | groupnorm groups=2 | fc-5 | softmax",
    "a mean before the last layer": "conv3-4 | gap | fc-6 | fc-5 | softmax",
    "windows of any shape": (
        "conv2x3-4 dilation=1x2 border=reflect | avgpool3x2 stride=1 padding=0x0x2x1 border=zeros "
        "| pad padding=0x1 border=wrap | fc-6 | fc-5"
    ),
    "a soft-max inside": "conv3-4 | pool | fc-6 act=none | softmax | fc-5 | softmax",
    "several heads": "a: conv3-4 | pool | b: fc-6 | fc-5 head other: @a | fc-3 head features: @b",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_on_its_own_size_any_net_gives_what_it_gives(body: str, noise: Noise) -> None:
    graph = graph_of(body, "3x13x13")
    assert_dense_is_plain(graph, noise)
    assert_dense_is_plain(fold(graph).graph, noise)
    larger = resized(dense(graph).graph, (22, 31))
    larger.verify()
    assert larger.outputs == graph.outputs


def test_fully_connected_layers_are_windows_and_scores_are_averaged_before_the_soft_max() -> None:
    graph = from_zoo("vgg16").graph
    spread = dense(graph)
    ops = {node.name: node.op for node in spread.graph.nodes}
    assert ops["fc6"] == Conv2d(4096, (7, 7))
    assert (ops["fc7"], ops["fc8"]) == (Conv2d(4096, (1, 1)), Conv2d(1000, (1, 1)))
    assert [type(node.op) for node in spread.graph.nodes[-2:]] == [GlobalAvgPool, Softmax]
    assert spread.reshaped == {
        "fc6.weight": (4096, 512, 7, 7),
        "fc7.weight": (4096, 4096, 1, 1),
        "fc8.weight": (1000, 4096, 1, 1),
    }


def test_weights_are_only_reshaped(noise: Noise) -> None:
    graph = graph_of("conv3-4 | pool | fc-6 | fc-5")
    weights = weights_of(graph)
    spread = dense(graph)
    shapes = {name: weight.shape for name, weight in spread.graph.all_weights.items()}
    for name, weight in spread.weights(weights).items():
        assert weight.shape == shapes[name]
        assert np.shares_memory(weight, weights[name])


@pytest.mark.parametrize("name", ["vgg16_gap", "nin", "googlenet", "resnet18"])
def test_a_net_that_averages_by_itself_stays_as_it_is(name: str) -> None:
    graph = from_zoo(name).graph
    assert dense(graph).graph == graph


def test_on_a_larger_image_the_scores_are_the_mean_of_the_net_slid_over_it(noise: Noise) -> None:
    """Without padding a place sees nothing of what is beyond its window."""
    body = "conv3-4 padding=0 dilation=2x1 | pool | conv2x3-5 padding=0 | fc-6 norm=batch | fc-3"
    graph = graph_of(body, "3x12x10")
    weights = weights_of(graph)
    x = noise(2, 3, 19, 17)
    stride = 2  # of the pool
    slid = [
        outputs(graph, weights, x[:, :, top : top + 12, left : left + 10])["output"]
        for top in range(0, 19 - 12 + 1, stride)
        for left in range(0, 17 - 10 + 1, stride)
    ]
    assert len(slid) == 16
    spread = dense(graph)
    found = outputs(spread.graph, spread.weights(weights), x)["output"]
    np.testing.assert_allclose(found, np.mean(slid, axis=0), 1e-9)


@pytest.mark.parametrize("name", zoo())
def test_every_net_of_the_zoo_takes_larger_images(name: str) -> None:
    graph = from_zoo(name).graph
    spread = dense(graph)
    _, height, width = graph.input
    for size in ((height, width), (height + 37, width + 64), (height + 100, width)):
        larger = resized(spread.graph, size)
        larger.verify()
        of_one_place = {head: shape[:1] for head, shape in larger.outputs.items()}
        assert of_one_place == {head: shape[:1] for head, shape in graph.outputs.items()}
        assert larger.all_weights == spread.graph.all_weights


@pytest.mark.parametrize(
    ("body", "place", "words"),
    [
        ("conv3-4 | flatten | batchnorm | fc-5", "batchnorm", "weights of its own for each place"),
        ("conv3-4 | flatten | prelu | fc-5", "prelu", "weights of its own for each place"),
        ("conv3-4 | flatten | layernorm | fc-5", "layernorm", "places of a map one by one"),
        ("conv3-32 norm=group | fc-5", "conv3-32 norm=group", "of a whole map"),
        ("conv3-4 | fc-64 norm=group | fc-5", "fc-64 norm=group", "of a whole map"),
        ("conv3-4 | deconv4-4 stride=2 | fc-5", "deconv4-4", "that no crop begins at"),
        ("conv3-4 | flatten | softmax", "softmax", "reads the places of a map one by one"),
        ("a: conv3-4 | concat(flatten, gap) | fc-5", "concat", "places of a map one by one"),
        ("a: conv3-4 | b: flatten | fc-5 head features: @b", "flatten", "places of a map"),
    ],
)
def test_what_tells_places_apart_is_refused_where_it_stands(
    body: str, place: str, words: str
) -> None:
    with pytest.raises(UserError) as error:
        dense(graph_of(body))
    (found,) = error.value.diagnostics
    assert found.place is not None
    assert place in found.place.text
    assert words in str(error.value)
    assert "--protocol crops" in str(error.value)


def test_images_whose_paths_no_longer_fit_together_are_refused() -> None:
    graph = program(
        "net odd input 3x8x8 add(conv3-4 stride=2, conv1-4 | pool) | gap | fc-3 | softmax"
    ).graph
    resized(dense(graph).graph, (10, 12))
    with pytest.raises(UserError, match="cannot be applied to images of 9×12 pixels"):
        resized(dense(graph).graph, (9, 12))
    with pytest.raises(UserError, match="window is larger"):
        resized(dense(graph_of("conv5-4 padding=0 | gap | fc-3")).graph, (3, 30))


def test_the_peak_is_what_is_alive_beside_what_is_computed() -> None:
    graph = graph_of("conv3-8 act=none | pool | fc-5 act=none", "3x8x8")
    assert peak(graph) == 3 * 64 + 8 * 64
    skipping = graph_of("a: conv3-8 act=none | conv1-2 act=none | concat(skip, @a) | fc-5", "3x8x8")
    assert peak(skipping) == (8 + 2 + 10) * 64


# Heads that stay maps


def maps_of(graph: Graph) -> DenseGraph:
    """The graph applied densely, with the maps of whatever its heads give."""
    return dense(graph, {head.kind for head in graph.heads})


def crop_of(x: np.ndarray, at: Positions, i: int, j: int) -> np.ndarray:
    """The crop of images that a position of a map looks at."""
    top, left = i * at.stride[0], j * at.stride[1]
    return x[:, :, top : top + at.size[0], left : left + at.size[1]]


def assert_map_is_the_net_on_crops(graph: Graph, weights: Weights, x: np.ndarray) -> None:
    spread = maps_of(graph)
    larger = resized(spread.graph, (x.shape[2], x.shape[3]))
    larger.verify()
    found = outputs(larger, spread.weights(weights), x)
    for name, values in found.items():
        at = spread.positions[name]
        assert values.shape[1:] == larger.outputs[name]
        for i, j in np.ndindex(*values.shape[2:]):
            wanted = outputs(graph, weights, crop_of(x, at, i, j))[name]
            np.testing.assert_allclose(values[:, :, i, j], wanted, 1e-9, 1e-12)


UNPADDED = {
    "fully connected": (
        "conv3-4 padding=0 | pool | conv3-5 padding=0 | fc-6 norm=batch | boxes",
        2,
    ),
    "uneven strides": ("conv3-4 padding=0 stride=3 | conv3-5 padding=0 | fc-6 | boxes-3", 3),
    "pools behind one another": ("conv3-4 padding=0 | pool | pool | fc-6 | boxes", 4),
    "its own mean": ("conv3-4 padding=0 | pool | conv3-6 padding=0 | gap | boxes-2", 2),
    "a mean and more layers": ("conv3-4 padding=0 stride=2 | gap | fc-6 | fc-5", 2),
    "a mean as features": ("conv3-4 padding=0 | gap", 1),
    "overlapping pools": ("conv3-4 padding=0 | pool3 stride=2 | fc-6 | boxes", 2),
    "joined vectors": ("conv3-4 padding=0 | pool | concat(gap, fc-3) | boxes", 2),
    "joined means": (
        "a: conv3-4 padding=0 stride=2 | concat(conv1-2 | gap, conv3-3 padding=0 | gap) | fc-5",
        2,
    ),
    "two heads": ("conv3-4 padding=0 | pool | b: fc-6 | fc-5 | softmax head box: @b | boxes", 2),
    "nothing but a layer": ("boxes", 1),
}


@pytest.mark.parametrize(("body", "stride"), UNPADDED.values(), ids=UNPADDED)
def test_a_map_is_the_net_on_each_crop_where_nothing_is_padded(
    body: str, stride: int, noise: Noise
) -> None:
    graph = drop_final_softmax(graph_of(body, "3x12x10"))
    spread = maps_of(graph)
    assert {at.stride for at in spread.positions.values()} == {(stride, stride)}
    assert {at.size for at in spread.positions.values()} == {(12, 10)}
    assert_map_is_the_net_on_crops(graph, weights_of(graph), noise(2, 3, 20, 22))


def test_around_a_padded_crop_lies_the_image() -> None:
    """Where that is nothing but zeros, as padding is, the map is the net on the crop."""
    graph = graph_of("conv3-4 | pool | conv3-5 padding=0 | fc-6 | boxes", "3x12x8")
    weights, spread = weights_of(graph), maps_of(graph)
    at = spread.positions["output"]
    assert at.stride == (2, 2)
    crop = np.random.default_rng(3).standard_normal((1, 3, 12, 8)).astype(np.float32)
    for i, j in ((0, 0), (2, 1), (4, 5)):
        x = np.zeros((1, 3, 23, 20), np.float32)
        x[:, :, 2 * i : 2 * i + 12, 2 * j : 2 * j + 8] = crop
        found = outputs(spread.graph, spread.weights(weights), x)["output"]
        wanted = outputs(graph, weights, crop)["output"]
        np.testing.assert_allclose(found[:, :, i, j], wanted, 1e-9, 1e-12)


def test_what_sees_no_padding_is_the_net_on_each_crop(noise: Noise) -> None:
    """A layer that is blind to the border of its map, which alone sees padding."""
    graph = graph_of("conv3-4 | pool | conv3-5 | fc-6 | boxes", "3x16x12")
    weights = weights_of(graph)
    blind = next(node.name for node in graph.nodes if isinstance(node.op, Linear))
    window = weights[f"{blind}.weight"].reshape(6, 5, 8, 6)
    window[:, :, [0, 1, -2, -1]] = 0
    window[:, :, :, [0, 1, -2, -1]] = 0
    assert_map_is_the_net_on_crops(graph, weights, noise(1, 3, 23, 19))


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_on_its_own_size_a_map_has_one_position_or_is_refused(body: str, noise: Noise) -> None:
    graph = drop_final_softmax(graph_of(body, "3x13x13"))
    refusals = {
        BODIES["joined with a mean"]: "by other strides",
        BODIES["a soft-max inside"]: "a soft-max",
        BODIES["squeezed"]: "whole channels",
        BODIES["groups of a mean"]: "of a whole map",
    }
    if words := refusals.get(body):
        with pytest.raises(UserError, match=words):
            maps_of(graph)
        return
    weights, x = seeded(graph, 1), noise(2, *graph.input)
    spread = maps_of(graph)
    spread.graph.verify()
    found = outputs(spread.graph, spread.weights(weights), x)
    for name, wanted in outputs(graph, weights, x).items():
        assert found[name].shape[2:] == (1, 1)
        np.testing.assert_allclose(found[name][:, :, 0, 0], wanted, 1e-9, 1e-13)


def test_heads_of_other_kinds_are_averaged_beside_maps(noise: Noise) -> None:
    body = "conv3-4 | pool | b: fc-6 | fc-5 | softmax head box: @b | boxes-2"
    graph = graph_of(body, "3x12x10")
    weights, x = weights_of(graph), noise(1, 3, 19, 25)
    averaged, spread = dense(graph), dense(graph, ["boxes"])
    assert spread.positions.keys() == {"box"}
    larger = resized(spread.graph, (19, 25))
    assert larger.outputs == {"output": (5,), "box": (8, 4, 8)}
    before = outputs(averaged.graph, averaged.weights(weights), x)
    after = outputs(spread.graph, spread.weights(weights), x)
    np.testing.assert_allclose(after["output"], before["output"], 1e-9)
    np.testing.assert_allclose(after["box"].mean((2, 3)), before["box"], 1e-9)


def test_only_what_a_map_needs_slides() -> None:
    graph = graph_of("a: conv3-4 | gap | fc-5 head box: @a | fc-6 | boxes", "3x12x10")
    ops = [node.op for node in dense(graph, ["boxes"]).graph.nodes]
    assert GlobalAvgPool() in ops
    both = graph_of("a: conv3-4 | b: gap | fc-5 head box: @b | boxes", "3x12x10")
    nodes = {node.name: node.op for node in dense(both, ["boxes"]).graph.nodes}
    assert nodes["b"] == AvgPool2d(kernel=(12, 10), stride=(1, 1))


@pytest.mark.parametrize("name", ["vgg16", "vgg16_loc_scr", "vgg16_loc_pcr", "resnet18", "nin"])
def test_positions_of_nets_of_the_zoo_are_32_pixels_apart(name: str) -> None:
    graph = drop_final_softmax(from_zoo(name).graph)
    at = maps_of(graph).positions["output"]
    height = graph.input[1]
    assert at == Positions((height, height), (32, 32))


# Boxes in the picture


FOLLOWING = {"pixels": ("boxes", 1), "pooled": ("pool | boxes", 2), "strided": ("pool3 | boxes", 3)}


def following(body: str, input_: tuple[int, int], size: float) -> tuple[Graph, Weights]:
    """A net whose box lies around the one bright spot of its crop, its sides `size` of the crop's;
    the spot fills a window of the net's pool.
    """
    height, width = input_
    graph = graph_of(body, f"1x{height}x{width}")
    rows, columns = graph.source(graph.nodes[-2])[-2:]
    x = (np.arange(columns) + 0.5) / columns
    y = (np.arange(rows) + 0.5) / rows
    weight = np.zeros((4, rows, columns), np.float32)
    weight[0], weight[1] = x, y[:, None]
    name = graph.nodes[-1].name
    bias = np.asarray([0, 0, size, size / 2], np.float32)
    return graph, {f"{name}.weight": weight.reshape(4, -1), f"{name}.bias": bias}


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("image", [(31, 47), (36, 24), (25, 60)])
@pytest.mark.parametrize(("body", "step"), FOLLOWING.values(), ids=FOLLOWING)
def test_the_box_of_a_position_lies_where_it_is_in_the_picture(
    body: str, step: int, image: tuple[int, int], mirrored: bool
) -> None:
    height, width = image
    graph, weights = following(body, (18, 12), 0.25)
    spread = maps_of(graph)
    for row, column in ((0, 0), (3, 5), (7, 2)):
        top, left = row * step, column * step
        x = np.zeros((1, 1, height, width), np.float32)
        x[..., top : top + step, left : left + step] = 1
        found = outputs(spread.graph, spread.weights(weights), x)["output"][0]
        windows = spread.positions["output"].windows(found.shape[1:], image, mirrored=mirrored)
        boxes = centres_of(to_picture(corners_of(np.moveaxis(found, 0, -1)), windows))
        # A mirrored net has seen the mirror image of the picture.
        middle = left + step / 2
        middle = (width - middle if mirrored else middle) / width
        wanted = [middle, (top + step / 2) / height, 0.25 * 12 / width, 0.125 * 18 / height]
        seen = 0
        for i, j in np.ndindex(*boxes.shape[:2]):
            if 0 <= top - i * step <= 18 - step and 0 <= left - j * step <= 12 - step:
                np.testing.assert_allclose(boxes[i, j], wanted, rtol=0, atol=1e-6)
                seen += 1
        assert seen >= 1


def test_windows_are_where_positions_look() -> None:
    at = Positions(size=(4, 6), stride=(2, 3))
    windows = at.windows((2, 3), (8, 12))
    assert windows.shape == (2, 3, 4)
    np.testing.assert_allclose(windows[0, 0], [0, 0, 6 / 12, 4 / 8])
    np.testing.assert_allclose(windows[1, 2], [6 / 12, 2 / 8, 1, 6 / 8])
    flipped = at.windows((2, 3), (8, 12), mirrored=True)
    np.testing.assert_allclose(flipped[0, 0], [1, 0, 6 / 12, 4 / 8])
    np.testing.assert_allclose(flipped[1, 2], [6 / 12, 2 / 8, 0, 6 / 8])

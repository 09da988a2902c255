"""A net over whole images: the same on its own size, and on larger ones the net slid over them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.support.nets import graph_of, program
from tests.support.op_samples import weights_of
from vggc.backends.torch import reference
from vggc.ir.graph import Graph
from vggc.ir.ops import Conv2d, GlobalAvgPool, Softmax
from vggc.ir.weights import seeded
from vggc.passes.dense import dense, peak, resized
from vggc.passes.fold import fold
from vggc.program import from_zoo, zoo
from vggc.support.diagnostics import UserError

Noise = Callable[..., np.ndarray]

WIDE = ["vgg16_loc_pcr", "vgg16_loc_scr"]
"""The zoo's nets that begin with the weights of another, and so have its width."""


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


@pytest.mark.parametrize("name", sorted({*zoo()} - {*WIDE}))
def test_on_its_own_size_a_narrow_net_gives_what_it_gives(name: str, noise: Noise) -> None:
    assert_dense_is_plain(from_zoo(f"{name}(width=0.125)").graph, noise)


@pytest.mark.slow
@pytest.mark.parametrize("name", WIDE)
def test_on_its_own_size_a_wide_net_gives_what_it_gives(name: str, noise: Noise) -> None:
    assert_dense_is_plain(from_zoo(name).graph, noise)


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
    "a mean before the last layer": "conv3-4 | gap | fc-6 | fc-5 | softmax",
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
    body = "conv3-4 padding=0 | pool | conv3-5 padding=0 | fc-6 norm=batch | fc-3"
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
        assert larger.outputs == graph.outputs
        assert larger.all_weights == spread.graph.all_weights


@pytest.mark.parametrize(
    ("body", "place", "words"),
    [
        ("conv3-4 | flatten | batchnorm | fc-5", "batchnorm", "weights of its own for each place"),
        ("conv3-4 | flatten | prelu | fc-5", "prelu", "weights of its own for each place"),
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

"""Dense nets from all offsets of their last pool: a finer map of the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.support.nets import graph_of, program
from tests.support.op_samples import weights_of
from vggc.backends.torch import reference
from vggc.ir.graph import Graph
from vggc.passes.dense import DenseGraph, dense
from vggc.passes.inference import drop_final_softmax
from vggc.passes.offsets import OffsetGraph, with_offsets
from vggc.program import from_zoo
from vggc.support.diagnostics import UserError

Noise = Callable[..., np.ndarray]

BODIES = {
    "two pools": "conv3-4 padding=0 | pool | conv3-5 padding=0 | pool | fc-6 | boxes",
    "an overlapping pool": "conv3-4 padding=0 | pool3 stride=2 | conv3-5 padding=0 | fc-6 | boxes",
    "a pool of three": "conv3-4 padding=0 | avgpool3 | fc-6 | fc-3 | softmax",
    "a mean behind": "conv3-4 padding=0 | pool | conv3-5 padding=0 | gap | boxes-2",
    "two heads": "conv3-4 padding=0 | pool | b: fc-6 | fc-3 head box: @b | boxes",
    "joins around it": "conv3-4 padding=0 | add(conv1-4, skip) | pool | concat(fc-3, fc-4) | fc-2",
}


def spread_of(graph: Graph) -> DenseGraph:
    return dense(drop_final_softmax(graph), {head.kind for head in graph.heads})


def outputs(graph: Graph, weights: dict[str, np.ndarray], x: np.ndarray) -> dict[str, np.ndarray]:
    """What the heads of a graph give, in float64."""
    values = reference(graph, weights)(x.astype(np.float32))
    return {head.name: values[graph.nodes[head.node].name] for head in graph.heads}


def test_two_parts_are_the_whole(noise: Noise) -> None:
    graph = graph_of(BODIES["two heads"], "3x14x16")
    spread = spread_of(graph)
    parts = with_offsets(spread)
    parts.before.verify()
    parts.after.verify()
    weights, x = spread.weights(weights_of(graph)), noise(1, 3, 20, 21)
    (middle,) = outputs(parts.before, weights, x).values()
    found, wanted = outputs(parts.after, weights, middle), outputs(spread.graph, weights, x)
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], 1e-4, 1e-6)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_an_offset_is_the_image_shifted(body: str, noise: Noise) -> None:
    """What stands behind the last pool, from a row and a column of its map on, gives what the whole
    net gives of the image from so many strides on.
    """
    graph = graph_of(body, "3x14x16")
    spread = spread_of(graph)
    parts = with_offsets(spread)
    weights, x = spread.weights(weights_of(graph)), noise(1, 3, 26, 29)
    (middle,) = outputs(parts.before, weights, x).values()
    for name, at in parts.positions.items():
        whole = spread.positions[name].stride
        assert at.size == (14, 16)
        assert (at.stride[0] * parts.stride[0], at.stride[1] * parts.stride[1]) == whole
    for top, left in np.ndindex(*parts.stride):
        (at, *others) = parts.positions.values()
        assert all(other == at for other in others)
        shifted = x[:, :, top * at.stride[0] :, left * at.stride[1] :]
        wanted = outputs(spread.graph, weights, shifted)
        found = outputs(parts.after, weights, middle[:, :, top:, left:])
        for name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], 1e-4, 1e-6)


@pytest.mark.parametrize("name", ["vgg16", "vgg16_loc_scr", "vgg16_loc_pcr"])
def test_positions_of_nets_of_the_paper_are_16_pixels_apart(name: str) -> None:
    parts = with_offsets(spread_of(from_zoo(name).graph))
    assert parts.stride == (2, 2)
    assert {at.stride for at in parts.positions.values()} == {(16, 16)}
    assert parts.after.nodes[1].name == "pool5"
    assert parts.fits((14, 14))
    assert not parts.fits((13, 14))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("conv3-4 | fc-3", "it has no pool with a stride"),
        ("conv3-4 | gap | fc-3", "it has no pool with a stride"),
        ("conv3-4 | pool | conv3-4 stride=2 | fc-3", "conv2_1 behind its last pool has a stride"),
        (
            "a: conv3-4 | concat(pool, conv3-4 stride=2) | fc-3",
            "not all of it goes through its last pool, concat1_pool1",
        ),
        ("a: conv3-4 | pool | fc-3 head box: @a | boxes", "not all of it goes through"),
    ],
)
def test_what_has_no_offsets_is_told_why(body: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        with_offsets(spread_of(graph_of(body, "3x12x12")))
    assert words in str(error.value)
    assert "--offsets" in str(error.value)


def test_what_stands_behind_fits_where_it_has_a_position() -> None:
    graph = program(f"net a input 3x14x16 {BODIES['two pools']}").graph
    parts: OffsetGraph = with_offsets(spread_of(graph))
    channels, height, width = parts.after.input
    assert (channels, height, width) == (5, 4, 5)
    assert parts.fits((4, 5))
    assert parts.fits((4, 4))  # of the fifth column the pool makes no use
    assert not parts.fits((3, 4))

"""A net that wants blue, green and red is made one that wants red, green and blue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.support.nets import graph_of, program
from tests.support.op_samples import weights_of
from tests.support.training_data import picture
from vggc.api.trained import from_spec
from vggc.backends.torch import reference
from vggc.ir.weights import save, seeded
from vggc.passes.channel_order import axes_of_colours, exchanged, in_rgb
from vggc.preprocessing.presets import PRESETS

Noise = Callable[..., np.ndarray]


@pytest.mark.parametrize(
    "body",
    [
        "conv3-6 groups=3 | gap | fc-3",
        "gap | fc-3",
        "concat(conv3-4, conv3-6 groups=3) | gap | fc-3",
        "lrn | conv3-4 | gap | fc-3",
        "fc-3",
    ],
)
def test_the_order_may_be_no_matter_of_weights(body: str) -> None:
    assert axes_of_colours(graph_of(body)) == {}


@pytest.mark.parametrize(
    ("body", "axes"),
    [
        ("conv3-4 | pool | fc-3", [1]),
        ("conv3-4 border=reflect | gap | fc-3", [1]),
        ("add(conv3-4, conv1-4) | conv3-5 | gap | fc-3", [1, 1]),
        ("batchnorm | pool | conv3-4 | gap | fc-3", [0, 0, 0, 0, 1]),
    ],
)
def test_the_exchanged_net_gives_of_rgb_what_the_other_gives_of_bgr(
    body: str, axes: list[int], noise: Noise
) -> None:
    graph = graph_of(body)
    weights, x = weights_of(graph), noise(2, *graph.input)
    assert [*axes_of_colours(graph).values()] == axes
    name = graph.nodes[graph.heads[0].node].name
    of_bgr = reference(graph, weights)(x[:, ::-1].copy())[name]
    of_rgb = reference(graph, exchanged(graph, weights))(x)[name]
    np.testing.assert_allclose(of_rgb, of_bgr, rtol=1e-12, atol=1e-12)
    back = exchanged(graph, exchanged(graph, weights))
    assert all(np.array_equal(back[key], values) for key, values in weights.items())


def test_the_preprocessing_goes_along_to_the_bit() -> None:
    graph = graph_of("conv3-4 | gap | fc-3", "3x28x28")
    before = PRESETS["caffe"].at(graph.input)
    _, after = in_rgb(graph, seeded(graph, 0), before)
    pixels = picture(0, 0, 28, 28)[None]
    assert (after.order, after.mean) == ("rgb", before.mean[::-1])
    assert np.array_equal(after.normalise(pixels), before.normalise(pixels)[:, ::-1])


def test_weights_of_a_file_are_loaded_with_the_order_that_somebody_names(tmp_path: Path) -> None:
    for body, order in (("conv3-4 | gap | fc-3", "rgb"), ("lrn | conv3-4 | gap | fc-3", "bgr")):
        net = program(f"net a input 3x28x28 {body}")
        weights = seeded(net.graph, 3)
        save(tmp_path / "w.safetensors", weights)
        subject = from_spec(net, tmp_path / "w.safetensors", 0, preprocessing="keras")
        name = net.graph.nodes[net.graph.heads[0].node].name
        pixels = picture(0, 0, 28, 28)[None]
        wanted = reference(net.graph, weights)(PRESETS["keras"].at((3, 28, 28)).normalise(pixels))
        found = reference(net.graph, subject.weights)(subject.preprocessing.normalise(pixels))
        assert subject.preprocessing.order == order
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-9)

"""Which layers give features, and what their values are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.nets import TINY, program
from vggc.backends.torch import build
from vggc.features.layers import feature_net
from vggc.features.rows import columns_of, features_of, normalised
from vggc.ir.weights import seeded
from vggc.passes.inference import drop_dropout
from vggc.program import load
from vggc.support.diagnostics import CheckFailed, UserError


@pytest.mark.parametrize(
    ("net", "layer"),
    [
        ("vgg16", "fc7"),
        ("vgg16_bn", "fc7"),
        ("vgg16_gap", "gap1"),
        ("resnet18", "gap1"),
        ("googlenet", "gap1"),
        ("nin", "conv4_2"),
        ("alexnet", "fc5"),
        ("vgg16_loc_pcr", "fc7"),
    ],
)
def test_the_usual_layer_is_the_last_hidden_one(net: str, layer: str) -> None:
    assert feature_net(load(net).graph).layers == (layer,)


def test_a_head_of_features_comes_first() -> None:
    text = TINY + "\nhead code: @pool1\n"
    assert feature_net(program(text).graph).layers == ("code",)


def test_a_layer_gives_what_it_gives_within_the_net() -> None:
    """A vector as it is, a map by the mean of each channel, several behind one another."""
    graph = program(TINY).graph
    weights = seeded(graph, 0)
    net = feature_net(graph, ("fc4", "conv2_1"))
    net.graph.verify()
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 16, 16), np.float32))
    with torch.inference_mode():
        whole = build(graph, weights).eval()
        values = dict(zip([n.name for n in whole.nodes], whole.outputs(x), strict=True))
        found = build(drop_dropout(net.graph), weights).eval()(x)
    last = {node.layer.name: node.name for node in whole.nodes}
    wanted = [values[last["fc4"]], values[last["conv2_1"]].mean((2, 3))]
    assert net.widths == (24, 16)
    torch.testing.assert_close(found, torch.cat(wanted, 1))
    assert (wanted[0] >= 0).all()  # behind its ReLU


def test_layers_behind_are_neither_computed_nor_needed() -> None:
    net = feature_net(load("vgg16").graph, ("conv3_3",))
    assert "conv4_1.weight" not in net.graph.all_weights


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (("fc8x",), "did you mean `fc8`?"),
        (("fc7", "fc7"), "is named twice"),
        (("softmax1",), "gives probabilities, not features"),
        (("input",), "has no layer `input`"),
    ],
)
def test_what_is_no_layer_is_told(layers: tuple[str, ...], reason: str) -> None:
    with pytest.raises(UserError) as found:
        feature_net(load("vgg16").graph, layers)
    assert reason in str(found.value)


def test_a_net_without_hidden_layers_has_no_features() -> None:
    with pytest.raises(UserError, match="has no last hidden layer"):
        feature_net(program("net one input 3x8x8\nfc-5 | softmax").graph)


# Rows


def test_each_layer_at_each_scale_has_a_length_of_1() -> None:
    values = np.random.default_rng(0).standard_normal((5, 3, 7), np.float32) * 1e4
    stacked = features_of(values, (4, 3), "stack")
    assert stacked.shape == (5, 21)
    pieces = np.split(stacked, np.cumsum([4, 4, 4, 3, 3]), axis=1)
    for piece in pieces:
        np.testing.assert_allclose(np.linalg.norm(piece, axis=1), 1, rtol=1e-6)
    layers = stacked[:, :12].reshape(5, 3, 4), stacked[:, 12:].reshape(5, 3, 3)
    averaged = features_of(values, (4, 3), "average")
    np.testing.assert_allclose(averaged, np.concatenate([x.mean(1) for x in layers], 1), rtol=1e-6)


def test_zeros_stay_zeros_and_neither_tiny_nor_huge_values_lose_their_direction() -> None:
    rows = np.array([[0, 0], [3e-30, 4e-30], [3e30, 4e30]], np.float32)
    np.testing.assert_allclose(normalised(rows), [[0, 0], [0.6, 0.8], [0.6, 0.8]], rtol=1e-6)


def test_what_is_not_finite_is_no_feature() -> None:
    with pytest.raises(CheckFailed, match="not finite"):
        features_of(np.array([[[1, np.inf]]], np.float32), (2,), "stack")


def test_columns_tell_which_layer_and_scale_each_is_of() -> None:
    net = feature_net(load("vgg16").graph, ("fc7", "conv5_3"))
    stacked = columns_of(net, (256, 384), "stack")
    assert [(c.layer, c.scales, c.start, c.stop) for c in stacked] == [
        ("fc7", (256,), 0, 4096),
        ("fc7", (384,), 4096, 8192),
        ("conv5_3", (256,), 8192, 8704),
        ("conv5_3", (384,), 8704, 9216),
    ]
    averaged = columns_of(net, (256, 384), "average")
    assert [(c.scales, c.stop) for c in averaged] == [((256, 384), 4096), ((256, 384), 4608)]

"""Gradients and Grad-CAM of nets in which they are known by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tests.support.inspected import inspected, pixels
from tests.support.nets import graph_of
from vggc.inspection import net as inspection_net
from vggc.inspection.layers import last_of_blocks, map_layers
from vggc.inspection.net import batch_of
from vggc.inspection.saliency import evidence, gradients, noisy_copies, of_one

Noise = Callable[..., np.ndarray]


def test_the_gradient_of_a_linear_net_is_its_weight_per_grey_level(noise: Noise) -> None:
    graph = graph_of("fc-3", "2x4x5")
    weight = noise(3, 40)
    weights = {"fc1.weight": weight, "fc1.bias": noise(3)}
    net = inspected(graph, weights, mean=0.4, std=0.5)
    found = evidence(net, pixels(4, 5, 2), 1, None, copies=5, seed=0)
    expected = np.abs(weight[1].reshape(2, 4, 5)).max(0) / (0.5 * 255)
    np.testing.assert_allclose(found.gradient, expected, rtol=1e-6)
    assert found.smooth is not None
    np.testing.assert_allclose(found.smooth, expected, rtol=1e-5)
    assert (found.cam, found.layer) == (None, None)


def test_the_gradient_is_that_of_finite_differences() -> None:
    graph = graph_of("conv3-4 act=sigmoid | avgpool | conv3-5 act=gelu | gap | fc-3", "2x8x8")
    net, image = inspected(graph, std=0.5), batch_of([pixels(8, 8, 2)]).double()
    net.module.double()
    number, by_hand = 2, torch.zeros(2, 8, 8, dtype=torch.float64)

    def score(values: torch.Tensor) -> torch.Tensor:
        inputs = values / (0.5 * 255)
        return net.scores(inputs)[:, number]

    for place in np.ndindex(2, 8, 8):
        step = torch.zeros_like(image)
        step[(0, *place)] = 1e-3
        by_hand[place] = (score(image + step) - score(image - step))[0] / 2e-3
    net.module.float()
    found = gradients(net, image.float(), number)[0]
    torch.testing.assert_close(
        found.double(), by_hand, rtol=1e-3, atol=1e-3 * float(by_hand.abs().max())
    )


def test_grad_cam_is_the_maps_by_their_weights_where_a_net_ends_in_their_mean(
    noise: Noise,
) -> None:
    """Of a net of maps, their means and a linear layer, α_k is that layer's weight over the number
    of places: class activation mapping (Zhou et al. 2016).
    """
    graph = graph_of("conv3-4 | gap | fc-3", "1x6x7")
    weights = {
        "conv1_1.weight": noise(4, 1, 3, 3),
        "conv1_1.bias": noise(4),
        "fc1.weight": noise(3, 4),
        "fc1.bias": noise(3),
    }
    assert {*weights} == {*graph.all_weights}
    net, image = inspected(graph, weights, std=1.0), pixels(6, 7, 1)
    layer = map_layers(graph)["conv1_1"]
    maps = net.maps(image, {layer.node})[layer.node]
    signs = set()
    for number in range(3):
        found = evidence(net, image, number, layer, copies=0, seed=0)
        by_hand = np.einsum("k,khw->hw", weights["fc1.weight"][number], maps) / 42
        signs |= {*np.sign(by_hand).ravel().tolist()}
        np.testing.assert_allclose(found.cam, by_hand.clip(0), rtol=1e-5, atol=1e-6)
        assert (found.layer, found.smooth) == (layer, None)
    assert signs >= {-1.0, 1.0}


def test_the_map_of_a_class_alone_is_its_grad_cam() -> None:
    """As in network in network, whose last convolution gives a map of scores for each class."""
    graph = graph_of("conv3-3 act=none | gap", "1x6x6")
    net, image = inspected(graph, std=1.0), pixels(6, 6, 1)
    layer = last_of_blocks(graph)[-1]
    maps = net.maps(image, {layer.node})[layer.node]
    for number in range(3):
        _, cam = of_one(net, batch_of([image]), number, layer)
        assert cam is not None
        np.testing.assert_allclose(cam.numpy(), maps[number].clip(0) / 36, rtol=1e-6)


def test_noise_is_a_share_of_the_image_and_the_same_for_a_seed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = batch_of([pixels(16, 16, 3)])
    together = torch.cat([*noisy_copies(image, 50, 7, 50)])
    apart = torch.cat([*noisy_copies(image, 50, 7, 8)])
    assert torch.equal(together, apart)
    assert not torch.equal(together, torch.cat([*noisy_copies(image, 50, 8, 50)]))
    spread = float(image.max()) - float(image.min())
    deviation = float((together - image).std())
    assert deviation == pytest.approx(0.15 * spread, rel=0.02)
    monkeypatch.setattr(inspection_net, "MOST_AT_ONCE", 3)
    net = inspected(graph_of("conv3-4 | gap | fc-2", "3x16x16"))
    steps: list[tuple[int, int]] = []
    evidence(net, pixels(16, 16, 3), 0, None, 7, 0, lambda *done: steps.append(done))
    assert steps == [(1, 8), (4, 8), (7, 8), (8, 8)]


def test_weights_get_no_gradients() -> None:
    net = inspected(graph_of("conv3-4 | gap | fc-2", "3x16x16"))
    evidence(net, pixels(16, 16, 3), 0, None, copies=0, seed=0)
    assert all(weight.grad is None for weight in net.module.parameters())

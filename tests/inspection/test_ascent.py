"""Images of classes, found by climbing their scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.support.inspected import inspected
from tests.support.nets import graph_of
from vggc.inspection.ascent import STEPS, class_image

GRAPH = graph_of("conv3-8 | pool | conv3-8 | pool | fc-4", "3x32x32")

Noise = Callable[..., np.ndarray]


@pytest.mark.parametrize("number", range(4))
def test_climbing_raises_the_score(number: int) -> None:
    found = class_image(inspected(GRAPH, mean=0.5, std=0.25), number, seed=0)
    assert found.score > found.score_before
    assert 0 < found.probability <= 1
    assert found.pixels.shape == (32, 32, 3)
    assert found.pixels.dtype == np.uint8


def test_an_image_is_the_same_for_a_seed_and_another_for_another() -> None:
    net = inspected(GRAPH, mean=0.5, std=0.25)
    first, same, other = (class_image(net, 1, seed) for seed in (3, 3, 4))
    assert (first.pixels == same.pixels).all()
    assert first.score == same.score
    assert (first.pixels != other.pixels).any()


def test_a_linear_net_is_climbed_to_the_side_of_its_weights(noise: Noise) -> None:
    """Each pixel goes from the mean towards the sign of its weight, in images too small to be
    moved or climbed at other scales.
    """
    graph = graph_of("fc-2", "1x8x8")
    weights = {"fc1.weight": noise(2, 64), "fc1.bias": np.zeros(2, np.float32)}
    found = class_image(inspected(graph, weights, mean=0.5, std=0.25), 1, seed=0)
    assert found.steps == STEPS
    moved = found.pixels[:, :, 0].astype(float) - 127.5
    clear = np.abs(weights["fc1.weight"][1]).reshape(8, 8) > 0.1
    assert (np.sign(moved) == np.sign(weights["fc1.weight"][1].reshape(8, 8)))[clear].all()


def test_large_images_are_climbed_at_three_scales_and_small_ones_at_fewer() -> None:
    steps = {}
    for side in (8, 16, 32):
        net = inspected(graph_of("conv3-2 | gap | fc-2", f"1x{side}x{side}"))
        told: list[tuple[int, int]] = []
        found = class_image(net, 0, 0, lambda *done, told=told: told.append(done))
        assert told == [(step, found.steps) for step in range(1, found.steps + 1)]
        steps[side] = found.steps
    assert steps == {8: STEPS, 16: 2 * STEPS, 32: 3 * STEPS}


def test_a_net_without_any_slope_is_left_at_the_mean_image() -> None:
    graph = graph_of("fc-2", "1x8x8")
    weights = {name: np.zeros(w.shape, np.float32) for name, w in graph.all_weights.items()}
    found = class_image(inspected(graph, weights, mean=0.5, std=0.25), 0, seed=0)
    assert (found.score, found.score_before) == (0.0, 0.0)
    assert set(np.unique(found.pixels)) <= {127, 128}

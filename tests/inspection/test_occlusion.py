"""Probabilities while parts are covered, of nets in which they are known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.inspected import inspected, pixels
from tests.support.nets import graph_of
from vggc.inspection import net as inspection_net
from vggc.inspection.occlusion import GREY, Square, occlusion, spread


def sigmoid(value: float) -> float:
    return float(1 / (1 + np.exp(-value)))


@pytest.mark.parametrize("at_once", [1, 3, 64])
def test_a_net_of_one_corner_loses_it_where_that_is_covered(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Of two scores the first is a hundredth of the pixel in the upper left corner."""
    monkeypatch.setattr(inspection_net, "MOST_AT_ONCE", at_once)
    graph = graph_of("fc-2", "1x6x7")
    weight = np.zeros((2, 42), np.float32)
    weight[0, 0] = 0.01
    net = inspected(graph, {"fc1.weight": weight, "fc1.bias": np.zeros(2, np.float32)})
    image = pixels(6, 7, 1)
    image[0, 0] = 255
    found = occlusion(net, image, 0, Square(3, 2))
    assert found.uncovered == pytest.approx(sigmoid(2.55))
    assert found.covered.shape == (3, 3)
    expected = np.full((3, 3), sigmoid(2.55))
    expected[0, 0] = sigmoid(GREY / 100)
    np.testing.assert_allclose(found.covered, expected, rtol=1e-5)
    # The corner lies in one square only; the pixel at (2, 2) in four, of which one covers it.
    assert found.at_pixels[0, 0] == pytest.approx(sigmoid(1.28))
    assert found.at_pixels[2, 2] == pytest.approx((3 * sigmoid(2.55) + sigmoid(1.28)) / 4)
    assert found.at_pixels[5, 6] == pytest.approx(sigmoid(2.55))


def test_squares_reach_every_pixel_and_end_at_the_edge() -> None:
    assert Square(3, 2).places(7) == [0, 2, 4]
    assert Square(3, 2).places(8) == [0, 2, 4, 5]
    assert Square(3, 9).places(8) == [0, 5]
    assert Square(9, 2).places(8) == [0]
    for length in range(1, 40):
        square = Square.usual((length, length + 3))
        counts = np.zeros(length)
        for place in square.places(length):
            counts[place : place + square.window] += 1
        assert counts.min() >= 1 or square.stride > square.window


@pytest.mark.parametrize(
    ("size", "square", "count"),
    [((224, 224), Square(32, 20), 11), ((32, 32), Square(5, 3), 10), ((8, 8), Square(1, 1), 8)],
)
def test_the_usual_square_is_a_seventh_of_the_image_at_about_eleven_places(
    size: tuple[int, int], square: Square, count: int
) -> None:
    assert Square.usual(size) == square
    assert len(square.places(size[0])) == count
    assert Square.usual(size, 4, 2) == Square(4, 2)


def test_a_pixel_has_the_mean_of_the_squares_that_cover_it() -> None:
    found = spread([1.0, 3.0], [(0, 0), (0, 1)], 2, (2, 3), 9.0)
    np.testing.assert_array_equal(found, [[1, 2, 3], [1, 2, 3]])


def test_a_pixel_between_squares_has_the_probability_of_the_whole_image() -> None:
    np.testing.assert_array_equal(spread([1.0, 3.0], [(0, 0), (0, 2)], 1, (1, 3), 9.0), [[1, 9, 3]])
    net = inspected(graph_of("conv3-2 | gap | fc-2", "3x8x8"))
    found = occlusion(net, pixels(8, 8, 3), 0, Square(1, 4))
    assert np.isfinite(found.at_pixels).all()
    assert found.at_pixels[1, 1] == pytest.approx(found.uncovered)


def test_the_image_stays_as_it_is() -> None:
    image = pixels(8, 8, 3)
    before = image.copy()
    occlusion(inspected(graph_of("conv3-2 | gap | fc-2", "3x8x8")), image, 0, Square(2, 2))
    assert (image == before).all()

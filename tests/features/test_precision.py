"""VOC's average precision, by cases that are worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vggc.features.average_precision import average_precision


def found(scores: list[float], positive: list[int]) -> tuple[float, float]:
    precision = average_precision(np.array(scores), np.array(positive, bool))
    assert precision is not None
    return precision.eleven, precision.area


def test_a_perfect_order_has_a_precision_of_1() -> None:
    assert found([4, 3, 2, 1], [1, 1, 0, 0]) == (1, 1)


def test_the_worst_order_has_that_of_the_last() -> None:
    """Precisions 1/3 and 2/4 at recalls 1/2 and 1: the greatest from there on is 1/2 at each."""
    assert found([4, 3, 2, 1], [0, 0, 1, 1]) == pytest.approx((0.5, 0.5))


def test_the_precision_at_a_recall_is_the_greatest_beyond_it() -> None:
    """Right are the first, third and fourth: precisions 1, 2/3, 3/4 at recalls 1/3, 2/3, 1. Up to a
    recall of 0.3, four of eleven, it is 1; at the seven others 3/4.
    """
    eleven, area = found([5, 4, 3, 2, 1], [1, 0, 1, 1, 0])
    assert eleven == pytest.approx((4 * 1 + 7 * 0.75) / 11)
    assert area == pytest.approx((1 + 0.75 + 0.75) / 3)


def test_recalls_are_compared_in_whole_numbers() -> None:
    """Three of ten are a recall of 0.3, though 0.1 * 3 is a little more than that in binary."""
    positive = [1] * 3 + [0] * 7 + [1] * 7
    eleven, _ = found([*range(17, 0, -1)], positive)
    assert eleven == pytest.approx((4 * 1 + 7 * 10 / 17) / 11)


def test_the_order_of_equal_scores_decides_nothing() -> None:
    assert found([1, 1, 1, 1], [1, 0, 0, 1]) == found([1, 1, 1, 1], [0, 1, 1, 0]) == (0.5, 0.5)


def test_a_class_that_nothing_shows_has_none() -> None:
    assert average_precision(np.zeros(3), np.zeros(3, bool)) is None
    assert average_precision(np.zeros(0), np.zeros(0, bool)) is None

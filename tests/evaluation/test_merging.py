"""Boxes that mean the same object become one: cases worked by hand, and the plain way beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vggc.data.objects import Corners
from vggc.evaluation import merging
from vggc.evaluation.merging import THRESHOLD, Merged, match_scores, merged


def boxes(*each: tuple[float, float, float, float]) -> Corners:
    return np.asarray(each, np.float64).reshape(-1, 4)


def squares(side: float, *lefts: float) -> Corners:
    """Squares beside one another."""
    return boxes(*((left, 0, left + side, side) for left in lefts))


def drawn(count: int, seed: int) -> Corners:
    """Boxes in a few heaps."""
    rng = np.random.default_rng(seed)
    middles = rng.choice(rng.random((4, 2)) * 4, count) + rng.normal(0, 0.2, (count, 2))
    sides = rng.uniform(0.3, 1.2, (count, 2))
    return np.concatenate([middles - sides / 2, middles + sides / 2], axis=1)


# The score


@pytest.mark.parametrize(
    ("other", "score"),
    [
        ((0, 0, 3, 4), 0),
        ((1, 0, 4, 4), 1 / 5 + 1 - 8 / 16),
        ((3, 0, 6, 4), 3 / 5 + 1),
        ((0, 0, 6, 8), 2.5 / 7.5 + 1 - 12 / 48),
        ((9, 12, 12, 16), 15 / 5 + 1),
    ],
)
def test_the_match_score_by_hand(other: tuple[float, float, float, float], score: float) -> None:
    """The diagonal of the first box is 5."""
    assert match_scores(boxes((0, 0, 3, 4)), boxes(other)) == pytest.approx(score)


def test_the_match_score_is_the_same_both_ways_and_in_every_unit() -> None:
    one, two = drawn(20, 0), drawn(20, 1)
    scores = match_scores(one[:, None], two[None])
    np.testing.assert_allclose(scores, match_scores(two[:, None], one[None]).T)
    np.testing.assert_allclose(scores, match_scores(one[:, None] * 7 + 3, two[None] * 7 + 3))
    assert (scores >= 0).all()


def test_what_has_no_area_matches_nothing() -> None:
    point, line = boxes((1, 1, 1, 1)), boxes((1, 1, 1, 3))
    assert match_scores(point, point) == match_scores(line, line) == 1
    assert match_scores(point, boxes((2, 1, 2, 1))) > 1e6
    assert len(merged(np.concatenate([point, point, line, line])).boxes) == 4


def test_the_threshold_is_about_where_equal_squares_have_an_iou_of_four_fifths() -> None:
    """A square of side 17 beside one that lies 2 to the right: 15 of 19 columns are shared."""
    score = match_scores(*squares(17, 0, 2))
    assert score == pytest.approx(2 / (17 * 2**0.5) + 4 / 19)
    assert 0.95 < score / THRESHOLD < 1


# Merging by hand


def test_two_that_match_become_their_mean_and_a_third_stays() -> None:
    found = merged(boxes((0, 0, 4, 4), (10, 10, 14, 14), (0, 0, 4, 5)))
    np.testing.assert_allclose(found.boxes, boxes((0, 0, 4, 4.5), (10, 10, 14, 14)))
    assert found.members.tolist() == [0, 1, 0]


def test_the_best_match_comes_first() -> None:
    """Of squares of side 6 those at 0 and 1 match at 0.40, those at 1 and 3 at 0.74; but when the
    first two are one, at 0.5, the third matches it at 0.88 only.
    """
    row = squares(6, 0, 1, 3)
    np.testing.assert_allclose(match_scores(row[1], row[2]), 0.7357, atol=1e-4)
    found = merged(row, threshold=0.75)
    np.testing.assert_allclose(found.boxes[:, 0], [0.5, 3])
    assert found.members.tolist() == [0, 0, 1]


def test_a_merged_box_is_the_mean_of_all_that_went_into_it() -> None:
    """Not of the last two, which would be at 1.75."""
    found = merged(squares(6, 0, 1, 3), threshold=0.9)
    np.testing.assert_allclose(found.boxes, squares(6, 4 / 3))


def test_what_belongs_to_members_is_added_up_by_group() -> None:
    found = merged(boxes((0, 0, 4, 4), (10, 10, 14, 14), (0, 0, 4, 5)))
    scores = np.asarray([[0.5, 0.1], [0.2, 0.3], [0.4, 0.2]])
    np.testing.assert_allclose(found.sums(scores), [[0.9, 0.3], [0.2, 0.3]])
    np.testing.assert_allclose(found.sums(scores[:, 0]), [0.9, 0.2])


def test_of_nothing_comes_nothing() -> None:
    found = merged(np.empty((0, 4)))
    assert found.boxes.shape == (0, 4)
    assert found.sums(np.empty((0, 3))).shape == (0, 3)
    assert merged(squares(6, 2)).members.tolist() == [0]


@pytest.mark.parametrize("threshold", [0, -1])
def test_only_the_same_boxes_match_at_nothing(threshold: float) -> None:
    found = merged(squares(6, 0, 0, 1), threshold=threshold)
    assert len(found.boxes) == (2 if threshold == 0 else 3)


# Any boxes


def plainly(boxes: Corners, threshold: float) -> Merged:
    """Merging as it is told, one pair after the other."""
    groups = [[place] for place in range(len(boxes))]

    def mean(group: list[int]) -> Corners:
        middle: Corners = boxes[group].mean(axis=0)
        return middle

    while len(groups) > 1:
        pairs = [(i, j) for j in range(len(groups)) for i in range(j)]
        scores = [float(match_scores(mean(groups[i]), mean(groups[j]))) for i, j in pairs]
        best = int(np.argmin(scores))
        if scores[best] > threshold:
            break
        i, j = pairs[best]
        groups[i] += groups.pop(j)
    members = np.empty(len(boxes), np.int64)
    for number, group in enumerate(groups):
        members[group] = number
    return Merged(np.asarray([mean(group) for group in groups]), members)


def together(found: Merged) -> set[frozenset[int]]:
    """Which boxes have become one."""
    numbers = range(len(found.boxes))
    return {frozenset(np.flatnonzero(found.members == each).tolist()) for each in numbers}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threshold", [THRESHOLD, 0.75, 1.2])
def test_it_is_the_plain_way(seed: int, threshold: float) -> None:
    each = drawn(24, seed)
    found, wanted = merged(each, threshold), plainly(each, threshold)
    assert together(found) == together(wanted)
    np.testing.assert_allclose(found.boxes[found.members], wanted.boxes[wanted.members])


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_the_order_of_boxes_does_not_matter(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    each = drawn(count, seed)[rng.integers(0, count, count)]  # some twice
    order = rng.permutation(count)
    found, other = merged(each), merged(each[order])
    assert len(found.boxes) == len(other.boxes)
    np.testing.assert_array_equal(found.boxes[found.members][order], other.boxes[other.members])


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_no_two_are_left_that_match(seed: int, count: int) -> None:
    left = merged(drawn(count, seed)).boxes
    scores = match_scores(left[:, None], left[None]) + np.diag(np.full(len(left), np.inf))
    assert not (scores <= THRESHOLD).any()


def test_a_box_twice_counts_twice() -> None:
    found = merged(squares(6, 0, 0, 1), threshold=0.5)
    np.testing.assert_allclose(found.boxes, squares(6, 1 / 3))


@pytest.mark.parametrize("each", [np.tile([0.1, 0.3, 0.7, 0.9], (200, 1)), drawn(200, 0)])
def test_few_boxes_are_compared_anew_when_two_become_one(
    each: Corners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of boxes that are all the same, as those are that reach beyond their picture."""
    looked_up = []
    find = merging._Groups.find

    def counted(groups: merging._Groups, rows: np.ndarray) -> None:
        looked_up.append(len(rows))
        find(groups, rows)

    monkeypatch.setattr(merging._Groups, "find", counted)
    merged(each)
    assert sum(looked_up) < 4 * len(each)

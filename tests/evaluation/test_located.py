"""From what nets say of crops to boxes with classes: cases worked by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from vggc.data.objects import PictureObjects
from vggc.data.windows import WHOLE, mirrored
from vggc.evaluation import located
from vggc.evaluation.located import (
    LocalisationCounts,
    LocatedObject,
    Locator,
    PictureSights,
    Sight,
    crop_probabilities,
    mean_probabilities,
    overlap_of,
    softmax,
)
from vggc.evaluation.merging import Merged, merged
from vggc.support.diagnostics import UserError
from vggc.training.parallel import ALONE

LEFT, RIGHT = np.asarray([0, 0, 0.5, 1]), np.asarray([0.5, 0, 1, 1])
SHARED, EACH = np.zeros(3, np.int64), np.arange(3)
"""Where the boxes of three classes are: one for all, or one for each."""


def scores(*rows: tuple[float, ...]) -> np.ndarray:
    """Scores whose soft-max is these rows of probabilities."""
    return np.log(np.asarray(rows, np.float32))


def sight(windows: list[np.ndarray], values: npt.ArrayLike) -> Sight:
    return Sight(np.stack(windows), np.asarray(values, np.float32))


def objects(*rows: tuple[int, tuple[float, float, float, float], bool]) -> PictureObjects:
    return PictureObjects(
        np.asarray([box for _, box, _ in rows]).reshape(-1, 4),
        np.asarray([each for each, _, _ in rows], np.int64),
        np.asarray([difficult for _, _, difficult in rows], np.bool_),
    )


# Boxes of crops


def test_boxes_of_crops_lie_in_the_picture() -> None:
    told = sight([LEFT, RIGHT, mirrored(LEFT)], [[0.5, 0.5, 1, 1], [1, 0.5, 1, 1], [0, 0.5, 1, 1]])
    wanted = [LEFT, [0.75, 0, 1, 1], [0.25, 0, 0.75, 1]]  # what lies beyond is cut off
    np.testing.assert_allclose(told.boxes(0), wanted)


def test_more_boxes_than_can_be_compared_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(located, "MOST_BOXES", 2)
    whole = sight([WHOLE], [[0.5, 0.5, 1, 1]])
    halves = sight([LEFT, RIGHT], [[0.5, 0.5, 1, 1]] * 2)
    two = PictureSights(0, 1.0, ((halves,),), ())
    assert Locator((SHARED,)).of_class(two, 0).score == 1
    with pytest.raises(UserError, match="3 boxes of one picture are too many"):
        Locator((SHARED,)).of_class(PictureSights(0, 1.0, ((halves, whole),), ()), 0)


def test_of_many_boxes_one_is_asked_for() -> None:
    told = sight([WHOLE], [[0.5, 0.5, 1, 1, 0.25, 0.5, 0.5, 1]])
    np.testing.assert_allclose(told.boxes(1), [LEFT])


# Probabilities


def test_a_picture_has_the_mean_of_views_whose_scores_are_averaged() -> None:
    one = sight([LEFT, RIGHT], scores((0.5, 0.25, 0.25), (0.5, 0.25, 0.25)))
    other = sight([WHOLE], scores((0.1, 0.1, 0.8)))
    found = mean_probabilities([(one, other), (other,)])
    np.testing.assert_allclose(found, [0.2, 0.1375, 0.6625], rtol=1e-6)
    uneven = sight([LEFT, RIGHT], np.asarray([[2.0, 0, 0], [0, 2, 0]]))
    np.testing.assert_allclose(mean_probabilities([(uneven,)]), softmax(np.asarray([1.0, 1, 0])))


def test_a_crop_has_the_probabilities_of_the_crop_that_overlaps_most() -> None:
    told = sight([LEFT, RIGHT], scores((0.5, 0.3, 0.2), (0.1, 0.1, 0.8)))
    windows = np.stack([RIGHT, mirrored(RIGHT), [0, 0, 0.6, 1], WHOLE])
    found = crop_probabilities(windows, [(told,)], np.asarray([2, 0]))
    wanted = [[0.8, 0.1], [0.8, 0.1], [0.2, 0.5], [0.5, 0.3]]  # of several the mean
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    other = sight([WHOLE], scores((0.4, 0.4, 0.2)))
    both = crop_probabilities(windows, [(told,), (other,)], np.asarray([2, 0]))
    np.testing.assert_allclose(both, np.add(wanted, [0.2, 0.4]) / 2, rtol=1e-6)


def test_without_classifiers_all_crops_count_the_same() -> None:
    found = crop_probabilities(np.stack([LEFT, RIGHT]), [], EACH)
    np.testing.assert_array_equal(found, np.ones((2, 3)))


def test_many_crops_are_compared_a_few_at_a_time() -> None:
    rng = np.random.default_rng(0)
    starts = rng.random((700, 2)) * 0.5
    windows = np.concatenate([starts, starts + 0.4], axis=1)
    told = Sight(windows, rng.standard_normal((700, 3)).astype(np.float32))
    found = crop_probabilities(windows, [(told,)], EACH)
    np.testing.assert_allclose(found, softmax(told.values))


# Boxes with classes


def seen(box_nets: list[tuple[Sight, ...]], *classifiers: tuple[Sight, ...]) -> PictureSights:
    return PictureSights(0, 2.0, tuple(box_nets), classifiers)


def test_the_best_box_is_that_of_the_crops_that_are_surest() -> None:
    """Two crops say that the object is on the left, a third on the right. The first class is as
    probable there as in both others, the second is not.
    """
    windows = [WHOLE, WHOLE * 0.999, WHOLE * 0.5]
    left, right = [0.25, 0.5, 0.5, 1], [1.5, 1.0, 1.0, 2.0]
    boxes = sight(windows, [left, left, right])
    told = sight(windows, scores((0.3, 0.6, 0.1), (0.3, 0.6, 0.1), (0.7, 0.1, 0.2)))
    found = Locator((SHARED,)).best(seen([(boxes,)], (told,)), 2)
    best = {each.class_index: each for each in found}
    assert best.keys() == {0, 1}
    np.testing.assert_allclose(best[0].box, RIGHT, atol=1e-6)
    assert best[0].score == pytest.approx(0.7)
    np.testing.assert_allclose(best[1].box, LEFT, atol=2e-3)
    assert best[1].score == pytest.approx(1.2)


def test_classes_come_in_the_order_of_their_probability() -> None:
    boxes = sight([WHOLE], np.asarray([[0.5, 0.5, 1, 1] * 3]))
    told = sight([WHOLE], scores((0.2, 0.5, 0.3)))
    found = Locator((EACH,)).best(seen([(boxes,)], (told,)))
    assert [each.class_index for each in found] == [1, 2, 0]
    np.testing.assert_allclose([each.probability for each in found], [0.5, 0.3, 0.2], rtol=1e-6)
    np.testing.assert_allclose([each.score for each in found], [0.5, 0.3, 0.2], rtol=1e-6)


def test_each_class_has_its_own_box_where_the_net_gives_them() -> None:
    values = np.asarray([[0.1, 0.1, 0.2, 0.2, 0.5, 0.5, 0.2, 0.2, 0.9, 0.9, 0.2, 0.2]])
    boxes, told = sight([WHOLE], values), sight([WHOLE], scores((0.2, 0.5, 0.3)))
    reverse = Locator((EACH[::-1],))
    for locator, rows in ((Locator((EACH,)), [1, 2, 0]), (reverse, [1, 0, 2])):
        found = locator.best(seen([(boxes,)], (told,)))
        middles = [float(each.box[[0, 2]].mean()) for each in found]
        np.testing.assert_allclose(middles, np.asarray([0.1, 0.5, 0.9])[rows], atol=1e-6)


def test_the_boxes_of_nets_are_united_before_they_are_merged() -> None:
    one = sight([WHOLE], np.asarray([[0.5, 0.5, 0.4, 0.4]]))
    two = sight([WHOLE], np.asarray([[0.5, 0.5, 0.44, 0.4]]))
    found = Locator((SHARED, SHARED)).of_class(seen([(one,), (two,)]), 2)
    assert (found.class_index, found.probability, found.score) == (2, 1, 2)
    np.testing.assert_allclose(found.box, [0.29, 0.3, 0.71, 0.7], atol=1e-6)


def test_boxes_are_merged_all_alike_and_rated_by_their_scores() -> None:
    boxes = sight([LEFT, RIGHT], [[1, 0.5, 1, 1], [0.1, 0.5, 1, 1]])
    told = sight([LEFT, RIGHT], scores((0.75, 0.2, 0.05), (0.25, 0.7, 0.05)))
    found = Locator((SHARED,)).of_class(seen([(boxes,)], (told,)), 0)
    np.testing.assert_allclose(found.box, [0.275, 0, 0.775, 1], atol=1e-6)
    assert found.score == pytest.approx(1)


def test_classes_that_share_their_boxes_have_them_merged_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def counted(boxes: np.ndarray, threshold: float) -> Merged:
        calls.append(len(boxes))
        return merged(boxes, threshold=threshold)

    monkeypatch.setattr(located, "merged", counted)
    boxes, told = sight([WHOLE], [[0.5, 0.5, 1, 1] * 3]), sight([WHOLE], scores((0.2, 0.5, 0.3)))
    picture = seen([(boxes,)], (told,))
    for rows, times in ((SHARED, 1), (EACH, 3)):
        calls.clear()
        assert len(Locator((rows,)).best(picture)) == 3
        assert calls == [1] * times


def test_a_picture_may_be_wide_or_high_all_the_same() -> None:
    """What matches depends on where boxes lie in pixels, not on shares of an odd shape."""
    rng = np.random.default_rng(1)
    centres = np.concatenate([rng.uniform(0.3, 0.7, (20, 2)), np.full((20, 2), 0.2)], axis=1)
    wide = np.concatenate(
        [centres[:, :1] / 2, centres[:, 1:2], centres[:, 2:3] / 2, centres[:, 3:]], 1
    )
    plain = PictureSights(0, 1.0, ((sight([WHOLE] * 20, centres),),), ())
    stretched = PictureSights(0, 2.0, ((sight([WHOLE] * 20, wide),),), ())
    locator = Locator((SHARED,))
    one, two = locator.of_class(plain, 0), locator.of_class(stretched, 0)
    np.testing.assert_allclose(two.box * [2, 1, 2, 1], one.box, atol=1e-6)


# How often they are right

TRUE = (0.25, 0.25, 0.75, 0.75)


def pair(class_index: int, *box: float) -> LocatedObject:
    return LocatedObject(class_index, 0.5, np.asarray(box), 1.0)


RIGHT_BOX = (0.25, 0.25, 0.75, 0.875)
"""Its IoU with the true one is 0.8."""


@pytest.mark.parametrize(
    ("pairs", "first", "five", "iou"),
    [
        ([pair(1, *TRUE)], 1, 1, 1.0),
        ([pair(1, *RIGHT_BOX)], 1, 1, 0.8),
        ([pair(0, *TRUE), pair(1, *RIGHT_BOX)], 0, 1, 0.8),
        ([pair(0, *TRUE)], 0, 0, 0.0),
        ([pair(1, 0.25, 0.25, 0.75, 0.5)], 0, 0, 0.5),  # an IoU of 0.5 is not above it
        ([*[pair(0, *TRUE)] * 5, pair(1, *TRUE)], 0, 0, 0.0),  # a sixth does not count
        ([], 0, 0, 0.0),
    ],
)
def test_a_pair_is_right_whose_class_and_box_are(
    pairs: list[LocatedObject], first: int, five: int, iou: float
) -> None:
    counts = LocalisationCounts()
    found = counts.add(pairs, 1, objects((0, (0, 0, 1, 1), False), (1, TRUE, False)))
    assert (counts.pictures, counts.first, counts.five) == (1, first, five)
    assert found == pytest.approx(iou)
    assert counts.iou == pytest.approx(iou)


def test_any_object_of_the_class_will_do() -> None:
    several = objects((1, (0.8, 0.8, 1, 1), False), (1, TRUE, False))
    assert overlap_of(np.asarray(TRUE), 1, several) == pytest.approx(1)
    assert overlap_of(np.asarray(TRUE), 0, several) == 0


def test_difficult_objects_count_only_alone() -> None:
    box = np.asarray(TRUE)
    mixed = objects((1, TRUE, True), (1, (0.8, 0.8, 1, 1), False))
    assert overlap_of(box, 1, mixed) == 0
    assert overlap_of(box, 1, objects((1, TRUE, True))) == pytest.approx(1)


def test_errors_are_shares_of_pictures() -> None:
    counts, truth = LocalisationCounts(), objects((1, TRUE, False))
    for pairs in ([pair(1, *TRUE)], [pair(0, *TRUE), pair(1, *RIGHT_BOX)], [pair(0, *TRUE)], []):
        counts.add(pairs, 1, truth)
    errors = counts.summed(ALONE).errors()
    assert (errors.top1, errors.top5) == (0.75, 0.5)
    assert errors.mean_iou == pytest.approx(0.45)

"""Boxes in crops and in pictures: one map leads there, and its inverse back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vggc.data.objects import Corners, areas, overlaps
from vggc.data.windows import (
    WHOLE,
    Windows,
    centres_of,
    clipped,
    corners_of,
    mirrored,
    shares_inside,
    to_crop,
    to_picture,
    window_of,
)

PLACES, SIDES = st.floats(-1, 2), st.floats(0.02, 2)


@st.composite
def boxes(draw: st.DrawFn) -> Corners:
    """A box whose corners are in order, perhaps beyond the picture."""
    left, top, width, height = draw(st.tuples(PLACES, PLACES, SIDES, SIDES))
    return np.asarray([left, top, left + width, top + height])


@st.composite
def windows(draw: st.DrawFn) -> Windows:
    """A window, perhaps that of a mirrored crop."""
    window = draw(boxes())
    return mirrored(window) if draw(st.booleans()) else window


def near(found: Corners, wanted: Corners) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)


@given(boxes())
def test_corners_and_centres_are_two_ways_of_saying_the_same(box: Corners) -> None:
    near(corners_of(centres_of(box)), box)


@given(boxes(), windows())
def test_there_and_back_is_where_it_was(box: Corners, window: Windows) -> None:
    near(to_crop(to_picture(box, window), window), box)
    near(to_picture(to_crop(box, window), window), box)


@given(boxes(), windows())
def test_corners_come_in_order(box: Corners, window: Windows) -> None:
    for found in (to_picture(box, window), to_crop(box, window)):
        assert (found[2:] > found[:2]).all()


@given(boxes(), boxes(), windows())
def test_iou_is_the_same_in_crop_and_picture(one: Corners, two: Corners, window: Windows) -> None:
    found = overlaps(to_picture(one, window), to_picture(two, window))
    near(found, overlaps(one, two))


@given(boxes(), windows(), windows())
def test_a_crop_of_a_crop_is_a_crop(box: Corners, outer: Windows, inner: Windows) -> None:
    """Where the inner crop begins and ends in the outer one it does in the picture, by the same
    map.
    """
    start, extent = np.tile(outer[:2], 2), np.tile(outer[2:] - outer[:2], 2)
    near(to_picture(to_picture(box, inner), outer), to_picture(box, start + inner * extent))


@given(boxes(), windows())
def test_flipping_twice_is_not_flipping(box: Corners, window: Windows) -> None:
    near(mirrored(mirrored(window)), window)
    flip = mirrored(WHOLE)
    near(to_picture(to_picture(box, flip), flip), box)


@given(boxes(), windows())
def test_a_mirrored_crop_shows_the_mirror_images_of_boxes(box: Corners, window: Windows) -> None:
    image = to_crop(to_crop(box, window), mirrored(WHOLE))
    near(to_crop(box, mirrored(window)), image)
    left, top, right, bottom = to_crop(box, window)
    near(image, np.asarray([1 - right, top, 1 - left, bottom]))


@given(boxes(), windows())
def test_what_is_left_of_a_box_is_its_share_inside(box: Corners, window: Windows) -> None:
    inside, share = clipped(box, window), shares_inside(box, window)
    near(areas(inside), share * areas(box))
    near(clipped(inside, window), inside)
    near(shares_inside(to_crop(box, window)), share)


def test_a_box_by_hand() -> None:
    """A crop of the right half of a picture, and its mirror image."""
    right = window_of([200, 0, 400, 300], (400, 300))
    np.testing.assert_array_equal(right, [0.5, 0, 1, 1])
    crop = corners_of(np.asarray([0.25, 0.5, 0.5, 1.0]))
    near(crop, np.asarray([0, 0, 0.5, 1]))
    near(to_picture(crop, right), np.asarray([0.5, 0, 0.75, 1]))
    near(to_picture(crop, mirrored(right)), np.asarray([0.75, 0, 1, 1]))


def test_boxes_and_windows_are_broadcast() -> None:
    many = np.random.default_rng(0).random((3, 5, 4))
    each = np.asarray([[0.1, 0.2, 0.5, 0.9], WHOLE, mirrored(WHOLE)])[:, None]
    found = to_picture(many, each)
    assert found.shape == many.shape
    near(found[2, 4], to_picture(many[2, 4], each[2, 0]))
    assert shares_inside(many[0, 0], each).shape == (3, 1)


@pytest.mark.parametrize("size", [(-0.2, 0.4), (0.2, -0.4)])
def test_a_net_may_give_a_negative_side(size: tuple[float, float]) -> None:
    found = to_picture(corners_of(np.asarray([0.5, 0.5, *size])), WHOLE)
    near(found, np.asarray([0.4, 0.3, 0.6, 0.7]))


def test_what_has_no_area_or_lies_outside_has_no_share() -> None:
    assert shares_inside(np.asarray([0.2, 0.2, 0.2, 0.8])) == 0
    outside = np.asarray([1.5, 0.2, 1.8, 0.4])
    assert shares_inside(outside) == 0
    near(clipped(outside), np.asarray([1, 0.2, 1, 0.4]))
    assert shares_inside(np.asarray([0.5, 0.5, 1.5, 1.5])) == 0.25

"""Boxes around the objects in pictures."""

from __future__ import annotations

import numpy as np
import pytest

from vggc.data.objects import Objects, PictureObjects, areas, largest, overlaps
from vggc.data.parts import Fingerprint, Fingerprints, Part, names_of, objects_of
from vggc.data.stores import Arrays


def objects(*pictures: list[tuple[float, float, float, float]]) -> Objects:
    """Objects with these boxes, each picture's of the class that its place is."""
    return Objects.of(
        PictureObjects(
            np.asarray(boxes, np.float64).reshape(-1, 4),
            np.full(len(boxes), place, np.int64),
            np.zeros(len(boxes), np.bool_),
        )
        for place, boxes in enumerate(pictures)
    )


ONE, TWO = (0.0, 0.0, 0.5, 0.5), (0.25, 0.25, 0.75, 1.0)


def test_objects_are_told_by_picture() -> None:
    found = objects([ONE], [], [TWO, ONE])
    assert len(found) == 3
    assert [len(found[place].boxes) for place in range(3)] == [1, 0, 2]
    np.testing.assert_array_equal(found[2].boxes, [TWO, ONE])


def test_the_objects_of_some_pictures_are_taken_in_their_order() -> None:
    found = objects([ONE], [], [TWO, ONE]).take(np.asarray([2, 1, 0, 2]))
    assert found.classes.tolist() == [2, 2, 0, 2, 2]
    assert found.starts.tolist() == [0, 2, 2, 3, 5]
    assert len(found.take(np.asarray([], np.int64))) == 0


def test_classes_get_other_numbers_in_labels_and_objects_alike() -> None:
    store = Arrays(("a", "b"), np.zeros((2, 1, 1, 1), np.uint8))
    part = Part(store, np.arange(2), np.asarray([0, 1]), objects([ONE], [TWO]))
    other = part.renumbered(np.asarray([5, 3]))
    assert other.labels.tolist() == [5, 3]
    assert other.objects is not None
    assert other.objects.classes.tolist() == [5, 3]


def test_a_part_is_another_one_where_a_box_has_moved() -> None:
    store = Arrays(("a", "b"), np.zeros((2, 1, 1, 1), np.uint8))
    bare = Part(store, np.arange(2), np.asarray([0, 1]))
    parts = [
        Part(store, bare.numbers, bare.labels, each)
        for each in (None, objects([ONE], [TWO]), objects([ONE], [ONE]), objects([ONE, TWO], []))
    ]
    assert len({objects_of("xy", part) for part in parts}) == 4
    assert objects_of("xy", bare) == ""
    assert len({names_of("xy", part) for part in parts}) == 1


def test_it_is_told_that_only_a_box_has_moved() -> None:
    was, now = (Fingerprint("names", "content", objects) for objects in ("here", "there"))
    assert Fingerprints(was, was).change(Fingerprints(was, was)) is None
    assert Fingerprints(was, was).change(Fingerprints(was, now)) == (
        "objects in held-out images have other boxes or classes, or are more or fewer"
    )
    assert Fingerprints(was, was).whole != Fingerprints(was, now).whole


def test_pictures_are_the_same_to_a_run_that_looks_for_no_objects() -> None:
    bare, here, there = (Fingerprint("names", "content", each) for each in ("", "here", "there"))
    assert bare.shows(here)
    assert here.shows(bare)
    assert not here.shows(there)
    assert not bare.shows(Fingerprint("others", "content", ""))


def test_overlaps_are_intersections_over_unions() -> None:
    first = np.asarray([ONE, ONE, ONE, (0.1, 0.1, 0.1, 0.5)])
    second = np.asarray([ONE, (0.5, 0.0, 1.0, 0.5), (0.25, 0.0, 0.75, 0.5), (0.1, 0.1, 0.1, 0.5)])
    assert overlaps(first, second) == pytest.approx([1, 0, 1 / 3, 0])


def test_a_box_inside_out_has_no_area() -> None:
    assert areas(np.asarray([(0.5, 0.0, 0.0, 0.5), ONE])).tolist() == [0, 0.25]


def test_the_first_of_the_largest_objects_is_found() -> None:
    (picture,) = [objects([ONE, TWO, TWO])[0]]
    assert largest(picture) == 1
    assert largest(picture, [2, 0]) == 2

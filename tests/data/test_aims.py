"""Which of several objects in a picture is trained and tested on."""

from __future__ import annotations

import numpy as np

from vggc.data.aims import chosen, of_its_class
from vggc.data.objects import Objects, PictureObjects
from vggc.data.parts import Part, Skipped
from vggc.data.stores import Arrays

SMALL, LARGE, OTHER = (0.0, 0.0, 0.1, 0.1), (0.0, 0.0, 0.9, 0.9), (0.5, 0.5, 1.0, 1.0)


def part(*pictures: list[tuple[tuple[float, ...], int, bool]]) -> Part:
    """Pictures by their objects: box, class, and whether it is difficult; labelled by the largest
    that is not.
    """
    objects = Objects.of(
        PictureObjects(
            np.asarray([box for box, _, _ in each], np.float64).reshape(-1, 4),
            np.asarray([label for _, label, _ in each], np.int64),
            np.asarray([hard for _, _, hard in each], np.bool_),
        )
        for each in pictures
    )
    labels = [
        max((box[2] - box[0], c) for box, c, hard in each if not hard)[1] for each in pictures
    ]
    names = tuple("abcdefgh"[: len(pictures)])
    store = Arrays(names, np.zeros((len(pictures), 1, 1), np.uint8))
    return Part(store, np.arange(len(pictures)), np.asarray(labels), objects)


PART = part(
    [(SMALL, 1, False), (LARGE, 0, False), (LARGE, 2, True)],
    [(OTHER, 2, False)],
    [(OTHER, 1, False), (OTHER, 1, False), (SMALL, 0, False)],
)


def told(found: Part) -> list[tuple[str, int, list[tuple[float, ...]]]]:
    assert found.objects is not None
    return [
        (found.name(i), int(found.labels[i]), [*map(tuple, found.objects[i].boxes.tolist())])
        for i in range(len(found))
    ]


def test_the_largest_object_that_is_not_difficult_is_chosen() -> None:
    found, skipped = chosen(PART, "largest")
    assert told(found) == [("a", 0, [LARGE]), ("b", 2, [OTHER]), ("c", 1, [OTHER])]
    assert skipped == ()


def test_each_object_may_be_a_picture_of_its_own() -> None:
    found, skipped = chosen(PART, "each")
    assert told(found) == [
        ("a", 1, [SMALL]),
        ("a", 0, [LARGE]),
        ("b", 2, [OTHER]),
        ("c", 1, [OTHER]),
        ("c", 1, [OTHER]),
        ("c", 0, [SMALL]),
    ]
    assert skipped == ()


def test_pictures_of_several_objects_may_be_left_out() -> None:
    found, skipped = chosen(PART, "only")
    assert told(found) == [("b", 2, [OTHER])]
    assert skipped == (
        Skipped("a", "2 objects are in it, and one alone is wanted"),
        Skipped("c", "3 objects are in it, and one alone is wanted"),
    )


def test_objects_of_the_class_of_a_picture_come_largest_first() -> None:
    found = of_its_class(PART)
    assert told(found) == [("a", 0, [LARGE]), ("b", 2, [OTHER]), ("c", 1, [OTHER, OTHER])]
    order = of_its_class(part([(SMALL, 0, False), (OTHER, 0, False), (LARGE, 0, False)]))
    assert told(order) == [("a", 0, [LARGE, OTHER, SMALL])]


def test_a_picture_without_an_object_to_choose_is_named() -> None:
    empty = PART.take(np.asarray([1]))
    assert empty.objects is not None
    hard = Part(empty.store, empty.numbers, empty.labels, empty.objects.kept(np.zeros(1, np.bool_)))
    for how in ("largest", "each", "only"):
        found, skipped = chosen(hard, how)
        assert len(found) == 0
        assert skipped == (Skipped("b", "no object in it is other than difficult"),)

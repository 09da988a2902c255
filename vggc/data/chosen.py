"""Which objects of pictures with several a training learns, and a test looks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np

from vggc.data.objects import Objects, PictureObjects, areas
from vggc.data.parts import Part, Skipped
from vggc.data.stores import Numbers

Choice: TypeAlias = Literal["largest", "each", "only"]


def chosen(part: Part, how: Choice) -> tuple[Part, tuple[Skipped, ...]]:
    """The part as it is trained on, each picture with one object that is not difficult, whose class
    is its label: its `largest`; or a picture once for `each` object; or `only` pictures that hold
    one object. Pictures that fall out are skipped, with the reason.
    """
    assert part.objects
    rows: list[tuple[int, int]] = []
    skipped: list[Skipped] = []
    for place in range(len(part)):
        here = usable(part.objects[place])
        if how == "each":
            rows += [(place, int(row)) for row in here]
        elif how == "only" and len(here) > 1:
            skipped.append(Skipped(part.name(place), f"it holds {len(here)} objects"))
        else:
            rows += [(place, int(row)) for row in here[:1]]
    places = np.asarray([place for place, _ in rows], np.int64)
    found = [one_of(part.objects[place], row) for place, row in rows]
    labels = np.asarray([each.classes[0] for each in found], np.int64)
    return Part(part.store, part.numbers[places], labels, Objects.of(found)), tuple(skipped)


def of_its_class(part: Part) -> Part:
    """The part with those objects of each picture that are of its label's class and not difficult,
    the largest first: any of them is right where one is looked for.
    """
    assert part.objects
    found = []
    for place, label in enumerate(part.labels.tolist()):
        objects = part.objects[place]
        rows = [row for row in usable(objects) if objects.classes[row] == label]
        found.append(taken(objects, np.asarray(rows, np.int64)))
    return replace(part, objects=Objects.of(found))


def usable(objects: PictureObjects) -> Numbers:
    """The places of the objects that are not difficult, the largest first."""
    rows = np.flatnonzero(~objects.difficult)
    return rows[np.argsort(-areas(objects.boxes[rows]), kind="stable")]


def one_of(objects: PictureObjects, row: int) -> PictureObjects:
    """One of the objects alone."""
    return taken(objects, np.asarray([row]))


def taken(objects: PictureObjects, rows: Numbers) -> PictureObjects:
    """The objects at these places, in their order."""
    return PictureObjects(objects.boxes[rows], objects.classes[rows], objects.difficult[rows])

"""Which objects of pictures a net is trained and tested on, where several are in one: never those
that are difficult.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np

from vggc.data.objects import Objects
from vggc.data.parts import Part, Skipped
from vggc.data.stores import Numbers

How: TypeAlias = Literal["largest", "each", "only"]
"""What is taken of several objects in a picture: the largest, each by itself, or none."""

NONE_EASY = "no object in it is other than difficult"


def chosen(part: Part, how: How) -> tuple[Part, tuple[Skipped, ...]]:
    """A part with boxes, with exactly one object a picture, whose class is the picture's; and the
    pictures that have none to give.

    `largest` takes the largest object, the first of several; `each` a picture once for each of its
    objects, in their order; `only` pictures that show one object alone.
    """
    objects = easy(part)
    counts, first = objects.counts, objects.starts[:-1]
    match how:
        case "largest":
            objects = objects.by_size()
            rows = first[counts > 0]
        case "each":
            rows = np.arange(len(objects.boxes))
        case "only":
            rows = first[counts == 1]
    skipped = tuple(
        Skipped(part.name(index), why_unused(int(counts[index])))
        for index in np.flatnonzero(counts != 1 if how == "only" else counts == 0).tolist()
    )
    return one_each(part, objects, rows), skipped


def of_its_class(part: Part) -> Part:
    """The part, each picture with all objects of its own class, the largest first."""
    objects = easy(part)
    own = objects.classes == part.labels[objects.owners]
    return replace(part, objects=objects.kept(own).by_size())


def easy(part: Part) -> Objects:
    """The objects of a part with boxes that are not difficult."""
    assert part.objects is not None, "the part has boxes"
    return part.objects.kept(~part.objects.difficult)


def one_each(part: Part, objects: Objects, rows: Numbers) -> Part:
    """A picture for each of these objects of a part, with no other in it."""
    owners, classes = objects.owners[rows], objects.classes[rows]
    starts = np.arange(len(rows) + 1)
    single = Objects(starts, objects.boxes[rows], classes, objects.difficult[rows])
    return Part(part.store, part.numbers[owners], classes, single)


def why_unused(count: int) -> str:
    """Why a picture with so many objects is not used."""
    return f"{count:,} objects are in it, and one alone is wanted" if count else NONE_EASY

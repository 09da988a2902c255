"""The objects in pictures: boxes around them, with a class each.

A box is four shares of the width and the height of a picture that stands upright: left, top, right
and bottom, from 0 at the left or the top to 1. So it holds at whatever size the picture is looked
at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from vggc.data.stores import Numbers

Corners: TypeAlias = npt.NDArray[np.float64]
"""Boxes (…, 4): left, top, right and bottom. As shares of a picture, unless something else is
said.
"""


@dataclass(frozen=True)
class PictureObjects:
    """The objects of one picture: `boxes` (M, 4), and the number of each one's class (M,).

    `difficult` (M,) are those that annotators found hard to make out: Pascal VOC neither trains nor
    tests on them.
    """

    boxes: Corners
    classes: Numbers
    difficult: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Objects:
    """The objects of N pictures, one after the other: those of picture i are the rows from
    `starts[i]` to `starts[i + 1]` of `boxes` (M, 4), `classes` (M,) and `difficult` (M,).
    """

    starts: Numbers
    boxes: Corners
    classes: Numbers
    difficult: npt.NDArray[np.bool_] = field(repr=False)

    @classmethod
    def of(cls, pictures: Iterable[PictureObjects]) -> Objects:
        """The objects of these pictures."""
        every = [*pictures]
        counts = [len(each.boxes) for each in every]
        return cls(
            np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
            np.concatenate([np.empty((0, 4)), *(each.boxes for each in every)]),
            np.concatenate([np.empty(0, np.int64), *(each.classes for each in every)]),
            np.concatenate([np.empty(0, np.bool_), *(each.difficult for each in every)]),
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> PictureObjects:
        """The objects of the picture at this place."""
        rows = slice(self.starts[index], self.starts[index + 1])
        return PictureObjects(self.boxes[rows], self.classes[rows], self.difficult[rows])

    def take(self, indices: Numbers) -> Objects:
        """The objects of the pictures at these places, in their order."""
        first, counts = self.starts[indices], np.diff(self.starts)[indices]
        ends = np.cumsum(counts)
        rows = np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - ends + counts, counts)
        starts = np.concatenate([[0], ends])
        return Objects(starts, self.boxes[rows], self.classes[rows], self.difficult[rows])

    def renumbered(self, numbers: Numbers) -> Objects:
        """The objects with the class `numbers[c]` in the place of each class c; without those of a
        class that has no number any more, but -1.
        """
        return replace(self, classes=numbers[self.classes]).kept(numbers[self.classes] >= 0)

    @property
    def counts(self) -> Numbers:
        """How many objects each picture has (N,)."""
        counts: Numbers = np.diff(self.starts)
        return counts

    @property
    def owners(self) -> Numbers:
        """The place of each object's picture (M,)."""
        return np.repeat(np.arange(len(self)), self.counts)

    def kept(self, which: npt.NDArray[np.bool_]) -> Objects:
        """The pictures with those of their objects only that are told by `which` (M,)."""
        counts = np.bincount(self.owners[which], minlength=len(self))
        starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        return Objects(starts, self.boxes[which], self.classes[which], self.difficult[which])

    def by_size(self) -> Objects:
        """The pictures with their largest objects first; of two alike the first."""
        order = np.lexsort((-areas(self.boxes), self.owners))
        boxes, classes = self.boxes[order], self.classes[order]
        return Objects(self.starts, boxes, classes, self.difficult[order])


def areas(boxes: Corners) -> npt.NDArray[np.float64]:
    """The areas of boxes (…, 4), 0 of those whose edges are not in order: (…)."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    area: npt.NDArray[np.float64] = sides.prod(axis=-1)
    return area


def overlaps(first: Corners, second: Corners) -> npt.NDArray[np.float64]:
    """Intersection over union of boxes (…, 4) with others (…, 4), 0 where both have no area.

    It is the same in shares of a picture and in pixels, as both axes cancel.
    Source: Everingham et al. (2010), "The Pascal Visual Object Classes Challenge", formula 3.
    """
    corners = (
        np.maximum(first[..., :2], second[..., :2]),
        np.minimum(first[..., 2:], second[..., 2:]),
    )
    shared = areas(np.concatenate(corners, axis=-1))
    union = areas(first) + areas(second) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def largest(objects: PictureObjects, among: Sequence[int] | Numbers | None = None) -> int:
    """The place of the object with the largest area, the first of several; `among` those."""
    places = np.arange(len(objects.boxes)) if among is None else np.asarray(among)
    return int(places[areas(objects.boxes[places]).argmax()])

"""From what nets say of many crops of a picture to boxes with classes, and how often these are
right.

Source: Simonyan & Zisserman (2015), appendix A: the boxes of all nets are united, those that lie
close together merged, and then rated by the class scores of a classification net.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from vggc.data.objects import Corners, PictureObjects, overlaps
from vggc.data.stores import Numbers
from vggc.data.windows import Windows, clipped, corners_of, to_picture
from vggc.evaluation.diagnostics import TooManyBoxes
from vggc.evaluation.merging import THRESHOLD, Merged, Values, merged
from vggc.support.diagnostics import UserError

if TYPE_CHECKING:
    from vggc.training.parallel import World

PAIRS = 5
"""How many pairs of a class and a box may be given for a picture."""

OVERLAP = 0.5
"""The IoU with an object above which a box is right.
Source: Russakovsky et al. (2015), "ImageNet Large Scale Visual Recognition Challenge", section 4.2.
"""

MOST_BOXES = 20_000
"""How many boxes of a picture are merged, which takes time with the square of their number: a
minute or two.
"""

ROWS = 256
"""Crops that are compared with all others at once."""

SAME = 1e-9
"""How far the overlaps of two crops may differ and pass for equal."""

Outputs: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sight:
    """What a head of a net says of the crops of a picture that one view shows: their `windows`
    (P, 4), and of each the head's `values` (P, C).
    """

    windows: Windows
    values: Outputs

    def boxes(self, place: int) -> Corners:
        """The box at a place among those that a head of boxes gives of each crop: its corners in
        shares of the picture, cut off where that ends, (P, 4).
        """
        centres = self.values[:, 4 * place : 4 * place + 4].astype(np.float64)
        return clipped(to_picture(corners_of(centres), self.windows))


Sights: TypeAlias = tuple[Sight, ...]
"""What a head says in all its views of a picture."""


@dataclass(frozen=True)
class PictureSights:
    """What nets say of the picture at a place of its part: each of the `box_nets` of where an
    object is, and each of the `classifiers`, in scores of classes, of what it is.

    `aspect` is the picture's width over its height.
    """

    index: int
    aspect: float
    box_nets: tuple[Sights, ...]
    classifiers: tuple[Sights, ...]


@dataclass(frozen=True)
class LocatedObject:
    """A class and where in a picture it is: its `probability` in the picture, its best `box` (4,)
    in shares of the picture, and the box's `score`, the sum of the class's probabilities at the
    crops that it was made of. Without classifiers probabilities are 1, and the score counts crops.
    """

    class_index: int
    probability: float
    box: Corners
    score: float


@dataclass(frozen=True)
class Locator:
    """How boxes with classes are made of what nets say.

    `rows` has, for each of the box nets, the place of the box of each class (classes,) among those
    that it gives; all 0 where it gives one for all. Boxes whose match score is `threshold` or less
    are merged, all alike; the class's probabilities where they come from rate what comes of it.
    """

    rows: tuple[Numbers, ...]
    threshold: float = THRESHOLD

    def best(self, seen: PictureSights, count: int = PAIRS) -> list[LocatedObject]:
        """The `count` most probable classes, each with its best box, the most probable first."""
        probabilities = mean_probabilities(seen.classifiers)
        order = np.argsort(-probabilities, kind="stable")[:count]
        return self.located(seen, order, probabilities[order])

    def of_class(self, seen: PictureSights, class_index: int) -> LocatedObject:
        """The best box of a class that is known to be in the picture."""
        (found,) = self.located(seen, np.asarray([class_index]), np.ones(1))
        return found

    def located(
        self, seen: PictureSights, classes: Numbers, probabilities: Values
    ) -> list[LocatedObject]:
        """The best boxes of these classes.

        Raises:
            UserError: the nets give too many boxes of the picture.
        """
        places = np.stack([rows[classes] for rows in self.rows], axis=1)
        windows = np.concatenate([sight.windows for sights in seen.box_nets for sight in sights])
        if len(windows) > MOST_BOXES:
            raise UserError(TooManyBoxes(len(windows), MOST_BOXES))
        scores = crop_probabilities(windows, seen.classifiers, classes)
        groups: dict[tuple[int, ...], Merged] = {}
        found = []
        for each, row in enumerate(map(tuple, places.tolist())):
            if row not in groups:  # once for all classes that share their boxes
                groups[row] = self.merged(seen, row)
            sums = groups[row].sums(scores[:, each])
            best = int(sums.argmax())
            box, score = groups[row].boxes[best], float(sums[best])
            found.append(LocatedObject(int(classes[each]), float(probabilities[each]), box, score))
        return found

    def merged(self, seen: PictureSights, places: Sequence[int]) -> Merged:
        """The boxes of all crops at a place among those of each net, merged, in shares of the
        picture.
        """
        nets = zip(places, seen.box_nets, strict=True)
        boxes = np.concatenate([sight.boxes(place) for place, sights in nets for sight in sights])
        unit = np.asarray([seen.aspect, 1, seen.aspect, 1])
        groups = merged(boxes * unit, threshold=self.threshold)
        return Merged(groups.boxes / unit, groups.members)


def softmax(scores: Outputs) -> Values:
    """Scores (…, classes) as probabilities that add up to 1."""
    powers = np.exp(scores.astype(np.float64) - scores.max(axis=-1, keepdims=True))
    shares: Values = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def mean_probabilities(classifiers: Sequence[Sights]) -> Values:
    """The probabilities of a picture's classes (classes,): the mean over nets and views of the
    soft-max of the scores' mean over crops, as classification tests them.
    """
    nets = [[softmax(sight.values.mean(0)) for sight in sights] for sights in classifiers]
    mean: Values = np.mean([np.mean(views, axis=0) for views in nets], axis=0)
    return mean


def crop_probabilities(windows: Windows, classifiers: Sequence[Sights], classes: Numbers) -> Values:
    """The probabilities of these classes at the windows (P, 4) of crops that box nets see: those
    that each classifier gives the crop that overlaps most, the mean of several; and the mean over
    classifiers. (P, classes); 1 without any.

    A classifier of the same input, stride and scales sees the very same crops.
    """
    if not classifiers:
        return np.ones((len(windows), len(classes)))
    each = [nearest(windows, sights, classes) for sights in classifiers]
    mean: Values = np.mean(each, axis=0)
    return mean


def nearest(windows: Windows, sights: Sights, classes: Numbers) -> Values:
    """The probabilities of these classes (P, classes) that one classifier gives the crops that
    overlap windows (P, 4) most.
    """
    there = upright(np.concatenate([sight.windows for sight in sights]))
    given = np.concatenate([softmax(sight.values)[:, classes] for sight in sights])
    found = np.empty((len(windows), len(classes)))
    for start in range(0, len(windows), ROWS):
        shared = overlaps(upright(windows[start : start + ROWS])[:, None], there[None])
        near = shared >= shared.max(1, keepdims=True) - SAME
        found[start : start + ROWS] = near @ given / near.sum(1, keepdims=True)
    return found


def upright(windows: Windows) -> Corners:
    """What windows (…, 4) show, as boxes: those of mirrored crops, too, from left to right."""
    return to_picture(np.asarray([0.0, 0.0, 1.0, 1.0]), windows)


# How often they are right


@dataclass(frozen=True)
class LocalisationErrors:
    """Shares of pictures that nets were wrong about: by the most probable class and its box, and by
    the five; and `mean_iou`, the mean over pictures of the IoU of the box that was given for their
    class, 0 where it was not among the five.
    """

    top1: float
    top5: float
    mean_iou: float


def overlap_of(box: Corners, class_index: int, objects: PictureObjects) -> float:
    """The greatest IoU of a box (4,) with an object of a class; 0 where there are none.

    Objects that are difficult count only where there are no others of the class.
    """
    same = objects.classes == class_index
    plain = same & ~objects.difficult
    boxes = objects.boxes[plain if plain.any() else same]
    return float(overlaps(box, boxes).max(initial=0))


@dataclass
class LocalisationCounts:
    """How many pictures there were, how often the `first` pair of class and box and one of the
    first `five` was right, and the sum of IoUs.

    A pair is right that names the picture's class and whose box has an IoU above OVERLAP with an
    object of that class.
    """

    pictures: int = 0
    first: int = 0
    five: int = 0
    iou: float = 0.0

    def add(self, found: Sequence[LocatedObject], label: int, objects: PictureObjects) -> float:
        """Counts a picture of a class by its pairs, the best first. The IoU of the pair of that
        class, 0 where there is none.
        """
        shared = [
            overlap_of(each.box, label, objects) if each.class_index == label else 0.0
            for each in found[:PAIRS]
        ]
        best = max(shared, default=0.0)
        self.pictures += 1
        self.first += shared[:1] > [OVERLAP]
        self.five += best > OVERLAP
        self.iou += best
        return best

    def summed(self, world: World) -> LocalisationCounts:
        """The counts of all processes together."""
        pictures, first, five, iou = world.sums([self.pictures, self.first, self.five, self.iou])
        return LocalisationCounts(int(pictures), int(first), int(five), iou)

    def errors(self) -> LocalisationErrors:
        """The shares of pictures that were wrong, of one at least."""
        return LocalisationErrors(
            (self.pictures - self.first) / self.pictures,
            (self.pictures - self.five) / self.pictures,
            self.iou / self.pictures,
        )

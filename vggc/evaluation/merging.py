"""Boxes that lie close together as one box: what a net says of an object at many places.

Again and again the two boxes that match best become one, as long as they match well enough.
Source: Sermanet et al. (2014), "OverFeat", section 4.3. They call a match "the sum of the distance
between centers of the two bounding boxes and the intersection area", without units or threshold;
`match_scores` and `THRESHOLD` say what is meant here.

Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from vggc.data.objects import Corners
from vggc.data.stores import Numbers

Values: TypeAlias = npt.NDArray[np.float64]

THRESHOLD = 0.3
"""The greatest match score of two boxes that are made one: about that of two equal squares with an
IoU of 0.79. On small nets of boxes 0.2 to 0.4 were about equal, and more merged what was apart.
"""

ROWS = 64
"""Boxes that are compared with all others at once: few enough to stay in a processor's cache."""

LEAST = 1e-200
"""What areas and diagonals are at least, so that something may be divided by them."""


@dataclass(frozen=True)
class Merged:
    """Boxes made one by one group: `boxes` (groups, 4), and the number of the group that each of
    the boxes before has gone into, `members` (M,).
    """

    boxes: Corners
    members: Numbers

    def sums(self, values: Values) -> Values:
        """The sums over each group's members of values (M, …): (groups, …)."""
        found = np.zeros((len(self.boxes), *values.shape[1:]))
        np.add.at(found, self.members, values)
        return found


def match_scores(first: Corners, second: Corners) -> Values:
    """How badly boxes (…, 4) match others (…, 4): 0 where they are the same, and more without end.

    That is the distance of their centres over the mean of their diagonals, and 1 - IoU. The boxes'
    corners are in a unit that is the same along both axes, whichever it is: of shares of a picture
    that is no square the scores would depend on its shape. Boxes without area have an IoU of 0.
    """
    return _scores(_sizes(first), _sizes(second))


def merged(boxes: Corners, threshold: float = THRESHOLD) -> Merged:
    """Boxes (M, 4) in the same unit along both axes, those that match made one.

    As long as the least match score of two boxes is not above the `threshold`, these two become
    their mean, in which each counts as many as it has members. So a merged box is the mean of all
    its members, where OverFeat averages the two; and what comes of boxes does not depend on their
    order. Time grows with the square
    of M, whatever they are: 2,000 take about a second.
    """
    order = np.lexsort(boxes.T[::-1])
    groups = _Groups(boxes[order].astype(np.float64))
    groups.merge(threshold)
    left, numbers = np.unique(groups.members, return_inverse=True)
    members = np.empty(len(boxes), np.int64)
    members[order] = numbers.ravel()
    place = np.argsort(groups.firsts[: groups.count])
    assert (groups.firsts[place] == left).all()
    return Merged(groups.sizes[:4, place].T.copy(), members)


def _sizes(boxes: Corners) -> Values:
    """What a match score takes of boxes (…, 4), (8, …): left, top, right, bottom, the centre's x
    and y, diagonal and area.
    """
    left, top, right, bottom = np.moveaxis(boxes, -1, 0)
    width, height = right - left, bottom - top
    centre = (left + right) / 2, (top + bottom) / 2
    area = np.maximum(width, 0) * np.maximum(height, 0)
    return np.stack([left, top, right, bottom, *centre, np.hypot(width, height), area])


def _scores(one: Values, two: Values) -> Values:
    """The match scores of boxes whose sizes these are, (8, …) and (8, …)."""
    far = np.sqrt((one[4] - two[4]) ** 2 + (one[5] - two[5]) ** 2)
    width = np.minimum(one[2], two[2]) - np.maximum(one[0], two[0])
    height = np.minimum(one[3], two[3]) - np.maximum(one[1], two[1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    union = np.maximum(one[7] + two[7] - shared, LEAST)
    across = np.maximum((one[6] + two[6]) / 2, LEAST)
    score: Values = far / across + 1 - shared / union
    return score


class _Groups:
    """The groups of boxes so far, of which there are `count`: the first that many columns and
    places of what is kept of them.

    `sizes` (8, M) are those of each group's mean, `weights` (M,) the numbers of its members,
    `firsts` (M,) the places of the boxes that the groups began with, and `members` (M,) the `first`
    of each box's group.
    `least` (M,) is the least match score of each group, and `partner` (M,) whom it is with. A
    partner may have become another group since: then `least` is no more than a lower bound, and
    `stale` (M,) says so. It is looked up anew only when it is the least of all.
    Source: Müllner (2011), "Modern hierarchical, agglomerative clustering algorithms", section 3.1.
    """

    def __init__(self, boxes: Corners) -> None:
        self.count = count = len(boxes)
        self.sizes, self.weights = _sizes(boxes), np.ones(count)
        self.firsts: Numbers = np.arange(count)
        self.members: Numbers = np.arange(count)
        self.partner: Numbers = np.zeros(count, np.int64)
        self.least: Values = np.full(count, np.inf)
        self.stale = np.zeros(count, np.bool_)
        if count > 1:
            for start in range(0, count, ROWS):
                self.find(np.arange(start, min(start + ROWS, count)))

    def merge(self, threshold: float) -> None:
        """Makes groups one until none match any more."""
        while self.count > 1:
            one = int(self.least[: self.count].argmin())
            if not self.least[one] <= threshold:
                return
            if self.stale[one]:
                self.find(np.asarray([one]))
                continue
            other = int(self.partner[one])
            self.unite(min(one, other), max(one, other))

    def unite(self, kept: int, gone: int) -> None:
        """Makes two groups one, at the place of the first. The last group takes the other's."""
        parts = self.weights[[kept, gone]]
        mean = self.sizes[:4, [kept, gone]] @ parts / parts.sum()
        self.sizes[:, kept] = _sizes(mean)
        self.weights[kept] = parts.sum()
        self.members[self.members == self.firsts[gone]] = self.firsts[kept]
        partner = self.partner[: self.count]
        self.stale[: self.count] |= (partner == kept) | (partner == gone)
        self.count = last = self.count - 1
        for each in (self.sizes, self.weights, self.firsts, self.partner, self.least, self.stale):
            each[..., gone] = each[..., last]
        partner, least, stale = self.partner[:last], self.least[:last], self.stale[:last]
        partner[partner == last] = gone
        found = _scores(self.sizes[:, kept, None], self.sizes[:, :last])
        found[kept] = np.inf
        nearest = found <= least
        least[nearest], partner[nearest], stale[nearest] = found[nearest], kept, False
        if last > 1:
            self.find(np.asarray([kept]))

    def find(self, groups: Numbers) -> None:
        """Finds the partners of these groups."""
        found = _scores(self.sizes[:, groups, None], self.sizes[:, None, : self.count])
        rows = np.arange(len(groups))
        found[rows, groups] = np.inf
        best = found.argmin(1)
        self.partner[groups], self.least[groups] = best, found[rows, best]
        self.stale[groups] = False

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

from vggc.data.objects import Corners, overlaps
from vggc.data.stores import Numbers

Values: TypeAlias = npt.NDArray[np.float64]

THRESHOLD = 0.75
"""The greatest match score of two boxes that are made one: about that of two equal boxes beside
each other that share half of their union.
"""

ROWS = 64
"""Boxes that are compared with all others at once: few enough to stay in a processor's cache."""

LEAST = 1e-200
"""What a weight is at least, so that boxes without any have a mean."""


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
    far = np.hypot(*np.moveaxis(_centres(first) - _centres(second), -1, 0))
    across = (_diagonals(first) + _diagonals(second)) / 2
    score: Values = np.divide(far, across, out=np.full_like(far, np.inf), where=across > 0)
    return score + 1 - overlaps(first, second)


def merged(boxes: Corners, weights: Values | None = None, threshold: float = THRESHOLD) -> Merged:
    """Boxes (M, 4) in the same unit along both axes, those that match made one.

    As long as the least match score of two boxes is not above the `threshold`, these two become
    their mean, in which each box counts as much as its members' `weights` (M,), or as many as it
    has members. So a merged box is the mean of all its members, and what comes of boxes does not
    depend on their order. Time and memory grow with the square of M: 2,000 take half a second and
    32 MB at most.
    """
    given = np.ones(len(boxes)) if weights is None else np.maximum(weights, LEAST)
    order = np.lexsort((given, *boxes.T[::-1]))
    groups = _Groups(boxes[order].astype(np.float64), given[order])
    groups.merge(threshold)
    left, numbers = np.unique(groups.members, return_inverse=True)
    members = np.empty(len(boxes), np.int64)
    members[order] = numbers.ravel()
    return Merged(groups.boxes[left], members)


class _Groups:
    """The groups of boxes so far: each at the place of its first member, the other places empty.

    `scores` (M, M) are the groups' match scores, infinite where there is nothing to match; `least`
    (M,) is the least of each group, and `partner` (M,) the place of whom it is with.
    """

    def __init__(self, boxes: Corners, weights: Values) -> None:
        self.boxes, self.weights = boxes, weights
        count = len(boxes)
        self.members: Numbers = np.arange(count)
        self.scores: Values = np.empty((count, count))
        for start in range(0, count, ROWS):
            rows = boxes[start : start + ROWS, None]
            self.scores[start : start + ROWS] = match_scores(rows, boxes[None])
        np.fill_diagonal(self.scores, np.inf)
        self.is_there = np.ones(count, np.bool_)
        self.partner: Numbers = self.scores.argmin(1) if count else np.arange(0)
        self.least: Values = self.scores[np.arange(count), self.partner]

    def merge(self, threshold: float) -> None:
        """Makes groups one until none match any more."""
        while len(self.least):
            one = int(self.least.argmin())
            if not self.least[one] <= threshold:
                return
            other = int(self.partner[one])
            self.unite(min(one, other), max(one, other))

    def unite(self, kept: int, gone: int) -> None:
        """Makes two groups one, at the place of the first."""
        parts = self.weights[[kept, gone]]
        self.boxes[kept] = parts @ self.boxes[[kept, gone]] / parts.sum()
        self.weights[kept] = parts.sum()
        self.members[self.members == gone] = kept
        self.is_there[gone] = False
        self.scores[gone] = self.scores[:, gone] = self.least[gone] = np.inf
        found = np.where(self.is_there, match_scores(self.boxes[kept], self.boxes), np.inf)
        found[kept] = np.inf
        self.scores[kept] = self.scores[:, kept] = found
        closer = found < self.least
        self.least[closer], self.partner[closer] = found[closer], kept
        lost = self.is_there & np.isin(self.partner, (kept, gone)) & ~closer
        lost[kept] = True
        rows = self.scores[lost]
        self.partner[lost] = best = rows.argmin(1)
        self.least[lost] = rows[np.arange(len(rows)), best]


def _centres(boxes: Corners) -> Corners:
    middle: Corners = (boxes[..., :2] + boxes[..., 2:]) / 2
    return middle


def _diagonals(boxes: Corners) -> Values:
    found: Values = np.hypot(*np.moveaxis(boxes[..., 2:] - boxes[..., :2], -1, 0))
    return found

"""Boxes as they were annotated, made shares of pictures that stand upright.

An annotation may take a picture to lie as its file has it, or to stand as viewers show it; and to
be smaller or larger than it is. The size that it declares tells which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from vggc.data.objects import Corners
from vggc.data.stores import Numbers
from vggc_runtime.preprocessing import ON_THEIR_SIDE

Sizes: TypeAlias = npt.NDArray[np.float64]
"""Widths and heights (N, 2)."""
Mask: TypeAlias = npt.NDArray[np.bool_]

SAME_ASPECT = 1.02
"""One size may be so many times as wide, for its height, as another of the same aspect."""
ROUNDING = 1e-4
"""A box that reaches over an edge by no more than this share of the picture is not called cut."""

MIRRORED = {2: (True, False), 3: (True, True), 4: (False, True)} | {
    5: (False, False),
    6: (True, False),
    7: (True, True),
    8: (False, True),
}
"""Whether left and right, and above and below, are exchanged where a picture of this orientation is
set upright, after its rows have become columns where it lies on its side."""


@dataclass(frozen=True)
class Frames:
    """What the boxes of N pictures are measured in: `sizes` (N, 2) of the pictures as annotated,
    and the `orientations` (N,) to be set upright by, 1 where the boxes are upright already. Where a
    declared size has another aspect than the picture it does not `fit` (N,).
    """

    sizes: Sizes
    orientations: Numbers
    fit: Mask

    @classmethod
    def of_shares(cls, count: int) -> Frames:
        """The frames of so many pictures whose boxes are shares of them already."""
        return cls(np.ones((count, 2)), np.ones(count, np.int64), np.ones(count, np.bool_))

    def take(self, indices: Numbers) -> Frames:
        """The frames of the pictures at these places, in their order."""
        return Frames(self.sizes[indices], self.orientations[indices], self.fit[indices])


def frames_of(declared: Sizes, stored: Sizes, orientations: Numbers) -> Frames:
    """What boxes are measured in whose annotations declare these sizes of the pictures, by the
    sizes that files have and the orientations that pictures are shown in.

    A size that is not declared (or not above 0) is that of the upright picture. One that could be
    of either is of the upright one.
    """
    on_side = np.isin(orientations, ON_THEIR_SIDE)
    upright = np.where(on_side[:, None], stored[:, ::-1], stored)
    told = of_all(np.isfinite(declared) & (declared > 0))
    sizes = np.where(told[:, None], declared, upright)
    is_upright, is_stored = of_all(sizes == upright), of_all(sizes == stored)
    like_upright, like_stored = has_aspect(sizes, upright), has_aspect(sizes, stored)
    turned = on_side & ~is_upright & (is_stored | (~like_upright & like_stored))
    return Frames(sizes, np.where(turned, orientations, 1), like_upright | turned)


def of_all(rows: Mask) -> Mask:
    """Which rows (N, K) are true as a whole (N,)."""
    return np.asarray(rows.all(axis=1), np.bool_)


def of_any(rows: Mask) -> Mask:
    """Which rows (N, K) are true anywhere (N,)."""
    return np.asarray(rows.any(axis=1), np.bool_)


def has_aspect(sizes: Sizes, others: Sizes) -> Mask:
    """Whether sizes (N, 2) have the aspects of others (N, 2), within `SAME_ASPECT`."""
    with np.errstate(over="ignore"):  # of sizes that nobody has
        ratio = sizes[:, 0] / sizes[:, 1] * (others[:, 1] / others[:, 0])
    return (ratio <= SAME_ASPECT) & (ratio >= 1 / SAME_ASPECT)


def upright(boxes: Corners, orientations: Numbers) -> Corners:
    """Boxes (M, 4) in shares of pictures as their files have them, in shares of the pictures set
    upright by their orientations (M,).
    """
    found = boxes.copy()
    sideways = np.isin(orientations, ON_THEIR_SIDE)
    found[sideways] = found[sideways][:, [1, 0, 3, 2]]
    for orientation, mirrored in MIRRORED.items():
        rows = orientations == orientation
        for axis in np.flatnonzero(mirrored).tolist():
            ends = [axis + 2, axis]
            found[np.ix_(rows, [axis, axis + 2])] = 1 - found[np.ix_(rows, ends)]
    return found


def in_frames(boxes: Corners, frames: Frames) -> tuple[Corners, dict[str, Mask], Mask]:
    """Boxes (M, 4) as shares of upright pictures, each measured in its frame; what is wrong with
    some, in words, and with which (M,); and which were cut at the edges of their pictures (M,).
    """
    with np.errstate(all="ignore"):  # of numbers that are not finite, or nearly so
        shares = upright(boxes / np.tile(frames.sizes, 2), frames.orientations)
    finite = of_all(np.isfinite(shares))
    inverted = of_any(boxes[:, 2:] < boxes[:, :2])
    empty = of_any(boxes[:, 2:] == boxes[:, :2])
    inside: Corners = np.clip(np.where(finite[:, None], shares, 0), 0, 1)
    outside = of_any(inside[:, 2:] <= inside[:, :2])
    faults = {
        "its box is not finite": ~finite,
        "its box is inverted": finite & inverted,
        "its box has no area": finite & ~inverted & empty,
        "its box lies outside of the picture": finite & ~inverted & ~empty & outside,
    }
    return inside, faults, finite & of_any(np.abs(inside - shares) > ROUNDING)

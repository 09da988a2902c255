"""Boxes in crops and in the pictures that these were cut from.

A window is what a crop shows of a picture: left, top, right and bottom in shares of the picture. Of
a mirrored crop left and right are exchanged, so that one map serves both, x of the picture being
left + x of the crop · (right - left). A crop may be resized, so that its shares are stretched; IoU
is the same in shares of either, as in pixels.

A net of boxes speaks of its crop in other words: the centre's x and y, width and height, in shares
of the crop.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from vggc.data.objects import Corners, areas
from vggc_runtime.preprocessing import Fit, target_size

Centres: TypeAlias = npt.NDArray[np.float64]
"""Boxes (…, 4) as a net gives them: centre x, centre y, width and height, in shares of its crop."""

Windows: TypeAlias = npt.NDArray[np.float64]
"""Windows (…, 4): left, top, right and bottom in shares of a picture; left and right exchanged of
mirrored crops.
"""

WHOLE: Windows = np.asarray([0.0, 0.0, 1.0, 1.0])
"""The window of a crop that shows all of a picture."""


def centres_of(boxes: Corners) -> Centres:
    """The centres and sides of boxes (…, 4) that are given by their corners."""
    first, last = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([(first + last) / 2, last - first], axis=-1)


def corners_of(boxes: Centres) -> Corners:
    """The corners of boxes (…, 4) that are given by their centres and sides.

    Those of a negative width or height, which a net may give, come out of order.
    """
    middle, half = boxes[..., :2], boxes[..., 2:] / 2
    return np.concatenate([middle - half, middle + half], axis=-1)


def window_of(place: npt.ArrayLike, whole: tuple[int, int]) -> Windows:
    """The window (…, 4) of a crop that takes the pixels from left, top up to right, bottom of a
    picture of so many (W, H).
    """
    return np.asarray(place, np.float64) / np.asarray([*whole, *whole], np.float64)


def central(
    picture: tuple[int, int], scale: int | None, size: tuple[int, int], fit: Fit = "crop"
) -> Windows:
    """The window (4,) of what `vggc_runtime.preprocessing` makes of a picture (W, H) at a scale,
    which has a size (H, W). That of a padded picture reaches beyond it.
    """
    (across, down), (height, width) = target_size(picture, scale, size, fit), size
    if fit == "pad":
        left, top = -((width - across) // 2), -((height - down) // 2)
    else:
        left, top = (across - width) // 2, (down - height) // 2
    return window_of([left, top, left + width, top + height], (across, down))


def mirrored(windows: Windows) -> Windows:
    """The windows (…, 4) of the same crops, mirrored left to right."""
    return windows[..., [2, 1, 0, 3]]


def to_picture(boxes: Corners, windows: Windows) -> Corners:
    """Boxes (…, 4) in shares of crops as boxes in shares of the pictures, their corners in order.

    The shapes of boxes and windows (…, 4) are broadcast. So is a net's box of a negative width or
    height taken for the same one of a positive.
    """
    start, extent = _axes(windows)
    return _in_order(start + boxes * extent)


def to_crop(boxes: Corners, windows: Windows) -> Corners:
    """Boxes (…, 4) in shares of pictures as boxes in shares of crops, their corners in order.

    They may lie outside of the crop, beyond 0 or 1. No side of a window may be 0. The shapes of
    boxes and windows (…, 4) are broadcast.
    """
    start, extent = _axes(windows)
    return _in_order((boxes - start) / extent)


def clipped(boxes: Corners, windows: Windows = WHOLE) -> Corners:
    """The parts of boxes (…, 4) that lie in windows (…, 4), both in shares of pictures; of a box
    that lies outside nothing is left but a line or a point at the window's edge.
    """
    edges = _in_order(windows)
    first, last = np.tile(edges[..., :2], 2), np.tile(edges[..., 2:], 2)
    return np.clip(boxes, first, last)


def shares_inside(boxes: Corners, windows: Windows = WHOLE) -> npt.NDArray[np.float64]:
    """Which share of the area of each box (…, 4) lies in its window (…, 4), both in shares of
    pictures; 0 of boxes without area.
    """
    inside = areas(clipped(boxes, windows))
    whole = np.broadcast_to(areas(boxes), inside.shape)
    return np.divide(inside, whole, out=np.zeros_like(inside), where=whole > 0)


def _axes(windows: Windows) -> tuple[Windows, Windows]:
    """Where windows (…, 4) begin and how far they reach, along x, y, x and y."""
    start, end = windows[..., :2], windows[..., 2:]
    return np.tile(start, 2), np.tile(end - start, 2)


def _in_order(boxes: Corners) -> Corners:
    first, last = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([np.minimum(first, last), np.maximum(first, last)], axis=-1)

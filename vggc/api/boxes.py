"""Boxes of an artifact's outputs, as boxes in the pictures that it was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vggc.data.objects import Corners
    from vggc.passes.dense import Positions
    from vggc.runtime.artifact import Manifest
    from vggc.support.arrays import Array
    from vggc_runtime.outputs import Output


@dataclass(frozen=True)
class MergedBox:
    """A box (4,) in pixels of a picture, the mean of the boxes that match at so many `positions` of
    a dense artifact. `number` tells which of the boxes of a position: that of a class, or 0.
    """

    number: int
    box: Corners
    positions: int


def in_pixels(
    manifest: Manifest, positions: Positions | None, values: Array, picture: tuple[int, int]
) -> Corners:
    """What an output of boxes says of a picture (W, H), in its pixels: left, top, right and bottom,
    cut off where it ends.

    `values` (4 · boxes,) become (boxes, 4). Those of a dense artifact (4 · boxes, rows, columns),
    whose `positions` tell where they look, become (rows, columns, boxes, 4).
    """
    import numpy as np

    from vggc.data.windows import central, clipped, corners_of, to_picture

    how = manifest.preprocessing
    if positions is None:
        boxes = corners_of(values.astype(np.float64).reshape(-1, 4))
    else:
        rows, columns = values.shape[1:]
        each = np.moveaxis(values.astype(np.float64), 0, -1).reshape(rows, columns, -1, 4)
        windows = positions.windows((rows, columns), how.size)
        boxes = to_picture(corners_of(each), windows[:, :, None])
    shares = clipped(to_picture(boxes, central(picture, how.scale, how.size, how.fit)))
    found: Corners = shares * np.asarray([*picture, *picture])
    return found


def merged_boxes(boxes: Corners, numbers: Sequence[int], count: int) -> list[MergedBox]:
    """The boxes of these numbers among those of positions (rows, columns, boxes, 4), where they
    match made one: for each number the `count` boxes that came of the most positions.
    """
    import numpy as np

    from vggc.evaluation.merging import merged

    found = []
    for number in numbers:
        groups = merged(boxes[:, :, number].reshape(-1, 4))
        sizes = np.bincount(groups.members)
        best = np.argsort(-sizes, kind="stable")[:count]
        found += [MergedBox(number, groups.boxes[each], int(sizes[each])) for each in best]
    return found


def box_name(manifest: Manifest, output: Output, index: int) -> str:
    """What a box is called: by its class where the net gives one for each, and these have names."""
    if len(manifest.classes) == output.count > 1:
        return f"box of {manifest.class_name(index)}"
    return f"box {index}" if output.count > 1 else "box"

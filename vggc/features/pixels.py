"""Raw pixels as features, for others to be compared with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vggc.data.parts import Part, Skipped
from vggc.features.artifacts import prepared
from vggc.features.rows import RowBlock, Rows, features_of
from vggc_runtime.preprocessing import BrokenImageError, Preprocessing

BLOCK = 512


def describe(how: Preprocessing, part: Part, start: int) -> Iterator[RowBlock]:
    """The pixels of the pictures of a part from the place `start` on, a block at a time: what a net
    would be given of the centre, brought to an L2 norm of 1.
    """
    width = len(how.mean) * how.size[0] * how.size[1]
    for first in range(start, len(part), BLOCK):
        indices = np.arange(first, min(first + BLOCK, len(part)))
        rows: list[Rows] = []
        lost: dict[int, Skipped] = {}
        for index, picture in zip(indices.tolist(), part.fetch(indices), strict=True):
            try:
                rows.append(prepared(how, picture).reshape(1, 1, width))
            except BrokenImageError as fault:
                lost[index] = Skipped(part.name(index), str(fault))
        values = np.concatenate(rows or [np.empty((0, 1, width), np.float32)])
        yield RowBlock(first + len(indices), features_of(values, [width], "stack"), lost)

"""How a patch of a map lies in shared memory where warpgroups multiply it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, prod
from typing import TypeAlias, overload

from tvm.tirx import Expr

from vggc.ir.ops import Pair
from vggc.kernels.cuda.mma_tile import ALIGNMENT, plane_bytes
from vggc.kernels.cuda.operands import SEGMENT_BYTES
from vggc.kernels.workloads import round_up


@dataclass(frozen=True)
class PatchPlanes:
    """A patch of `rows` and `columns` of pixels in planes, each with a segment of 16 bytes a pixel.

    In a row, pixels lie by the remainder of their column divided by `stride`, the distance of
    windows. Then the pixels that windows in a row have at the same tap follow one another.
    """

    rows: int
    columns: int
    stride: int
    planes: int

    @property
    def apart(self) -> int:
        """The pixels of a row from those of one remainder to those of the next. Where threads that
        follow one another write all planes of some pixels, and then of the next, eight of them
        reach all banks once, at strides of 1, 2 and 4.
        """
        if self.stride == 1:
            return self.columns
        at_once, least = 8 // self.planes, ceil(self.columns / self.stride)
        return least + (ceil(at_once / self.stride) - least) % at_once

    @property
    def pitch(self) -> int:
        """The pixels of a row that there is room for."""
        return self.apart * self.stride

    @property
    def pixels(self) -> int:
        """The pixels that there is room for."""
        return self.rows * self.pitch

    @property
    def plane(self) -> int:
        """The bytes from one plane to the next."""
        return plane_bytes(self.pixels, self.planes)

    @property
    def bytes(self) -> int:
        """The bytes of all planes."""
        return round_up(self.planes * self.plane, ALIGNMENT)

    @overload
    def across(self, column: int) -> int: ...
    @overload
    def across(self, column: Expr) -> Expr: ...
    def across(self, column: Expr | int) -> Expr | int:
        """Where in its row a pixel lies, in bytes."""
        if self.stride == 1:
            return column * SEGMENT_BYTES
        return (column % self.stride * self.apart + column // self.stride) * SEGMENT_BYTES


Pairs: TypeAlias = tuple[tuple[int, int], ...]


def steps_of_pairs(kernel: Pair, stride: int, most: int) -> tuple[Pairs, ...] | None:
    """The taps of a kernel by twos, at most so many pairs a step, in steps of those that follow one
    another. Of two the second has the greater number, and lies behind in each patch with this
    stride. Where taps are odd in number, one more stands for the last. None where taps cannot be
    paired so.
    """
    taps = prod(kernel)
    window = PatchPlanes(*kernel, stride, planes=1)
    places = [
        tap // kernel[1] * window.pitch + window.across(tap % kernel[1]) // SEGMENT_BYTES
        for tap in [*range(taps), *[taps - 1] * (taps % 2)]
    ]
    pairs = len(places) // 2
    steps = ceil(pairs / most)
    ends = [2 * (pairs * step // steps) for step in range(steps + 1)]
    found = [_paired(places, range(*some)) for some in pairwise(ends)]
    return None if None in found else tuple(each for each in found if each is not None)


def _paired(places: Sequence[int], left: Sequence[int]) -> Pairs | None:
    """Indices of places by twos, the second of each with the greater index and place, if any."""
    if not left:
        return ()
    first, *others = left
    for second in others:
        if places[second] > places[first]:
            rest = _paired(places, [each for each in others if each != second])
            if rest is not None:
                return ((first, second), *rest)
    return None

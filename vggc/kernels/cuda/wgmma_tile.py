"""What warpgroups share: rings of operands in shared memory, and the sums that they hold.

A ring has stages that some threads fill in turn and others read in turn. Each stage has two
barriers: that it is full, and that it is empty again.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.builder import unrolled, when
from vggc.kernels.cuda import hopper, ptx
from vggc.kernels.cuda.emit import registers
from vggc.kernels.cuda.hopper import BARRIER_BYTES, WARPGROUP, Descriptor, GroupSlice
from vggc.kernels.cuda.mma_tile import TensorTile, sum_of
from vggc.kernels.cuda.operands import Operands
from vggc.kernels.cuda.ptx import WARP

STAGE, PARITY, PLACE = range(3)
"""Numbers that a thread holds of a ring: the stage whose turn it is, the parity of the phase in
which it is filled, and where it begins.
"""


class Stages:
    """A ring of `count` stages of so many bytes from the address `first` on, whose barriers begin
    at `barriers`. A thread only fills it or only reads it.
    """

    def __init__(self, name: str, barriers: Expr, first: Expr, count: int, size: int) -> None:
        self._barriers, self._first, self._count, self._size = barriers, first, count, size
        self._at = registers(name, 3, dtype="int32")
        self._at[STAGE] = 0
        self._at[PARITY] = 0
        self._at[PLACE] = first

    def make_barriers(self, filling: int, reading: int) -> None:
        """Makes the barriers, for so many arrivals of who fills a stage and of who reads it."""
        for stage in range(self._count):
            hopper.begin_barrier(self._full(stage), filling)
            hopper.begin_barrier(self._empty(stage), reading)

    @property
    def place(self) -> Expr:
        """Where the stage begins whose turn it is."""
        return self._at[PLACE]

    @property
    def full(self) -> Expr:
        """The barrier at which those arrive who have filled the stage."""
        return self._full(self._at[STAGE])

    def wait_until_full(self) -> None:
        """Waits for those who fill the stage."""
        hopper.wait(self.full, self._at[PARITY])

    def wait_until_empty(self) -> None:
        """Waits for those who have read what was in the stage before."""
        hopper.wait(self._empty(self._at[STAGE]), 1 - self._at[PARITY])

    def release_last(self) -> None:
        """Tells those who fill that the thread has read the stage before this one."""
        last = self._at[STAGE] - 1
        hopper.arrive(self._empty(T.Select(last < 0, self._count - 1, last)))

    def turn(self) -> None:
        """Goes on to the next stage."""
        self._at[STAGE] += 1
        self._at[PLACE] += self._size
        with when(self._at[STAGE] == self._count):
            self._at[STAGE] = 0
            self._at[PLACE] = self._first
            self._at[PARITY] = 1 - self._at[PARITY]

    def _full(self, stage: Expr | int) -> Expr:
        return self._barriers + stage * (2 * BARRIER_BYTES)

    def _empty(self, stage: Expr | int) -> Expr:
        return self._barriers + stage * (2 * BARRIER_BYTES) + BARRIER_BYTES


def barrier_bytes(*stages: int) -> int:
    """The bytes of the barriers of rings with so many stages."""
    return 2 * BARRIER_BYTES * sum(stages)


class GroupSums:
    """The sums that a thread holds of its warpgroup's part of a tile: for each 64 rows, all the
    tile's columns. `thread` is counted among those that multiply.
    """

    first_col = 0

    def __init__(self, operands: Operands, tile: TensorTile, thread: Expr) -> None:
        self.operands, self.tile = operands, tile
        self.lane = thread % WARP
        self.group = ptx.uniform(thread // WARPGROUP)
        self.warp = thread // WARP % (WARPGROUP // WARP)
        self.fragments = tile.warp_rows // 16
        self.sums = registers("sums", tile.num_sums, dtype=operands.sums)

    def clear(self) -> None:
        """Sets the sums to zero."""
        with unrolled("i", self.tile.num_sums) as (i,):
            self.sums[i] = 0

    def add_slices(
        self,
        rows: Sequence[Descriptor],
        columns: Descriptor,
        slices: Sequence[GroupSlice],
        *,
        are_first: bool = False,
    ) -> None:
        """Begins to add the products of some slices, as one group, to what the sums hold, unless
        these are the first. `rows` describe each 64 rows.
        """
        hopper.begin_products()
        for number, each in enumerate(slices):
            right = columns.behind(each.right, each.right_apart)
            for index, row in enumerate(rows):
                left = row.behind(each.left, each.left_apart)
                hopper.multiply_group(
                    self.operands,
                    self.tile.cols,
                    self.sums,
                    index * self.tile.cols // 2,
                    left,
                    right,
                    adds=number > 0 or not are_first,
                )
        hopper.end_group_of_products()

    def result(self, fragment: int, half_row: int, group: int, index: int) -> Expr:
        """The sum of the thread's channel `index`, of eight, in a group of columns and in the upper
        or lower row of a fragment.
        """
        return sum_of(self, fragment, half_row, group, index)

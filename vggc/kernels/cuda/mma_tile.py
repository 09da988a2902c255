"""The tile of a matrix product that a thread block computes with tensor cores, in halves.

Rows are pixels, columns output channels. Halves reach a warp's registers from shared memory by
`ldmatrix`, are multiplied by `mma.sync`, and summed in float32. Where blocks share a tile, each
takes a part of the reduction, and the last of them adds up and writes.

In shared memory a row of either operand is `depth` halves in segments of 16 bytes. Segments are
permuted within rows, so that the eight rows that `ldmatrix` reads at once lie on different banks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias, cast

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.activation import activate
from vggc.kernels.builder import Buffer, serial, unrolled, when
from vggc.kernels.cuda import ptx
from vggc.kernels.cuda.emit import flat, is_last_block, registers, synchronise, workspace
from vggc.kernels.cuda.ptx import SEGMENT, WARP, Half
from vggc.kernels.workloads import Conv

FRAGMENT_ROWS, FRAGMENT_COLS, FRAGMENT_DEPTH = 16, 8, 16
"""What a warp multiplies at once: 16×16 halves with 16×8."""
GROUP = 32
"""Columns of which a thread holds eight channels in a row: see `channel_of`."""

ASegment: TypeAlias = Callable[[int, int], Expr]
"""Where in shared memory, in halves, the segment lies that the lane points `ldmatrix` to, for a
slice of the depth and a fragment of rows."""

Place: TypeAlias = Callable[[int, int], tuple[Expr, Expr]]
"""Where in the output the pixel begins that a lane holds, for a fragment of rows and one of its two
halves, and whether it is one; with a pool, the pooled pixel of a fragment."""


@dataclass(frozen=True)
class Tile:
    """The sizes of a block's tile, those of a warp's part, the halves of the reduction that are
    multiplied at a time, and for how many such steps there is shared memory.
    """

    rows: int
    cols: int
    warp_rows: int
    warp_cols: int
    depth: int
    stages: int

    @property
    def threads(self) -> int:
        """The threads of a block."""
        return self.rows * self.cols // (self.warp_rows * self.warp_cols) * WARP

    @property
    def num_sums(self) -> int:
        """The results that a thread holds."""
        return self.warp_rows * self.warp_cols // WARP

    @property
    def row_segments(self) -> int:
        """The segments of a row in shared memory."""
        return self.depth // SEGMENT

    @property
    def panel(self) -> int:
        """The halves of a step's columns."""
        return self.cols * self.depth


def channel_of(column: int) -> int:
    """The output channel of a column: the eight columns of a group that a thread holds, by twos in
    four fragments, are channels in a row, which it writes at once.
    """
    fragment, within = divmod(column % GROUP, FRAGMENT_COLS)
    return column // GROUP * GROUP + within // 2 * 8 + fragment * 2 + within % 2


def permuted(segment: Expr | int, row: Expr | int, depth: int) -> Expr:
    """Where in its row a segment lies. Rows whose numbers are equal modulo 8 are alike."""
    return segment ^ (row % 8 // (64 // depth))


class WarpProduct:
    """A warp's part of the tile, in registers."""

    def __init__(self, half: Half, tile: Tile, thread: Expr) -> None:
        self.half, self.tile = half, tile
        self.lane = thread % WARP
        warps_across = tile.cols // tile.warp_cols
        self.first_row = thread // WARP // warps_across * tile.warp_rows
        self.first_col = thread // WARP % warps_across * tile.warp_cols
        self.fragments = tile.warp_rows // FRAGMENT_ROWS
        self._across = tile.warp_cols // FRAGMENT_COLS
        self.sums = registers("sums", tile.num_sums)
        self._lefts = registers("lefts", 4 * self.fragments, dtype="uint32")
        self._rights = registers("rights", 2 * self._across, dtype="uint32")
        self._columns = registers("columns", tile.depth // FRAGMENT_DEPTH, dtype="int32")
        col = self.first_col + self.lane % 8 + self.lane // 16 * 8
        for k in range(tile.depth // FRAGMENT_DEPTH):
            segment = permuted(2 * k + self.lane // 8 % 2, self.lane, tile.depth)
            self._columns[k] = col * tile.depth + segment * SEGMENT
        self.clear()

    def clear(self) -> None:
        """Sets the sums to zero."""
        with unrolled("i", self.tile.num_sums) as (i,):
            self.sums[i] = 0

    def add_step(self, shared: Buffer, a_segment: ASegment, panel: Expr) -> None:
        """Adds the products of a step; its columns begin at `panel` in shared memory."""
        tile = self.tile
        for k in range(tile.depth // FRAGMENT_DEPTH):
            for i in range(self.fragments):
                ptx.load_matrices(self._lefts, 4 * i, shared.address(a_segment(k, i)))
            for j in range(self._across // 2):
                at = panel + self._columns[k] + j * 2 * FRAGMENT_COLS * tile.depth
                ptx.load_matrices(self._rights, 4 * j, shared.address(at))
            for i in range(self.fragments):
                for j in range(self._across):
                    sums_at = (i * self._across + j) * 4
                    ptx.multiply_add(
                        self.half, self.sums, sums_at, self._lefts, 4 * i, self._rights, 2 * j
                    )

    def result(self, fragment: int, half_row: int, group: int, index: int) -> Expr:
        """The sum of the thread's channel `index`, of eight, in a group of columns and in the upper
        or lower row of a fragment.
        """
        column = group * GROUP // FRAGMENT_COLS + index // 2
        return self.sums[(fragment * self._across + column) * 4 + 2 * half_row + index % 2]


class SharedTiles:
    """The sums of the blocks that share a tile, in device memory, and their addition."""

    def __init__(self, tile: Tile, tiles: int, splits: int) -> None:
        self._tile, self._splits = tile, splits
        if splits > 1:
            self._parts = workspace("parts", tiles * splits * tile.num_sums * tile.threads)

    def finish(
        self, product: WarpProduct, tile: Expr, split: Expr, thread: Expr, write: Callable[[], None]
    ) -> None:
        """Calls `write` in the block that holds the whole sums."""
        if self._splits == 1:
            write()
            return
        words = self._tile.num_sums // 4

        def address(part: Expr, word: int) -> Expr:
            slot = ((tile * self._splits + part) * words + word) * self._tile.threads + thread
            return self._parts.address(slot * 4)

        for word in range(words):
            some = [product.sums[4 * word + index] for index in range(4)]
            ptx.store_segment(address(split, word), some)
        with when(is_last_block(tile, self._splits)):
            product.clear()
            part_sums = registers("part_sums", 4)
            with serial("part", self._splits) as part:
                for word in range(words):
                    ptx.load_fresh(part_sums, 0, address(part, word))
                    for index in range(4):
                        product.sums[4 * word + index] += part_sums[index]
            write()


def write_results(
    conv: Conv, product: WarpProduct, bias: Buffer, output: Buffer, first_col: Expr, place: Place
) -> None:
    """Bias, activation, pool and rounding, and the writing of eight channels at a time."""
    target, y = conv.output, flat(output)
    stored = target.shape[-1]
    biases, values = registers("biases", 8), registers("values", 16)
    other, words = registers("other", 1), registers("words", 4, dtype="uint32")
    lane = product.lane
    for group in range(product.tile.warp_cols // GROUP):
        channel = first_col + product.first_col + group * GROUP + lane % 4 * 8
        for index in range(8):
            here = channel + index < target.channels
            biases[index] = T.if_then_else(here, bias[channel + index], T.float32(0))
        for i in range(product.fragments):
            for row in range(2):
                for index in range(8):
                    total = product.result(i, row, group, index) + biases[index]
                    values[8 * row + index] = activate(conv.act, total)
            if conv.pool:
                _pool(values, other)
            for row in range(1 if conv.pool else 2):
                at, inside = place(i, row)
                if conv.pool:
                    inside = T.And(inside, lane // 4 % 2 == 0)
                _zero_padding(values, 8 * row, channel, target.channels)
                with when(T.And(inside, channel < stored)):
                    if target.format == "float32":
                        _write_floats(values, 8 * row, y, at + channel, channel, target.channels)
                    else:
                        half = cast("Half", target.format)
                        for word in range(4):
                            low = 8 * row + 2 * word
                            ptx.round_pair(half, words[word], values[low], values[low + 1])
                        ptx.store_segment(y.address(at + channel), [words[w] for w in range(4)])


def _pool(values: Buffer, other: Buffer) -> None:
    """The largest of the two rows that a lane holds, and of a lane and its neighbour below."""
    for index in range(8):
        values[index] = T.max(values[index], values[8 + index])
        ptx.from_lane(other[0], values[index], distance=4)
        values[index] = T.max(values[index], other[0])


def _zero_padding(values: Buffer, first: int, channel: Expr, channels: int) -> None:
    """Zeros in the channels that there are only to fill a segment."""
    if channels % SEGMENT == 0:
        return
    for index in range(8):
        here = channel + index < channels
        values[first + index] = T.Select(here, values[first + index], T.float32(0))


def _write_floats(
    values: Buffer, first: int, y: Buffer, at: Expr, channel: Expr, channels: int
) -> None:
    if channels % 8 == 0:
        for half in range(2):
            some = [values[first + 4 * half + index] for index in range(4)]
            ptx.store_segment(y.address(at + 4 * half), some)
        return
    for index in range(8):
        with when(channel + index < channels):
            y[at + index] = values[first + index]


class Panels:
    """The weight's slices, `(panels, steps, cols, depth)`, on their way to shared memory as they
    are.
    """

    def __init__(self, tile: Tile, weight: Buffer, first: Expr, thread: Expr) -> None:
        self._tile, self._weight = tile, flat(weight)
        self._first = registers("first", 2, dtype="int32")
        self._first[0] = first * tile.panel + thread * SEGMENT
        self._first[1] = thread * SEGMENT

    def copy(self, step: Expr | int, shared: Buffer, at: Expr | int) -> None:
        """Begins to copy the slice of a step, counted from the first one, to shared memory."""
        tile = self._tile
        for start in range(0, tile.panel, tile.threads * SEGMENT):
            source = self._first[0] + step * tile.panel + start
            target = at + self._first[1] + start
            ptx.copy_async(shared.address(target), self._weight.address(source))


class Ring:
    """Shared memory as a ring of stages of so many halves; `copy(step, at)` begins to fill one."""

    def __init__(
        self, stages: int, size: int, steps: int, copy: Callable[[Expr | int, Expr | int], None]
    ) -> None:
        self._stages, self._size, self._steps, self._copy = stages, size, steps, copy
        self._at = registers("ring", 2, dtype="int32")

    @contextmanager
    def walk(self) -> Iterator[tuple[Expr, Expr]]:
        """A loop over the steps, each with the place of its operands, which have arrived."""
        ahead, last = self._stages - 1, (self._stages - 1) * self._size
        reading, writing = 0, 1
        for step in range(ahead):
            if step < self._steps:
                self._copy(step, step * self._size)
            ptx.end_group()
        self._at[reading] = 0
        self._at[writing] = last
        with serial("step", self._steps) as step:
            ptx.wait_for_groups(ahead - 1)
            synchronise()
            # Nobody reads the stage of the step before any longer.
            with when(step + ahead < self._steps):
                self._copy(step + ahead, self._at[writing])
            ptx.end_group()
            yield step, self._at[reading]
            self._at[writing] = self._at[reading]
            at = self._at[reading]
            self._at[reading] = T.Select(at == last, 0, at + self._size)

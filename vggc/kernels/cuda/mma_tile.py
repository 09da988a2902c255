"""The tile of a matrix product that a thread block computes with tensor cores.

Rows are pixels, columns output channels. Numbers of any format (`operands.py`) reach a warp's
registers from shared memory by `ldmatrix`, a slice of 32 bytes of each row at a time, are
multiplied by `mma.sync`, and summed in float32 or int32. Where blocks share a tile, each takes a
part of the reduction, and the last of them adds up and writes.

In shared memory either operand lies in planes: one has a segment of 16 bytes of each row, or each
column, one after the other. Eight rows that `ldmatrix` reads at once then lie on different banks,
wherever they begin, and what it reads next lies at a distance that is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from typing import Protocol, TypeAlias

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.algorithm import Buffers
from vggc.kernels.builder import Argument, Buffer, serial, unrolled, when
from vggc.kernels.cuda import ptx
from vggc.kernels.cuda.addresses import REACH, RunningAddresses
from vggc.kernels.cuda.emit import dynamic_shared, flat, is_last_block, registers
from vggc.kernels.cuda.formats import round_words, segment_of
from vggc.kernels.cuda.index import Position
from vggc.kernels.cuda.operands import SEGMENT_BYTES, SLICE_BYTES, Operands
from vggc.kernels.cuda.ptx import WARP
from vggc.kernels.cuda.results import ChannelResults
from vggc.kernels.workloads import WORD, Conv, Map, round_up

FRAGMENT_ROWS, FRAGMENT_COLS = 16, 8
"""The rows and columns of which a warp multiplies a slice at once."""
GROUP = 32
"""Columns of which a thread holds eight channels in a row: see `channel_of`."""

PixelPlace: TypeAlias = Callable[[int, int], tuple[Expr, Expr]]
"""Where in the output the pixel begins that a lane holds, for a fragment of rows and one of its two
halves, and whether it is one; with a pool, the pooled pixel of a fragment."""


@dataclass(frozen=True)
class TensorTile:
    """The sizes of a block's tile, those of a warp's part, the numbers of the reduction that are
    multiplied at a time, for how many such steps there is shared memory, and the bytes of a number.
    """

    rows: int
    cols: int
    warp_rows: int
    warp_cols: int
    depth: int
    stages: int
    size: int

    @property
    def threads(self) -> int:
        """The threads of a block."""
        return self.rows * self.cols // (self.warp_rows * self.warp_cols) * WARP

    @property
    def num_sums(self) -> int:
        """The results that a thread holds."""
        return self.warp_rows * self.warp_cols // WARP

    @property
    def sums_bytes(self) -> int:
        """The bytes of the results that all threads hold."""
        return self.num_sums * self.threads * 4

    @property
    def row_segments(self) -> int:
        """The segments of a row in shared memory."""
        return self.row_bytes // SEGMENT_BYTES

    @property
    def row_bytes(self) -> int:
        """The bytes of a row in shared memory."""
        return self.size * self.depth

    @property
    def panel_bytes(self) -> int:
        """The bytes of a step's columns."""
        return self.cols * self.row_bytes


def channel_of(column: int) -> int:
    """The output channel of a column: the eight columns of a group that a thread holds, by twos in
    four fragments, are channels in a row, which it writes at once.
    """
    fragment, within = divmod(column % GROUP, FRAGMENT_COLS)
    return column // GROUP * GROUP + within // 2 * 8 + fragment * 2 + within % 2


ALIGNMENT = 128
"""Shared memory begins at a multiple of the bytes that all banks hold once."""


def shared_memory(size: int) -> Expr:
    """The address of so many bytes that the threads of a block share."""
    memory = dynamic_shared("shared", (size + ALIGNMENT) // 2, dtype="uint16")
    start = registers("shared_at", 1, dtype="int32")
    # TVM allocates what lies between the places that it sees: the first and the last are told.
    ends = [ptx.shared_address(memory.address(at)) for at in (0, memory.shape[0] - 1)]
    start[0] = (T.min(*ends) + (ALIGNMENT - 1)) & ~(ALIGNMENT - 1)
    return ptx.uniform(start[0])


def plane_bytes(rows: int, planes: int) -> int:
    """The bytes from one of so many planes to the next, each with so many rows or more.

    Threads that follow one another write the segments of a row, and then those of the next: eight
    of them reach all banks once.
    """
    apart = 8 // planes
    return (round_up(rows - apart, 8) + apart) * SEGMENT_BYTES


LEFT, RIGHT, COLUMNS = range(3)
"""Addresses that a thread holds: of its rows' and columns' segments in a step, and where in a panel
its columns lie.
"""


class WarpProduct:
    """A warp's part of the tile, in registers."""

    def __init__(self, operands: Operands, tile: TensorTile, thread: Expr) -> None:
        self.operands, self.tile = operands, tile
        self.lane = thread % WARP
        warps_across = tile.cols // tile.warp_cols
        self.first_row = thread // WARP // warps_across * tile.warp_rows
        self.first_col = thread // WARP % warps_across * tile.warp_cols
        self.fragments = tile.warp_rows // FRAGMENT_ROWS
        self._across = tile.warp_cols // FRAGMENT_COLS
        self.sums = registers("sums", tile.num_sums, dtype=operands.sums)
        self._lefts = registers("lefts", 4 * self.fragments, dtype="uint32")
        self._rights = registers("rights", 2 * self._across, dtype="uint32")
        if operands.split:
            self._left_rests = registers("left_rests", 4 * self.fragments, dtype="uint32")
            self._right_rests = registers("right_rests", 4, dtype="uint32")
            self._whole, self._part = registers("whole", 1), registers("part", 4)
        self._at = registers("operands", 3, dtype="int32")
        col = self.first_col + self.lane % 8 + self.lane // 16 * 8
        at = (col + self.lane // 8 % 2 * tile.cols) * SEGMENT_BYTES
        self._at[COLUMNS] = ptx.kept("columns", at)
        self.clear()

    def clear(self) -> None:
        """Sets the sums to zero."""
        with unrolled("i", self.tile.num_sums) as (i,):
            self.sums[i] = 0

    def add_step(self, rows: Expr, panel: Expr, fragments: Sequence[int], plane: int) -> None:
        """Adds the products of a step.

        `rows` is the address of the segment that the lane points `ldmatrix` to, for the first slice
        of the depth and the first fragment of rows; the others lie `fragments` bytes behind it, and
        the planes of the rows `plane` bytes apart. The columns begin at `panel`.
        """
        tile = self.tile
        self._at[LEFT] = rows
        self._at[RIGHT] = panel + self._at[COLUMNS]
        columns = range(0, tile.warp_cols, 2 * FRAGMENT_COLS)
        for number in range(0, tile.row_segments, SLICE_BYTES // SEGMENT_BYTES):
            left = self._at[LEFT] + number * plane
            right = self._at[RIGHT] + number * tile.cols * SEGMENT_BYTES
            self.add_slice(
                [left + offset for offset in fragments],
                [right + column * SEGMENT_BYTES for column in columns],
            )

    def add_slice(self, lefts: Sequence[Expr], rights: Sequence[Expr]) -> None:
        """Adds the products of a slice of the depth: the lane points `ldmatrix` to these addresses,
        for each fragment of rows and each two of columns.
        """
        for i, address in enumerate(lefts):
            ptx.load_matrices(self._lefts, 4 * i, address)
        if self.operands.split:
            self._add_split(rights)
            return
        for j, address in enumerate(rights):
            ptx.load_matrices(self._rights, 4 * j, address)
        for i in range(self.fragments):
            for j in range(self._across):
                sums_at = (i * self._across + j) * 4
                ptx.multiply_add(
                    self.operands.instruction,
                    self.sums,
                    sums_at,
                    self._lefts,
                    4 * i,
                    self._rights,
                    2 * j,
                )

    def _add_split(self, rights: Sequence[Expr]) -> None:
        """Adds the products of floats that are split.

        Tensor cores cut sums off where they add. So the products of a slice are summed by
        themselves, those of rests first, and are added on ordinary cores, which round.
        """
        self._split(self._lefts, self._left_rests, 4 * self.fragments)
        for j, address in enumerate(rights):
            ptx.load_matrices(self._rights, 0, address)
            self._split(self._rights, self._right_rests, 4)
            for i, side in product(range(self.fragments), range(2)):
                for index in range(4):
                    self._part[index] = 0
                for lefts, columns in (
                    (self._left_rests, self._rights),
                    (self._lefts, self._right_rests),
                    (self._lefts, self._rights),
                ):
                    instruction = self.operands.instruction
                    ptx.multiply_add(instruction, self._part, 0, lefts, 4 * i, columns, 2 * side)
                at = (i * self._across + 2 * j + side) * 4
                for index in range(4):
                    self.sums[at + index] += self._part[index]

    def _split(self, words: Buffer, rests: Buffer, count: int) -> None:
        """Makes of floats the nearest tf32, and beside them what is left.

        That is exact, and has a bit more than a tf32 at most, which tensor cores cut off. Integers
        round, as no instruction of GPUs does; of a NaN they may make a zero, whose rest is NaN.
        """
        for index in range(count):
            self._whole[0] = T.reinterpret("float32", words[index])
            words[index] = (words[index] + T.uint32(0x1000)) & T.uint32(0xFFFFE000)
            rest = self._whole[0] - T.reinterpret("float32", words[index])
            rests[index] = T.reinterpret("uint32", rest)

    def result(self, fragment: int, half_row: int, group: int, index: int) -> Expr:
        """The sum of the thread's channel `index`, of eight, in a group of columns and in the upper
        or lower row of a fragment.
        """
        return sum_of(self, fragment, half_row, group, index)


class HeldSums(Protocol):
    """Sums of a tile that a thread holds."""

    operands: Operands
    tile: TensorTile
    sums: Buffer
    lane: Expr
    first_col: Expr | int
    fragments: int
    """How often a warp has 16 rows."""

    def clear(self) -> None:
        """Sets the sums to zero."""

    def result(self, fragment: int, half_row: int, group: int, index: int) -> Expr:
        """The sum of the thread's channel `index`, of eight, in a group of columns and in the upper
        or lower row of a fragment.
        """


def sum_of(held: HeldSums, fragment: int, half_row: int, group: int, index: int) -> Expr:
    """What `HeldSums.result` gives where fragments of 16 rows and 8 columns follow one another."""
    across = held.tile.warp_cols // FRAGMENT_COLS
    column = group * GROUP // FRAGMENT_COLS + index // 2
    total = held.sums[(fragment * across + column) * 4 + 2 * half_row + index % 2]
    return T.reinterpret("int32", total) if held.operands.sums == "uint32" else total


PARTS = "parts"
"""The name of the memory that has the sums of blocks."""


def part_of(item: Position, splits: int) -> tuple[Position, Position]:
    """The tile of an item, and which of its `splits` parts the item is. The parts of a tile follow
    one another, so that their sums are added up soon, out of the L2 cache.
    """
    return item // splits, item % splits


class SharedTiles:
    """The sums of the blocks that share a tile, in device memory, and their addition."""

    def __init__(self, operands: Operands, tile: TensorTile, splits: int, buffers: Buffers) -> None:
        self._tile, self._splits, self._kind = tile, splits, operands.sums
        if splits > 1:
            self._parts = buffers[PARTS]

    @staticmethod
    def scratch(
        operands: Operands, tile: TensorTile, tiles: int, splits: int
    ) -> tuple[Argument, ...]:
        """The device memory that so many tiles, each of which so many blocks share, take."""
        if splits == 1:
            return ()
        size = tiles * splits * tile.num_sums * tile.threads
        return (Argument(PARTS, (size,), operands.sums),)

    def finish(
        self,
        product: HeldSums,
        tile: Expr,
        split: Expr,
        thread: Expr,
        write: Callable[[], None],
        holds: Expr | None = None,
    ) -> None:
        """Calls `write` in the block that holds the whole sums. Where not all threads of a block
        hold some, `holds` tells which do, and `thread` is counted among them.
        """
        if self._splits == 1:
            write()
            return
        words = self._tile.num_sums // 4

        def address(part: Expr, word: int) -> Expr:
            slot = ((tile * self._splits + part) * words + word) * self._tile.threads + thread
            return self._parts.address(slot * 4)

        with when(holds) if holds is not None else nullcontext():
            for word in range(words):
                some = [product.sums[4 * word + index] for index in range(4)]
                ptx.store_segment(address(split, word), some)
        last = is_last_block(tile, self._splits)
        with when(last if holds is None else T.And(last, holds)):
            product.clear()
            part_sums = registers("part_sums", 4, dtype=self._kind)
            # Written out, the parts would all be on their way at once, in registers.
            with serial("part", self._splits, unroll=False) as part:
                for word in range(words):
                    ptx.load_fresh(part_sums, 0, address(part, word))
                    for index in range(4):
                        product.sums[4 * word + index] += part_sums[index]
            write()


def write_results(
    conv: Conv,
    product: HeldSums,
    buffers: Buffers,
    first_col: Expr,
    place: PixelPlace,
) -> None:
    """Scale, bias, activation, pool and rounding, and the writing of eight channels at a time."""
    target, y = conv.output, flat(buffers["y"])
    stored = target.shape[-1]
    results, values = ChannelResults(conv, buffers, 8), registers("values", 16)
    num_words = 8 // WORD[target.format]
    other, words = registers("other", 1), registers("words", max(4, num_words), dtype="uint32")
    lane = product.lane
    for group in range(product.tile.warp_cols // GROUP):
        channel = first_col + product.first_col + group * GROUP + lane % 4 * 8
        results.load(channel)
        for i in range(product.fragments):
            for row in range(2):
                for index in range(8):
                    total = product.result(i, row, group, index)
                    values[8 * row + index] = results.of(total, index)
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
                        round_words(target, words, values, 8 * row, 8)
                        _store(y, at, channel, words, target)


def _store(y: Buffer, at: Expr, channel: Expr, words: Buffer, target: Map) -> None:
    """Writes eight numbers of a pixel, those in the words from the first on."""
    match WORD[target.format]:
        case 4:
            ptx.store_half_segment(y.address(at + channel), [words[0], words[1]])
        case 2:
            ptx.store_segment(y.address(at + channel), segment_of(words))
        case _:
            ptx.store_segment(y.address(at + channel), segment_of(words))
            with when(channel + 4 < target.shape[-1]):
                ptx.store_segment(y.address(at + channel + 4), segment_of(words, 4))


def _pool(values: Buffer, other: Buffer) -> None:
    """The largest of the two rows that a lane holds, and of a lane and its neighbour below."""
    for index in range(8):
        values[index] = T.max(values[index], values[8 + index])
        ptx.from_lane(other[0], values[index], distance=4)
        values[index] = T.max(values[index], other[0])


def _zero_padding(values: Buffer, first: int, channel: Expr, channels: int) -> None:
    """Zeros in the channels that there are only to fill a segment."""
    if channels % 8 == 0:
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
    """The weight's slices on their way to shared memory, one after the other, where planes of a
    tile's columns lie. The weight is `(panels, steps, planes, cols, segment)`: planes of all steps
    follow one another. Its panels may have more columns than a tile, or fewer.

    What a thread copies of a slice lies equally far apart. Where panels are as wide as the tile,
    slices are copied as they lie: a warp has pieces that follow one another, so that one address
    reaches them all. Elsewhere all threads copy some planes at a time.
    """

    def __init__(
        self, tile: TensorTile, weight: Buffer, first_col: Expr, first_plane: Expr, thread: Expr
    ) -> None:
        _, steps, planes, cols, numbers = map(int, weight.shape)
        from_plane = cols * SEGMENT_BYTES
        copies = tile.panel_bytes // (tile.threads * SEGMENT_BYTES)
        together = WARP if cols == tile.cols else tile.threads
        to_next = together * SEGMENT_BYTES
        from_next = to_next if cols == tile.cols else together // tile.cols * from_plane
        reached = min(copies, max(1, REACH // from_next))
        middle = reached // 2
        self._copies = [
            (copy // reached, (copy % reached - middle) * from_next, (copy - middle) * to_next)
            for copy in range(copies)
        ]
        segment = thread // together * (copies * together) + thread % together
        col, plane = first_col + segment % tile.cols, first_plane + segment // tile.cols
        source = (col // cols * (steps * planes) + plane) * cols + col % cols
        self._slice = tile.row_segments * from_plane
        starts = range(middle, copies, reached)
        self._source = RunningAddresses("slices", len(starts))
        for number, start in enumerate(starts):
            place = source * numbers + start * from_next // tile.size
            self._source.start(number, flat(weight), place)
        self._target = ptx.kept("slices_to", segment * SEGMENT_BYTES + middle * to_next)

    def copy(self, address: Expr) -> None:
        """Begins to copy the slice to an address in shared memory."""
        for number, source, target in self._copies:
            ptx.copy_async(address + self._target + target, self._source.at(number, source))

    def go_on(self) -> None:
        """Goes on to the next slice, if there is one."""
        self._source.go_on(self._slice)


class Ring:
    """Some stages of shared memory that are filled in turn and read in turn: where copies go next,
    and where the operands of a step lie.

    The code of the main loop has so many steps `at_once`. Where these are whole rounds of the ring,
    each step has its stage; else a thread holds which one is read.
    """

    def __init__(self, first: Expr, stages: int, size: int, at_once: int) -> None:
        self._stages, self._bytes, self._last = stages, size, (stages - 1) * size
        self._step: int | None = 0 if at_once % stages == 0 else None
        self._at = registers("ring", 3, dtype="int32")
        self._at[FIRST] = first
        self._at[READ] = first
        self._at[WRITTEN] = first + self._last

    @property
    def reading(self) -> Expr:
        """Where the operands of the step begin."""
        return self._at[READ] if self._step is None else self.stage(self._step)

    @property
    def writing(self) -> Expr:
        """Where the stage begins that the step before has read."""
        return self._at[WRITTEN] if self._step is None else self.stage(self._step - 1)

    def stage(self, index: int) -> Expr:
        """Where a stage begins."""
        return self._at[FIRST] + index % self._stages * self._bytes

    def turn(self) -> None:
        """Goes on to the next step."""
        if self._step is not None:
            self._step += 1
            return
        self._at[WRITTEN] = self._at[READ]
        at = self._at[READ]
        end = self._at[FIRST] + self._last
        self._at[READ] = T.Select(at == end, self._at[FIRST], at + self._bytes)


FIRST, READ, WRITTEN = range(3)
"""Addresses of a ring that a thread holds."""

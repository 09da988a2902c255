"""The windows of a convolution's pixels, as the rows of a matrix product, and their way to shared
memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.builder import Buffer
from vggc.kernels.cuda import ptx
from vggc.kernels.cuda.addresses import RunningAddresses
from vggc.kernels.cuda.emit import flat, registers
from vggc.kernels.cuda.index import Position, at_most
from vggc.kernels.cuda.mma_tile import TensorTile, plane_bytes
from vggc.kernels.cuda.operands import OPERANDS, SEGMENT_BYTES
from vggc.kernels.workloads import Conv


@dataclass(frozen=True)
class WindowRows:
    """The windows of all pixels that a convolution computes: its rows."""

    conv: Conv

    @property
    def rows(self) -> int:
        """The pixels that are computed, of all images."""
        return self.conv.output.batch * prod(self.conv.grid)

    @property
    def numbers(self) -> int:
        """The numbers of a window."""
        return prod(self.conv.kernel) * self.conv.input.shape[-1]

    @property
    def num_segments(self) -> int:
        """The segments of a window."""
        return prod(self.conv.kernel) * self._per_pixel

    @property
    def run(self) -> int:
        """The numbers of a window that follow one another in memory: those of a row of taps, or all
        where windows are as wide as the map; where taps are apart those of a pixel.
        """
        _, _, width, channels = self.conv.input.shape
        across = self.conv.kernel[1]
        if self.is_dilated:
            return channels
        return self.numbers if across == width else across * channels

    @property
    def is_dilated(self) -> bool:
        """Whether taps are apart."""
        return self.conv.dilation != (1, 1)

    def corner(self, row: Position) -> Position:
        """Where in the input's buffer, in segments, the window of a row begins; rows past the last
        have the window of the last.
        """
        conv = self.conv
        _, height, width, _ = conv.input.shape
        if conv.pool:
            # Sixteen rows are four pooled pixels: the upper pixels of each, then the lower ones.
            windows = conv.output.height * conv.output.width * conv.output.batch
            window = at_most(row // 16 * 4 + row % 8 // 2, windows - 1)
            n, y, x = _pixel(window, conv.output.height, conv.output.width)
            y, x = 2 * y + row // 8 % 2, 2 * x + row % 2
        else:
            known = at_most(row, self.rows - 1)
            n, y, x = _pixel(known, conv.output.height, conv.output.width)
        top = y * conv.stride[0] + conv.input.halo - conv.padding[0]
        left = x * conv.stride[1] + conv.input.halo - conv.padding[1]
        return ((n * height + top) * width + left) * self._per_pixel

    def behind(self, segment: Position) -> Position:
        """How many segments behind a window's first one in the input's buffer one of its segments
        lies, which are counted in the order of the reduction: over taps and then channels.
        """
        width, across, (down, right) = (
            self.conv.input.shape[2],
            self.conv.kernel[1],
            self.conv.dilation,
        )
        tap, within = segment // self._per_pixel, segment % self._per_pixel
        pixels = tap // across * (down * width) + tap % across * right
        return pixels * self._per_pixel + within

    def place(self, index: Position) -> tuple[Position, Position]:
        """Where in the output's buffer a pixel begins that is counted through all images, and
        whether it is one.
        """
        target = self.conv.output
        _, height, width, stored = target.shape
        n, y, x = _pixel(index, target.height, target.width)
        at = ((n * height + y + target.halo) * width + x + target.halo) * stored
        return at, index < target.batch * target.height * target.width

    @property
    def _per_pixel(self) -> int:
        """The segments of a pixel."""
        return self.conv.input.shape[-1] // OPERANDS[self.conv.input.format].segment


def _pixel(index: Position, height: int, width: int) -> tuple[Position, Position, Position]:
    """The image, row and column of a pixel by its number."""
    return index // (height * width), index // width % height, index % width


LANES = 4
"""The threads that copy a row. Each has some of its segments, whose addresses are one."""
PLANES = 4
"""Rows lie in shared memory so far apart as where there are so many planes: `LANES` segments of two
rows are on different banks."""


class WindowSteps:
    """The windows of a tile's rows, step by step, on their way to shared memory.

    The code of the main loop has so many steps `at_once`, which are a part of a run where they are
    more than one.
    """

    def __init__(
        self,
        windows: WindowRows,
        tile: TensorTile,
        x: Buffer,
        first_row: Expr,
        first_step: Expr,
        thread: Expr,
        at_once: int,
    ) -> None:
        lane, row = thread % LANES, thread // LANES
        plane = window_plane(tile)
        self._rows = [rows * SEGMENT_BYTES for rows in range(0, tile.rows, tile.threads // LANES)]
        self._planes = [segment * plane for segment in range(0, tile.row_segments, LANES)]
        self._target = ptx.kept("rows_to", row * SEGMENT_BYTES + lane * plane)
        corners = [
            windows.corner(first_row + rows + row)
            for rows in range(0, tile.rows, tile.threads // LANES)
        ]
        along_runs = windows.run % tile.depth == 0 and not windows.is_dilated
        sources = _AlongRuns if along_runs else _AnyStep
        self._sources: _AlongRuns | _AnyStep = sources(
            windows, tile, flat(x), corners, lane, first_step, at_once
        )

    def copy(self, address: Expr) -> None:
        """Begins to copy the windows' part in the step to an address in shared memory."""
        for (row, rows), (part, plane) in product(enumerate(self._rows), enumerate(self._planes)):
            self._sources.copy(row, part * LANES, address + self._target + (rows + plane))

    def go_on(self) -> None:
        """Goes on to the next step, if there is one."""
        self._sources.go_on()


def window_plane(tile: TensorTile) -> int:
    """The bytes from a plane of a tile's windows in shared memory to the next."""
    return plane_bytes(tile.rows, PLANES)


class _AlongRuns:
    """Steps that fill runs: a thread holds the address of each of its rows, and moves it on once
    for all steps that the code has.
    """

    def __init__(
        self,
        windows: WindowRows,
        tile: TensorTile,
        x: Buffer,
        corners: list[Expr],
        lane: Expr,
        first_step: Expr,
        at_once: int,
    ) -> None:
        self._at_once, self._step_bytes, self._within = at_once, tile.row_bytes, 0
        _, _, width, channels = windows.conv.input.shape
        self._turns = windows.run // (tile.depth * at_once)
        self._gap = (width * channels - windows.run) * tile.size
        self._one_run = windows.run == windows.numbers
        first = windows.behind(first_step * tile.row_segments + lane)
        self._sources = RunningAddresses("windows", len(corners))
        for row, corner in enumerate(corners):
            self._sources.start(row, x, (corner + first) * (SEGMENT_BYTES // tile.size))
        if not self._one_run:
            self._left = registers("left_of_run", 1, dtype="int32")
            within = first_step % (windows.run // tile.depth)
            self._left[0] = self._turns - within // at_once

    def copy(self, row: int, segment: int, target: Expr) -> None:
        distance = self._within * self._step_bytes + segment * SEGMENT_BYTES
        ptx.copy_async(target, self._sources.at(row, distance))

    def go_on(self) -> None:
        self._within = (self._within + 1) % self._at_once
        if self._within:
            return
        distance = self._at_once * self._step_bytes
        if self._one_run:
            self._sources.go_on(distance)
            return
        self._left[0] -= 1
        ends = self._left[0] == 0
        self._sources.go_on(T.Select(ends, T.int32(distance + self._gap), T.int32(distance)))
        self._left[0] = T.Select(ends, T.int32(self._turns), self._left[0])


class _AnyStep:
    """Steps that lie across runs, and the last of which may be a part only: a thread works out
    where its segments of each step lie. Behind the last one are zeros.
    """

    def __init__(
        self,
        windows: WindowRows,
        tile: TensorTile,
        x: Buffer,
        corners: list[Expr],
        lane: Expr,
        first_step: Expr,
        at_once: int,
    ) -> None:
        assert at_once == 1
        self._windows, self._x = windows, x
        self._numbers = SEGMENT_BYTES // tile.size
        self._row_segments = tile.row_segments
        self._corners = registers("corners", len(corners), dtype="int32")
        for row, corner in enumerate(corners):
            self._corners[row] = corner * self._numbers
        self._segment = registers("segment", 1, dtype="int32")
        self._segment[0] = first_step * tile.row_segments + lane

    def copy(self, row: int, segment: int, target: Expr) -> None:
        index, corner = self._segment[0] + segment, self._corners[row]
        source = corner + self._windows.behind(index) * self._numbers
        if self._windows.num_segments % self._row_segments == 0:
            ptx.copy_async(target, self._x.address(source))
        else:
            inside = index < self._windows.num_segments
            source = T.Select(inside, source, corner)
            ptx.copy_async_or_zeros(target, self._x.address(source), inside)

    def go_on(self) -> None:
        self._segment[0] += self._row_segments

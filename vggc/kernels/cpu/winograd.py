"""Winograd convolution: 3×3 with stride 1 by (m+2)² products for m×m outputs in place of 9·m².

So are 5×5, by (m+4)² products in place of 25·m². With r×r taps, n = m + r - 1, there are three
stages over blocks of tiles of m×m output pixels, in vectors of channels as they lie in
NHWC. The input of each tile is transformed to `n²` vectors; for each of these elements e the
tiles are multiplied with the transformed weights, `M[e] = V[e]·U[e]`, a GEMM whose tile stays in
registers; and what a tile gets is transformed back, with bias, activation and pool. A panel of
output channels goes through the last two stages before the next, so that its products stay in
cache.

Either each thread has blocks of its own ("tiles"), for large maps; or all share the transformed
input and each has panels of its own ("panels"), for small maps with many channels, whose weights
are then read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import product
from math import ceil, prod, sqrt
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr
from tvm.tirx import const
from tvm.tirx.script import builder as T

from vggc.ir.ops import Activation
from vggc.kernels.activation import activate, is_long
from vggc.kernels.algorithm import Buffers, Cost
from vggc.kernels.builder import Buffer, parallel, serial, vectorized, when
from vggc.kernels.cpu.algorithm import CpuAlgorithm
from vggc.kernels.cpu.conv import MULTIPLY_ADDS_IN_FLIGHT
from vggc.kernels.cpu.formats import read, rounded
from vggc.kernels.cpu.loops import (
    clear_halo,
    elements,
    inside,
    prefetch,
    registers,
    scratch,
)
from vggc.kernels.cpu.machine import FLOAT, LINE, Machine
from vggc.kernels.toom_cook import POINTS, TAPS, Matrix, Transforms, filtering
from vggc.kernels.workloads import Conv, Packing, by_panels

ROUNDING = {3: {2: 2.8e-8, 4: 8e-8, 6: 3.2e-7}, 5: {2: 9.5e-8, 4: 3.3e-7}}
"""The relative L2 error of a layer of one channel behind a ReLU, by taps and m; it grows with the
root of the channels (`benchmarks/winograd.py`).
"""
MAX_VECTORS, MAX_VECTORS_OF_WORDS = 4, 2
"""Vectors of the GEMM's register tile at most, of float32 and of words of two numbers: more would
leave too few rows to read the weights for, and a step of words multiplies twice as much.
"""
SPILLED = (8, 3)
"""Rows and vectors whose sums LLVM 22 keeps in memory where blocks divide the map (Zen 5): that
takes 1.8 times the time.
"""
STRIPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
MAX_SCRATCH_BYTES = 48 << 20
"""Bytes of the blocks of all threads together at most, where each core has one: a net promises to
take little memory beside its weights, and more would lie in no cache anyway.
"""
TRANSFORM, WEIGHTS, OVERHEAD, BARRIER = 18, 6, 4, 20_000
"""What was measured, in half cycles: an element of a transformed vector, in or out, a vector of
weights from the cache, what a strip costs beside its products for each of its sums, a parallel
loop.
"""
TRANSFORM_FEWER_BITS = 10
"""Half cycles for an element of a transformed vector where maps are of fewer bits."""

CHUNK = 8
"""Vectors of channels transformed together: one dimension for all, then the other, through a buffer
in the L1 cache. All at once would be more values than there are registers.
"""

STEPS_BETWEEN = 16
"""Steps of the GEMM between prefetches: more at once than a core can await would stall it."""


@dataclass(frozen=True)
class WinogradKnobs:
    """The sizes of a Winograd kernel: `rows·vectors` is the register tile of the GEMM, `strips`
    such tiles make a block.

    `shared` is 1 where threads share a block and divide its panels.
    """

    rows: int
    vectors: int
    strips: int
    shared: int

    @property
    def block(self) -> int:
        """The Winograd tiles of a block."""
        return self.rows * self.strips


@dataclass(frozen=True)
class TransformedWeight:
    """Packs a weight `(K, C, r, r)` as `(K/panel, n², C, panel)`, n = m + r - 1, each filter g as
    `G·g·Gᵀ`.

    The last panel is padded with zeros. Computed in float64 and rounded once.
    """

    shape: tuple[int, ...]
    m: int
    panel: int

    packed_type = "float32"

    @property
    def packed_shape(self) -> tuple[int, ...]:
        k, c, taps, _ = self.shape
        return (ceil(k / self.panel), (self.m + taps - 1) ** 2, c, self.panel)

    def pack(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        k, c, taps, _ = self.shape
        panels, size, _, _ = self.packed_shape
        padded = np.zeros((panels * self.panel, c, taps * taps))
        padded[:k] = weight.reshape(k, c, taps * taps)
        moved = (padded @ self.matrix.T).reshape(panels, self.panel, c, size)
        return np.ascontiguousarray(moved.transpose(0, 3, 2, 1), np.float32)

    def pieces(self, weight: np.ndarray) -> Iterator[np.ndarray]:
        return by_panels(self, self.panel, weight)

    def unpack(self, packed: NDArray[np.float32]) -> NDArray[np.float32]:
        k, c, _, _ = self.shape
        moved = packed.transpose(0, 3, 2, 1).reshape(-1, c, packed.shape[1])[:k]
        weight = moved.astype(np.float64) @ np.linalg.pinv(self.matrix).T
        return np.ascontiguousarray(weight.reshape(self.shape), np.float32)

    @property
    def matrix(self) -> Matrix:
        """The matrix that takes the elements of a filter to those of `G·g·Gᵀ`, row by row."""
        return transform_of_filters(filtering(self.m, self.shape[2]))


def transform_of_filters(by: Transforms) -> Matrix:
    """The matrix that takes the elements of a filter g to those of `G·g·Gᵀ`, row by row."""
    return np.kron(by.filter, by.filter).astype(np.float64)


def has_tiles(conv: Conv, taps: int = TAPS) -> bool:
    """Whether `conv` is of the kind that Winograd's algorithm computes, in whatever format, and has
    so many taps in each direction.
    """
    return (
        conv.kernel == (taps, taps)
        and conv.stride == conv.dilation == (1, 1)
        and conv.groups == 1
        and min(conv.grid) > 1
    )


def blocks(conv: Conv, machine: Machine, m: int) -> Iterator[WinogradKnobs]:
    """Register tiles that use most of the registers, and blocks of them that end where the map
    does.

    There may be none within `MAX_SCRATCH_BYTES`.
    """
    tiles = num_tiles(conv, m)
    for vectors in range(1, min(ceil(conv.output.channels / machine.lanes), MAX_VECTORS) + 1):
        most = min((machine.registers - 1) // vectors - 1, tiles)
        for rows in range(ceil(most / 2), most + 1):
            if (rows, vectors) == SPILLED:
                continue
            whole = ceil(tiles / rows)
            counts = {strips for strips in STRIPS if strips < whole} | {whole}
            for strips in sorted(counts):
                for shared in (0, 1):
                    knobs = WinogradKnobs(rows, vectors, strips, shared)
                    if Emitter(conv, machine, m, knobs).scratch_bytes <= MAX_SCRATCH_BYTES:
                        yield knobs


def in_words(conv: Conv, word: int) -> Conv:
    """The float32 convolution that has a channel for each word of so many numbers."""
    source = replace(conv.input, channels=conv.input.channels // word, format="float32", zero=0)
    return replace(conv, input=source, output=replace(conv.output, format="float32", zero=0))


def num_tiles(conv: Conv, m: int) -> int:
    """The tiles of m×m pixels that cover the output, of all images."""
    height, width = conv.grid
    return conv.output.batch * ceil(height / m) * ceil(width / m)


def cost(
    conv: Conv, machine: Machine, m: int, knobs: WinogradKnobs, transform: float = TRANSFORM
) -> Cost:
    """The half cycles that all cores spend until the last is done.

    A step of the GEMM starts a multiply-add or a load a half cycle, and takes some more to turn
    the loop; the transforms cost what was measured of them. Weights come as fast as the cache or
    the memory that holds them delivers, while the core computes; half of what a core's cache has
    no room for of its block is waited for.
    """
    n = m + conv.kernel[0] - 1
    size, cores, panel = n**2, machine.cores, knobs.vectors * machine.lanes
    channels, panels = conv.input.channels, ceil(conv.output.channels / panel)
    tiles, block = num_tiles(conv, m), knobs.block
    num_blocks = ceil(tiles / block)

    sums = knobs.rows * knobs.vectors
    loads = knobs.rows + knobs.vectors
    busy = max(sums, loads, WEIGHTS * knobs.vectors, MULTIPLY_ADDS_IN_FLIGHT)
    step = 1.03 * busy + 0.5 / knobs.vectors
    products = size * knobs.strips * (channels * step + OVERHEAD * sums)
    weights, moved = FLOAT * size * channels * panel, FLOAT * size * block * channels
    fetch = weights / machine.delivery(weights * panels + moved)
    begin = transform * size * ceil(channels / machine.lanes)
    finish = transform * size * knobs.vectors
    reread = max(0, moved - machine.cache) / machine.delivery(moved) / 2
    panel_cost = max(products, fetch) + reread + block * finish

    if knobs.shared:
        one = ceil(block / cores) * begin + ceil(panels / cores) * panel_cost + 2 * BARRIER
        half_cycles = num_blocks * one
    else:
        half_cycles = ceil(num_blocks / cores) * (block * begin + panels * panel_cost) + BARRIER
    return (cores * half_cycles, products, knobs.block)


PixelValue: TypeAlias = Callable[[Expr, Expr], Expr]
"""What is written for a sum of a channel."""


@dataclass(frozen=True)
class Emitter:
    """Writes the body of a Winograd kernel.

    What is transformed is kept as floats, one a channel; `winograd_bf16` and `winograd_int16` keep
    it in other formats.
    """

    conv: Conv
    machine: Machine
    m: int
    knobs: WinogradKnobs

    @property
    def by(self) -> Transforms:
        """The matrices of the transforms."""
        return filtering(self.m, self.conv.kernel[0])

    @property
    def element(self) -> str:
        """The type in which inputs are transformed."""
        return "float32"

    @property
    def sum_type(self) -> str:
        """The type in which products are summed; they are transformed as float32."""
        return "float32"

    @property
    def header(self) -> int:
        """The rows of an element's packed weights that stand before those that are multiplied."""
        return 0

    @property
    def n(self) -> int:
        """The rows and columns of a transformed tile."""
        return self.m + self.conv.kernel[0] - 1

    @property
    def steps(self) -> int:
        """The steps of the GEMM, each for what one element of a row keeps of a tile's channels."""
        return self.conv.input.channels

    @property
    def panel(self) -> int:
        """The output channels of a panel: as many as `vectors` vectors have lanes."""
        return self.knobs.vectors * self.machine.lanes

    @property
    def num_panels(self) -> int:
        """The panels that cover the output channels."""
        return ceil(self.conv.output.channels / self.panel)

    @property
    def tiles(self) -> tuple[int, int]:
        """Winograd tiles in a column and in a row of a map."""
        height, width = self.conv.grid
        return ceil(height / self.m), ceil(width / self.m)

    @property
    def num_tiles(self) -> int:
        """The Winograd tiles that cover the output, of all images."""
        return num_tiles(self.conv, self.m)

    @property
    def macs(self) -> int:
        """The multiply-adds of the GEMM, its last strip filled up; transforms are not counted."""
        rows = ceil(self.num_tiles / self.knobs.rows) * self.knobs.rows
        return rows * self.n**2 * self.conv.input.channels * self.num_panels * self.panel

    @property
    def row(self) -> int:
        """The elements from one tile's kept channels to those of the next.

        With a power of two the lines of all rows would meet in one set of a cache.
        """
        return self.steps + self.machine.lanes

    @property
    def kept_shape(self) -> tuple[int, int]:
        """The shape of a block's transformed input."""
        return self.n**2, self.knobs.block * self.row + self.machine.lanes

    @property
    def products_shape(self) -> tuple[int, int, int]:
        """The shape of the products of a block with one panel."""
        return self.n**2, self.knobs.block, self.panel

    @property
    def scratch_bytes(self) -> int:
        """The bytes of transformed input and products together, of all threads, where there are as
        many as cores.
        """
        kept, products = (FLOAT * prod(shape) for shape in (self.kept_shape, self.products_shape))
        threads = self.machine.cores
        return (kept if self.knobs.shared else threads * kept) + threads * products

    def kept(self) -> Buffer:
        """The memory of a block's transformed input."""
        return scratch("moved", *self.kept_shape)

    def emit(self, x: Buffer, weight: Buffer, y: Buffer, result: PixelValue) -> None:
        """Write the kernel: `result` makes a value of the output of a sum and its channel."""
        block = self.knobs.block
        num_blocks = ceil(self.num_tiles / block)
        clear_halo(y, self.conv.output)

        def panels(first: Expr | int, moved: Buffer, index: Expr) -> None:
            products = scratch("products", *self.products_shape)
            fetch = partial(self.fetch_pixels, x, y, first, index)
            self.multiply(moved, weight, index, products, self.strips(first), fetch)
            with serial("tile", self.count(first)) as tile:
                self.finish(products, tile, first + tile, index, result, y)

        if self.knobs.shared:
            moved = self.kept()
            with serial("number", num_blocks) as number:
                first = number * block
                with parallel("tile", self.count(first)) as tile:
                    self.begin(x, first + tile, moved, tile)
                with parallel("index", self.num_panels) as index:
                    panels(first, moved, index)
        else:
            with parallel("number", num_blocks) as number:
                first = number * block
                moved = self.kept()
                with serial("tile", self.count(first)) as tile:
                    self.begin(x, first + tile, moved, tile)
                with serial("index", self.num_panels) as index:
                    panels(first, moved, index)

    def count(self, first: Expr | int) -> Expr | int:
        """The tiles of the block that begins with tile `first`."""
        block = self.knobs.block
        return block if self.num_tiles % block == 0 else T.min(block, self.num_tiles - first)

    def strips(self, first: Expr | int) -> Expr | int:
        """The strips of the block that begins with tile `first`."""
        rows = self.knobs.rows
        whole = self.num_tiles % self.knobs.block == 0
        return self.knobs.strips if whole else (self.count(first) + (rows - 1)) // rows

    def origin(self, tile: Expr) -> tuple[Expr, Expr, Expr]:
        """The image of a tile, and its first row and column."""
        rows, columns = self.tiles
        return tile // (rows * columns), tile // columns % rows * self.m, tile % columns * self.m

    def begin(self, x: Buffer, tile: Expr, moved: Buffer, at: Expr) -> None:
        """Transform the input of a tile.

        What lies beyond the map is needed by no pixel that is kept; the map's last row and
        column stand in for it.
        """
        source, n = self.conv.input, self.n
        lanes = self.machine.lanes * FLOAT // np.dtype(self.element).itemsize
        image, y0, x0 = self.origin(tile)
        top, left = (source.halo - padding for padding in self.conv.padding)
        height, width = source.shape[1:3]
        down = self.tiles[0] * self.m + n - self.m + top > height
        across = self.tiles[1] * self.m + n - self.m + left > width
        rows = [T.min(y0 + top + i, height - 1) if down else y0 + top + i for i in range(n)]

        def column(j: Expr) -> Expr:
            return T.min(x0 + left + j, width - 1) if across else x0 + left + j

        for first, size, step in _chunks(source.channels, lanes):
            half = scratch("half", n, n, size, dtype=self.element)
            with (
                serial("j", n) as j,
                serial("vector", size // step) as vector,
                vectorized("lane", step) as lane,
            ):
                c = vector * step + lane
                values = [self.input(x[image, row, column(j), first + c]) for row in rows]
                for i, value in enumerate(to_input(self.by, values, self.element)):
                    half[i, j, c] = value
            self.keep(half, size, step, moved, at * self.row, first)

    def input(self, stored: Expr) -> Expr:
        """A value of the map as an element."""
        return read(stored, self.conv.input.format)

    def keep(
        self, half: Buffer, size: int, step: int, moved: Buffer, row: Expr, first: Expr | int
    ) -> None:
        """Transform `size` channels from `first` on in the other dimension, and keep them."""
        n = self.n
        with serial("vector", size // step) as vector, vectorized("lane", step) as lane:
            c = vector * step + lane
            for i in range(n):
                values = to_input(self.by, [half[i, j, c] for j in range(n)])
                for j, value in enumerate(values):
                    moved[i * n + j, row + first + c] = value

    def multiply(
        self,
        moved: Buffer,
        weight: Buffer,
        panel: Expr,
        products: Buffer,
        strips: Expr | int,
        fetch: Callable[[Expr, Expr], None],
    ) -> None:
        """All products of a block with one panel of the transformed weights.

        Meanwhile `fetch` asks for an element of each tile.
        """
        rows, lanes = self.knobs.rows, self.machine.lanes
        steps = STEPS_BETWEEN if self.steps % STEPS_BETWEEN == 0 else self.steps
        at_once = ceil(rows * steps / self.steps)
        with serial("e", self.n**2) as e, serial("strip", strips) as strip:
            sums = [registers("sums", self.panel, self.sum_type) for _ in range(rows)]
            for row in sums:
                for k in elements((), self.panel, lanes):
                    row[k] = const(0, self.sum_type)
            with serial("part", self.steps // steps) as part:
                with serial("index", at_once) as index:
                    tile = part * at_once + index
                    with when(tile < rows):
                        fetch(e, strip * rows + tile)
                with serial("step", steps) as step:
                    c = part * steps + step
                    self.fetch_next(weight, panel, e, strip, c)
                    for i, row in enumerate(sums):
                        factor = moved[e, (strip * rows + i) * self.row + c]
                        for vector in range(self.knobs.vectors):
                            self.add(row, vector * lanes, factor, weight, (panel, e, c))
            for i, row in enumerate(sums):
                for (k,) in elements((), self.panel, lanes):
                    value = self.product(row[k], weight, (panel, e), k)
                    products[e, strip * rows + i, k] = value

    def add(
        self, sums: Buffer, first: int, factor: Expr, weight: Buffer, place: tuple[Expr, ...]
    ) -> None:
        """Add a vector of products to the sums from `first` on."""
        with vectorized("lane", self.machine.lanes) as lane:
            k = first + lane
            sums[k] += factor * weight[*place, k]

    def product(self, total: Expr, weight: Buffer, place: tuple[Expr, ...], k: Expr) -> Expr:
        """What a sum of products stands for, as a float32."""
        return total

    def fetch_pixels(
        self, x: Buffer, y: Buffer, first: Expr | int, panel: Expr, e: Expr, at: Expr
    ) -> None:
        """Ask for the pixel that element e of a tile is of: where its output goes, and what the
        same tile of the next block reads.

        Transforms would have to wait for them; the GEMM computes meanwhile. Each panel asks for
        its part of the channels.
        """
        conv, m, n = self.conv, self.m, self.n
        side = 2 if conv.pool else 1
        i, j = e // n, e % n

        with when(T.And(i < m // side, j < m // side)):
            image, y0, x0 = self.origin(first + at)
            row, column = y0 // side + i, x0 // side + j
            self.fetch_pixel(y, inside(conv.output, image, row, column, 0), panel, write=True)
        if not self.knobs.shared:  # or another core may have that tile
            top, left = (conv.input.halo - padding for padding in conv.padding)
            # The other columns are those of the tile beside.
            with when(j < m):
                image, y0, x0 = self.origin(first + self.knobs.block + at)
                self.fetch_pixel(x, [image, y0 + top + i, x0 + left + j, 0], panel)

    def fetch_pixel(
        self, map: Buffer, pixel: Sequence[Expr], panel: Expr, *, write: bool = False
    ) -> None:
        """Ask for a panel's part of the channels of a pixel."""
        *place, first = pixel
        in_line = LINE // np.dtype(str(map.dtype)).itemsize
        lines = ceil(int(map.shape[-1]) / in_line / self.num_panels)
        for line in range(lines):
            channel = first + (panel * lines + line) * in_line
            prefetch(map.address(*place, channel), write=write)

    def fetch_next(self, weight: Buffer, panel: Expr, e: Expr, strip: Expr, c: Expr) -> None:
        """Ask for a step's share of the weights of the next element.

        They would come from memory otherwise, and its first strip wait for them.
        """
        vectors, lanes = self.knobs.vectors, self.machine.lanes
        lines = ceil(vectors / self.knobs.strips)
        stored = self.header + self.steps
        line = weight.view("line", self.num_panels * self.n**2 * stored * vectors, lanes)
        start = ((panel * self.n**2 + e + 1) * stored + self.header) * vectors

        def fetch() -> None:
            for index in range(lines):
                at = start + (strip * self.steps + c) * lines + index
                prefetch(line.address(at, 0))

        if lines * self.knobs.strips == vectors:
            fetch()
        else:
            with when(strip * lines < vectors):
                fetch()

    def finish(
        self, products: Buffer, at: Expr, tile: Expr, panel: Expr, result: PixelValue, y: Buffer
    ) -> None:
        """Transform the products of a tile to its output, a panel of channels."""
        out, lanes = self.conv.output, self.machine.lanes
        full, rest = divmod(out.channels, lanes)
        with serial("vector", self.knobs.vectors) as vector:
            number = panel * self.knobs.vectors + vector
            store = partial(self.store, products, at, tile, vector, number * lanes, result, y)
            if out.channels % self.panel == 0:
                store(lanes)
            else:
                if full:
                    with when(number < full):
                        store(lanes)
                if rest:
                    with when(number == full):
                        store(rest)

    def store(
        self,
        products: Buffer,
        at: Expr,
        tile: Expr,
        vector: Expr,
        first: Expr,
        result: PixelValue,
        y: Buffer,
        width: int,
    ) -> None:
        """One vector of `finish`: `width` channels from `first` on."""
        m, n, lanes, out = self.m, self.n, self.machine.lanes, self.conv.output
        image, y0, x0 = self.origin(tile)
        side = 2 if self.conv.pool else 1
        half = scratch("half", m, n, width)
        whole = scratch("whole", m, m, width)
        with vectorized("lane", width) as lane:
            for j in range(n):
                values = [products[i * n + j, at, vector * lanes + lane] for i in range(n)]
                for i, value in enumerate(_to_output(self.by, values)):
                    half[i, j, lane] = value
            for i in range(m):
                values = [half[i, j, lane] for j in range(n)]
                for j, value in enumerate(_to_output(self.by, values)):
                    whole[i, j, lane] = value
        with _pixels(m // side, self.conv.act) as pixels:
            for i, j in pixels:
                row, column = y0 // side + i, x0 // side + j
                with (
                    _guard(row, i, m // side, out.height),
                    _guard(column, j, m // side, out.width),
                    vectorized("lane", width) as lane,
                ):
                    window = [
                        whole[side * i + di, side * j + dj, lane]
                        for di, dj in product(range(side), repeat=2)
                    ]
                    value = result(reduce(T.max, window), first + lane)
                    stored = rounded(value, out.format, out.zero)
                    y[inside(out, image, row, column, first + lane)] = stored


@dataclass(frozen=True)
class Winograd(CpuAlgorithm[Conv, WinogradKnobs]):
    """F(m×m, r×r): tiles are transformed, multiplied element by element, and transformed back."""

    computes = Conv
    m: ClassVar[int]

    @classmethod
    def applies(cls, workload: Conv) -> bool:
        """Convolutions of square kernels, 3×3 or with the smaller tiles 5×5, with stride 1 and no
        dilation, of maps that a smaller tile does not cover.
        """
        in_float32 = workload.input.format == workload.output.format == "float32"
        larger = cls.m == min(POINTS) or cls.m < max(workload.grid)
        is_kind = any(has_tiles(workload, taps) for taps in cls.taps())
        return in_float32 and workload.addend is None and larger and is_kind

    @classmethod
    def taps(cls) -> tuple[int, ...]:
        """The taps in each direction of the filters that there are such tiles for."""
        return tuple(taps for taps, of_tiles in ROUNDING.items() if cls.m in of_tiles)

    def knobs(self) -> Iterator[WinogradKnobs]:
        return blocks(self.workload, self.machine, self.m)

    def cost(self, knobs: WinogradKnobs) -> Cost:
        return cost(self.workload, self.machine, self.m, knobs)

    @property
    def error(self) -> float:
        return ROUNDING[self.workload.kernel[0]][self.m] * sqrt(self.workload.input.channels)

    def emitter(self, knobs: WinogradKnobs) -> Emitter:
        """The object that writes the body of the kernel."""
        return Emitter(self.workload, self.machine, self.m, knobs)

    def packing(self, knobs: WinogradKnobs) -> Packing:
        return TransformedWeight(self.workload.weight_shape, self.m, self.emitter(knobs).panel)

    def macs(self, knobs: WinogradKnobs) -> int:
        return self.emitter(knobs).macs

    def value(self, buffers: Buffers, total: Expr, channel: Expr) -> Expr:
        """What is written for a channel's sum: with bias and activation."""
        return activate(self.workload.act, total + buffers["bias"][channel])

    def emit(self, knobs: WinogradKnobs, buffers: Buffers) -> None:
        x, weight, y = (buffers[name] for name in ("x", "weight", "y"))
        self.emitter(knobs).emit(x, weight, y, partial(self.value, buffers))


class Winograd2(Winograd):
    """Winograd's algorithm by tiles of 2×2 pixels: of 3×3 2.25 times fewer products, of 5×5 2.78
    times.
    """

    names = ("winograd2",)
    m = 2


class Winograd4(Winograd):
    """Winograd's algorithm by tiles of 4×4 pixels: of 3×3 four times fewer products, of 5×5 6.25
    times.
    """

    names = ("winograd4",)
    m = 4


class Winograd6(Winograd):
    """Winograd's algorithm by tiles of 6×6 pixels: of 3×3 5.06 times fewer products."""

    names = ("winograd6",)
    m = 6


class WinogradInWords(Winograd):
    """F(m×m, 3×3) whose products are of words of two numbers of fewer bits."""

    @property
    def words(self) -> Conv:
        """The float32 convolution that has a channel for each word."""
        return in_words(self.workload, 2)

    def knobs(self) -> Iterator[WinogradKnobs]:
        found = blocks(self.words, self.machine, self.m)
        return (each for each in found if each.vectors <= MAX_VECTORS_OF_WORDS)

    def cost(self, knobs: WinogradKnobs) -> Cost:
        return cost(self.words, self.machine, self.m, knobs, transform=TRANSFORM_FEWER_BITS)

    @property
    def error(self) -> float:
        return 0.0


@contextmanager
def _pixels(side: int, act: Activation | None) -> Iterator[list[tuple[Expr | int, Expr | int]]]:
    """The pixels of a tile, written out unless the activation is long."""
    if is_long(act):
        with serial("i", side) as i, serial("j", side) as j:
            yield [(i, j)]
    else:
        yield [(i, j) for i, j in product(range(side), repeat=2)]


@contextmanager
def _guard(index: Expr, offset: Expr | int, tile: int, extent: int) -> Iterator[None]:
    """Only where the pixel `offset` of a tile is on the map."""
    if extent % tile == 0 or (isinstance(offset, int) and offset < extent % tile):
        yield
    else:
        with when(index < extent):
            yield


def _chunks(channels: int, lanes: int) -> Iterator[tuple[Expr | int, int, int]]:
    """Loops over chunks of channels: the first one, how many, and those of a vector."""
    full, rest = divmod(channels, lanes)
    sizes = (size for size in range(1, CHUNK + 1) if full % size == 0 and size % 2 == full % 2)
    chunk = max(sizes, default=full)
    if full:
        with serial("index", full // chunk) as index:
            yield index * chunk * lanes, chunk * lanes, lanes
    if rest:
        yield full * lanes, rest, rest


def to_input(by: Transforms, values: Sequence[Expr], dtype: str = "float32") -> list[Expr]:
    """Bᵀ times a vector; rows of the points ±p differ in the sign of their odd elements."""
    matrix = by.input
    found = [_dot(row, values, dtype) for row in matrix]
    for j in range(1, len(matrix) - 1, 2):
        even, odd = (_dot(matrix[j, part::2], values[part::2], dtype) for part in (0, 1))
        found[j : j + 2] = even + odd, even - odd
    return found


def _to_output(by: Transforms, values: Sequence[Expr]) -> list[Expr]:
    """Aᵀ times a vector; columns of the points ±p differ in the sign of their odd elements."""
    matrix = by.output
    pairs = range(1, matrix.shape[1] - 1, 2)
    summed = [values[0], *(values[j] + values[j + 1] for j in pairs), values[-1]]
    differing = [values[0], *(values[j] - values[j + 1] for j in pairs), values[-1]]
    columns = [0, *pairs, matrix.shape[1] - 1]
    return [_dot(row[columns], (summed, differing)[i % 2]) for i, row in enumerate(matrix)]


def _dot(
    coefficients: Sequence[float] | Matrix, values: Sequence[Expr], dtype: str = "float32"
) -> Expr:
    """The sum of the values with coefficients other than zero, in their type."""
    terms = [
        (float(factor), value)
        for factor, value in zip(coefficients, values, strict=True)
        if factor != 0
    ]
    terms.sort(key=lambda term: (term[0] < 0, abs(term[0]) != 1))
    total: Expr | None = None
    for factor, value in terms:
        term = value if abs(factor) == 1 else value * const(abs(factor), dtype)
        if total is None:
            total = term if factor > 0 else value * const(factor, dtype)
        else:
            total = total + term if factor > 0 else total - term
    assert total is not None
    return total

"""Direct convolution: a tile of pixels by channels stays in registers for the whole reduction.

A tile is `images·rows·columns` output pixels by `vectors` vector registers of output
channels. For every kernel row it walks the `kw·C` floats of the input that lie side by
side in NHWC order, multiplies one broadcast float per pixel with the packed weights and
accumulates. A long reduction is summed in pieces: the rounding error of a sum grows with
the square root of its length, and a piece costs one addition per element. Loops run over
blocks of channels outermost, so that one block of weights (590 KB for 3×3 over 512
channels) serves every tile from the L2 cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from math import ceil, prod

import numpy as np
from tvm.ir import Expr
from tvm.tirx import Buffer
from tvm.tirx.script import builder as T

from vggc.kernels.cpu.loops import clear_halo, function, inside, tile_origin, unrolled, view
from vggc.kernels.cpu.machine import Machine
from vggc.kernels.workloads import Conv, Kernel

# Independent multiply-adds that keep two units busy, five cycles deep on older CPUs.
MULTIPLY_ADDS_IN_FLIGHT = 10
# Wider blocks would pad common numbers of channels for no gain.
MAX_VECTORS = 8
# Terms of a partial sum: the error of 4608 terms becomes that of 520.
PIECE = 512
# Rows are often a multiple of 4 KiB apart and then share one set of an eight-way L1 cache.
MAX_ROWS = 8


@dataclass(frozen=True)
class ConvKnobs:
    """The register tile: `images·rows·columns` output pixels by `vectors` of channels."""

    images: int
    rows: int
    columns: int
    vectors: int

    @property
    def pixels(self) -> int:
        return self.images * self.rows * self.columns


def tiles(conv: Conv, machine: Machine) -> Iterator[ConvKnobs]:
    """Tiles that fit the map and leave registers for the operands."""
    out = conv.output
    for vectors in range(1, min(ceil(out.channels / machine.lanes), MAX_VECTORS) + 1):
        pixels = (machine.registers - 1) // vectors - 1
        for images in range(1, min(out.batch, pixels, MAX_ROWS) + 1):
            for rows in range(1, min(out.height, pixels // images, MAX_ROWS // images) + 1):
                for columns in range(1, min(out.width, pixels // (images * rows)) + 1):
                    yield ConvKnobs(images, rows, columns, vectors)


def default_knobs(conv: Conv, machine: Machine) -> ConvKnobs:
    """The tile that promises the shortest run."""
    return min(tiles(conv, machine), key=lambda knobs: cost(conv, machine, knobs))


def cost(conv: Conv, machine: Machine, knobs: ConvKnobs) -> tuple[int, int, int, int]:
    """The order of preference of tiles, least first.

    First the half cycles that all tiles spend on one step of the reduction, on a core
    that starts two multiply-adds and two loads a cycle and gets a vector of weights from
    L2 every other cycle. Then the weights read, then the pixels read. Then tall tiles
    go first: those that follow one another in a row share more of their input.
    """
    out = conv.output
    num_tiles = (
        ceil(out.channels / (machine.lanes * knobs.vectors))
        * ceil(out.batch / knobs.images)
        * ceil(out.height / knobs.rows)
        * ceil(out.width / knobs.columns)
    )
    multiply_adds = knobs.pixels * knobs.vectors
    loads = knobs.pixels + knobs.vectors
    step = max(multiply_adds, loads, 4 * knobs.vectors, MULTIPLY_ADDS_IN_FLIGHT)
    sizes = zip((knobs.rows, knobs.columns), conv.stride, conv.kernel, strict=True)
    pixels_read = prod((size - 1) * stride + window for size, stride, window in sizes)
    return (
        num_tiles * step,
        num_tiles * knobs.vectors,
        num_tiles * knobs.images * pixels_read,
        -knobs.rows,
    )


@dataclass(frozen=True)
class BlockedWeight:
    """`(K, C, kh, kw)` as `(K/block, kh, kw, C, block)`, the last block padded with zeros."""

    shape: tuple[int, ...]
    block: int

    @property
    def packed_shape(self) -> tuple[int, ...]:
        k, c, kh, kw = self.shape
        return (ceil(k / self.block), kh, kw, c, self.block)

    def pack(self, weight: np.ndarray) -> np.ndarray:
        k, c, kh, kw = self.shape
        blocks = self.packed_shape[0]
        padded = np.zeros((blocks * self.block, c, kh, kw), weight.dtype)
        padded[:k] = weight
        blocked = padded.reshape(blocks, self.block, c, kh, kw)
        return np.ascontiguousarray(blocked.transpose(0, 3, 4, 2, 1))

    def unpack(self, packed: np.ndarray) -> np.ndarray:
        k, c, kh, kw = self.shape
        blocked = packed.transpose(0, 4, 3, 1, 2)
        return np.ascontiguousarray(blocked.reshape(-1, c, kh, kw)[:k])


def kernel(conv: Conv, machine: Machine, knobs: ConvKnobs | None = None) -> Kernel:
    """Code for `conv` with these knobs, one of `tiles`, or with the default ones."""
    knobs = knobs or default_knobs(conv, machine)
    packing = BlockedWeight(conv.weight_shape, knobs.vectors * machine.lanes)
    func = function(
        partial(emit, conv, machine, knobs),
        x=conv.input.shape,
        weight=packing.packed_shape,
        bias=(conv.output.channels,),
        y=conv.output.shape,
    )
    return Kernel("direct", asdict(knobs), func, packing)


def elements(knobs: ConvKnobs, channels: int, lanes: int) -> Iterator[tuple[Expr, ...]]:
    """Unrolled loops over the pixels and the first `channels` channels of a tile."""
    pixels = (knobs.images, knobs.rows, knobs.columns)
    full, rest = divmod(channels, lanes)
    if full:
        with unrolled(*pixels, full) as (*pixel, vector), T.vectorized(lanes) as lane:
            yield *pixel, vector * lanes + lane
    if rest:
        with unrolled(*pixels) as pixel, T.vectorized(rest) as lane:
            yield *pixel, full * lanes + lane


def emit(
    conv: Conv,
    machine: Machine,
    knobs: ConvKnobs,
    x: Buffer,
    weight: Buffer,
    bias: Buffer,
    y: Buffer,
) -> None:
    """Write the body of a kernel. `x` and `y` may have any shape of the maps' sizes."""
    source, out = conv.input, conv.output
    (kh, kw), (stride_y, stride_x) = conv.kernel, conv.stride
    top, left = (source.halo - padding for padding in conv.padding)
    block = knobs.vectors * machine.lanes
    num_blocks = ceil(out.channels / block)
    num_rows = ceil(out.height / knobs.rows)
    num_columns = ceil(out.width / knobs.columns)
    num_images = ceil(out.batch / knobs.images)

    batch, height, width, channels = source.shape
    x_rows = view(x, (batch, height, width * channels))
    weight_rows = view(weight, (num_blocks, kh, kw * channels, block))
    y_map = view(y, out.shape)

    clear_halo(y, out)
    with T.parallel(num_blocks * num_images * num_rows) as task:
        k = task // (num_images * num_rows)
        n0 = tile_origin(task // num_rows % num_images, knobs.images, out.batch)
        y0 = tile_origin(task % num_rows, knobs.rows, out.height)
        with T.serial(num_columns) as column:
            x0 = tile_origin(column, knobs.columns, out.width)
            tile = (knobs.images, knobs.rows, knobs.columns, block)
            sums = T.alloc_buffer(tile, "float32", scope="local")

            def fill_with_zeros(target: Buffer) -> None:
                for index in elements(knobs, block, machine.lanes):
                    T.buffer_store(target, T.float32(0), index)

            def accumulate(dy: Expr, first_step: Expr | int, num_steps: Expr | int) -> None:
                with T.serial(num_steps) as t:
                    for n, i, j, c in elements(knobs, block, machine.lanes):
                        row = (y0 + i) * stride_y + dy + top
                        first = ((x0 + j) * stride_x + left) * channels
                        factor = x_rows[n0 + n, row, first + first_step + t]
                        product = factor * weight_rows[k, dy, first_step + t, c]
                        T.buffer_store(sums, sums[n, i, j, c] + product, [n, i, j, c])

            row_steps = kw * channels
            if kh * row_steps <= 2 * PIECE:
                totals = sums
                fill_with_zeros(sums)
                with T.serial(kh) as dy:
                    accumulate(dy, 0, row_steps)
            else:
                totals = T.alloc_buffer(tile, "float32", scope="local")
                fill_with_zeros(totals)
                num_pieces = ceil(row_steps / PIECE)
                piece = ceil(row_steps / num_pieces)
                with T.serial(kh) as dy, T.serial(num_pieces) as index:
                    start = index * piece
                    cut = row_steps % piece != 0
                    fill_with_zeros(sums)
                    accumulate(dy, start, T.min(piece, row_steps - start) if cut else piece)
                    for at in elements(knobs, block, machine.lanes):
                        T.buffer_store(totals, totals[at] + sums[at], at)

            def store(num_channels: int) -> None:
                for n, i, j, c in elements(knobs, num_channels, machine.lanes):
                    value = totals[n, i, j, c] + bias[k * block + c]
                    T.buffer_store(
                        y_map,
                        T.max(value, T.float32(0)) if conv.relu else value,
                        inside(out, n0 + n, y0 + i, x0 + j, k * block + c),
                    )

            rest = out.channels - (num_blocks - 1) * block
            if rest == block:
                store(block)
            else:
                with T.If(k < num_blocks - 1):
                    with T.Then():
                        store(block)
                    with T.Else():
                        store(rest)

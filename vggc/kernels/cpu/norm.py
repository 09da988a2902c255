"""Group and layer normalisation: a mean, then the deviations from it, so that nothing cancels."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.activation import activate
from vggc.kernels.algorithm import Buffers, NoKnobs
from vggc.kernels.builder import Buffer, parallel, serial, unrolled, vectorized
from vggc.kernels.cpu.algorithm import FixedCpuAlgorithm
from vggc.kernels.cpu.loops import (
    clear_halo,
    each_vector,
    elements,
    inside,
    parallel_rows,
    registers,
    scratch,
    tile_origin,
)
from vggc.kernels.workloads import GroupNorm, LayerNorm

PIXELS = 4
"""Pixels whose channels are summed side by side: one sum after the other would wait for each
addition."""
MAX_VECTORS = 4
"""Vector registers of a block of channels at most; a row is summed with two for each."""
PIECE = 32
"""Terms of a partial sum: the error of a thousand terms becomes that of some sixty."""


class NormPixels(FixedCpuAlgorithm[LayerNorm]):
    """The channels of a few pixels are summed side by side, then their squared deviations; a few
    pixels per task.
    """

    names = ("pixels",)
    computes = LayerNorm

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        norm, lanes = self.workload, self.machine.lanes
        x, weight, bias, y = buffers.values()
        source, out = norm.input, norm.output
        channels, pixels = out.channels, min(PIXELS, out.width)
        tiles = ceil(out.width / pixels)

        clear_halo(y, out)
        with parallel("tile", out.batch * out.height * tiles) as tile:
            n, i = tile // (out.height * tiles), tile // tiles % out.height
            j0 = tile_origin(tile % tiles, pixels, out.width)
            means, scales = registers("means", pixels), registers("scales", pixels)
            sums = registers("sums", pixels * lanes)

            def read(j: Expr, c: Expr) -> Expr:
                return x[inside(source, n, i, j0 + j, c)]

            clear_lanes(sums, pixels, lanes)
            for j, c, lane in terms(pixels, channels, lanes):
                sums[j * lanes + lane] += read(j, c)
            with unrolled("j", pixels) as (j,):
                means[j] = across(sums, j, lanes) / T.float32(channels)
            clear_lanes(sums, pixels, lanes)
            for j, c, lane in terms(pixels, channels, lanes):
                deviation = read(j, c) - means[j]
                sums[j * lanes + lane] += deviation * deviation
            with unrolled("j", pixels) as (j,):
                variance = across(sums, j, lanes) / T.float32(channels)
                scales[j] = T.float32(1) / T.sqrt(variance + T.float32(norm.eps))
            with serial("j", pixels) as j:
                for c in each_vector(channels, lanes):
                    normal = (read(j, c) - means[j]) * scales[j]
                    value = activate(norm.act, normal * weight[c] + bias[c])
                    y[inside(out, n, i, j0 + j, c)] = value


def clear_lanes(sums: Buffer, count: int, lanes: int) -> None:
    """Writes zeros to `count` vectors of sums."""
    with unrolled("j", count) as (j,), vectorized("lane", lanes) as lane:
        sums[j * lanes + lane] = 0


def terms(pixels: int, channels: int, lanes: int) -> Iterator[tuple[Expr, Expr, Expr]]:
    """Loops over the channels of some pixels: the pixel, the channel, the lane that sums it."""
    full, rest = divmod(channels, lanes)
    if full:
        with (
            serial("vector", full) as vector,
            unrolled("j", pixels) as (j,),
            vectorized("lane", lanes) as lane,
        ):
            yield j, vector * lanes + lane, lane
    if rest:
        with unrolled("j", pixels) as (j,), vectorized("lane", rest) as lane:
            yield j, full * lanes + lane, lane


def across(sums: Buffer, j: Expr, lanes: int) -> Expr:
    """The sum of the lanes of vector `j`, by halves."""
    half = lanes // 2
    while half > 1:
        with vectorized("lane", half) as lane:
            sums[j * lanes + lane] += sums[j * lanes + lane + half]
        half //= 2
    return sums[j * lanes] + sums[j * lanes + half]


class NormGroups(FixedCpuAlgorithm[GroupNorm]):
    """Each row's means and squared deviations a channel, then those of each group, which no group
    of few channels or threads makes slower; a row of pixels per task.

    Source: Chan et al. 1983, equation 2.1, of rows in the place of halves.
    """

    names = ("rows",)
    computes = GroupNorm

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        norm, lanes = self.workload, self.machine.lanes
        x, weight, bias, y = buffers.values()
        source, out = norm.input, norm.output
        of_rows = (source.batch, source.height, source.channels)
        row_means, row_squares = scratch("row_means", *of_rows), scratch("row_squares", *of_rows)
        of_images = (source.batch, source.channels)
        means, scales = scratch("means", *of_images), scratch("scales", *of_images)
        clear_halo(y, out)
        self.sum_rows(x, row_means, row_squares)
        self.join_rows(row_means, row_squares, weight, means, scales)
        with parallel_rows(out) as (n, i), serial("j", out.width) as j:
            for c in each_vector(out.channels, lanes):
                deviation = x[inside(source, n, i, j, c)] - means[n, c]
                value = activate(norm.act, deviation * scales[n, c] + bias[c])
                y[inside(out, n, i, j, c)] = value

    def sum_rows(self, x: Buffer, row_means: Buffer, row_squares: Buffer) -> None:
        """The mean of each channel in each row, and the sum of its squared deviations from it."""
        source, lanes = self.workload.input, self.machine.lanes
        block = min(MAX_VECTORS * lanes, source.channels)
        blocks = ceil(source.channels / block)
        with parallel("task", source.batch * source.height * blocks) as task:
            n, i = task // (source.height * blocks), task // blocks % source.height
            c0 = tile_origin(task % blocks, block, source.channels)
            mean, squares = scratch("mean", block), scratch("squares", block)
            for (c,) in elements((), block, lanes):
                mean[c] = 0
            with serial("j", source.width) as j:
                for (c,) in elements((), block, lanes):
                    mean[c] += x[inside(source, n, i, j, c0 + c)]
            for (c,) in elements((), block, lanes):
                mean[c] = mean[c] / T.float32(source.width)
                squares[c] = 0
            with serial("j", source.width) as j:
                for (c,) in elements((), block, lanes):
                    deviation = x[inside(source, n, i, j, c0 + c)] - mean[c]
                    squares[c] += deviation * deviation
            for (c,) in elements((), block, lanes):
                row_means[n, i, c0 + c] = mean[c]
                row_squares[n, i, c0 + c] = squares[c]

    def join_rows(
        self, row_means: Buffer, row_squares: Buffer, weight: Buffer, means: Buffer, scales: Buffer
    ) -> None:
        """The mean that each channel's values are to lose, and what they are then to be multiplied
        by.
        """
        norm, source, lanes = self.workload, self.workload.input, self.machine.lanes
        size = source.channels // norm.groups
        with parallel("group", source.batch * norm.groups) as group:
            n, first = group // norm.groups, group % norm.groups * size
            sums, mean, scale = scratch("sums", size), scratch("mean", 1), scratch("scale", 1)
            for c in each_vector(size, lanes):
                sums[c] = 0
            with serial("i", source.height) as i:
                for c in each_vector(size, lanes):
                    sums[c] += row_means[n, i, first + c]
            mean[0] = total(sums, size) / T.float32(source.height * size)
            for c in each_vector(size, lanes):
                sums[c] = 0
            with serial("i", source.height) as i:
                for c in each_vector(size, lanes):
                    deviation = row_means[n, i, first + c] - mean[0]
                    squares = T.float32(source.width) * deviation * deviation
                    sums[c] += row_squares[n, i, first + c] + squares
            count = source.height * source.width * size
            variance = total(sums, size) / T.float32(count)
            scale[0] = T.float32(1) / T.sqrt(variance + T.float32(norm.eps))
            for c in each_vector(size, lanes):
                means[n, first + c] = mean[0]
                scales[n, first + c] = scale[0] * weight[first + c]


def total(values: Buffer, count: int) -> Expr:
    """The sum of the first `count` of some values, in pieces."""
    whole, part = scratch("whole", 1), scratch("part", 1)
    whole[0] = 0
    with serial("piece", ceil(count / PIECE)) as piece:
        part[0] = 0
        with serial("i", T.min(PIECE, count - piece * PIECE)) as i:
            part[0] += values[piece * PIECE + i]
        whole[0] += part[0]
    return whole[0]

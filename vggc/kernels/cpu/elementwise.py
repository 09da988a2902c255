"""What treats every element by itself, or only moves it, a row of pixels per task."""

from __future__ import annotations

from functools import reduce
from operator import add as plus
from operator import mul as times

from tvm.ir import Expr

from vggc.kernels.activation import activate, leaky
from vggc.kernels.algorithm import Buffers, NoKnobs
from vggc.kernels.builder import Buffer, serial
from vggc.kernels.cpu.algorithm import FixedCpuAlgorithm
from vggc.kernels.cpu.loops import MAX_TERMS, clear_halo, each_element, inside, parallel_rows
from vggc.kernels.upsampling import upsampled
from vggc.kernels.workloads import (
    Add,
    Concat,
    Map,
    Mul,
    Pointwise,
    PRelu,
    Shuffle,
    Take,
    Upsample,
)


class PointwiseRows(FixedCpuAlgorithm[Pointwise]):
    """An activation of each element, a row of pixels per task."""

    names = ("loop",)
    computes = Pointwise

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        source, out = self.workload.input, self.workload.output
        x, y = buffers.values()
        clear_halo(y, out)
        with each_element(out) as (n, i, j, c):
            value = x[inside(source, n, i, j, c)]
            y[inside(out, n, i, j, c)] = activate(self.workload.act, value)


class PReluRows(FixedCpuAlgorithm[PRelu]):
    """A rectifier of each element with the slope of its channel, a row of pixels per task."""

    names = ("loop",)
    computes = PRelu

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        source, out = self.workload.input, self.workload.output
        x, slopes, y = buffers.values()
        clear_halo(y, out)
        with each_element(out) as (n, i, j, c):
            y[inside(out, n, i, j, c)] = leaky(x[inside(source, n, i, j, c)], slopes[c])


class AddRows(FixedCpuAlgorithm[Add]):
    """The sum of elements, then an activation, a row of pixels per task."""

    names = ("loop",)
    computes = Add

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        out = self.workload.output
        *summands, y = buffers.values()
        clear_halo(y, out)
        with each_element(out) as (n, i, j, c):
            maps = zip(summands, self.workload.inputs, strict=True)
            value = reduce(plus, (x[inside(source, n, i, j, c)] for x, source in maps))
            y[inside(out, n, i, j, c)] = activate(self.workload.act, value)


class MulRows(FixedCpuAlgorithm[Mul]):
    """The product of elements, one pixel's for all pixels, then an activation, a row of pixels per
    task.
    """

    names = ("loop",)
    computes = Mul

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        out = self.workload.output
        *factors, y = buffers.values()
        clear_halo(y, out)
        with each_element(out) as (n, i, j, c):

            def factor(x: Buffer, source: Map) -> Expr:
                row, column = (0, 0) if self.workload.spreads(source) else (i, j)
                return x[inside(source, n, row, column, c)]

            value = reduce(times, map(factor, factors, self.workload.inputs))
            y[inside(out, n, i, j, c)] = activate(self.workload.act, value)


class ConcatRows(FixedCpuAlgorithm[Concat]):
    """The channels of each input copied behind those of the one before, a row of pixels
    per task; of one that grows the first lies there already.
    """

    names = ("copy",)
    computes = Concat

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        out = self.workload.output
        *parts, y = buffers.values()
        clear_halo(y, out)
        with parallel_rows(out) as (n, i), serial("j", out.width) as j:
            first = 0
            for number, (x, source) in enumerate(zip(parts, self.workload.inputs, strict=True)):
                if number > 0 or not self.workload.grows:
                    with serial("c", source.channels) as c:
                        y[inside(out, n, i, j, first + c)] = x[inside(source, n, i, j, c)]
                first += source.channels


class ShuffleRows(FixedCpuAlgorithm[Shuffle]):
    """A channel of each group side by side; a row of pixels per task."""

    names = ("shuffle",)
    computes = Shuffle

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        source, out, groups = self.workload.input, self.workload.output, self.workload.groups
        size = out.channels // groups
        x, y = buffers.values()
        clear_halo(y, out)
        with parallel_rows(out) as (n, i), serial("j", out.width) as j, serial("c", size) as c:

            def move(group: Expr | int) -> None:
                at = inside(out, n, i, j, c * groups + group)
                y[at] = x[inside(source, n, i, j, group * size + c)]

            if groups <= MAX_TERMS:  # of few LLVM makes stores of vectors, if they are written out
                for each in range(groups):
                    move(each)
            else:
                with serial("group", groups) as group:
                    move(group)


class TakeRows(FixedCpuAlgorithm[Take]):
    """The channels that are taken copied, a row of pixels per task."""

    names = ("copy",)
    computes = Take

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        source, out, first = self.workload.input, self.workload.output, self.workload.first
        x, y = buffers.values()
        clear_halo(y, out)
        with each_element(out) as (n, i, j, c):
            y[inside(out, n, i, j, c)] = x[inside(source, n, i, j, first + c)]


class UpsampleRows(FixedCpuAlgorithm[Upsample]):
    """The nearest pixel, or the mean of the nearest four, weighed; a row of pixels per task."""

    names = ("upsample",)
    computes = Upsample

    def emit(self, knobs: NoKnobs, buffers: Buffers) -> None:
        source, out = self.workload.input, self.workload.output
        x, y = buffers.values()
        clear_halo(y, out)
        with each_element(out) as (n, i, j, c):

            def value(row: Expr, column: Expr) -> Expr:
                return x[inside(source, n, row, column, c)]

            y[inside(out, n, i, j, c)] = upsampled(self.workload, value, i, j)

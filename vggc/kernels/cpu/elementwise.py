"""What treats every element by itself, a row of pixels per task."""

from __future__ import annotations

from functools import reduce
from operator import add as plus

from vggc.kernels.activation import activate, leaky
from vggc.kernels.builder import Buffer, serial
from vggc.kernels.cpu.loops import clear_halo, function, inside, parallel_rows
from vggc.kernels.workloads import Add, Concat, Kernel, Map, Pointwise, PRelu


def pointwise(layer: Pointwise) -> Kernel:
    source, out = layer.input, layer.output

    def body(x: Buffer, y: Buffer) -> None:
        clear_halo(y, out)
        with (
            parallel_rows(out) as (n, i),
            serial("j", out.width) as j,
            serial("c", out.channels) as c,
        ):
            value = x[inside(source, n, i, j, c)]
            y[inside(out, n, i, j, c)] = activate(layer.act, value)

    return Kernel("loop", {}, function(body, x=source.shape, y=out.shape))


def prelu(layer: PRelu) -> Kernel:
    source, out = layer.input, layer.output

    def body(x: Buffer, slopes: Buffer, y: Buffer) -> None:
        clear_halo(y, out)
        with (
            parallel_rows(out) as (n, i),
            serial("j", out.width) as j,
            serial("c", out.channels) as c,
        ):
            value = leaky(x[inside(source, n, i, j, c)], slopes[c])
            y[inside(out, n, i, j, c)] = value

    func = function(body, x=source.shape, slopes=(out.channels,), y=out.shape)
    return Kernel("loop", {}, func)


def add(layer: Add) -> Kernel:
    out = layer.output

    def body(*buffers: Buffer) -> None:
        *summands, y = buffers
        clear_halo(y, out)
        with (
            parallel_rows(out) as (n, i),
            serial("j", out.width) as j,
            serial("c", out.channels) as c,
        ):
            maps = zip(summands, layer.inputs, strict=True)
            value = reduce(plus, (x[inside(source, n, i, j, c)] for x, source in maps))
            y[inside(out, n, i, j, c)] = activate(layer.act, value)

    return Kernel("loop", {}, function(body, **inputs(layer.inputs), y=out.shape))


def concat(layer: Concat) -> Kernel:
    out = layer.output

    def body(*buffers: Buffer) -> None:
        *parts, y = buffers
        clear_halo(y, out)
        with parallel_rows(out) as (n, i), serial("j", out.width) as j:
            first = 0
            for x, source in zip(parts, layer.inputs, strict=True):
                with serial("c", source.channels) as c:
                    value = x[inside(source, n, i, j, c)]
                    y[inside(out, n, i, j, first + c)] = value
                first += source.channels

    return Kernel("copy", {}, function(body, **inputs(layer.inputs), y=out.shape))


def inputs(maps: tuple[Map, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of several inputs."""
    return {f"x{index}": map.shape for index, map in enumerate(maps)}

"""The layers that are bound by memory: pooling, normalisation, soft-max, changes of layout."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tvm.tirx import Buffer, Expr
from tvm.tirx.script import builder as T

from vggc.kernels.cuda.emit import (
    BLOCK,
    launch,
    registers,
    shared,
    synchronise,
    tree_reduce,
    write_map,
)
from vggc.kernels.workloads import Lrn, Map, MaxPool, Relu, Softmax, ToNchw, ToNhwc

# Terms of a window written out as one expression; of many more the compiler's stack overflows.
MAX_TERMS = 16
LOWEST = -3.4028234663852886e38


def max_pool(pool: MaxPool, source: Buffer, output: Buffer) -> None:
    halo = pool.input.halo
    (kh, kw), (stride_y, stride_x) = pool.kernel, pool.stride

    def maximum(n: Expr, y: Expr, x: Expr, c: Expr) -> Expr:
        def read(dy: Expr | int, dx: Expr | int) -> Expr:
            return source[n, y * stride_y + halo + dy, x * stride_x + halo + dx, c]

        if kh * kw <= MAX_TERMS:
            window = itertools.product(range(kh), range(kw))
            return functools.reduce(T.max, itertools.starmap(read, window))
        largest = registers(1)
        T.buffer_store(largest, read(0, 0), [0])
        with T.serial(kh) as dy, T.serial(kw) as dx:
            T.buffer_store(largest, T.max(largest[0], read(dy, dx)), [0])
        return largest[0]

    write_map(output, pool.output, maximum)


def lrn(layer: Lrn, source: Buffer, output: Buffer) -> None:
    halo, channels = layer.input.halo, layer.input.channels
    before, after = layer.size // 2, (layer.size - 1) // 2

    def normalise(n: Expr, y: Expr, x: Expr, c: Expr) -> Expr:
        def square(at: Expr) -> Expr:
            value = source[n, y + halo, x + halo, at]
            return T.if_then_else(T.And(at >= 0, at < channels), value * value, T.float32(0))

        if layer.size <= MAX_TERMS:
            squares = sum((square(c + d) for d in range(-before, after + 1)), T.float32(0))
        else:
            total = registers(1)
            T.buffer_store(total, T.float32(0), [0])
            with T.serial(layer.size) as d:
                T.buffer_store(total, total[0] + square(c - before + d), [0])
            squares = total[0]
        scale = T.float32(layer.k) + T.float32(layer.alpha) * squares
        return source[n, y + halo, x + halo, c] / T.pow(scale, T.float32(layer.beta))

    write_map(output, layer.output, normalise)


def relu(layer: Relu, source: Buffer, output: Buffer) -> None:
    halo = layer.input.halo

    def rectify(n: Expr, y: Expr, x: Expr, c: Expr) -> Expr:
        return T.max(source[n, y + halo, x + halo, c], T.float32(0))

    write_map(output, layer.output, rectify)


def to_nhwc(layer: ToNhwc, source: Buffer, output: Buffer) -> None:
    write_map(output, layer.output, lambda n, y, x, c: source[n, c, y, x])


def to_nchw(layer: ToNchw, source: Buffer, output: Buffer) -> None:
    """The output is written as a map whose rows, columns and channels are C, H and W."""
    halo, target = layer.input.halo, layer.input
    turned = Map(target.batch, target.channels, target.height, target.width)
    write_map(output, turned, lambda n, c, y, x: source[n, y + halo, x + halo, c])


def softmax(layer: Softmax, source: Buffer, output: Buffer) -> None:
    """A block per row: its maximum, the sum of its exponentials, then the quotients."""
    with launch((layer.batch,), BLOCK) as (row, thread):
        parts, peak, own = shared(1, BLOCK), registers(1), registers(1)

        @contextmanager
        def own_columns() -> Iterator[Expr]:
            with T.serial(math.ceil(layer.features / BLOCK)) as chunk:
                col = chunk * BLOCK + thread
                with T.If(col < layer.features), T.Then():
                    yield col

        def exponential(col: Expr) -> Expr:
            return T.exp(source[row, col] - peak[0])

        def reduce_row(
            start: float, value: Callable[[Expr], Expr], combine: Callable[[Expr, Expr], Expr]
        ) -> None:
            T.buffer_store(own, T.float32(start), [0])
            with own_columns() as col:
                T.buffer_store(own, combine(own[0], value(col)), [0])
            T.buffer_store(parts, own[0], [0, thread])
            tree_reduce(parts, 0, thread, combine)

        reduce_row(LOWEST, lambda col: source[row, col], T.max)
        T.buffer_store(peak, parts[0, 0], [0])
        synchronise()
        reduce_row(0.0, exponential, operator.add)
        with own_columns() as col:
            T.buffer_store(output, exponential(col) / parts[0, 0], [row, col])

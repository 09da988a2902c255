"""What the CUDA kernels share: the frame of a function, launches, and the walk over a map."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tvm.script.ir_builder import IRBuilder
from tvm.tirx import Buffer, Expr, PrimFunc
from tvm.tirx.script import builder as T

from vggc.kernels.workloads import Map

BLOCK = 256


def function(body: Callable[..., None], **shapes: tuple[int, ...]) -> PrimFunc:
    """The function of float32 buffers with these names and shapes that `body` writes."""
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        buffers = [T.arg(name, T.buffer(shape, "float32")) for name, shape in shapes.items()]
        with T.sblock("root"):
            body(*buffers)
    return builder.get()


@contextmanager
def launch(grid: tuple[int, ...], threads: int) -> Iterator[tuple[Expr, ...]]:
    """One kernel: the block's index along each dimension of `grid`, then the thread's."""
    with ExitStack() as stack:
        blocks = [
            stack.enter_context(T.thread_binding(extent, thread=f"blockIdx.{axis}"))
            for extent, axis in zip(grid, "xyz", strict=False)
        ]
        yield *blocks, stack.enter_context(T.thread_binding(threads, thread="threadIdx.x"))


def flat(buffer: Buffer) -> Buffer:
    """The same memory in one dimension."""
    size = math.prod(map(int, buffer.shape))
    view = T.decl_buffer((size,), "float32", data=buffer.data)
    return IRBuilder.name(str(buffer.name), view)


def workspace(name: str, *shape: int) -> Buffer:
    """Device memory that lives for one call of the function."""
    return IRBuilder.name(name, T.alloc_buffer(shape, "float32"))


def shared(*shape: int) -> Buffer:
    return T.alloc_buffer(shape, "float32", scope="shared")


def registers(*shape: int, dtype: str = "float32") -> Buffer:
    return T.alloc_buffer(shape, dtype, scope="local")


def synchronise() -> None:
    T.evaluate(T.tvm_storage_sync("shared"))


def fetch(
    target: Buffer, at: int, source: Buffer, index: Expr, lanes: int, condition: Expr
) -> None:
    """Load `lanes` floats of `source` into registers from `at` on; zeros unless `condition`."""
    with T.If(condition):
        with T.Then(), T.vectorized(lanes) as v:
            T.buffer_store(target, source[index + v], [at + v])
        with T.Else(), T.vectorized(lanes) as v:
            T.buffer_store(target, T.float32(0), [at + v])


def tree_reduce(
    values: Buffer,
    row: Expr | int,
    lane: Expr,
    combine: Callable[[Expr, Expr], Expr],
) -> None:
    """Combine `values[row, :]` (shared, a power of two long) into `values[row, 0]`."""
    stride = int(values.shape[1]) // 2
    while stride > 0:
        synchronise()
        with T.If(lane < stride), T.Then():
            both = combine(values[row, lane], values[row, lane + stride])
            T.buffer_store(values, both, [row, lane])
        stride //= 2
    synchronise()


def write_map(output: Buffer, map: Map, value: Callable[[Expr, Expr, Expr, Expr], Expr]) -> None:
    """A kernel with a thread per element: `value(n, y, x, c)` inside the map, zero in its halo.

    Whatever `value` emits runs inside the map only.
    """
    _, height, width, channels = map.shape
    size = math.prod(map.shape)
    values = flat(output)
    with launch((math.ceil(size / BLOCK),), BLOCK) as (block, thread):
        index = block * BLOCK + thread
        c = index % channels
        x = index // channels % width - map.halo
        y = index // (channels * width) % height - map.halo
        n = index // (channels * width * height)
        with T.If(index < size), T.Then():
            if map.halo == 0:
                T.buffer_store(values, value(n, y, x, c), [index])
            else:
                with T.If(_inside(map, y, x)):
                    with T.Then():
                        T.buffer_store(values, value(n, y, x, c), [index])
                    with T.Else():
                        T.buffer_store(values, T.float32(0), [index])


def clear_halo(output: Buffer, map: Map, thread: Expr, num_threads: int) -> None:
    """Thread `thread` of `num_threads` writes its share of the zeros around `map`."""
    if map.halo == 0:
        return
    batch, height, width, channels = map.shape
    border = height * width - map.height * map.width
    rows = 2 * map.halo * width
    size = batch * border * channels
    values = flat(output)
    with T.serial(math.ceil(size / num_threads)) as share:
        index = share * num_threads + thread
        c, pixel, n = index % channels, index // channels % border, index // (channels * border)
        row, side = pixel // width, pixel - rows
        along, across = side // (2 * map.halo), side % (2 * map.halo)
        in_rows = pixel < rows
        y = T.Select(in_rows, T.Select(row < map.halo, row, row + map.height), along + map.halo)
        x = T.Select(
            in_rows, pixel % width, T.Select(across < map.halo, across, across + map.width)
        )
        with T.If(index < size), T.Then():
            at = ((n * height + y) * width + x) * channels + c
            T.buffer_store(values, T.float32(0), [at])


def _inside(map: Map, y: Expr, x: Expr) -> Expr:
    return T.And(T.And(y >= 0, y < map.height), T.And(x >= 0, x < map.width))

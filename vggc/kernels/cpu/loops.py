"""What the templates share: the frame of a function and the halo of a map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from tvm.ir import Expr
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import Buffer, PrimFunc, const
from tvm.tirx.script import builder as T

from vggc.ir.ops import Activation
from vggc.kernels.activation import is_long
from vggc.kernels.workloads import Map

# Terms of a window written out as one expression; of many more the compiler's stack overflows.
MAX_TERMS = 16


def function(
    body: Callable[..., None],
    types: Mapping[str, str] | None = None,
    /,
    **shapes: tuple[int, ...],
) -> PrimFunc:
    """The function of buffers with these names and shapes that `body` writes.

    They hold float32 where `types` does not say otherwise.
    """
    types = types or {}
    with IRBuilder() as builder, T.prim_func(is_private=True, s_tir=True):
        T.func_attr({"tirx.noalias": True})
        buffers = [
            T.arg(name, T.buffer(shape, types.get(name, "float32")))
            for name, shape in shapes.items()
        ]
        with T.sblock("root"):
            body(*buffers)
    return builder.get()


def view(buffer: Buffer, shape: tuple[int, ...]) -> Buffer:
    """The same memory under another shape."""
    return T.decl_buffer(shape, buffer.dtype, data=buffer.data)


def registers(size: int, dtype: str = "float32") -> Buffer:
    """A few vectors that LLVM keeps in registers.

    TVM takes small buffers of the global scope from the stack, whose every element LLVM sees;
    others from a pool, to which each store would be carried out. Under 1 KiB, that is.
    """
    return T.alloc_buffer((size,), dtype)


def scratch(*shape: int, dtype: str = "float32") -> Buffer:
    """A buffer of a task's own. Of another scope than `registers`, or TVM would merge the two."""
    return T.alloc_buffer(shape, dtype, scope="local")


@contextmanager
def unrolled(*extents: int) -> Iterator[tuple[Expr, ...]]:
    """Nested loops, unrolled completely."""
    with ExitStack() as stack:
        yield tuple(stack.enter_context(T.unroll(extent)) for extent in extents)


def elements(pixels: tuple[int, ...], channels: int, lanes: int) -> Iterator[tuple[Expr, ...]]:
    """Unrolled loops over the pixels and the channels of a tile in registers."""
    full, rest = divmod(channels, lanes)
    if full:
        with unrolled(*pixels, full) as (*pixel, vector), T.vectorized(lanes) as lane:
            yield *pixel, vector * lanes + lane
    if rest:
        with unrolled(*pixels) as pixel, T.vectorized(rest) as lane:
            yield *pixel, full * lanes + lane


def each_vector(size: int, lanes: int) -> Iterator[Expr]:
    """A loop over the elements of a buffer in memory, a vector at a time."""
    full, rest = divmod(size, lanes)
    if full:
        with T.serial(full) as vector, T.vectorized(lanes) as lane:
            yield vector * lanes + lane
    if rest:
        with T.vectorized(rest) as lane:
            yield full * lanes + lane


def finished(
    act: Activation | None,
    sum_at: Callable[..., Expr],
    pixels: tuple[int, ...],
    channels: int,
    lanes: int,
    dtype: str = "float32",
) -> Iterator[tuple[Expr, tuple[Expr, ...]]]:
    """Sums in registers that are to go through an activation, each with its place.

    Where that is long they are gone through in a loop, from memory.
    """
    if not is_long(act):
        for at in elements(pixels, channels, lanes):
            yield sum_at(*at), at
        return
    held = scratch(*pixels, channels, dtype=dtype)
    for at in elements(pixels, channels, lanes):
        T.buffer_store(held, sum_at(*at), at)
    with ExitStack() as stack:
        pixel = tuple(stack.enter_context(T.serial(extent)) for extent in pixels)
        for c in each_vector(channels, lanes):
            yield held[*pixel, c], (*pixel, c)


def in_block(block: Expr, size: int, total: int) -> Iterator[int]:
    """How many of `total` lie in a block of `size`: code for whole blocks, and for the last one."""
    last, rest = divmod(total, size)
    if last and rest:
        with T.If(block < last):
            with T.Then():
                yield size
            with T.Else():
                yield rest
    else:
        yield size if last else rest


@contextmanager
def parallel_rows(map: Map) -> Iterator[tuple[Expr, Expr]]:
    """A task for every row of pixels: the image and the row in it."""
    with T.parallel(map.batch * map.height) as row:
        yield row // map.height, row % map.height


def inside(map: Map, image: Expr, y: Expr, x: Expr, channel: Expr) -> list[Expr]:
    """The indices of an element of the map, past its halo."""
    return [image, y + map.halo, x + map.halo, channel]


def tile_origin(index: Expr, tile: int, extent: int) -> Expr:
    """Where tile `index` begins.

    The last tile is moved back to end where the extent ends: it computes some elements
    twice, to the same bits, and no tile is ever cut.
    """
    return index * tile if extent % tile == 0 else T.min(index * tile, extent - tile)


def clear_halo(output: Buffer, map: Map) -> None:
    """Write the zeros around `map`."""
    if map.halo == 0:
        return
    batch, height, width, channels = map.shape
    side = map.halo * channels
    zero = const(map.zero, map.storage)
    rows = view(output, (batch, height, width * channels))
    with T.parallel(batch * height) as row:
        image, y = row // height, row % height
        with T.If(T.And(map.halo <= y, y < map.halo + map.height)):
            with T.Then(), T.serial(side) as i:
                T.buffer_store(rows, zero, [image, y, i])
                T.buffer_store(rows, zero, [image, y, width * channels - side + i])
            with T.Else(), T.serial(width * channels) as i:
                T.buffer_store(rows, zero, [image, y, i])


def prefetch(address: Expr, *, write: bool = False) -> None:
    """Ask for a line of memory that is read soon, or written. Any address will do."""
    purpose, soon, data = T.int32(int(write)), T.int32(3), T.int32(1)
    T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch.p0", address, purpose, soon, data))

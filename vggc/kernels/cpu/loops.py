"""What the kernels share: loops over tiles and maps, and the halo of a map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tvm.ir import Expr
from tvm.tirx.script import builder as T

from vggc.ir.ops import Activation
from vggc.kernels.activation import is_long
from vggc.kernels.builder import Buffer, allocated, parallel, serial, unrolled, vectorized
from vggc.kernels.workloads import Map

MAX_TERMS = 16
"""Terms of a window written out as one expression; of many more the compiler's stack overflows."""
PIXEL = ("n", "i", "j")
"""The names of the loops over the images, rows and columns of a tile."""


def registers(name: str, size: int, dtype: str = "float32") -> Buffer:
    """A few vectors that LLVM keeps in registers.

    TVM takes small buffers of the global scope from the stack, whose every element LLVM sees;
    others from a pool, to which each store would be carried out. Under 1 KiB, that is.
    """
    return allocated(name, size, dtype=dtype)


def scratch(name: str, *shape: int, dtype: str = "float32") -> Buffer:
    """An array of a task's own, in another scope than `registers`, or TVM would merge the two."""
    return allocated(name, *shape, dtype=dtype, scope="local")


def elements(pixels: tuple[int, ...], channels: int, lanes: int) -> Iterator[tuple[Expr, ...]]:
    """Unrolled loops over the pixels and the channels of a tile in registers."""
    names = " ".join(PIXEL[len(PIXEL) - len(pixels) :])
    full, rest = divmod(channels, lanes)
    if full:
        with unrolled(f"{names} vector", *pixels, full) as at, vectorized("lane", lanes) as lane:
            *pixel, vector = at
            yield *pixel, vector * lanes + lane
    if rest:
        with unrolled(names, *pixels) as at, vectorized("lane", rest) as lane:
            yield *at, full * lanes + lane


def each_vector(size: int, lanes: int) -> Iterator[Expr]:
    """A loop over the elements of a buffer in memory, a vector at a time."""
    for _, at in each_lane(size, lanes):
        yield at


def each_lane(size: int, lanes: int) -> Iterator[tuple[Expr, Expr]]:
    """`each_vector`, with the lane that holds the element before its place."""
    full, rest = divmod(size, lanes)
    if full:
        with serial("vector", full) as vector, vectorized("lane", lanes) as lane:
            yield lane, vector * lanes + lane
    if rest:
        with vectorized("lane", rest) as lane:
            yield lane, full * lanes + lane


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
    held = scratch("held", *pixels, channels, dtype=dtype)
    for at in elements(pixels, channels, lanes):
        held[at] = sum_at(*at)
    with ExitStack() as stack:
        names = PIXEL[len(PIXEL) - len(pixels) :]
        loops = (serial(name, extent) for name, extent in zip(names, pixels, strict=True))
        pixel = tuple(stack.enter_context(loop) for loop in loops)
        for c in each_vector(channels, lanes):
            yield held[*pixel, c], (*pixel, c)


def in_block(block: Expr, size: int, total: int) -> Iterator[int]:
    """How many of `total` channels lie in block `block` of `size`: the code is written for whole
    blocks, and for a last one that is not.
    """
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
    with parallel("row", map.batch * map.height) as row:
        yield row // map.height, row % map.height


@contextmanager
def each_element(map: Map) -> Iterator[tuple[Expr, Expr, Expr, Expr]]:
    """A task for every row of pixels, and loops over its pixels and their channels."""
    with parallel_rows(map) as (n, i), serial("j", map.width) as j, serial("c", map.channels) as c:
        yield n, i, j, c


def inside(map: Map, image: Expr, y: Expr, x: Expr, channel: Expr) -> tuple[Expr, Expr, Expr, Expr]:
    """The indices of an element of the map, past its halo."""
    return image, y + map.halo, x + map.halo, channel


def tile_origin(index: Expr, tile: int, extent: int) -> Expr:
    """Where tile `index` of `tile` elements begins along an axis of `extent` elements.

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
    rows = output.view("rows", batch, height, width * channels)
    with parallel("row", batch * height) as row:
        image, y = row // height, row % height
        with T.If(T.And(map.halo <= y, y < map.halo + map.height)):
            with T.Then(), serial("i", side) as i:
                rows[image, y, i] = map.zero
                rows[image, y, width * channels - side + i] = map.zero
            with T.Else(), serial("i", width * channels) as i:
                rows[image, y, i] = map.zero


def prefetch(address: Expr, *, write: bool = False) -> None:
    """Ask for the cache line at an address that is read soon, or written; any address will do."""
    purpose, soon, data = T.int32(int(write)), T.int32(3), T.int32(1)
    T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch.p0", address, purpose, soon, data))

"""What the CUDA kernels share: launches, memory, and the walk over a map."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.builder import Buffer, allocated, serial, vectorized, when
from vggc.kernels.cuda.formats import distance, nearest_byte, zero_word
from vggc.kernels.cuda.index import Position, both, either
from vggc.kernels.cuda.operands import in_segments
from vggc.kernels.cuda.ptx import round_pair, round_to_tf32, store_segment, widen
from vggc.kernels.workloads import Map

BLOCK = 256


AWAIT = """
__forceinline__ __device__ void vggc_await_kernel_before() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
"""


def await_kernel_before() -> None:
    """Waits until the kernel before this one has ended, where they may overlap, and lets the next
    one begin. Whatever another kernel writes or reads is touched after it only.
    """
    T.evaluate(T.cuda.func_call("vggc_await_kernel_before", source_code=AWAIT))


@contextmanager
def launch(
    grid: tuple[int, ...], threads: int, *, awaits: bool = True
) -> Iterator[tuple[Expr, ...]]:
    """One CUDA kernel: the block's index along each dimension of `grid`, then the thread's.

    It begins with `await_kernel_before`, unless it will say so itself where `awaits` is false.
    """
    with ExitStack() as stack:
        blocks = [
            stack.enter_context(T.thread_binding(extent, thread=f"blockIdx.{axis}"))
            for extent, axis in zip(grid, "xyz", strict=False)
        ]
        thread = stack.enter_context(T.thread_binding(threads, thread="threadIdx.x"))
        if awaits:
            await_kernel_before()
        yield *blocks, thread


def flat(buffer: Buffer) -> Buffer:
    """A buffer's memory in one dimension."""
    return buffer.view(buffer.name, math.prod(buffer.shape))


def shared(name: str, *shape: int) -> Buffer:
    """Memory that the threads of a block share."""
    return allocated(name, *shape, scope="shared")


def dynamic_shared(name: str, *shape: int, dtype: str) -> Buffer:
    """Memory that the threads of a block share and that their launch asks for, beyond 48 KiB if
    need be.
    """
    return allocated(name, *shape, dtype=dtype, scope="shared.dyn")


def registers(name: str, *shape: int, dtype: str = "float32") -> Buffer:
    """Memory of a thread's own, in registers."""
    return allocated(name, *shape, dtype=dtype, scope="local")


def synchronise() -> None:
    """Wait until all threads of the block have come here and see each other's writes to shared
    memory.
    """
    T.evaluate(T.tvm_storage_sync("shared"))


def fetch(
    target: Buffer, at: int, source: Buffer, index: Expr, lanes: int, condition: Expr
) -> None:
    """Load `lanes` floats of `source` into registers from `at` on; zeros unless `condition`."""
    with T.If(condition):
        with T.Then(), vectorized("v", lanes) as v:
            target[at + v] = source[index + v]
        with T.Else(), vectorized("v", lanes) as v:
            target[at + v] = 0


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
        with when(lane < stride):
            both = combine(values[row, lane], values[row, lane + stride])
            values[row, lane] = both
        stride //= 2
    synchronise()


MapElement: TypeAlias = Callable[[Expr, Expr, Expr, Expr], Expr]
"""The value of a map at `(n, y, x, c)`, where its halo is before row and column 0."""


def load(source: Buffer, map: Map, *at: Expr) -> Expr:
    """What lies in a map's buffer, as a float32; a uint8 as its distance to what stands for zero.

    It is read where the statement stands, whatever becomes of it.
    """
    match map.format:
        case "float32" | "tf32":
            return source[at]
        case "uint8":
            return distance(map, source[at])
        case "float16" | "bfloat16":
            value = registers("value", 1)
            widen(map.format, value, 0, source[at])
            return value[0]


def reader(source: Buffer, map: Map) -> MapElement:
    """The values of a map that lies in a buffer, as floats."""
    return lambda n, y, x, c: load(source, map, n, y + map.halo, x + map.halo, c)


def store(target: Buffer, at: Expr, value: Expr, map: Map) -> None:
    """Writes a float to a map's buffer, which is flat, in the map's format."""
    match map.format:
        case "float32":
            target[at] = value
        case "uint8":
            target[at] = T.Cast("uint8", nearest_byte(map, value))
        case "tf32":
            rounded = registers("rounded", 1, dtype="uint32")
            round_to_tf32(rounded[0], value)
            target[at] = T.reinterpret("float32", rounded[0])
        case "float16" | "bfloat16":
            pair = registers("pair", 1, dtype="uint32")
            round_pair(map.format, pair[0], value, T.float32(0))
            target[at] = T.Cast("uint16", pair[0])


def write_map(output: Buffer, map: Map, value: MapElement) -> None:
    """A kernel with a thread per element: `value(n, y, x, c)` inside the map, zero in its halo and
    in the channels that there are only to fill a vector.

    Whatever `value` emits runs inside the map only.
    """
    size = math.prod(map.shape)
    values = flat(output)
    with launch((math.ceil(size / BLOCK),), BLOCK) as (block, thread):
        index = block * BLOCK + thread
        n, y, x, c = element_of(map, index)
        with when(index < size):
            if map.halo == 0 and map.shape[-1] == map.channels:
                store(values, index, value(n, y, x, c), map)
            else:
                with T.If(both(inside_map(map, y, x), c < map.channels)):
                    with T.Then():
                        store(values, index, value(n, y, x, c), map)
                    with T.Else():
                        values[index] = 0


def element_of(map: Map, index: Position) -> tuple[Position, Position, Position, Position]:
    """Image, row, column and channel of an element of a map's buffer; the halo is before row and
    column 0.
    """
    _, height, width, channels = map.shape
    c = index % channels
    x = index // channels % width - map.halo
    y = index // (channels * width) % height - map.halo
    n = index // (channels * width * height)
    return n, y, x, c


def clear_halo(output: Buffer, map: Map, thread: Expr, num_threads: int) -> None:
    """Thread `thread` of `num_threads` writes its share of what stands for zero around `map`, a
    segment at a time where the map lies in whole segments.
    """
    if map.halo == 0:
        return
    lanes = map.vector
    assert lanes == 1 or in_segments(map)
    size = halo_pieces(map)
    values = flat(output)
    with serial("share", math.ceil(size / num_threads)) as share:
        index = share * num_threads + thread
        at = halo_place(map, index)
        with when(index < size):
            if lanes > 1:
                store_segment(values.address(at), [zero_word(map)] * 4)
            else:
                values[at] = 0


def halo_pieces(map: Map) -> int:
    """The vectors of a map's halo, of all images."""
    batch, height, width, channels = map.shape
    return batch * (height * width - map.height * map.width) * (channels // map.vector)


def halo_place(map: Map, index: Position) -> Position:
    """Where in the buffer of a map a vector of its halo begins, which are counted from zero."""
    _, height, width, channels = map.shape
    per_pixel = channels // map.vector
    border = height * width - map.height * map.width
    rows = 2 * map.halo * width
    c, pixel = index % per_pixel, index // per_pixel % border
    n = index // (per_pixel * border)
    row, side = pixel // width, pixel - rows
    along, across = side // (2 * map.halo), side % (2 * map.halo)
    in_rows = pixel < rows
    y = either(in_rows, either(row < map.halo, row, row + map.height), along + map.halo)
    x = either(in_rows, pixel % width, either(across < map.halo, across, across + map.width))
    return ((n * height + y) * width + x) * channels + c * map.vector


def inside_map(map: Map, y: Position, x: Position) -> Position:
    """Whether a pixel is one of the map, and not of its halo."""
    return both(both(y >= 0, y < map.height), both(x >= 0, x < map.width))


ARRIVALS = 1 << 12
"""The tiles of a kernel that several blocks may share."""

IS_LAST = f"""
__device__ unsigned vggc_arrivals[{ARRIVALS}];
__forceinline__ __device__ int vggc_is_last(int tile, int last) {{
  __threadfence();
  __syncthreads();
  int is_last = __syncthreads_or(
      threadIdx.x == 0 && atomicInc(vggc_arrivals + tile, last) == last);
  __threadfence();
  return is_last;
}}
"""


def is_last_block(tile: Expr, blocks: int) -> Expr:
    """Whether all other of the `blocks` that share a tile have come here; the last one sees what
    they have written before. All threads of a block must call it, once.

    The counters are the library's, and are zero again when all have come. Kernels that count run on
    one stream, one after the other. One that begins before the one before has ended waits for it in
    each block (`await_kernel_before`), ahead of the barrier behind which the block is counted.
    """
    operands = ("vggc_is_last", tile, blocks - 1)
    last = registers("last", 1, dtype="int32")
    last[0] = T.cuda.func_call(*operands, source_code=IS_LAST, return_type="int32")
    return last[0] == 1

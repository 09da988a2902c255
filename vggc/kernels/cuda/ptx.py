"""Instructions of NVIDIA GPUs that CUDA C++ has no words for, as statements of a kernel.

Names and operands are those of the PTX ISA, https://docs.nvidia.com/cuda/parallel-thread-execution.
A half is a number of 16 bits, float16 or bfloat16. Halves lie in buffers of uint16, and in
registers by twos in a uint32, the first in its low bits. A segment is 16 bytes: what a thread
copies at once.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import tvm.backend.cuda  # noqa: F401  (brings the table of instructions)
from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.builder import Buffer, allocated

HalfFormat: TypeAlias = Literal["float16", "bfloat16"]

NAMES: dict[HalfFormat, str] = {"float16": "f16", "bfloat16": "bf16"}
WARP = 32
ALL_LANES = 0xFFFFFFFF
LANES_OF_WARP = 31
"""The operand of a shuffle by which its lanes are those of the whole warp."""


def run(name: str, *operands: Any) -> None:
    """Runs an instruction by its name in TVM's table, which is the PTX ISA's."""
    T.evaluate(T.ptx[name](*operands))


def shared_address(pointer: Expr) -> Expr:
    """Where something lies in shared memory, in bytes, as an int32."""
    return T.Cast("int32", T.cuda.cvta_generic_to_shared(pointer))


def copy_async(target: Expr, source: Expr) -> None:
    """Begins to copy a segment of global memory to an address in shared memory."""
    run("cp.async.cg.shared.global", T.Cast("uint32", target), source, 16)


def copy_async_or_zeros(target: Expr, source: Expr, condition: Expr) -> None:
    """Begins to copy a segment, or to write zeros where the condition does not hold."""
    count = T.Select(condition, T.uint32(16), T.uint32(0))
    run("cp.async.cg.shared.global", T.Cast("uint32", target), source, 16, count)


def end_group() -> None:
    """Makes a group of the copies that the thread has begun since the last one."""
    run("cp.async.commit_group")


def wait_for_groups(pending: int) -> None:
    """Waits until at most `pending` groups of the thread's copies are under way."""
    run("cp.async.wait_group", pending)


def load_matrices(registers: Buffer, first: int, address: Expr) -> None:
    """Reads four matrices of eight segments from shared memory into four registers of each lane.

    Lane `8q + i` gives the address in bytes of row `i` of matrix `q`; lane `l` receives the word
    `l % 4` of row `l // 4` of each.
    """
    targets = [registers[first + index] for index in range(4)]
    name = "ldmatrix.sync.aligned.m8n8.x4.shared.b16"
    run(name, *targets, T.Cast("uint32", address))


def multiply_add(
    instruction: str, sums: Buffer, sums_at: int, a: Buffer, a_at: int, b: Buffer, b_at: int
) -> None:
    """Adds the products of 16 rows and 8 columns, a slice of 32 bytes each, to 16×8 sums, which a
    warp holds.

    Lane `4g + t` holds of the sums rows `g` and `g + 8`, columns `2t` and `2t + 1`.
    """
    total = [sums[sums_at + index] for index in range(4)]
    left = [a[a_at + index] for index in range(4)]
    right = [b[b_at + index] for index in range(2)]
    run(instruction, *total, *left, *right, *total)


def round_pair(half: HalfFormat, target: Expr, low: Expr, high: Expr) -> None:
    """Two floats to the nearest halves, in one register."""
    run(f"cvt.rn.{NAMES[half]}x2.f32", target, high, low)


def round_to_tf32(target: Expr, value: Expr) -> None:
    """A float to the nearest tf32, ties away from zero, as a uint32."""
    run("cvt.rna.tf32.f32", target, value)


def widen(half: HalfFormat, target: Buffer, at: int, value: Expr) -> None:
    """The float of a half, which is given as a uint16."""
    if half == "float16":
        run("cvt.f32.f16", target[at], value)
    else:
        target[at] = T.reinterpret("float32", T.Cast("uint32", value) << T.uint32(16))


def widen_pair(half: HalfFormat, target: Buffer, at: int, word: Expr) -> None:
    """The two floats of the halves in a register."""
    for index in range(2):
        bits = T.Cast("uint16", word >> T.uint32(16 * index))
        widen(half, target, at + index, bits)


def add_byte_products(sums: Buffer, at: int, unsigned: Expr, signed: Expr) -> None:
    """Adds the products of the four uint8 of a word and the four int8 of another to an int32."""
    run("dp4a.u32.s32", sums[at], unsigned, T.reinterpret("int32", signed), sums[at])


def load_weight_segment(registers: Buffer, first: int, address: Expr) -> None:
    """Reads a segment of a weight, which nobody writes while kernels run, into four registers."""
    run("ld.global.nc.v4.b32", *(registers[first + index] for index in range(4)), address)


def load_map_segment(registers: Buffer, first: int, address: Expr) -> None:
    """Reads a segment of a map, which the kernel before may have written while this one began, into
    four registers.
    """
    run("ld.global.v4.b32", *(registers[first + index] for index in range(4)), address)


def load_fresh(registers: Buffer, first: int, address: Expr) -> None:
    """Reads four words of global memory as other blocks have left them."""
    run("ld.global.cg.v4.b32", *(registers[first + index] for index in range(4)), address)


def store_half_segment(address: Expr, words: list[Expr]) -> None:
    """Writes two registers to eight bytes of global memory."""
    run("st.global.v2.b32", address, *words)


def store_segment(address: Expr, words: list[Expr]) -> None:
    """Writes four registers to a segment of global memory."""
    run("st.global.v4.b32", address, *words)


def from_lane(target: Expr, value: Expr, distance: int) -> None:
    """The value that the lane has whose number differs by the bit `distance`."""
    operands = (T.uint32(distance), T.uint32(LANES_OF_WARP), T.uint32(ALL_LANES))
    run("shfl_sync.bfly.b32", target, value, *operands)


def uniform(value: Expr) -> Expr:
    """An int32 that is the same in all lanes of a warp. The compiler is told so, and then keeps it,
    and what is computed from it, once a warp.
    """
    first = allocated("uniform", 1, dtype="int32", scope="local")
    operands = (T.uint32(0), T.uint32(LANES_OF_WARP), T.uint32(ALL_LANES))
    run("shfl_sync.idx.b32", first[0], value, *operands)
    return first[0]


def kept(name: str, value: Expr) -> Expr:
    """An int32 that the compiler computes once and keeps. What it knows how to compute it would
    rather compute anew at each use; from a shuffle, whose lanes here give themselves, it does not.
    """
    held = allocated(name, 1, dtype="int32", scope="local")
    from_lane(held[0], value, distance=0)
    return held[0]

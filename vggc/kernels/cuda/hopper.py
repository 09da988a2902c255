"""Instructions that NVIDIA's GPUs have since Hopper, as statements of a kernel; machine code for
`sm_90a` has them.

Four warps in a row are a warpgroup. It multiplies matrices that lie in shared memory
(`wgmma.mma_async`), where descriptors tell, and goes on meanwhile. Barriers in shared memory
(`mbarrier`) count arrivals of threads and bytes of copies; each time that all have come, their
phase ends, and the parity of the next is the other one. Names and operands are those of the PTX
ISA, https://docs.nvidia.com/cuda/parallel-thread-execution.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.tirx import Expr
from tvm.tirx.script import builder as T

from vggc.kernels.builder import Buffer
from vggc.kernels.cuda.operands import SEGMENT_BYTES, Operands
from vggc.kernels.cuda.ptx import WARP, run, uniform

ARCH = "sm_90a"
"""The architecture whose machine code has these instructions."""
WARPGROUP = 4 * WARP
"""The threads of a warpgroup."""
GROUP_ROWS = 64
"""The rows that a warpgroup multiplies at once."""
BARRIER_BYTES = 8


def begin_barrier(address: Expr, arrivals: int) -> None:
    """Makes a barrier at an address in shared memory, whose phases end after so many arrivals."""
    run("mbarrier.init.shared.b64", _word(address), T.uint32(arrivals))


def show_barriers() -> None:
    """Lets asynchronous copies see the barriers that the thread has made."""
    run("fence.mbarrier_init.release.cluster")


def arrive(barrier: Expr) -> None:
    """Counts the thread as one that has come."""
    run("mbarrier.arrive.shared.b64", _word(barrier), T.uint32(1))


def arrive_with_bytes(barrier: Expr, count: int) -> None:
    """Counts the thread as one that has come, and lets the phase wait for bytes of copies."""
    run("mbarrier.arrive.expect_tx.shared.b64", _word(barrier), T.uint32(count))


def wait(barrier: Expr, parity: Expr) -> None:
    """Waits until the phase of a parity has ended. That of parity 1 counts as ended at first."""
    T.evaluate(T.cuda.mbarrier_wait(_word(barrier), parity))


def copy_bulk(target: Expr, source: Expr, count: int, barrier: Expr) -> None:
    """Begins to copy bytes, a multiple of 16, from global memory to an address in shared memory;
    the barrier counts them when they are there.
    """
    name = "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
    run(name, _word(target), source, T.uint32(count), _word(barrier))


def fetch_ahead(source: Expr, count: int) -> None:
    """Begins to bring bytes of global memory, a multiple of 16, to the L2 cache."""
    run("cp.async.bulk.prefetch.L2.global", source, T.uint32(count))


def show_to_tensor_cores() -> None:
    """Lets the tensor cores see what the thread has written to shared memory, and its copies that
    it has waited for.
    """
    run("fence.proxy.async.shared::cta")


def begin_products() -> None:
    """Lets the warpgroup's next products see what its threads have in their registers."""
    run("wgmma.fence.sync.aligned")


def end_group_of_products() -> None:
    """Makes a group of the products that the warpgroup has begun since the last one."""
    run("wgmma.commit_group.sync.aligned")


def wait_for_products(pending: int) -> None:
    """Waits until at most `pending` groups of the warpgroup's products are under way."""
    run("wgmma.wait_group.sync.aligned", pending)


def multiply_group(
    operands: Operands, cols: int, sums: Buffer, first: int, a: Expr, b: Expr, *, adds: bool = True
) -> None:
    """Begins to add the products of 64 rows and `cols` columns, a slice of 32 bytes each, to sums
    that the warpgroup holds, or to zeros unless it `adds`. `a` and `b` describe them.

    Lane `4g + t` of warp `w` holds of eight columns `8j` on rows `16w + g` and `16w + g + 8`,
    columns `8j + 2t` and the next, from `sums[first + 4j]` on.
    """
    total = [sums[first + index] for index in range(cols // 2)]
    # Floats could be negated, and halves lie the other way round: here they do not.
    more = {4: (1, 1), 2: (1, 1, 0, 0), 1: ()}[operands.size]
    run(operands.group_instruction.format(cols), *total, a, b, T.ptx.pred(int(adds)), *more)


@dataclass(frozen=True)
class GroupSlice:
    """Where a slice of two matrices lies, in bytes: of each its first segments, behind those that a
    descriptor describes, and from there the second ones.
    """

    left: int
    left_apart: int
    right: int
    right_apart: int


@dataclass(frozen=True)
class Descriptor:
    """The words of a matrix's descriptor, but for the bytes between the segments of a slice."""

    low: Expr
    high: int

    def behind(self, count: int, apart: int) -> Expr:
        """The descriptor of a slice that begins so many bytes behind this matrix, and whose second
        segments lie `apart` bytes behind the first.
        """
        more = count // SEGMENT_BYTES + (apart // SEGMENT_BYTES << 16)
        low = T.Cast("uint64", T.Cast("uint32", self.low + more))
        return low | T.uint64(self.high << 32)


def descriptor(address: Expr, along_rows: int) -> Descriptor:
    """Describes a matrix to the tensor cores that lies in shared memory in pieces of 8 rows, each
    a segment, one after the other: its address, and the bytes between pieces that follow one
    another along the rows.
    """
    return Descriptor(uniform(address // SEGMENT_BYTES), along_rows // SEGMENT_BYTES)


def _word(address: Expr) -> Expr:
    return T.Cast("uint32", address)

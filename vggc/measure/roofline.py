"""What this machine can do at most: multiply-adds a second, and bytes read a second.

Both are measured with kernels of our own, compiled as nets are, on as many threads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm.ir import Expr
from tvm.tirx import PrimFunc
from tvm.tirx.script import builder as T

from vggc.compiler.targets import tvm_target
from vggc.kernels.builder import Argument, Buffer, function, parallel, serial, unrolled
from vggc.kernels.cpu.intrinsics import DOT_BFLOAT16, dot_bfloat16, dot_uint8_int8
from vggc.kernels.cpu.loops import scratch
from vggc.kernels.cpu.machine import Machine
from vggc.runtime.artifact import Target
from vggc.runtime.huge_pages import large_pages
from vggc.support.affinity import apart
from vggc.support.memory import memory
from vggc.support.precision import ArtifactPrecision
from vggc.support.tvm_alone import tvm

STEPS = 1 << 18
"""Turns of the loop of multiply-adds: a millisecond or so."""
STREAMS = 4
"""Places that a thread reads from at once, so that more is on its way than from one."""
MAX_BYTES = 512 << 20
"""What is read, far more than caches hold."""
FORMATS: dict[ArtifactPrecision, int] = {"float32": 1, "bfloat16": 2, "int8": 4}
"""Multiply-adds of an instruction in a lane of 32 bits."""


@dataclass(frozen=True)
class Peak:
    """A kernel that does nothing but `amount` of one thing (FLOPs or bytes) a call."""

    amount: int
    run: Callable[[], None]

    def measure(self) -> float:
        """The amount a second that one call reaches."""
        started = time.perf_counter()
        self.run()
        return self.amount / (time.perf_counter() - started)


def arithmetic(target: Target, threads: int, precision: ArtifactPrecision) -> Peak:
    """A kernel that counts FLOPs: multiply-adds that stay in registers, two a multiply-add."""
    machine = Machine.of(tvm_target(target))
    lanes, size = machine.lanes, machine.lanes * machine.registers * 3 // 4
    factor, sums = FORMATS[precision], "int32" if precision == "int8" else "float32"

    def body(x: Buffer, y: Buffer) -> None:
        bf16 = precision == "bfloat16"
        imported = T.attr(0, "pragma_import_llvm", DOT_BFLOAT16) if bf16 else nullcontext()
        with imported, parallel("thread", threads) as thread:
            held = scratch("held", size, dtype=sums)
            with _vectors(size, lanes) as i:
                held[i] = T.Broadcast(T.Cast(sums, T.int32(0)), lanes)
            with serial("step", STEPS), _vectors(size, lanes) as i:
                factors = (x[T.Ramp(first, 1, lanes)] for first in (0, lanes))
                held[i] = _multiply_add(precision, held[i], *factors)
            with _vectors(size, lanes) as i:
                y[thread, i] = held[i]

    word = "float32" if precision == "float32" else "int32"
    arguments = (Argument("x", (2 * lanes,), word), Argument("y", (threads, size), sums))
    func = function(body, arguments, {})
    amount = 2 * factor * size * STEPS * threads
    x = tvm.runtime.tensor(np.zeros(2 * lanes, word))
    return _peak(func, target, threads, amount, x, np.zeros((threads, size), sums))


def _multiply_add(precision: ArtifactPrecision, sums: Expr, x: Expr, y: Expr) -> Expr:
    """`sums + x·y`, where words of fewer bits hold several products' factors."""
    match precision:
        case "float32":
            return sums * x + y  # what a compiler cannot foresee
        case "bfloat16":
            return dot_bfloat16(sums, x, y)
        case "float16" | "tf32":
            raise AssertionError("kernels for CPUs know no float16 and no tf32")
        case "int8":
            return dot_uint8_int8(sums, x, y)


def bandwidth(target: Target, threads: int) -> Peak:
    """A kernel that counts bytes: read from a buffer far larger than the caches, in large pages."""
    lanes = Machine.of(tvm_target(target)).lanes
    turns = min(MAX_BYTES, memory() // 8) // (4 * threads * STREAMS * lanes)
    total, size = turns * threads * STREAMS * lanes, STREAMS * lanes

    def body(x: Buffer, y: Buffer) -> None:
        with parallel("thread", threads) as thread:
            held = scratch("held", size)
            with _vectors(size, lanes) as i:
                held[i] = T.Broadcast(T.float32(0), lanes)
            with serial("turn", turns) as turn, unrolled("stream", STREAMS) as (stream,):
                first = ((thread * STREAMS + stream) * turns + turn) * lanes
                held[T.Ramp(stream * lanes, 1, lanes)] += x[T.Ramp(first, 1, lanes)]
            with _vectors(size, lanes) as i:
                y[thread, i] = held[i]

    func = function(body, (Argument("x", (total,)), Argument("y", (threads, size))), {})
    x = large_pages(4 * total).view(np.float32)
    x.fill(1.0)  # a page that was never written is no memory yet
    held_in_place = tvm.runtime.from_dlpack(x)
    return _peak(
        func, target, threads, x.nbytes, held_in_place, np.zeros((threads, size), np.float32)
    )


@contextmanager
def _vectors(size: int, lanes: int) -> Iterator[Expr]:
    """An unrolled loop over vectors; the index is the vector of its lanes' indices."""
    with T.unroll(size // lanes) as vector:
        yield T.Ramp(vector * lanes, 1, lanes)


def _peak(
    func: PrimFunc, target: Target, threads: int, amount: int, x: Any, y: NDArray[Any]
) -> Peak:
    # TVM makes its threads at the first call, by default one for every other processor of some
    # machines, and would nail them to processors.
    os.environ["TVM_NUM_THREADS"] = str(threads)
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    module = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
    main = tvm.compile(module, target=tvm_target(target))["main"]
    result = tvm.runtime.tensor(y)

    def run() -> None:
        with apart(threads):
            main(x, result)

    run()
    return Peak(amount, run)

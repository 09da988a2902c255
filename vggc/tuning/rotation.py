"""What is built of a kernel to time it on a card.

A kernel is timed as it runs in a net: by TVM's virtual machine, in a CUDA graph. One that takes
less time than its launch would otherwise be as fast as any other. It is called on sets of arguments
in turn, inputs, weights and output of each at places of their own. Before a set comes again, the
others have moved as much as the card's L2 cache holds, so that what it reads comes from memory. The
seconds are the card's: those between an event before the first graph and one behind the last.
"""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

from vggc.compiler.device_code import CompilerError, NoCompilerError, compile_device
from vggc.compiler.relax import emit_output, results
from vggc.kernels.cuda.algorithm import moved_bytes
from vggc.kernels.workloads import Choice, Kernel
from vggc.support.tvm_alone import relax
from vggc.tuning.machines import TunedCard
from vggc.tuning.space import Task
from vggc.tuning.workers import reason

MAX_SETS = 64
"""What kernels move that fill no cache in so many sets may stay there, as it does in a net."""
CALLS = 32
"""Kernels between two events, at least: beside them the first one's way to the card is little."""


def sets_of(task: Task) -> int:
    """The sets of arguments that rotate: all but one fill the card's L2 cache."""
    assert isinstance(task.machine, TunedCard)
    return min(MAX_SETS, 1 + max(1, ceil(task.machine.cache / moved_bytes(task.workload))))


def rounds_of(sets: int) -> int:
    """How often all sets come between two events."""
    return ceil(CALLS / sets)


def build(task: Task, choice: Choice, library: Path, linker: str) -> str | None:
    """Writes the library of a choice, with machine code for the task's card alone; the reason if
    there is no code for it, else None.

    Raises: what keeps code from being compiled at all, linked and written.
    """
    assert isinstance(task.machine, TunedCard)
    try:
        module = rotating(task.machine.kernel(task.workload, choice), sets_of(task))
        code = compile_device(module, task.machine.target.archs, graphs=True)
    except (MemoryError, OSError, NoCompilerError):
        raise
    except CompilerError as error:
        return str(error).splitlines()[0]
    except Exception as error:
        return reason(error)
    code.export(library, linker)
    return None


def rotating(kernel: Kernel, sets: int) -> Any:
    """The Relax module whose `main` calls a kernel on each of so many sets of arguments, and gives
    the last set's output and the first set's input. The arguments are those of the kernel but for
    its scratch memory, set by set. All sets but the first are a CUDA graph.
    """
    builder = relax.BlockBuilder()
    function = builder.add_func(kernel.func, "kernel")
    kinds = [
        relax.TensorType(tuple(map(int, parameter.shape)), str(parameter.dtype))
        for parameter in kernel.arguments
    ]
    names = [str(parameter.name) for parameter in kernel.arguments]
    # The output is written in place; for scratch memory Relax finds room, the same for all calls.
    places = [len(kinds) - 1, *(-1 for _ in kernel.scratch)]
    arguments = [
        [relax.Var(f"{name}_{index}", kind) for name, kind in zip(names, kinds, strict=True)]
        for index in range(sets)
    ]
    taken = [each for one_set in arguments for each in one_set]
    # A CUDA graph must give a value to what lies outside: here, to a pair with the first input.
    with builder.function("main", taken, {"num_input": 1}):
        for one_set in arguments:
            call = relax.op.call_tir_inplace(function, one_set, places, results(kernel))
            written = emit_output(builder, kernel, call)
        builder.emit_func_output(builder.emit(relax.Tuple([written, taken[0]])))
    return builder.finalize()

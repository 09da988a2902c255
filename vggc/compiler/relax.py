"""Plans to the module of their kernels, and where TVM's virtual machine is to call these, as on
GPUs, to a Relax module: one call of one of our kernels a step.

Such a module has two functions for each plan, all over the same kernels. `main_NAME` takes the
input and the packed weights and gives the output, or a tuple of several heads' in order;
`layers_NAME` gives a tuple of every step's value, for `vggc verify`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from vggc.kernels.workloads import Kernel, Workload, buffer_shape
from vggc.plan.plan import INPUT, Plan, Step
from vggc.runtime.artifact import layers_function, main_function
from vggc.support.tvm_alone import relax, tvm

KernelOf: TypeAlias = Callable[[Workload], Kernel]

NUM_INPUTS = 1
"""How many of a function's parameters change from call to call; the others are weights, which a
CUDA graph finds where they were."""


def _with_weights_checked(module: tvm.IRModule, _: Any) -> tvm.IRModule:
    """TVM leaves out the check of parameters that it is told are no inputs."""
    for name in module.get_global_vars():
        if isinstance(module[name], relax.Function):
            module.update_func(name, module[name].without_attr("num_input"))
    return module


PIPELINE = tvm.transform.Sequential(
    [
        relax.transform.RewriteDataflowReshape(),
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
        relax.transform.StaticPlanBlockMemory(),
        relax.transform.RewriteCUDAGraph(),
        tvm.transform.module_pass(_with_weights_checked, opt_level=0),
        relax.transform.LowerAllocTensor(),
        relax.transform.KillAfterLastUse(),
        relax.transform.LowerRuntimeBuiltin(),
        relax.transform.ComputePrimValue(),
        relax.transform.VMShapeLower(),
        relax.transform.AttachGlobalSymbol(),
    ]
)
"""From one call a kernel to code for the virtual machine, on every target.

Our kernels come scheduled and fused, so nothing here may touch a PrimFunc: TVM's own pipelines
would, and crash where they fuse a reshape with one. CUDA graphs are made within
`graphs_made(True)` only.
"""


def graphs_made(wanted: bool) -> Any:
    """Where functions `main_NAME` are compiled within it, whether what they launch is recorded in
    CUDA graphs at the first call and replayed at the others.

    In a graph is what reads and writes memory that stays: weights, and room that all functions of
    the module have in common. A kernel that has to do with the input or an output is launched by
    itself, so that a caller may keep either. The functions `layers_NAME` have no graph, as each of
    their values is an output.
    """
    return tvm.transform.PassContext(config={"relax.backend.use_cuda_graph": wanted})


@dataclass(frozen=True)
class PlannedCalls:
    """A plan, and the kernel behind each of its steps."""

    plan: Plan
    kernels: tuple[Kernel, ...]

    @property
    def steps(self) -> tuple[tuple[Step, Kernel], ...]:
        """Each step with its kernel."""
        return tuple(zip(self.plan.steps, self.kernels, strict=True))


def with_kernels(plans: Mapping[str, Plan], kernel_of: KernelOf) -> dict[str, PlannedCalls]:
    """Plans by their names with their kernels. Equal workloads have one kernel, whichever plans
    they are of.
    """
    made = cache(kernel_of)
    return {
        name: PlannedCalls(plan, tuple(made(step.workload) for step in plan.steps))
        for name, plan in plans.items()
    }


@dataclass(frozen=True)
class Lowered:
    """Plans ready for code generation by their names, with the kernels behind their steps."""

    module: tvm.IRModule
    calls: Mapping[str, PlannedCalls]
    functions: Mapping[str, tuple[str, ...]]
    """The name of the module's function that computes each step of each plan."""


def lower(calls: Mapping[str, PlannedCalls], *, machine: bool = True) -> Lowered:
    """The kernels of plans by their names, with the functions by which TVM's virtual `machine`
    calls them, or without. Equal code is there once, whichever plans it is of.
    """
    builder = relax.BlockBuilder()
    functions: dict[Any, Any] = {}
    for each in calls.values():
        for step, kernel in each.steps:
            if kernel.func not in functions:
                name = _function_name(step.workload, kernel)
                functions[kernel.func] = builder.add_func(kernel.func, name)
    for name, each in calls.items() if machine else ():
        _emit(builder, main_function(name), each, functions, every_step=False)
        _emit(builder, layers_function(name), each, functions, every_step=True)
    called = {
        name: tuple(str(functions[kernel.func].name_hint) for kernel in each.kernels)
        for name, each in calls.items()
    }
    return Lowered(builder.finalize(), calls, called)


def _function_name(workload: Workload, kernel: Kernel) -> str:
    return f"{type(workload).__name__}_{kernel.algorithm}".lower()


def _emit(
    builder: Any,
    name: str,
    calls: PlannedCalls,
    functions: Mapping[Any, Any],
    *,
    every_step: bool,
) -> None:
    plan = calls.plan
    x = _variable("x", (plan.batch, *plan.input), "float32")
    weights = {
        full: _variable(re.sub(r"\W", "_", full), shape, dtype)
        for step, kernel in calls.steps
        for full, (shape, dtype) in weight_types(step, kernel).items()
    }
    with builder.function(name, [x, *weights.values()], {"num_input": NUM_INPUTS}):
        with builder.dataflow():
            values: list[Any] = []
            for step, kernel in calls.steps:
                sources = [
                    _reshaped(builder, x if read == INPUT else values[read], buffer_shape(layout))
                    for read, layout in zip(step.reads, step.workload.inputs, strict=True)
                ]
                arguments = [*sources, *(weights[full] for full in step.weights)]
                call = relax.call_tir(functions[kernel.func], arguments, results(kernel))
                values.append(emit_output(builder, kernel, call))
            if not every_step:
                values = [
                    _reshaped(builder, values[output.step], (plan.batch, *output.shape))
                    for output in plan.outputs
                ]
            several = every_step or len(values) > 1
            output = builder.emit_output(relax.Tuple(values) if several else values[0])
        builder.emit_func_output(output)


def results(kernel: Kernel) -> list[Any]:
    """The types of what a call of a kernel gives: its output, then its scratch memory, for which
    Relax finds room as for any value, where none lies that is still needed.
    """
    y = kernel.arguments[-1]
    output = relax.TensorType(tuple(map(int, y.shape)), str(y.dtype))
    return [output, *(relax.TensorType(each.shape, each.dtype) for each in kernel.scratch)]


def emit_output(builder: Any, kernel: Kernel, call: Any) -> Any:
    """The output that a call of a kernel gives."""
    given = builder.emit(call)
    return builder.emit(relax.TupleGetItem(given, 0)) if kernel.scratch else given


def weight_types(step: Step, kernel: Kernel) -> dict[str, tuple[tuple[int, ...], str]]:
    """The packed shape and the type of the elements of each weight of a step."""
    taken = kernel.arguments[len(step.reads) : -1]
    buffers = [parameter.ty for parameter in taken]
    return {
        name: (tuple(int(extent) for extent in buffer.shape), str(buffer.dtype))
        for name, buffer in zip(step.weights, buffers, strict=True)
    }


def _variable(name: str, shape: tuple[int, ...], dtype: str) -> Any:
    return relax.Var(name, relax.TensorType(shape, dtype))


def _reshaped(builder: Any, value: Any, shape: tuple[int, ...]) -> Any:
    """The memory of `value` under another shape; nothing to do where the shape is already right."""
    if tuple(int(extent) for extent in value.ty.shape) == shape:
        return value
    return builder.emit(relax.op.reshape(value, shape))

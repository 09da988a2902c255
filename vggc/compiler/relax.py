"""Plan to a Relax module: one call of one of our kernels a step.

The module has two functions over the same kernels. `main` takes the input and the packed
weights and gives the output, or a tuple of several heads' in order; `layers` gives a tuple of
every step's value, for `vggc verify`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from vggc.kernels.workloads import Kernel, Workload, buffer_shape, storage
from vggc.plan.plan import INPUT, Plan, Step
from vggc.support.tvm_alone import relax, tvm

KernelOf: TypeAlias = Callable[[Workload], Kernel]

PIPELINE = tvm.transform.Sequential(
    [
        relax.transform.RewriteDataflowReshape(),
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
        relax.transform.StaticPlanBlockMemory(),
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
would, and crash where they fuse a reshape with one.
"""


@dataclass(frozen=True)
class Lowered:
    """A net ready for code generation, and the kernel behind each step."""

    module: tvm.IRModule
    kernels: tuple[Kernel, ...]


def lower(plan: Plan, kernel_of: KernelOf) -> Lowered:
    """The Relax module of a plan. Equal workloads share one function."""
    builder = relax.BlockBuilder()
    kernels, functions = _kernels(builder, [plan], kernel_of)
    _emit(builder, "main", plan, kernels, functions, every_step=False)
    _emit(builder, "layers", plan, kernels, functions, every_step=True)
    module = builder.finalize()
    return Lowered(module, tuple(kernels[step.workload] for step in plan.steps))


def lower_together(plans: Mapping[str, Plan], kernel_of: KernelOf) -> dict[str, Lowered]:
    """One Relax module for several plans, with a function by the name of each in the place of
    `main`. Equal workloads share one function, whichever plans they are of.
    """
    builder = relax.BlockBuilder()
    kernels, functions = _kernels(builder, plans.values(), kernel_of)
    for name, plan in plans.items():
        _emit(builder, name, plan, kernels, functions, every_step=False)
    module = builder.finalize()
    return {
        name: Lowered(module, tuple(kernels[step.workload] for step in plan.steps))
        for name, plan in plans.items()
    }


def _kernels(
    builder: Any, plans: Iterable[Plan], kernel_of: KernelOf
) -> tuple[dict[Workload, Kernel], dict[Workload, Any]]:
    """The kernel of each workload of some plans, and its function in the module."""
    distinct = dict.fromkeys(step.workload for plan in plans for step in plan.steps)
    kernels = {workload: kernel_of(workload) for workload in distinct}
    functions = {
        workload: builder.add_func(kernel.func, _function_name(workload, kernel))
        for workload, kernel in kernels.items()
    }
    return kernels, functions


def _function_name(workload: Workload, kernel: Kernel) -> str:
    return f"{type(workload).__name__}_{kernel.algorithm}".lower()


def _emit(
    builder: Any,
    name: str,
    plan: Plan,
    kernels: dict[Workload, Kernel],
    functions: dict[Workload, Any],
    *,
    every_step: bool,
) -> None:
    x = _variable("x", (plan.batch, *plan.input), "float32")
    weights = {
        full: _variable(full.replace(".", "_").replace("-", "_"), shape, dtype)
        for step in plan.steps
        for full, (shape, dtype) in weight_types(step, kernels[step.workload]).items()
    }
    with builder.function(name, [x, *weights.values()]):
        with builder.dataflow():
            values: list[Any] = []
            for step in plan.steps:
                sources = [
                    _reshaped(builder, x if read == INPUT else values[read], buffer_shape(layout))
                    for read, layout in zip(step.reads, step.workload.inputs, strict=True)
                ]
                arguments = [*sources, *(weights[full] for full in step.weights)]
                result = relax.TensorType(buffer_shape(step.output), storage(step.output))
                call = relax.call_tir(functions[step.workload], arguments, result)
                values.append(builder.emit(call))
            if not every_step:
                values = [
                    _reshaped(builder, values[output.step], (plan.batch, *output.shape))
                    for output in plan.outputs
                ]
            several = every_step or len(values) > 1
            output = builder.emit_output(relax.Tuple(values) if several else values[0])
        builder.emit_func_output(output)


def weight_types(step: Step, kernel: Kernel) -> dict[str, tuple[tuple[int, ...], str]]:
    """The packed shape and the type of the elements of each weight of a step."""
    taken = kernel.func.params[len(step.reads) : -1]
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

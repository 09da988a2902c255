"""Sums that the convolution before them computes, as it has one of their terms in registers.

A residual block of ResNet-50 or ConvNeXt ends with a 1×1 convolution and a sum. With a call for
each, what the convolution gives would be written and read again.
"""

from __future__ import annotations

from dataclasses import replace

from vggc.kernels.workloads import Add, Conv, Map
from vggc.plan.plan import INPUT, Plan, Step


def summed(plan: Plan) -> Plan:
    """The plan in which convolutions add what is summed with them, where kernels for CPUs can. It
    computes the same.
    """
    inside = {}
    for number, step in enumerate(plan.steps):
        term = _term(plan, step)
        if term is not None:
            inside[term] = number
    steps: list[Step] = []
    places = {INPUT: INPUT}
    for number, step in enumerate(plan.steps):
        if number in inside:
            continue
        terms = [read for read in step.reads if inside.get(read) == number]
        made = _with_term(plan.steps[terms[0]], step, terms[0]) if terms else step
        places[number] = len(steps)
        steps.append(replace(made, reads=tuple(places[read] for read in made.reads)))
    outputs = tuple(replace(output, step=places[output.step]) for output in plan.outputs)
    return replace(plan, steps=tuple(steps), outputs=outputs)


def _term(plan: Plan, step: Step) -> int | None:
    """The step of the convolution that can compute a sum, the last one if several can."""
    if not isinstance(step.workload, Add) or len(step.reads) != 2:
        return None
    return max((read for read in step.reads if _adds(plan, read, step)), default=None)


def _adds(plan: Plan, number: int, add: Step) -> bool:
    """Whether a step is a convolution whose value nothing but the sum reads, and whose kernels can
    compute it. Winograd's cannot, so that only 1×1 convolutions are taken.
    """
    if number == INPUT or number in {output.step for output in plan.outputs}:
        return False
    readers = [read for step in plan.steps for read in step.reads if read == number]
    match plan.steps[number].workload:
        case Conv(kernel=(1, 1), groups=1, act=None, pool=False, addend=None) as conv:
            layouts = (*conv.inputs, conv.output, *add.workload.inputs, add.output)
            in_float32 = all(
                isinstance(layout, Map) and layout.format == "float32" for layout in layouts
            )
            return in_float32 and len(readers) == 1
        case _:
            return False


def _with_term(conv: Step, add: Step, number: int) -> Step:
    """The convolution that computes a sum, of which its step `number` gave one term."""
    assert isinstance(conv.workload, Conv)
    assert isinstance(add.workload, Add)
    other = 1 - add.reads.index(number)
    workload = replace(
        conv.workload,
        output=add.workload.output,
        act=add.workload.act,
        addend=add.workload.inputs[other],
    )
    return replace(
        add, workload=workload, reads=(*conv.reads, add.reads[other]), weights=conv.weights
    )

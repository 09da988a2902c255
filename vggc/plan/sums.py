"""Sums that the convolution before them computes, as it has one of their terms in registers.

A residual block of ResNet-50 or ConvNeXt ends with a 1×1 convolution and a sum. With a call for
each, what the convolution gives would be written and read again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from vggc.kernels.workloads import Add, Conv, Workload
from vggc.plan.plan import INPUT, Plan, Step


def summed(plan: Plan) -> Plan:
    """The plan in which convolutions add what is summed with them, where kernels for CPUs can. It
    computes the same.
    """
    num_reads = Counter(read for step in plan.steps for read in step.reads)
    num_reads.update(output.step for output in plan.outputs)
    inside = {}
    for number, step in enumerate(plan.steps):
        term = _term(plan, step, num_reads)
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


def _term(plan: Plan, step: Step, num_reads: Mapping[int, int]) -> int | None:
    """The step of the convolution that can compute a sum, the last one if several can.

    It is one whose value nothing but the sum reads, and whose kernels can: Winograd's cannot, so
    that only 1×1 convolutions are taken.
    """
    if not isinstance(step.workload, Add) or len(step.reads) != 2:
        return None
    maps = (*step.workload.inputs, step.workload.output)
    if any(map_.format != "float32" for map_ in maps):
        return None
    alone = (read for read in step.reads if read != INPUT and num_reads[read] == 1)
    return max((read for read in alone if _can_add(plan.steps[read].workload)), default=None)


def _can_add(workload: Workload) -> bool:
    match workload:
        case Conv(kernel=(1, 1), groups=1, act=None, pool=False, addend=None, input=source):
            return source.format == "float32"
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

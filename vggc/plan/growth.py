"""Concatenations that grow in place: each leaves what it reads first where that lies.

A concatenation whose first input is one, too, as in the blocks of DenseNet, would copy all of it
for the few channels that are new. Here the pixels of the first have room for those of the last, and
each writes its new channels behind the others, in the same memory.
"""

from __future__ import annotations

from dataclasses import replace

from vggc.kernels.workloads import Concat, Conv, Map
from vggc.plan.plan import INPUT, Plan, Step


def grown(plan: Plan) -> Plan:
    """The plan in which concatenations grow where the kernels for CPUs that read the values between
    can read pixels with room. It computes the same.
    """
    rooms: dict[int, int] = {}
    growing: set[int] = set()
    for number in reversed(range(len(plan.steps))):
        step = plan.steps[number]
        first = step.reads[0]
        if isinstance(step.workload, Concat) and first not in rooms and _grows(plan, step):
            rooms[first] = rooms.get(number, step.workload.output.channels)
            growing.add(number)

    def roomy(number: int, map_: Map) -> Map:
        return replace(map_, room=rooms.get(number, map_.room))

    steps = []
    for number, step in enumerate(plan.steps):
        match workload := step.workload:
            case Concat():
                reads = zip(step.reads, workload.inputs, strict=True)
                joined = replace(
                    workload,
                    inputs=tuple(roomy(read, map_) for read, map_ in reads),
                    output=roomy(number, workload.output),
                    grows=number in growing,
                )
                steps.append(replace(step, workload=joined))
            case Conv():
                conv = replace(workload, input=roomy(step.reads[0], workload.input))
                steps.append(replace(step, workload=conv))
            case _:
                steps.append(step)
    return replace(plan, steps=tuple(steps))


def _grows(plan: Plan, concat: Step) -> bool:
    """Whether what a concatenation reads first can lie where the concatenation begins."""
    first, *others = concat.reads
    if first == INPUT or first in others or first in {output.step for output in plan.outputs}:
        return False
    layouts = plan.steps[first].output, concat.output
    readers = (step for step in plan.steps if first in step.reads)
    return (
        isinstance(plan.steps[first].workload, Concat)
        and all(
            isinstance(layout, Map) and layout.format == "float32" and layout.halo == 0
            for layout in layouts
        )
        and all(_reads_with_room(step) for step in readers)
    )


def _reads_with_room(step: Step) -> bool:
    """Whether kernels for CPUs that carry out a step read maps whose pixels have room."""
    match step.workload:
        case Concat():
            return True
        case Conv(groups=groups, input=source):
            return groups == source.channels > 1
        case _:
            return False

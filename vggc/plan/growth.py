"""Concatenations that grow in place: each leaves what it reads first where that lies.

A concatenation whose first input is one, too, as in the blocks of DenseNet, would copy all of it
for the few channels that are new. Here the pixels of the first have room for those of the last, and
each writes its new channels behind the others, in the same memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from vggc.kernels.workloads import Concat, Conv, Map
from vggc.plan.plan import INPUT, Plan, Step


def grown(plan: Plan) -> Plan:
    """The plan in which concatenations grow where the kernels for CPUs that read the values between
    can read pixels with room. It computes the same.
    """
    rooms: dict[int, int] = {}
    growing: set[int] = set()
    given = {output.step for output in plan.outputs}
    readers: defaultdict[int, list[Step]] = defaultdict(list)
    for step in plan.steps:
        for read in step.reads:
            readers[read].append(step)
    for number in reversed(range(len(plan.steps))):
        step = plan.steps[number]
        first = step.reads[0]
        is_free = first != INPUT and first not in given and first not in rooms
        if (
            is_free
            and isinstance(step.workload, Concat)
            and _grows(step, plan.steps[first], readers[first])
        ):
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


def _grows(concat: Step, first: Step, readers: Sequence[Step]) -> bool:
    """Whether the value of the step that a concatenation reads first, as these readers do, can lie
    where the concatenation begins.
    """
    layouts = first.output, concat.output
    return (
        isinstance(first.workload, Concat)
        and concat.reads.count(concat.reads[0]) == 1
        and all(
            isinstance(layout, Map) and layout.format == "float32" and layout.halo == 0
            for layout in layouts
        )
        and all(map(_reads_with_room, readers))
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

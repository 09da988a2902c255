"""What holds of every plan, checked wherever one was made."""

from __future__ import annotations

from math import prod

from vggc.kernels.workloads import Concat, Convert, Layout, Map, ToNchw, buffer_shape
from vggc.plan.plan import INPUT, Plan, Step


def verify_plan(plan: Plan) -> None:
    """Raises: AssertionError where a step contradicts another; a bug in vggc, not a mistake."""
    names = [step.name for step in plan.steps if not _is_copy(step)]
    assert len(set(names)) == len(names)
    for index, step in enumerate(plan.steps):
        assert all(read == INPUT or 0 <= read < index for read in step.reads), step.name
        wanted = step.workload.inputs
        assert len(wanted) == len(step.reads), step.name
        for read, layout in zip(step.reads, wanted, strict=True):
            if read == INPUT:
                assert layout == (plan.batch, *plan.input), step.name
            else:
                assert _is_as(plan.steps[read].output, layout), step.name
    firsts = [step.reads[0] for step in plan.steps if _grows(step)]
    assert len(set(firsts)) == len(firsts)
    for output in plan.outputs:
        values = prod(buffer_shape(plan.steps[output.step].output))
        assert values == plan.batch * prod(output.shape), output.name


def _is_copy(step: Step) -> bool:
    """Whether a step gives a value of another step in another layout, and bears its name."""
    return isinstance(step.workload, Convert | ToNchw)


def _grows(step: Step) -> bool:
    """Whether a step writes into the memory of what it reads first, which only one may."""
    return isinstance(step.workload, Concat) and step.workload.grows


def _is_as(given: Layout, wanted: Layout) -> bool:
    """Whether a value lies in memory as its reader takes it; rows are maps of one pixel."""
    if isinstance(given, Map) and isinstance(wanted, Map):
        return given == wanted
    return prod(buffer_shape(given)) == prod(buffer_shape(wanted))

"""Nets lowered to TIR without being written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vggc.compiler.choose import kernels_for
from vggc.compiler.error_budget import MAX_ERROR, allotment
from vggc.compiler.relax import Lowered, lower, with_kernels
from vggc.ir.graph import Graph
from vggc.kernels.workloads import Concat
from vggc.plan.plan import Plan
from vggc.runtime.artifact import Target
from vggc.runtime.plans import plan_for
from vggc.support.precision import ArtifactPrecision


def lowered(
    graph: Graph,
    batch: int,
    target: Target,
    precision: ArtifactPrecision = "float32",
    max_error: float = MAX_ERROR,
) -> tuple[Plan, Lowered]:
    """The plan of a net and the kernels that carry it out, chosen by stated cost; its function is
    `main_net`.
    """
    plan = with_values_apart(plan_for(graph, batch, target, precision))
    chosen = allotment([plan], target, max_error).by_cost
    return plan, lower(with_kernels({"net": plan}, kernels_for(target, chosen.get)))


def lowered_together(
    graphs: Mapping[str, Graph], target: Target
) -> tuple[dict[str, Plan], Lowered]:
    """The plans of several nets for one image, and one module of the kernels that carry them out:
    for what several do, the kernel that the last of them would choose.
    """
    plans = {
        name: with_values_apart(plan_for(graph, 1, target, "float32"))
        for name, graph in graphs.items()
    }
    chosen = {
        workload: choice
        for plan in plans.values()
        for workload, choice in allotment([plan], target, MAX_ERROR).by_cost.items()
    }
    return plans, lower(with_kernels(plans, kernels_for(target, chosen.get)))


def with_values_apart(plan: Plan) -> Plan:
    """The plan with memory of its own for each value, as TVM's virtual machine gives it: there no
    concatenation can grow in place, and each copies all that it reads.
    """
    steps = (
        replace(step, workload=replace(step.workload, grows=False))
        if isinstance(step.workload, Concat)
        else step
        for step in plan.steps
    )
    return replace(plan, steps=tuple(steps))

"""Nets lowered to TIR without being written."""

from __future__ import annotations

from vggc.compiler.choose import kernels_for
from vggc.compiler.error_budget import MAX_ERROR, allotment
from vggc.compiler.relax import Lowered, lower
from vggc.ir.graph import Graph
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
    """The plan of a net and the kernels that carry it out, chosen by stated cost."""
    plan = plan_for(graph, batch, target, precision)
    return plan, lower(plan, kernels_for(target, allotment(plan, target, max_error).by_cost.get))

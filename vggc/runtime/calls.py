"""The kernel calls of a compiled net, which follow from its graph alone.

Whoever has an artifact's spec knows which weights its library takes in which order; a manifest
that says otherwise is not that of the net.
"""

from __future__ import annotations

from pathlib import Path

from vggc.ir.graph import Graph
from vggc.kernels.workloads import Format
from vggc.passes.fold import fold
from vggc.plan.low_precision import in_format
from vggc.plan.plan import Plan, plan
from vggc.runtime import diagnostics
from vggc.runtime.artifact import SPEC, Manifest, Target, graph_in
from vggc.support.diagnostics import UserError
from vggc.support.paths import MANIFEST
from vggc.support.precision import ArtifactPrecision

FORMATS: dict[ArtifactPrecision, Format] = {
    "float32": "float32",
    "bfloat16": "bfloat16",
    "int8": "uint8",
}


def planned(graph: Graph, batch: int, target: Target, precision: ArtifactPrecision) -> Plan:
    """The calls of a compiled net, whose graph may be folded or not."""
    return in_format(plan(graph, batch, fuse_pools=pools(target)), FORMATS[precision])


def pools(target: Target) -> bool:
    """Whether the kernels of a target pool what a convolution computes."""
    return target.kind == "cpu"


def calls_of(folder: Path, manifest: Manifest) -> Plan:
    """The calls of an artifact's net.

    Raises: UserError where the manifest tells of other weights, another order of them, or other
    calls.
    """
    graph = fold(graph_in(folder)).graph
    calls = planned(graph, manifest.batch, manifest.target, manifest.precision)
    told = [(entry.layer, entry.step, entry.workload) for entry in manifest.kernels]
    made = [(step.layer, step.name, type(step.workload).__name__) for step in calls.steps]
    # The first weight of a step is packed, as its kernel wants it; the others are as they were.
    plain = {name for step in calls.steps for name in step.weights[1:]} & graph.all_weights.keys()
    what = None
    if told != made:
        what = "kernels"
    elif tuple(manifest.weights) != tuple(dict.fromkeys(calls.weights)):
        what = "weights, or another order of them,"
    elif any(manifest.weights[name] != graph.all_weights[name].shape for name in plain):
        what = "shapes of weights"
    if what:
        reason = f"{MANIFEST} tells of other {what} than the net in {SPEC} has"
        raise UserError(diagnostics.NoArtifact(str(folder), reason))
    return calls

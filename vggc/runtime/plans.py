"""The kernel calls of a compiled net, which follow from its graph alone.

Whoever has an artifact's spec knows which weights its library takes in which order; a manifest
that says otherwise is not that of the net.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vggc.ir.graph import Graph
from vggc.kernels.workloads import (
    WORD,
    Add,
    AvgPool,
    Concat,
    Conv,
    DepthToSpace,
    Format,
    GroupNorm,
    LayerNorm,
    Lrn,
    MaxPool,
    Mul,
    Pad,
    Pointwise,
    PRelu,
    Shuffle,
    StochasticPool,
    Take,
    ToNhwc,
    Upsample,
    Workload,
)
from vggc.passes.prepare import prepared
from vggc.plan.growth import grown
from vggc.plan.low_precision import in_format, is_max_pool, with_convolutions
from vggc.plan.plan import Plan, plan_folded
from vggc.plan.sums import summed
from vggc.runtime import diagnostics
from vggc.runtime.artifact import (
    SPEC,
    ArtifactEntry,
    Manifest,
    Target,
    graphs_in,
    own_weight,
)
from vggc.support.diagnostics import UserError
from vggc.support.precision import ArtifactPrecision
from vggc_runtime.folder import MANIFEST

FORMATS: dict[ArtifactPrecision, Format] = {
    "float32": "float32",
    "tf32": "tf32",
    "bfloat16": "bfloat16",
    "float16": "float16",
    "int8": "uint8",
}

GPU_WORDS = 4
"""Words of 32 bits of channels that kernels for GPUs read at once where they multiply in fewer
bits."""


def plan_for(graph: Graph, batch: int, target: Target, precision: ArtifactPrecision) -> Plan:
    """The kernel calls of a net compiled for a target, whose graph may be folded or not."""
    (plan,) = plans_for([prepared(graph)], [batch], target, precision)
    return plan


def plans_for(
    graphs: Sequence[Graph], batches: Sequence[int], target: Target, precision: ArtifactPrecision
) -> list[Plan]:
    """The kernel calls of a net compiled for a target, for each of its folded graphs in its turn
    those of each batch.
    """
    plans = planned(graphs, batches, target, precision)
    return [reduced(plan, target, precision) for plan in plans]


def planned(
    graphs: Sequence[Graph], batches: Sequence[int], target: Target, precision: ArtifactPrecision
) -> list[Plan]:
    """`plans_for` before fewer bits are thought of."""
    pooled = pools(target, precision)
    plans = [plan_folded(graph, batch, fuse_pools=pooled) for graph in graphs for batch in batches]
    if target.kind == "cpu":
        return plans
    # Kernels for GPUs read the weight of a dense layer otherwise than that of a convolution.
    slid = {
        name
        for plan in plans
        for step in plan.steps
        if isinstance(step.workload, Conv)
        for name in step.weights
    }
    return [with_convolutions(plan, slid) for plan in plans]


def pools(target: Target, precision: ArtifactPrecision) -> bool:
    """Whether the kernels of a target pool what a convolution computes."""
    return target.kind == "cpu" or precision != "float32"


def reduced(plan: Plan, target: Target, precision: ArtifactPrecision) -> Plan:
    """A plan in float32 to one that multiplies in a precision, as a target's kernels read it."""
    if target.kind == "cuda":
        form = FORMATS[precision]
        keeps = is_max_pool if form == "uint8" else keeps_on_gpus
        return in_format(plan, form, GPU_WORDS * WORD[form], keeps)
    return grown(summed(in_format(plan, FORMATS[precision])))


def keeps_on_gpus(workload: Workload) -> bool:
    """Whether kernels for GPUs have a workload's maps all in a format of floats of fewer bits, and
    compute in float32.
    """
    match workload:
        case MaxPool() | AvgPool() | Lrn() | Pointwise() | PRelu() | ToNhwc():
            return True
        case Add() | Mul() | Concat() | Shuffle() | Take() | Upsample() | Pad():
            return True
        case DepthToSpace() | GroupNorm() | LayerNorm() | StochasticPool():
            return True
        case Conv():
            return workload.groups > 1
        case _:
            return False


def plans_in(folder: Path, manifest: Manifest) -> dict[str, Plan]:
    """The calls of an artifact's net, by the names of its entries, with the names under which its
    weights are stored.

    Raises: UserError where the manifest tells of other weights, another order of them, or other
    calls.
    """
    graphs = {size: prepared(graph) for size, graph in graphs_in(folder, manifest).items()}
    target, precision = manifest.target, manifest.precision
    made = plans_for([*graphs.values()], manifest.batches, target, precision)
    plans = {(plan.input[1:], plan.batch): plan for plan in made}
    return {
        each.name: _plan_of(folder, manifest, graphs[each.size], plans[each.size, each.batch], each)
        for each in manifest.entries
    }


def _plan_of(
    folder: Path, manifest: Manifest, graph: Graph, plan: Plan, entry: ArtifactEntry
) -> Plan:
    told = [(kernel.layer, kernel.step, kernel.workload) for kernel in entry.kernels]
    made = [(step.layer, step.name, type(step.workload).__name__) for step in plan.steps]
    # The first weight of a step is packed, as its kernel wants it; the others are as they were.
    shapes = {name: weight.shape for name, weight in graph.all_weights.items()}
    plain = {name for step in plan.steps for name in step.weights[1:]} & shapes.keys()
    stored = dict(zip(dict.fromkeys(plan.weights), entry.weights, strict=False))
    what = None
    if told != made:
        what = "kernels"
    elif not _are_stored(plan, entry):
        what = "weights, or another order of them,"
    elif any(manifest.weights[stored[name]] != shapes[name] for name in plain):
        what = "shapes of weights"
    if what:
        reason = f"{MANIFEST} tells of other {what} than the net in {SPEC} has"
        raise UserError(diagnostics.NoArtifact(str(folder), reason))
    return with_stored(plan, stored)


def _are_stored(plan: Plan, entry: ArtifactEntry) -> bool:
    """Whether an entry takes the weights of a plan in their order, those that are packed perhaps as
    its architecture alone has them.
    """
    names = tuple(dict.fromkeys(plan.weights))
    packed = {step.weights[0] for step in plan.steps if step.weights} if entry.arch else set()
    return len(names) == len(entry.weights) and all(
        told == name or (name in packed and told == own_weight(name, entry.arch))
        for name, told in zip(names, entry.weights, strict=True)
    )


def with_stored(plan: Plan, stored: Mapping[str, str]) -> Plan:
    """A plan that takes weights by the names under which they are stored, where these are
    others.
    """
    steps = (
        replace(step, weights=tuple(stored.get(name, name) for name in step.weights))
        for step in plan.steps
    )
    return replace(plan, steps=tuple(steps))

"""From a net to an artifact: the stages of compiling, in order.

`build_artifact` reads from top to bottom, a stage a line; each is a function of what those before
it have made. What a stage made, and how long it took, is shown to a watcher when it ends: `vggc
compile --dump DIR` writes it down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Literal, TypeAlias, TypeVar, get_args

from vggc.compiler import diagnostics, listing
from vggc.compiler.calibrate import calibrate, read_images
from vggc.compiler.choose import ChoiceOf, by_cost, kernels_for
from vggc.compiler.codegen import Code, export, generate, linker
from vggc.compiler.error_budget import MAX_ERROR, Allotment, allotment
from vggc.compiler.packing import pack
from vggc.compiler.quantize import Tensors, ValueRange, converted_weights
from vggc.compiler.relax import Lowered, lower
from vggc.images.preprocessing import Preprocessing
from vggc.ir.graph import Graph
from vggc.ir.weights import Weights, digest, save
from vggc.kernels.workloads import Choice, Workload, buffer_shape
from vggc.passes.fold import Folded, fold
from vggc.passes.joins import narrowed
from vggc.plan.plan import Plan, plan_folded
from vggc.plan.verify import verify_plan
from vggc.recipe.edit import alone
from vggc.runtime.artifact import (
    FILES,
    FORMAT,
    FORMAT_VERSION,
    LIBRARY,
    SPEC,
    WEIGHTS,
    ArtifactEntry,
    ChosenBy,
    KernelEntry,
    Manifest,
    Target,
    entry,
    entry_name,
    outputs_of,
)
from vggc.runtime.plans import pools, reduced
from vggc.support.diagnostics import UserError
from vggc.support.files import new_folder, refuse_full, refuse_unwritable
from vggc.support.paths import MANIFEST
from vggc.support.precision import ArtifactPrecision
from vggc.support.records import write_record
from vggc.support.tensors import Pieces
from vggc.support.tvm_alone import tvm
from vggc.support.version import __version__
from vggc.syntax.ast import Net
from vggc.syntax.format import format_net

StageName: TypeAlias = Literal[
    "fold",
    "narrow-joins",
    "plan",
    "reduce-precision",
    "allot-error",
    "choose-kernels",
    "lower",
    "calibrate",
    "convert-weights",
    "generate",
    "export",
    "pack",
]
STAGES: tuple[StageName, ...] = get_args(StageName)

Pages: TypeAlias = Mapping[str, str]
"""What a stage made, as texts by the names of files."""

Watcher: TypeAlias = Callable[[StageName, float, Callable[[], Pages]], None]
"""Is called as each stage ends, with the seconds that it took and what it made."""

T = TypeVar("T")

MOST_VALUES = 2**31 - 1
"""The values of a map that kernels can count, in int32."""


def unwatched(stage: StageName, seconds: float, pages: Callable[[], Pages]) -> None:
    """Watches a compilation without doing anything."""


@dataclass(frozen=True)
class Job:
    """Everything that an artifact is made from."""

    net: Net
    graph: Graph
    target: Target
    batches: tuple[int, ...]
    """What it computes at once, ascending; all of it with one copy of the weights."""
    weights: Weights
    weights_from: str
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    precision: ArtifactPrecision = "float32"
    images: tuple[Path, ...] = ()
    """What int8 is calibrated on."""
    choice_of: ChoiceOf = by_cost
    max_error: float = MAX_ERROR
    """The relative L2 error that the net's arithmetic may make."""
    may_overwrite: bool = False
    """Whether normalisations are folded where the weights lie, which takes no second copy."""
    dense: bool = False
    """Whether the graph is that of the net applied densely, with its weights."""


@dataclass(frozen=True)
class Choices:
    """The choice for each workload that leaves one, and the choices among them that were
    measured.
    """

    made: Mapping[Workload, Choice]
    measured: Mapping[Workload, Choice]

    def by(self, workload: Workload, may: Allotment) -> ChosenBy:
        """Who made the choice for a workload."""
        if not may.is_free(workload):
            return "only"
        return "measurement" if workload in self.measured else "cost model"


def build_artifact(job: Job, folder: Path, watcher: Watcher = unwatched) -> Manifest:
    """Writes the artifact of a job to a new folder, whole or not at all.

    Raises: UserError when the folder is taken, there is no linker, or an image is none.
    """
    refuse_full(folder)
    refuse_unwritable(folder)
    compiler, target = linker(job.target), job.target

    def stage(name: StageName, show: Callable[[T], Pages], make: Callable[[], T]) -> T:
        started = perf_counter()
        made = make()
        watcher(name, perf_counter() - started, partial(show, made))
        return made

    folded, weights = stage("fold", _show_folded, lambda: _folded(job))
    graph = stage("narrow-joins", _show_graph, lambda: _verified(narrowed(folded.graph)))
    plans = stage("plan", _show_plans, lambda: _planned(graph, job))
    plans = stage("reduce-precision", _show_plans, lambda: _reduced(plans, job))
    may = stage(
        "allot-error",
        listing.allotment,
        lambda: allotment([*plans.values()], target, job.max_error, weights),
    )
    choices = stage("choose-kernels", partial(_show_choices, plans, may), lambda: _choose(job, may))
    code = stage(
        "lower", listing.kernels, lambda: lower(plans, kernels_for(target, choices.made.get))
    )
    # Which values are rounded, and the names of weights, are the same whatever the batch.
    plan = next(iter(plans.values()))
    ranges = stage("calibrate", listing.ranges, lambda: _ranges(job, folded, weights, plan))
    tensors = stage(
        "convert-weights", listing.tensors, lambda: converted_weights(plan, weights, ranges)
    )
    machine_code = stage("generate", _show_code, lambda: generate(code.module, target))
    with new_folder(folder) as inside:
        stage("export", _nothing, partial(export, machine_code, inside / LIBRARY, compiler))
        del machine_code  # LLVM keeps it in memory, which packing wants
        packed = stage(
            "pack", listing.pieces, lambda: _pack(plans, code, tensors, inside / WEIGHTS)
        )
        _write_spec(job.net, inside / SPEC)
        entries = tuple(_entry(each, code, may, choices) for each in plans.values())
        manifest = _manifest(job, entries, packed, digest(weights))
        files = {name: entry(inside / name) for name in FILES}
        manifest = replace(manifest, files=files)
        manifest = replace(manifest, sha256=manifest.digest)
        write_record(inside / MANIFEST, manifest)
    return manifest


def _folded(job: Job) -> tuple[Folded, Weights]:
    folded = fold(job.graph)
    folded.graph.verify()
    return folded, folded.weights(job.weights, in_place=job.may_overwrite)


def _verified(graph: Graph) -> Graph:
    graph.verify()
    return graph


def _planned(graph: Graph, job: Job) -> dict[str, Plan]:
    """The plans by the names of the artifact's entries."""
    plans = {}
    for batch in job.batches:
        plan = plan_folded(graph, batch, fuse_pools=pools(job.target, job.precision))
        verify_plan(plan)
        plans[entry_name(batch)] = plan
    return plans


def _reduced(plans: Mapping[str, Plan], job: Job) -> dict[str, Plan]:
    lower_plans = {name: reduced(plan, job.target, job.precision) for name, plan in plans.items()}
    for plan in lower_plans.values():
        verify_plan(plan)
        require_countable(plan)
    return lower_plans


def require_countable(plan: Plan) -> None:
    """Raises: UserError where a map has more values than an int32 counts, by which kernels find
    them.
    """
    for step in plan.steps:
        values = max(prod(buffer_shape(each)) for each in (*step.workload.inputs, step.output))
        if values > MOST_VALUES:
            fits = plan.batch * MOST_VALUES // values
            raise UserError(
                diagnostics.MapTooLarge(
                    layer=step.layer,
                    batch=plan.batch,
                    values=f"{values:,}",
                    most=f"{MOST_VALUES:,}",
                    hint=f"`--batch {fits}` fits" if fits else "take smaller images: `--input`",
                )
            )


def _choose(job: Job, may: Allotment) -> Choices:
    asked = {each: job.choice_of(each, may.share) for each in may.offers}
    measured = {each: choice for each, choice in asked.items() if choice}
    made = may.chosen(measured)
    kept = {each: choice for each, choice in measured.items() if made[each] == choice}
    return Choices(made, kept)


def _ranges(job: Job, folded: Folded, weights: Weights, plan: Plan) -> dict[str, ValueRange]:
    """The ranges of the values that int8 rounds; other precisions need none."""
    if job.precision != "int8":
        return {}
    images = read_images(job.images, job.preprocessing)
    return calibrate(folded.graph, weights, plan, images, job.images)


def _pack(
    plans: Mapping[str, Plan], code: Lowered, tensors: Tensors, path: Path
) -> dict[str, Pieces]:
    """Packs the weights while they are written."""
    packed = pack(plans.values(), code, tensors)
    save(path, packed)
    return packed


def _write_spec(net: Net, path: Path) -> None:
    path.write_text(format_net(replace(net, blocks=alone(net.blocks))), "utf-8")


def _manifest(
    job: Job,
    entries: tuple[ArtifactEntry, ...],
    packed: Mapping[str, Pieces],
    float32_sha256: str,
) -> Manifest:
    """What the artifact says of itself, but for its files and its own hash."""
    channels, height, width = job.graph.input
    return Manifest(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        vggc=__version__,
        tvm=tvm.__version__,
        net=job.net.name,
        target=job.target,
        precision=job.precision,
        input=(channels, height, width),
        outputs=outputs_of(job.graph),
        preprocessing=job.preprocessing,
        classes=job.classes,
        weights_from=job.weights_from,
        float32_sha256=float32_sha256,
        weights={name: each.shape for name, each in packed.items()},
        entries=entries,
        files={},
        dense=job.dense,
    )


def _entry(plan: Plan, code: Lowered, may: Allotment, choices: Choices) -> ArtifactEntry:
    kernels = tuple(
        KernelEntry(
            step=step.name,
            layer=step.layer,
            workload=type(step.workload).__name__,
            algorithm=kernel.algorithm,
            knobs=kernel.knobs,
            chosen_by=choices.by(step.workload, may),
            macs=kernel.macs or 0,
        )
        for step, kernel in zip(plan.steps, code.of(plan), strict=True)
    )
    return ArtifactEntry(plan.batch, kernels)


def _show_folded(made: tuple[Folded, Weights]) -> Pages:
    return listing.folded(made[0])


def _show_graph(graph: Graph) -> Pages:
    return {"graph.txt": listing.graph(graph)}


def _show_plans(plans: Mapping[str, Plan]) -> Pages:
    return listing.plans(plans.values())


def _show_choices(plans: Mapping[str, Plan], may: Allotment, choices: Choices) -> Pages:
    workloads = {step.workload for plan in plans.values() for step in plan.steps}
    by = {each: choices.by(each, may) for each in workloads}
    return listing.choices(plans.values(), choices.made, by)


def _show_code(code: Code) -> Pages:
    return code.source()


def _nothing(made: None) -> Pages:
    return {}

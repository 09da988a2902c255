"""From a net to an artifact: the stages of compiling, in order.

`build_artifact` reads from top to bottom, a stage a line; each is a function of what those before
it have made. What a stage made, and how long it took, is shown to a watcher when it ends: `vggc
compile --dump DIR` writes it down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Literal, TypeAlias, TypeVar, get_args

from vggc.compiler import diagnostics, listing
from vggc.compiler.buckets import fewest_images
from vggc.compiler.calibrate import calibrate, read_images
from vggc.compiler.cards import variants
from vggc.compiler.choose import TimesOf, kernels_for, unmeasured
from vggc.compiler.codegen import (
    Code,
    Linkable,
    cpu_code,
    device_code,
    export_device_code,
    linker,
)
from vggc.compiler.cpu_library import (
    ANY,
    CpuLibrary,
    joined,
    kernels_of,
    table_of,
    write_shared,
)
from vggc.compiler.error_budget import MAX_ERROR, Allotment, allotment
from vggc.compiler.packing import pack, packings
from vggc.compiler.quantize import (
    Tensors,
    ValueRange,
    converted_weights,
    require_finite_weights,
)
from vggc.compiler.relax import Lowered, PlannedCalls, lower, with_kernels
from vggc.compiler.standalone import texts, write_standalone
from vggc.ir.graph import Graph
from vggc.ir.ops import describe
from vggc.ir.weights import Weights, digest, save
from vggc.kernels.workloads import Choice, Packing, Workload, buffer_shape
from vggc.passes.fold import Folded, fold
from vggc.passes.joins import narrowed
from vggc.passes.prepare import prepared
from vggc.plan.plan import Plan
from vggc.plan.verify import verify_plan
from vggc.recipe.edit import alone
from vggc.runtime.artifact import (
    FILES,
    SPEC,
    ArtifactEntry,
    ChosenBy,
    KernelEntry,
    Manifest,
    Target,
    entry,
    entry_name,
    input_size,
    own_weight,
)
from vggc.runtime.plans import planned, reduced, with_stored
from vggc.support.diagnostics import UserError
from vggc.support.files import new_folder, refuse_full, refuse_unwritable
from vggc.support.paths import STANDALONE
from vggc.support.precision import ArtifactPrecision
from vggc.support.records import write_record
from vggc.support.tensors import Pieces
from vggc.support.tvm_alone import tvm
from vggc.syntax.ast import Net
from vggc.syntax.format import format_net
from vggc_runtime.folder import LIBRARY, MANIFEST, WEIGHTS
from vggc_runtime.manifest import FORMAT, FORMAT_VERSION
from vggc_runtime.preprocessing import Preprocessing
from vggc_runtime.version import __version__

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
    "pack",
    "export",
    "standalone",
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
class SizedGraph:
    """A net's graph for images of one size, and whether it is that of the net applied `dense`ly."""

    graph: Graph
    dense: bool = False


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
    times_of: Mapping[str, TimesOf] = field(default_factory=dict)
    """What was measured on each of the target's `variants`."""
    max_error: float = MAX_ERROR
    """The relative L2 error that the net's arithmetic may make."""
    may_overwrite: bool = False
    """Whether normalisations are folded where the weights lie, which takes no second copy."""
    dense: bool = False
    """Whether the graph is that of the net applied densely, with its weights."""
    others: tuple[SizedGraph, ...] = ()
    """The net for images of other sizes, with the same weights; those that are dense last."""
    standalone: bool = False
    """Whether a library for C lies in the artifact, too; the target is a CPU then."""

    @property
    def graphs(self) -> tuple[SizedGraph, ...]:
        """The net for each size of images, the main one first."""
        return (SizedGraph(self.graph, self.dense), *self.others)


@dataclass(frozen=True)
class Choices:
    """The choice for each workload that leaves one, and the choices among them that were
    measured: of what `may` be taken.
    """

    may: Allotment
    made: Mapping[Workload, Choice]
    measured: Mapping[Workload, Choice]
    costs: tuple[float, ...]
    """What each batch is thought to cost, in one unit."""

    def by(self, workload: Workload) -> ChosenBy:
        """Who made the choice for a workload."""
        if not self.may.is_free(workload):
            return "only"
        return "measurement" if workload in self.measured else "cost model"


def build_artifact(job: Job, folder: Path, watcher: Watcher = unwatched) -> Manifest:
    """Writes the artifact of a job to a new folder, whole or not at all.

    Raises: UserError when the folder is taken, there is no linker, an image is none, or a weight is
    too large for the precision.
    """
    refuse_full(folder)
    refuse_unwritable(folder)
    compiler, targets = linker(job.target), variants(job.target)

    def stage(name: StageName, show: Callable[[T], Pages], make: Callable[[], T]) -> T:
        started = perf_counter()
        made = make()
        watcher(name, perf_counter() - started, partial(show, made))
        return made

    folded, weights = stage("fold", _show_folded, lambda: _folded(job))
    graphs = stage("narrow-joins", listing.graphs, lambda: _narrowed(folded, job))
    plans = stage("plan", listing.plans, lambda: _planned(graphs, job))
    plans = stage("reduce-precision", listing.plans, lambda: _reduced(plans, job))
    require_finite_weights(plans[0], weights)
    may = stage("allot-error", listing.allotments, lambda: _allotted(plans, job, targets, weights))
    choices = stage("choose-kernels", partial(_show_choices, plans), lambda: _choose(job, may))
    code = stage("lower", listing.kernels, lambda: _lowered(job, plans, targets, choices))
    # Which values are rounded, and the names of weights, are the same in all plans.
    plan = plans[0]
    ranges = stage("calibrate", listing.ranges, lambda: _ranges(job, folded, weights, plan))
    tensors = stage(
        "convert-weights", listing.tensors, lambda: converted_weights(plan, weights, ranges)
    )
    # LLVM keeps what it has made in memory, which packing wants: of the code an object file stays.
    kernels = stage("generate", _show_code, lambda: _generated(code, job, targets)).linkable
    with new_folder(folder) as inside:
        packed = stage("pack", listing.pieces, lambda: _pack(code, tensors, inside / WEIGHTS))
        _write_spec(job.net, inside / SPEC)
        entries = tuple(
            _entry(code.calls[name_of(plan, arch)], arch, choices[arch], fewest)
            for arch in targets
            for plan, fewest in zip(plans, _fewest(job, choices[arch].costs), strict=True)
        )
        manifest = _manifest(job, entries, packed, digest(weights))
        export = partial(_exported, kernels, code, manifest, compiler, inside)
        library = stage("export", _show_library, export)
        if job.standalone and library:
            write = partial(
                write_standalone, library, manifest, inside / LIBRARY, compiler, inside / STANDALONE
            )
            stage("standalone", _nothing, write)
        files = {name: entry(inside / name) for name in FILES}
        manifest = replace(manifest, files=files)
        manifest = replace(manifest, sha256=manifest.digest)
        write_record(inside / MANIFEST, manifest)
    return manifest


def _folded(job: Job) -> tuple[Folded, Weights]:
    folded = fold(job.graph)
    folded.graph.verify()
    return folded, folded.weights(job.weights, in_place=job.may_overwrite)


def _narrowed(folded: Folded, job: Job) -> list[Graph]:
    """The folded graphs of all sizes with narrow joins."""
    graphs = [narrowed(folded.graph), *(prepared(each.graph) for each in job.others)]
    for graph in graphs:
        graph.verify()
    return graphs


def _planned(graphs: Sequence[Graph], job: Job) -> list[Plan]:
    """The plans of all batches of each size in its turn."""
    plans = planned(graphs, job.batches, job.target, job.precision)
    for plan in plans:
        verify_plan(plan)
    return plans


def _reduced(plans: Sequence[Plan], job: Job) -> list[Plan]:
    lower_plans = [reduced(plan, job.target, job.precision) for plan in plans]
    for plan in lower_plans:
        verify_plan(plan)
        require_countable(plan)
    require_same_weights(lower_plans)
    return lower_plans


def require_same_weights(plans: Sequence[Plan]) -> None:
    """Raises: UserError where the plans of a net for images of other sizes take other weights than
    the first, which is where they round other values to int8.
    """
    main = plans[0]
    for plan in plans:
        for pair in zip_longest(dict.fromkeys(main.weights), dict.fromkeys(plan.weights)):
            if pair[0] != pair[1]:
                size, own = (describe(each.input[1:]) for each in (plan, main))
                raise UserError(diagnostics.OtherWeights(plan.net, size, own, pair[0] or pair[1]))


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


def _allotted(
    plans: Sequence[Plan], job: Job, targets: Mapping[str, Target], weights: Weights
) -> dict[str, Allotment]:
    """What each variant may choose."""
    return {
        arch: allotment(plans, target, job.max_error, weights) for arch, target in targets.items()
    }


def _choose(job: Job, allotments: Mapping[str, Allotment]) -> dict[str, Choices]:
    """The choices of each variant, those for one architecture first: where others can take a weight
    as these have it packed, it is stored once.
    """
    found: dict[str, Choices] = {}
    stored: dict[Workload, Packing | None] = {}
    for arch, each in reversed(list(allotments.items())):
        may = replace(each, stored=dict(stored))
        times_of = job.times_of.get(arch, unmeasured)
        asked = {work: times_of(work, may.share) for work in may.offers}
        times = {work: seconds for work, seconds in asked.items() if seconds}
        taken = may.taken(times)
        made = {work: offer.choice for work, offer in taken.items()}
        measured = {work: made[work] for work, seconds in times.items() if made[work] in seconds}
        found[arch] = Choices(may, made, measured, may.costs(taken))
        stored |= may.packings(made)
    return found


def _calls(
    plans: Sequence[Plan], targets: Mapping[str, Target], choices: Mapping[str, Choices]
) -> dict[str, PlannedCalls]:
    """The calls of each variant and plan, by the names of the artifact's entries. Where a variant
    wants a weight packed otherwise than those before, it has it under a name of its own.
    """
    found: dict[str, PlannedCalls] = {}
    for arch, target in targets.items():
        named = {name_of(plan, arch): plan for plan in plans}
        calls = with_kernels(named, kernels_for(target, choices[arch].made.get))
        stored, wanted = packings(found.values()), packings(calls.values())
        own = {
            name: own_weight(name, arch)
            for name, packing in wanted.items()
            if name in stored and stored[name] != packing
        }
        found |= {
            name: replace(each, plan=with_stored(each.plan, own)) for name, each in calls.items()
        }
    return found


def _lowered(
    job: Job,
    plans: Sequence[Plan],
    targets: Mapping[str, Target],
    choices: Mapping[str, Choices],
) -> Lowered:
    """The kernels; on GPUs with what TVM's virtual machine calls them by."""
    return lower(_calls(plans, targets, choices), machine=job.target.kind == "cuda")


def _generated(code: Lowered, job: Job, targets: Mapping[str, Target]) -> Code:
    """Machine code, in which each architecture has the functions that its variant calls."""
    if job.target.kind == "cpu":
        return cpu_code(kernels_of(code), job.target)
    archs: dict[str, set[str]] = {}
    for arch, target in targets.items():
        for calls in code.calls.values():
            for name in code.functions[name_of(calls.plan, arch)]:
                archs.setdefault(name, set()).update(target.archs)
    return device_code(code.module, job.target, archs)


def _ranges(job: Job, folded: Folded, weights: Weights, plan: Plan) -> dict[str, ValueRange]:
    """The ranges of the values that int8 rounds; other precisions need none."""
    if job.precision != "int8":
        return {}
    images = read_images(job.images, job.preprocessing)
    return calibrate(folded.graph, weights, plan, images, job.images)


def _pack(code: Lowered, tensors: Tensors, path: Path) -> dict[str, Pieces]:
    """Packs the weights while they are written."""
    packed = pack(code.calls.values(), tensors)
    save(path, packed)
    return packed


def _exported(
    kernels: Linkable, code: Lowered, manifest: Manifest, compiler: str, inside: Path
) -> CpuLibrary | None:
    """Writes the artifact's library. That of a CPU holds the hashes of the packed weights, which
    are written.
    """
    match kernels:
        case bytes():
            table = table_of(code, manifest, inside / WEIGHTS)
            header = texts(manifest, ANY)[f"{ANY}.h"]
            library = joined(table, manifest.preprocessing, header, kernels, compiler, inside)
            write_shared(library, compiler, inside / LIBRARY)
            return library
        case _:
            export_device_code(kernels, inside / LIBRARY, compiler)
            return None


def _write_spec(net: Net, path: Path) -> None:
    path.write_text(format_net(replace(net, blocks=alone(net.blocks))), "utf-8")


def _manifest(
    job: Job,
    entries: tuple[ArtifactEntry, ...],
    packed: Mapping[str, Pieces],
    float32_sha256: str,
) -> Manifest:
    """What the artifact says of itself, but for its files and its own hash."""
    return Manifest(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        vggc=__version__,
        tvm=tvm.__version__,
        net=job.net.name,
        target=job.target,
        precision=job.precision,
        sizes=tuple(input_size(each.graph, dense=each.dense) for each in job.graphs),
        preprocessing=job.preprocessing,
        classes=job.classes,
        weights_from=job.weights_from,
        float32_sha256=float32_sha256,
        weights={name: each.shape for name, each in packed.items()},
        entries=entries,
        files={},
    )


def _entry(calls: PlannedCalls, arch: str, choices: Choices, fewest: int) -> ArtifactEntry:
    kernels = tuple(
        KernelEntry(
            step=step.name,
            layer=step.layer,
            workload=type(step.workload).__name__,
            algorithm=kernel.algorithm,
            knobs=kernel.knobs,
            chosen_by=choices.by(step.workload),
            macs=kernel.macs or 0,
        )
        for step, kernel in calls.steps
    )
    weights = tuple(dict.fromkeys(calls.plan.weights))
    _, height, width = calls.plan.input
    return ArtifactEntry(
        batch=calls.plan.batch,
        size=(height, width),
        kernels=kernels,
        weights=weights,
        arch=arch,
        fewest=fewest,
    )


def _fewest(job: Job, costs: Sequence[float]) -> list[int]:
    """For each plan the fewest images that it is taken for: for those of one size by what these
    cost.
    """
    count = len(job.batches)
    starts = range(0, len(costs), count)
    each = (fewest_images(job.batches, costs[start : start + count]) for start in starts)
    return [fewest for found in each for fewest in found]


def name_of(plan: Plan, arch: str = "") -> str:
    """The name of the entry of a plan, and of an architecture with kernels of its own."""
    _, height, width = plan.input
    return entry_name(plan.batch, (height, width), arch)


def _show_folded(made: tuple[Folded, Weights]) -> Pages:
    return listing.folded(made[0])


def _show_choices(plans: Sequence[Plan], choices: Mapping[str, Choices]) -> Pages:
    workloads = {step.workload for plan in plans for step in plan.steps}
    pages: dict[str, str] = {}
    for arch, each in choices.items():
        by = {workload: each.by(workload) for workload in workloads}
        pages |= listing.choices(plans, each.made, by, arch)
    return pages


def _show_code(code: Code) -> Pages:
    return code.source()


def _show_library(made: CpuLibrary | None) -> Pages:
    return {f"{made.prefix}.c": made.source} if made else {}


def _nothing(made: None) -> Pages:
    return {}

"""What `compile` works on: a net with its weights, made into an artifact."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vggc.api.subject import ask
from vggc.api.trained import NetOfRun, Subject
from vggc.ir.graph import Graph
from vggc.ir.needs import compiling
from vggc.ir.ops import describe
from vggc.passes.dense import DenseGraph, dense_at, resized
from vggc.program import Program
from vggc.support.diagnostics import Diagnostic, UserError
from vggc.support.files import refuse_full
from vggc.support.sizes import checked_sizes, spelt_size

if TYPE_CHECKING:
    from vggc.compiler.calibrate import CalibrationImages
    from vggc.runtime.artifact import KernelEntry, Manifest, Target
    from vggc.support.precision import ArtifactPrecision
    from vggc.tuning.lookup import AnyLookup

ARTIFACTS = Path("artifacts")
"""Where artifacts are made unless a folder is named."""


FOR_CROPS = "leave `--dense` out: its kernels are then for crops of its input's size"
"""What to do about a net that cannot be applied densely."""


class OtherWeightsAt(Diagnostic):
    title = "{net} takes other weights for images of {size} pixels than for those of {main}"
    label = "`{weight}` has {there} values for those, and {here} for these"
    help = "`{options}` slides it over the larger images, as `vggc eval` does"
    net: str
    size: str
    main: str
    weight: str
    there: str
    here: str
    options: str


class SmallerThanInput(Diagnostic):
    title = "images of {size} pixels are smaller than what {net} takes, {input}"
    label = "a net is applied densely to images that its input fits into"
    help = "give a larger size"
    net: str
    size: str
    input: str


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """What the user asks `compile` for; None where nothing is said.

    `batches` are the numbers of images that are computed at once, ascending. `sizes` are (H, W) of
    the input, `dense` those of images that the net is applied densely to; the first of the former
    is the main one, or, where there is none, the first of the latter. `max_error` is a relative L2
    error, `num_images` how many of those in the folder `images` int8 is calibrated on. With
    `graphs` the kernels of a GPU are replayed in CUDA graphs. Where not `tuned`, no database of
    measurements is asked. With `standalone` a library for C is made, too.
    """

    target: str = "cpu"
    mcpu: str | None = None
    archs: tuple[str, ...] = ()
    graphs: bool = True
    weights: Path | None = None
    preprocessing: str | None = None
    seed: int | None = None
    batches: tuple[int, ...] = (1,)
    sizes: tuple[tuple[int, int], ...] = ()
    dense: tuple[tuple[int, int], ...] = ()
    precision: ArtifactPrecision = "float32"
    max_error: float | None = None
    images: Path | None = None
    num_images: int | None = None
    tuned: bool = True
    db: Path | None = None
    threads: int | None = None
    out: Path | None = None
    dump: Path | None = None
    standalone: bool = False


@dataclass(frozen=True, kw_only=True)
class CompilePlan:
    """An artifact that is to be made in `folder`; int8 is calibrated on `pictures`. The subject's
    preprocessing is that of the main size: where that is `dense`, of whole images.
    """

    subject: Subject
    applied: tuple[AppliedNet, ...]
    """The net for each size of images, the main one first."""
    machine: Target
    threads: int
    batches: tuple[int, ...]
    precision: ArtifactPrecision
    max_error: float
    times_of: Mapping[str, AnyLookup]
    """What was measured, for each variant of the target."""
    pictures: CalibrationImages
    folder: Path
    dump: Path | None
    standalone: bool

    def build(self) -> Compiled:
        """Makes the artifact, whole or not at all.

        Raises:
            UserError: a folder is taken, there is no linker, or an image is none.
        """
        from vggc.compiler.dump import Dump
        from vggc.compiler.pipeline import Job, SizedGraph, build_artifact, unwatched

        watcher = Dump(self.dump) if self.dump else None
        refuse_full(self.folder)
        if watcher:
            watcher.check(self.folder)
        started = time.perf_counter()
        subject, main = self.subject, self.applied[0]
        job = Job(
            net=subject.program.net,
            graph=main.spread.graph,
            target=self.machine,
            batches=self.batches,
            weights=main.spread.weights(subject.weights),
            weights_from=subject.weights_from,
            preprocessing=subject.preprocessing,
            classes=subject.classes,
            precision=self.precision,
            images=self.pictures.files,
            times_of=self.times_of,
            max_error=self.max_error,
            may_overwrite=True,
            dense=main.dense,
            others=tuple(SizedGraph(each.spread.graph, each.dense) for each in self.applied[1:]),
            standalone=self.standalone,
        )
        manifest = build_artifact(job, self.folder, watcher or unwatched)
        if watcher:
            watcher.end()
        seconds = time.perf_counter() - started
        notes = dict.fromkeys(note for each in self.times_of.values() for note in each.notes)
        return Compiled(self, manifest, seconds, tuple(notes))


@dataclass(frozen=True)
class Compiled:
    """An artifact that was made; `notes` tell what was made of measurements, a line each."""

    plan: CompilePlan
    manifest: Manifest
    seconds: float
    notes: tuple[str, ...]

    @property
    def kernels(self) -> tuple[KernelEntry, ...]:
        """The kernel calls of all sizes and batches."""
        return tuple(kernel for entry in self.manifest.entries for kernel in entry.kernels)

    @property
    def bytes(self) -> int:
        """The size of all files of the artifact."""
        return sum(file.bytes for file in self.manifest.files.values())


def plan(
    spec: str | Program | NetOfRun | None, options: CompileOptions, say: Callable[[str], None]
) -> CompilePlan:
    """What is to be compiled: a net, a run, or the newest run under `runs/`.

    Raises:
        UserError: there is no such thing, it does not fit into memory, or something that was asked
            for does not go together.
    """
    # Before TVM is loaded, which takes two seconds.
    sizes, dense = checked_sizes(options.sizes, options.dense)
    entries = len(options.batches) * (len(sizes) + len(dense) or 1)
    need = compiling(options.target, options.precision, entries)
    size = sizes[0] if sizes else None
    asked = ask(spec, options.weights, options.seed, size, need, say, options.preprocessing)
    applied = applied_at(asked.program, sizes, dense)
    for each in applied:
        need.require(each.spread.graph)

    from vggc.compiler.calibrate import NUM_IMAGES, CalibrationImages, choose_images, require_images
    from vggc.compiler.cards import variants
    from vggc.compiler.diagnostics import GivenInVain, StandaloneForGpu
    from vggc.compiler.error_budget import budget_for
    from vggc.compiler.targets import on_threads, require_precision, resolve
    from vggc.tuning.lookup import default_threads, times_for

    machine = resolve(options.target, options.archs, options.mcpu)
    if options.standalone and machine.kind == "cuda":
        raise UserError(StandaloneForGpu(machine.name))
    require_precision(machine, options.precision)
    budget = budget_for(machine, options.precision, options.max_error)
    require_images(options.precision, options.images, options.num_images)
    subject = asked.subject()
    if applied[0].dense:
        how = replace(subject.preprocessing, size=dense[0], scale=None)
        subject = replace(subject, preprocessing=how)
    if machine.kind == "cuda" and options.threads is not None:
        reason = "kernels for GPUs are the same whatever the threads of a CPU"
        raise UserError(GivenInVain("--threads", reason, ""))
    threads = options.threads or default_threads(machine)
    if machine.kind == "cpu":
        if not options.graphs:
            raise UserError(GivenInVain("--no-graph", "CUDA graphs are for GPUs", ""))
        machine = on_threads(machine, threads)
    else:
        machine = replace(machine, graphs=options.graphs)
    times_of = {
        arch: times_for(each, options.db, threads, ignore=not options.tuned, whole=machine.archs)
        for arch, each in variants(machine).items()
    }
    pictures = CalibrationImages()
    if options.images is not None:
        count = options.num_images or NUM_IMAGES
        pictures = choose_images(options.images, count, subject.preprocessing)
    net = subject.program.net.name + ("-dense" if applied[0].dense else "")
    named = f"{net}-{machine.name.replace('/', '-')}"
    return CompilePlan(
        subject=subject,
        applied=applied,
        machine=machine,
        threads=threads,
        batches=options.batches,
        precision=options.precision,
        max_error=budget,
        times_of=times_of,
        pictures=pictures,
        folder=options.out or ARTIFACTS / named,
        dump=options.dump,
        standalone=options.standalone,
    )


@dataclass(frozen=True)
class AppliedNet:
    """A net for images of one size: its graph with what it makes of weights, and whether it is
    applied `dense`ly.
    """

    spread: DenseGraph
    dense: bool = False


def applied_at(
    program: Program, sizes: Sequence[tuple[int, int]], dense: Sequence[tuple[int, int]]
) -> tuple[AppliedNet, ...]:
    """The net of a program, whose input is of the first of the `sizes` (H, W), as an artifact has
    it for each of them, and applied densely to images of those in `dense`; as it is where none is
    named. All take the same weights.

    Raises:
        UserError: it would take others, images to apply it densely to are smaller than its input,
            or it cannot be applied so.
    """
    graph = program.graph
    plain = [graph, *(built_at(graph, size) for size in sizes[1:])] if sizes or not dense else []
    return (
        *(AppliedNet(DenseGraph(each, {})) for each in plain),
        *(AppliedNet(densely(program, size), dense=True) for size in dense),
    )


def built_at(graph: Graph, size: tuple[int, int]) -> Graph:
    """The graph of a net for images of another size (H, W) that takes the same weights.

    Raises:
        UserError: it takes others, or it cannot be built there.
    """
    there = resized(graph, size, "leave the size out")
    before = graph.all_weights
    for name, weight in there.all_weights.items():
        if weight.shape != before[name].shape:
            _, height, width = graph.input
            larger = size[0] >= height and size[1] >= width
            small, large = ((height, width), size) if larger else (size, (height, width))
            problem = OtherWeightsAt(
                net=graph.name,
                size=describe(size),
                main=describe((height, width)),
                weight=name,
                there=f"{weight.size:,}",
                here=f"{before[name].size:,}",
                options=f"--input {spelt_size(small)} --dense {spelt_size(large)}",
            )
            raise UserError(problem)
    return there


def densely(program: Program, size: tuple[int, int]) -> DenseGraph:
    """The net of a program applied densely to images of a size (H, W), as artifacts do.

    Raises:
        UserError: they are smaller than its input, or it cannot be applied so.
    """
    from vggc.runtime.artifact import MAPS

    graph = program.graph
    own = graph.input[1:]
    if size[0] < own[0] or size[1] < own[1]:
        raise UserError(SmallerThanInput(graph.name, describe(size), describe(own)))
    return dense_at(graph, size, MAPS, FOR_CROPS)

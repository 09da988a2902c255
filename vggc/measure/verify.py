"""An artifact's outputs against PyTorch in float64, layer by layer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc.backends.torch import ReferenceNet, reference
from vggc.compiler.calibrate import choose_images, read_images
from vggc.compiler.choose import rebuilt
from vggc.compiler.diagnostics import GivenInVain
from vggc.compiler.packing import unpack
from vggc.data.parts import Skipped
from vggc.ir.graph import Graph
from vggc.ir.ops import Softmax, Softmax2d
from vggc.ir.weights import Weights, digest, seeded
from vggc.kernels.bfloat16 import from_bfloat16
from vggc.kernels.workloads import LARGEST_FINITE, Convert, Layout, Map
from vggc.measure import diagnostics
from vggc.measure.photographs import photographs
from vggc.passes.channel_order import exchanged
from vggc.passes.fold import fold
from vggc.passes.prepare import prepared
from vggc.plan.low_precision import scale_name
from vggc.plan.plan import Plan, Step
from vggc.runtime.artifact import (
    ArtifactEntry,
    Manifest,
    as_compiled,
    graphs_in,
    spec_graph,
)
from vggc.runtime.gpu_session import GpuSession
from vggc.runtime.huge_pages import read_in_place
from vggc.runtime.session import Session
from vggc.support.arrays import Array
from vggc.support.diagnostics import UserError
from vggc.support.paths import is_file, is_run
from vggc.support.precision import ArtifactPrecision
from vggc.support.tensors import read_all
from vggc.weight_files.load import load as load_weights
from vggc_runtime.folder import WEIGHTS
from vggc_runtime.preprocessing import IMAGE_CHANNELS

NUM_IMAGES = 100
"""How many of the user's images are compared where they do not say."""


@dataclass(frozen=True)
class PrecisionLimits:
    """What a precision may cost over a whole net.

    `error` is relative and in L2; `agreement` the least share of the user's images that have
    the same top-1.
    """

    error: float
    agreement: float


LIMITS: dict[ArtifactPrecision, PrecisionLimits] = {
    "float32": PrecisionLimits(1e-5, 1.0),
    "bfloat16": PrecisionLimits(0.03, 0.99),
    "float16": PrecisionLimits(0.005, 0.99),
    "tf32": PrecisionLimits(0.005, 0.99),
    "int8": PrecisionLimits(0.15, 0.97),
}
TOLERANCE = LIMITS["float32"].error

RealArray: TypeAlias = NDArray[np.floating]
"""Values to compare: of a reference in float64, of an artifact in float32."""


@dataclass(frozen=True)
class Verification:
    """The comparison of an artifact with its net on one kind of input: the relative L2 errors, and
    how many images have the same top-1.

    `error` is the largest of the heads'. That of a soft-max is divided by the largest of its
    scores where that is over one: so many times does it enlarge a rounding of them. An image
    agrees where all heads of classes do.
    """

    input: str
    batch: int
    """How many images the artifact computes at once."""
    size: tuple[int, int]
    """The height and width of the images."""
    precision: ArtifactPrecision
    error: float
    images: int
    agreeing: int
    judged: bool
    """Whether top-1 decides, as it does in float32 and on the user's own images."""
    head_errors: tuple[tuple[str, float], ...]
    """Head and relative L2 error, in order."""
    step_errors: tuple[tuple[str, str, float], ...]
    """Layer, step and relative L2 error, in order."""
    weights_from: str | None
    """Whose weights the reference has; None for those of the artifact itself, unpacked."""
    skipped: tuple[Skipped, ...] = ()
    """The images of the user's that cannot be used."""
    has_classes: bool = True
    """Whether there is a top-1: a head of classes."""
    archs: tuple[str, ...] = ()
    """The architectures that the kernels are for, where other GPUs have others in the artifact."""

    @property
    def top1_agrees(self) -> bool:
        """Whether all images have the same top-1 in both."""
        return self.agreeing == self.images

    @property
    def passed(self) -> bool:
        """Whether the artifact computes its net on this input: `fault` is None."""
        return self.fault is None

    @property
    def fault(self) -> str | None:
        """What is wrong with the artifact's outputs, in words; None where nothing is."""
        limits = LIMITS[self.precision]
        if self.not_finite:
            return f"values of {self.not_finite} are infinite or no numbers{self._range}"
        if not self.error < limits.error:
            return f"its relative L2 error is {self.error:.2e}, and is to be under {limits.error:g}"
        if not self.judged or self.agreeing >= limits.agreement * self.images:
            return None
        if self.images == 1:
            return "the best class is another"
        return (
            f"the best class is the same on {self.agreeing} of the images "
            f"({self.agreeing / self.images:.1%}), and is to be on {limits.agreement:.0%}"
        )

    @property
    def not_finite(self) -> str | None:
        """The first layer that gives infinite values, or what comes of them; None where none does.
        A ReLU makes zero of a NaN, so that outputs may be finite behind it.
        """
        return next((layer for layer, _, error in self.step_errors if error == inf), None)

    @property
    def _range(self) -> str:
        """What to do about values that are infinite, as part of a sentence."""
        if self.precision != "float16":
            return ""
        most = LARGEST_FINITE["float16"]
        return (
            f": float16 holds up to {most:,.0f}; compile with `--precision bfloat16` "
            "or `--precision tf32`"
        )

    @property
    def first_departure(self) -> str | None:
        """The first layer whose value is off by more than the tolerance; None where none is."""
        limit = LIMITS[self.precision].error
        wrong = (layer for layer, _, error in self.step_errors if not error < limit)
        return next(wrong, None)


def verify(
    folder: Path,
    threads: int | None = None,
    *,
    images: Path | None = None,
    num_images: int | None = None,
    weights: Path | None = None,
) -> list[Verification]:
    """Compares an artifact with PyTorch in float64, each of its entries: on images in the folder
    `images`, or on random and real inputs of its own, of each size in its turn.

    The reference is the folded net with the weights that the artifact was made of: `weights`, or
    those that its manifest names. An artifact in float32 whose weights are gone is compared with
    its own, unpacked; then what packing has rounded is not seen.

    Raises: UserError when the artifact is damaged or not for this machine, or images or
    weights are missing.
    """
    if num_images is not None and images is None:
        reason, hint = "it counts the images of a folder", ", or name the folder with `--data`"
        raise UserError(GivenInVain("--images", reason, hint))
    session = Session.load(folder, threads)
    if isinstance(session, GpuSession) and session.manifest.target.graphs:
        session.call_each()
    graphs = {size: prepared(each) for size, each in graphs_in(folder, session.manifest).items()}
    found = original_weights(folder, next(iter(graphs.values())), session.manifest, weights)
    scales = scales_in(folder, next(iter(session.plans.values())))
    results: list[Verification] = []
    for size, graph in graphs.items():
        judge = _Judge(
            session=session,
            manifest=session.manifest.at(size),
            graph=graph,
            run=reference(graph, shaped(found.weights, graph)),
            scales=scales,
            weights_from=found.origin,
        )
        results += judge.compare_all(images, num_images)
    return results


def shaped(weights: Weights, graph: Graph) -> Weights:
    """Weights in the shapes that a graph has them in: that of a fully-connected layer is another
    where the net is applied densely.
    """
    wanted = graph.all_weights
    return {name: weight.reshape(wanted[name].shape) for name, weight in weights.items()}


@dataclass(frozen=True)
class Original:
    """What an artifact was made of: the folded graph's weights in float32."""

    weights: Weights
    origin: str | None
    """Where the weights are from; None for those of the artifact itself, unpacked."""


def original_weights(
    folder: Path, graph: Graph, manifest: Manifest, given: Path | None = None
) -> Original:
    """What an artifact was made of, in the shapes that its folded graph for images of one size has.

    The weights come from where the manifest says, or from the file or run `given`, and are
    checked against its hash. Where an artifact in float32 does not find them itself, they are
    its own, up to rounding; those of fewer bits are not brought back.

    Raises: UserError where they are not there, or are others.
    """
    calls = rebuilt(folder, manifest)
    try:
        weights, origin = _recovered(folder, manifest, given)
        return Original(shaped(weights, graph), origin)
    except UserError:
        if given is not None or manifest.precision != "float32":
            raise
        own = read_all(folder / WEIGHTS)
        return Original(shaped(unpack(calls.values(), own), graph), None)


def _recovered(folder: Path, manifest: Manifest, given: Path | None) -> tuple[Weights, str]:
    held = "packed" if manifest.precision == "float32" else f"in {manifest.precision} alone"

    def refuse(reason: str) -> UserError:
        return UserError(diagnostics.WeightsElsewhere(str(folder), held, reason))

    graph = spec_graph(folder)
    seed = re.fullmatch(r"seed (\d{1,18})", manifest.weights_from)
    if given is None and seed:
        trained, origin = seeded(graph, int(seed[1])), manifest.weights_from
    else:
        path = given or Path(manifest.weights_from)
        path = path / "weights.safetensors" if is_run(path) else path
        if given is None and not is_file(path):
            raise refuse(f"{path}, which it was compiled from, is not there")
        trained, origin = load_weights(path, graph).weights, str(path)
    computed = as_compiled(graph, manifest.sizes[0])
    folded = fold(computed.graph)
    # Of weights that want BGR, an artifact has those that want RGB.
    for each in (trained, exchanged(graph, trained)):
        weights = folded.weights(computed.weights(each))
        if digest(weights) == manifest.float32_sha256:
            return weights, origin
    raise refuse(f"those of {origin} are others")


def scales_in(folder: Path, plan: Plan) -> dict[str, float]:
    """The scales of the uint8 values of an artifact's plan, by name."""
    names = {name for name in plan.weights if name.endswith(".scale")}
    stored = read_in_place(folder / WEIGHTS, names) if names else {}
    return {name: float(stored[name][0]) for name in names}


def inputs(manifest: Manifest) -> dict[str, NDArray[np.float32]]:
    """Batches to compare an artifact on, each of as many images of its main size as its largest
    entry takes: normal noise, and photographs that come with scikit-learn.

    Noise is no input for int8: it is beyond the ranges that were found on images. Photographs
    are none for nets that take other channels than an image has.
    """
    found, batch = {}, manifest.largest.batch
    if manifest.precision != "int8":
        shape = (batch, *manifest.input)
        found["random"] = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    if manifest.input[0] in IMAGE_CHANNELS:
        for name, image in photographs(manifest.preprocessing).items():
            found[name] = np.repeat(image, batch, axis=0)
    return found


PaddedBatch: TypeAlias = tuple[Array, int]
"""A full batch `(N, C, H, W)`, and how many images at its front count."""


def in_batches(images: Iterable[NDArray[np.float32]], size: int) -> Iterator[PaddedBatch]:
    """Images `(1, C, H, W)` in full batches, the last one filled up with its last image."""
    remaining = iter(images)
    while batch := list(islice(remaining, size)):
        count = len(batch)
        yield np.concatenate(batch + batch[-1:] * (size - count)), count


@dataclass
class _Difference:
    """The squared L2 norms of a difference and of what was wanted, summed over batches."""

    difference: float = 0.0
    wanted: float = 0.0

    def add(self, got: RealArray, wanted: RealArray) -> None:
        got64, wanted64 = got.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
        if np.isfinite(got64).all():
            self.difference += float(np.sum((got64 - wanted64) ** 2))
            self.wanted += float(np.sum(wanted64**2))
        else:
            self.difference = inf

    @property
    def relative(self) -> float:
        return float(np.sqrt(self.difference)) / (float(np.sqrt(self.wanted)) or 1.0)


@dataclass
class _Tally:
    """What an entry's values differ by so far, of each head and each step."""

    entry: ArtifactEntry
    plan: Plan
    heads: list[_Difference]
    steps: list[_Difference]
    agreeing: int = 0

    @classmethod
    def of(cls, entry: ArtifactEntry, plan: Plan) -> _Tally:
        heads, steps = ([_Difference() for _ in each] for each in (plan.outputs, plan.steps))
        return cls(entry, plan, heads, steps)


@dataclass(frozen=True)
class _Judge:
    """Compares what is computed of images of one size; `manifest` is what is said of that alone."""

    session: Session
    manifest: Manifest
    graph: Graph
    run: ReferenceNet
    scales: Mapping[str, float]
    weights_from: str | None

    def compare_all(self, images: Path | None, num_images: int | None) -> list[Verification]:
        """The comparisons on images in a folder, or on random and real inputs."""
        preprocessing = self.manifest.preprocessing
        if images is None:
            own = self.manifest.precision == "float32"
            return [
                result
                for name, x in inputs(self.manifest).items()
                for result in self.compare(name, [(x, len(x))], judged=own)
            ]
        chosen = choose_images(images, num_images or NUM_IMAGES, preprocessing)
        size = self.manifest.largest.batch
        batches = in_batches(read_images(chosen.files, preprocessing), size)
        told = f"{len(chosen.files)} image{'s' * (len(chosen.files) > 1)}"
        found = self.compare(told, batches, judged=True)
        return [replace(each, skipped=chosen.skipped) for each in found]

    def compare(
        self, name: str, batches: Iterable[PaddedBatch], *, judged: bool
    ) -> list[Verification]:
        """The comparison of each entry on the same images, in batches of the largest."""
        entries = self.manifest.entries
        tallies = [_Tally.of(entry, self.session.plans[entry.name]) for entry in entries]
        growth: dict[str, float] = {}
        images = 0
        for x, count in batches:
            expected = self.run(x)
            for node, factor in _growth(self.graph, expected).items():
                growth[node] = max(growth.get(node, 1.0), factor)
            for tally in tallies:
                self.add(tally, x[:count], expected)
            images += count
        return [self.told(name, tally, images, growth, judged=judged) for tally in tallies]

    def add(self, tally: _Tally, images: Array, expected: Mapping[str, RealArray]) -> None:
        """Adds what an entry makes of images, as many at a time as it takes."""
        start = 0
        for x, count in in_batches(np.split(images, len(images)), tally.entry.batch):
            here = slice(start, start + count)
            wanted = {name: value[here] for name, value in expected.items()}
            got = {name: value[:count] for name, value in self.session.run_all(x).items()}
            for difference, head in zip(tally.heads, self.graph.heads, strict=True):
                difference.add(got[head.name], wanted[self.graph.nodes[head.node].name])
            for index, value in enumerate(self.session.layers(x)):
                step = tally.plan.steps[index]
                value = as_nchw(real(value, tally.plan, index, self.scales), step.output)
                tally.steps[index].add(value[:count], wanted[step.name])
            tally.agreeing += int(self.same_top1(got, wanted).sum())
            start += count

    def told(
        self, name: str, tally: _Tally, images: int, growth: Mapping[str, float], *, judged: bool
    ) -> Verification:
        """What is told of an entry that has computed all images."""
        head_errors = tuple(
            (head.name, each.relative / growth.get(self.graph.nodes[head.node].name, 1.0))
            for each, head in zip(tally.heads, self.graph.heads, strict=True)
        )
        step_errors = tuple(
            (step.layer, _label(step), each.relative / growth.get(step.name, 1.0))
            for each, step in zip(tally.steps, tally.plan.steps, strict=True)
        )
        return Verification(
            input=name,
            batch=tally.entry.batch,
            size=tally.entry.size,
            precision=self.manifest.precision,
            error=max(error for _, error in head_errors),
            images=images,
            agreeing=tally.agreeing,
            judged=judged,
            head_errors=head_errors,
            step_errors=step_errors,
            weights_from=self.weights_from,
            has_classes=any(head.kind == "classes" for head in self.graph.heads),
            archs=self.session.own_archs,
        )

    def same_top1(
        self, got: Mapping[str, RealArray], expected: Mapping[str, RealArray]
    ) -> NDArray[np.bool_]:
        """Whether the best score of each image is at the same place, in every head of classes."""
        same = np.ones(len(next(iter(got.values()))), np.bool_)
        for head in self.graph.heads:
            if head.kind == "classes":
                wanted = expected[self.graph.nodes[head.node].name]
                best = got[head.name].reshape(len(same), -1).argmax(1)
                same &= best == wanted.reshape(len(same), -1).argmax(1)
        return same


def real(value: NDArray[Any], plan: Plan, index: int, scales: Mapping[str, float]) -> RealArray:
    """The numbers that the value of a plan's step stands for; `scales` are those of uint8 values,
    by name.
    """
    match plan.steps[index].output:
        case Map(format="bfloat16"):
            return from_bfloat16(value)
        case Map(format="float16"):
            return value.view(np.float16).astype(np.float32)
        case Map(format="uint8", zero=zero):
            scale = scales[scale_name(plan, index)]
            return scale * (value.astype(np.float64) - zero)
        case _:
            return value


def _label(step: Step) -> str:
    """The name of a step; a conversion is called as what it converts."""
    if isinstance(step.workload, Convert):
        return f"{step.name} as {step.workload.output.format}"
    return step.name


def _growth(graph: Graph, expected: Mapping[str, RealArray]) -> dict[str, float]:
    """The largest score of each soft-max by its name, one at least.

    The derivative of its logarithm by a score is one at most, so an error relative to the
    scores becomes one that is as many times larger as they are.
    """
    return {
        node.name: max(1.0, float(np.abs(expected[graph.nodes[node.inputs[0]].name]).max()))
        for node in graph.nodes
        if isinstance(node.op, Softmax | Softmax2d)
    }


def as_nchw(value: RealArray, layout: Layout) -> RealArray:
    """A step's value without its halo and without what pads its channels, channels first."""
    if not isinstance(layout, Map):
        return value
    rows = slice(layout.halo, layout.halo + layout.height)
    columns = slice(layout.halo, layout.halo + layout.width)
    return value[:, rows, columns, : layout.channels].transpose(0, 3, 1, 2)


def relative_error(got: RealArray, wanted: RealArray) -> float:
    """The L2 norm of the difference over that of `wanted`; infinity where one is not finite."""
    difference = _Difference()
    difference.add(got, wanted)
    return difference.relative

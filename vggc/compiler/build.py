"""Net to artifact: plan, kernels, code, weights, manifest."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from vggc import __version__
from vggc.compiler import diagnostics
from vggc.compiler.calibrate import calibrate, read_images
from vggc.compiler.error_budget import MAX_ERROR, allotment
from vggc.compiler.link import LinkError, export_library
from vggc.compiler.quantize import Range, Tensors, digest, lowered_weights
from vggc.compiler.relax import PIPELINE, KernelOf, Lowered, lower, weight_types
from vggc.compiler.targets import tvm_target
from vggc.images.preprocessing import Preprocessing
from vggc.ir.graph import Graph
from vggc.ir.weights import Weights, save
from vggc.kernels.workloads import Choice, Kernel, Workload
from vggc.passes.fold import fold
from vggc.plan.plan import Plan
from vggc.recipe.edit import alone
from vggc.runtime.artifact import (
    FILES,
    FORMAT,
    FORMAT_VERSION,
    LIBRARY,
    MANIFEST,
    SPEC,
    WEIGHTS,
    ChosenBy,
    KernelEntry,
    Manifest,
    Precision,
    Target,
    entry,
    outputs_of,
)
from vggc.runtime.calls import calls_of, planned
from vggc.runtime.diagnostics import NoArtifact
from vggc.support.diagnostics import UserError, first_line
from vggc.support.files import new_folder, refuse_full, refuse_unwritable
from vggc.support.records import write_record
from vggc.support.tensors import DTYPES, Pieces, opened
from vggc.support.tvm_alone import tvm
from vggc.syntax.ast import Net
from vggc.syntax.format import format_net

# The virtual machine checks what the net is given. What kernels are given follows from that, and
# their own checks of each buffer would be four fifths of the code of a small kernel.
UNCHECKED = {"tirx.disable_assert": True}

ChoiceOf: TypeAlias = Callable[[Workload, float], Choice | None]
"""The choice for a workload, of those that add so much relative error at most; None for that of
least stated cost."""

Chosen: TypeAlias = Callable[[Workload], Choice | None]
"""The same where it is known how much error that is."""


def by_cost(workload: Workload, max_error: float = inf) -> Choice | None:
    """What there is to say where nothing was measured."""
    return None


@dataclass(frozen=True)
class Job:
    """All that goes into an artifact."""

    net: Net
    graph: Graph
    target: Target
    batch: int
    weights: Weights
    weights_from: str
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    precision: Precision = "float32"
    images: tuple[Path, ...] = ()
    """What int8 is calibrated on."""
    choice_of: ChoiceOf = by_cost
    max_error: float = MAX_ERROR
    """The relative L2 error that the net's arithmetic may make."""
    may_overwrite: bool = False
    """Whether normalisations are folded where the weights lie, which takes no second copy."""


def _image_shape(graph: Graph) -> tuple[int, int, int]:
    channels, height, width = graph.input
    return channels, height, width


def kernels_for(target: Target, choice_of: Chosen) -> KernelOf:
    """The kernels for a target; that of least cost where nothing is chosen."""
    match target.kind:
        case "cpu":
            from vggc.kernels import cpu

            machine = cpu.Machine.of(tvm_target(target))
            return lambda workload: cpu.kernel(workload, machine, choice_of(workload))
        case "cuda":
            from vggc.kernels import cuda

            return cuda.kernel


def lowered(
    graph: Graph,
    batch: int,
    target: Target,
    precision: Precision = "float32",
    max_error: float = MAX_ERROR,
) -> tuple[Plan, Lowered]:
    """The calls of a compiled net, folded, and the kernels behind them, by stated cost."""
    calls = planned(graph, batch, target, precision)
    return calls, lower(calls, kernels_for(target, allotment(calls, target, max_error).by_cost.get))


def lowered_again(folder: Path, manifest: Manifest) -> tuple[Plan, Lowered]:
    """The calls of an artifact and the very kernels that it was compiled with.

    Raises: UserError where the manifest's kernels are not those of its net.
    """
    calls = calls_of(folder, manifest)
    try:
        pairs = zip(calls.steps, manifest.kernels, strict=True)
        choices = {step.workload: _choice(found) for step, found in pairs}
        code = lower(calls, kernels_for(manifest.target, choices.get))
        for told, made in zip(manifest.kernels, code.kernels, strict=True):
            if (told.algorithm, told.knobs, told.macs) != (
                made.algorithm,
                made.knobs,
                made.macs or 0,
            ):
                raise ValueError(f"{told.step} is computed by {made.algorithm}")
        _check_weights(folder, manifest, calls, code.kernels)
        return calls, code
    except (ValueError, TypeError, RuntimeError) as error:  # the last two are TVM's of a target
        reason = f"{MANIFEST} tells other kernels than its net has: {first_line(error)}"
        raise UserError(NoArtifact(None, str(folder), reason)) from None


def _check_weights(
    folder: Path, manifest: Manifest, calls: Plan, kernels: tuple[Kernel, ...]
) -> None:
    """Raises: ValueError where weights are packed otherwise than kernels take them."""
    with opened(folder / WEIGHTS) as file:
        for step, kernel in zip(calls.steps, kernels, strict=True):
            for name, (shape, dtype) in weight_types(step, kernel).items():
                stored = file.tensors[name]
                found = stored.shape, np.dtype(DTYPES[stored.kind])
                if found != (shape, np.dtype(dtype)) or manifest.weights[name] != shape:
                    raise ValueError(f"{name} is of type {dtype} and shape {shape} there")


def _choice(found: KernelEntry) -> Choice | None:
    if found.chosen_by == "only":
        return None
    return Choice(found.algorithm, tuple(found.knobs.items()))


def build_artifact(job: Job, folder: Path) -> Manifest:
    """Writes the artifact of a job to a new folder, whole or not at all.

    Raises: UserError when the folder is taken, there is no linker, or an image is none.
    """
    refuse_full(folder)
    refuse_unwritable(folder)
    folded = fold(job.graph)
    weights = folded.weights(job.weights, in_place=job.may_overwrite)
    calls = planned(job.graph, job.batch, job.target, job.precision)
    may = allotment(calls, job.target, job.max_error, weights)
    wished = {each: job.choice_of(each, may.share) for each in may.offers}
    measured = may.kept({each: choice for each, choice in wished.items() if choice})
    code = lower(calls, kernels_for(job.target, (may.by_cost | measured).get))
    ranges: dict[str, Range] = {}
    if job.precision == "int8":
        images = read_images(job.images, job.preprocessing)
        ranges = calibrate(folded.graph, weights, calls, images, job.images)
    lowered = lowered_weights(calls, weights, ranges)
    with new_folder(folder) as inside:
        _export(code.module, job.target, inside / LIBRARY)
        packed = pack(calls, code.kernels, lowered)
        save(inside / WEIGHTS, packed)
        net = replace(job.net, blocks=alone(job.net.blocks))
        (inside / SPEC).write_text(format_net(net), "utf-8")
        files = {name: entry(inside / name) for name in FILES}
        manifest = Manifest(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            vggc=__version__,
            tvm=tvm.__version__,
            net=job.net.name,
            target=job.target,
            precision=job.precision,
            batch=job.batch,
            input=_image_shape(job.graph),
            outputs=outputs_of(job.graph),
            preprocessing=job.preprocessing,
            classes=job.classes,
            weights_from=job.weights_from,
            float32_sha256=digest(weights),
            weights={name: packed[name].shape for name in calls.weights},
            kernels=_entries(job.target, calls, code.kernels, measured),
            files=files,
        )
        manifest = replace(manifest, sha256=manifest.digest)
        write_record(inside / MANIFEST, manifest)
    return manifest


def compile_for(module: tvm.IRModule, target: Target) -> Any:
    """The executable of a lowered net. `target` is a CPU."""
    with tvm.transform.PassContext(config=UNCHECKED):
        return tvm.compile(module, target=tvm_target(target), relax_pipeline=PIPELINE)


def _export(module: tvm.IRModule, target: Target, path: Path) -> None:
    """Compiles a lowered net and writes its library."""
    compiler = linker(target)
    try:
        match target.kind:
            case "cpu":
                export_library(compile_for(module, target).mod, path, compiler)
            case "cuda":
                _export_device(module, target, path, compiler)
    except LinkError as error:
        raise UserError(diagnostics.NotLinked(None, compiler, str(error))) from None


def _export_device(module: tvm.IRModule, target: Target, path: Path, compiler: str) -> None:
    from vggc.compiler.device_code import CompilerError, NoCompilerError, compile_device

    try:
        compile_device(module, target.archs).export(path, compiler)
    except NoCompilerError as error:
        hint = "`pip install 'vggc[cuda]'` brings NVIDIA's compiler; no GPU is needed"
        raise UserError(diagnostics.NoDeviceCode(None, str(error), hint)) from None
    except CompilerError as error:
        hint = "name other architectures with `--arch`, such as sm_80,sm_90"
        raise UserError(diagnostics.NoDeviceCode(None, str(error), hint)) from None


def linker(target: Target) -> str:
    """The C++ compiler that links a library for the target."""
    tried, package = ["g++", "clang++", "c++"], "g++"
    if target.triple and not target.triple.startswith(platform.machine()):
        tried, package = [f"{target.triple}-g++"], f"g++-{target.triple}"
    if os.environ.get("CXX"):
        tried = [os.environ["CXX"]]
    for name in tried:
        if found := shutil.which(name):
            return found
    raise UserError(diagnostics.NoLinker(None, " and ".join(tried), package))


def pack(calls: Plan, kernels: tuple[Kernel, ...], weights: Tensors) -> dict[str, Pieces]:
    """The weights of a plan as the kernels want them, packed while they are written."""
    packed: dict[str, Pieces] = {}
    for step, kernel in zip(calls.steps, kernels, strict=True):
        packed |= {name: Pieces.of(weights[name]) for name in step.weights}
        if kernel.packing is not None:
            first = step.weights[0]
            shape, dtype = weight_types(step, kernel)[first]
            make = partial(kernel.packing.pieces, weights[first])
            packed[first] = Pieces(np.dtype(dtype), shape, make)
    return packed


def unpack(calls: Plan, kernels: tuple[Kernel, ...], packed: Weights) -> Weights:
    """The weights as they were before `pack`, up to rounding."""
    weights: Weights = {}
    for step, kernel in zip(calls.steps, kernels, strict=True):
        weights |= {name: packed[name] for name in step.weights}
        if kernel.packing is not None:
            first = step.weights[0]
            weights[first] = kernel.packing.unpack(packed[first])
    return weights


def _entries(
    target: Target,
    calls: Plan,
    kernels: tuple[Kernel, ...],
    measured: Mapping[Workload, Choice],
) -> tuple[KernelEntry, ...]:
    chosen_by = {
        each: _chosen_by(target, each, measured.get(each))
        for each in {step.workload for step in calls.steps}
    }
    return tuple(
        KernelEntry(
            step.layer,
            step.name,
            type(step.workload).__name__,
            kernel.algorithm,
            kernel.knobs,
            chosen_by[step.workload],
            kernel.macs or 0,
        )
        for step, kernel in zip(calls.steps, kernels, strict=True)
    )


def _chosen_by(target: Target, workload: Workload, choice: Choice | None) -> ChosenBy:
    if target.kind == "cuda":
        return "only"
    from vggc.kernels import cpu

    if len(cpu.choices(workload, cpu.Machine.of(tvm_target(target)))) < 2:
        return "only"
    return "measurement" if choice else "cost model"

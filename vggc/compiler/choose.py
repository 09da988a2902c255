"""Which kernel carries out each call of a plan, and the very ones of an artifact again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from vggc.compiler.packing import packings
from vggc.compiler.relax import KernelOf, PlannedCalls, weight_types, with_kernels
from vggc.compiler.targets import tvm_target
from vggc.kernels.workloads import Choice, Workload
from vggc.runtime.artifact import KernelEntry, Manifest, Target
from vggc.runtime.diagnostics import NoArtifact
from vggc.runtime.plans import plans_in
from vggc.support.diagnostics import UserError, first_line
from vggc.support.tensors import DTYPES, opened
from vggc_runtime.folder import MANIFEST, WEIGHTS

TimesOf: TypeAlias = Callable[[Workload, float], Mapping[Choice, float]]
"""The seconds of a workload's choices, of those that add so much relative error at most, as far as
they were measured."""

ChoiceFor: TypeAlias = Callable[[Workload], Choice | None]
"""The choice for a workload, None for the one of least stated cost, where its error is settled."""


def by_cost(workload: Workload) -> Choice | None:
    """No choice for any workload, so that the kernel of least stated cost is taken."""
    return None


def unmeasured(workload: Workload, max_error: float) -> Mapping[Choice, float]:
    """No time of any choice: a `TimesOf` for where nothing was measured."""
    return {}


def kernels_for(target: Target, choice_of: ChoiceFor) -> KernelOf:
    """The kernels for a target; the one of least cost where `choice_of` chooses nothing."""
    match target.kind:
        case "cpu":
            from vggc.kernels import cpu

            machine = cpu.Machine.of(tvm_target(target))
            return lambda workload: cpu.kernel(workload, machine, choice_of(workload))
        case "cuda":
            from vggc.compiler.cards import card_for
            from vggc.kernels import cuda

            card = card_for(target.archs)
            return lambda workload: cuda.kernel(workload, card, choice_of(workload))


def rebuilt(folder: Path, manifest: Manifest) -> dict[str, PlannedCalls]:
    """The calls of an artifact by the names of its entries, with the very kernels that it was
    compiled with.

    Raises: UserError where the manifest's kernels are not those of its net.
    """
    try:
        calls: dict[str, PlannedCalls] = {}
        for variant in manifest.variants.values():
            calls |= _rebuilt(folder, variant)
        _check_weights(folder, manifest, calls.values())
        return calls
    except (ValueError, TypeError, RuntimeError) as error:  # the last two are TVM's of a target
        reason = f"{MANIFEST} tells other kernels than its net has: {first_line(error)}"
        raise UserError(NoArtifact(str(folder), reason)) from None


def _rebuilt(folder: Path, variant: Manifest) -> Mapping[str, PlannedCalls]:
    """Raises: ValueError where other kernels are told than those of the net, which are all for the
    same architectures.
    """
    plans = plans_in(folder, variant)
    told = {entry.name: entry.kernels for entry in variant.entries}
    choices = {
        step.workload: _choice(kernel)
        for name, plan in plans.items()
        for step, kernel in zip(plan.steps, told[name], strict=True)
    }
    calls = with_kernels(plans, kernels_for(variant.target, choices.get))
    for name, each in calls.items():
        for said, made in zip(told[name], each.kernels, strict=True):
            found = made.algorithm, made.knobs, made.macs or 0
            if (said.algorithm, said.knobs, said.macs) != found:
                raise ValueError(f"{said.step} is computed by {made.algorithm}")
    return calls


def _check_weights(folder: Path, manifest: Manifest, calls: Collection[PlannedCalls]) -> None:
    """Raises: ValueError where weights are packed otherwise than kernels take them."""
    packings(calls)
    with opened(folder / WEIGHTS) as file:
        for step, kernel in (each for one in calls for each in one.steps):
            for name, (shape, dtype) in weight_types(step, kernel).items():
                stored = file.tensors[name]
                found = stored.shape, np.dtype(DTYPES[stored.kind])
                if found != (shape, np.dtype(dtype)) or manifest.weights[name] != shape:
                    raise ValueError(f"{name} is of type {dtype} and shape {shape} there")


def _choice(found: KernelEntry) -> Choice | None:
    if found.chosen_by == "only":
        return None
    return Choice(found.algorithm, tuple(found.knobs.items()))

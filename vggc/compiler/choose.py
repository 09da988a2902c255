"""Which kernel carries out each call of a plan, and the very ones of an artifact again."""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import inf
from pathlib import Path
from typing import TypeAlias

import numpy as np

from vggc.compiler.packing import packings
from vggc.compiler.relax import KernelOf, Lowered, lower, weight_types
from vggc.compiler.targets import tvm_target
from vggc.kernels.workloads import Choice, Workload
from vggc.plan.plan import Plan
from vggc.runtime.artifact import WEIGHTS, KernelEntry, Manifest, Target
from vggc.runtime.diagnostics import NoArtifact
from vggc.runtime.plans import plans_in
from vggc.support.diagnostics import UserError, first_line
from vggc.support.paths import MANIFEST
from vggc.support.tensors import DTYPES, opened

ChoiceOf: TypeAlias = Callable[[Workload, float], Choice | None]
"""The choice for a workload, of those that add so much relative error at most; None for that of
least stated cost."""

ChoiceFor: TypeAlias = Callable[[Workload], Choice | None]
"""The choice for a workload, None for the one of least stated cost, where its error is settled."""


def by_cost(workload: Workload, max_error: float = inf) -> Choice | None:
    """No choice for any workload, so that the kernel of least stated cost is taken: a `ChoiceOf`
    for where nothing was measured.
    """
    return None


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


def rebuilt(folder: Path, manifest: Manifest) -> tuple[dict[str, Plan], Lowered]:
    """The calls of an artifact by the names of its entries, and the very kernels that it was
    compiled with, lowered again.

    Raises: UserError where the manifest's kernels are not those of its net.
    """
    plans = plans_in(folder, manifest)
    try:
        calls = [
            (step, kernel)
            for entry in manifest.entries
            for step, kernel in zip(plans[entry.name].steps, entry.kernels, strict=True)
        ]
        choices = {step.workload: _choice(told) for step, told in calls}
        code = lower(plans, kernels_for(manifest.target, choices.get))
        for step, told in calls:
            made = code.kernels[step.workload]
            if (told.algorithm, told.knobs, told.macs) != (
                made.algorithm,
                made.knobs,
                made.macs or 0,
            ):
                raise ValueError(f"{told.step} is computed by {made.algorithm}")
        _check_weights(folder, manifest, plans.values(), code)
        return plans, code
    except (ValueError, TypeError, RuntimeError) as error:  # the last two are TVM's of a target
        reason = f"{MANIFEST} tells other kernels than its net has: {first_line(error)}"
        raise UserError(NoArtifact(str(folder), reason)) from None


def _check_weights(
    folder: Path, manifest: Manifest, plans: Collection[Plan], code: Lowered
) -> None:
    """Raises: ValueError where weights are packed otherwise than kernels take them."""
    packings(plans, code)
    with opened(folder / WEIGHTS) as file:
        for step in (step for plan in plans for step in plan.steps):
            for name, (shape, dtype) in weight_types(step, code.kernels[step.workload]).items():
                stored = file.tensors[name]
                found = stored.shape, np.dtype(DTYPES[stored.kind])
                if found != (shape, np.dtype(dtype)) or manifest.weights[name] != shape:
                    raise ValueError(f"{name} is of type {dtype} and shape {shape} there")


def _choice(found: KernelEntry) -> Choice | None:
    if found.chosen_by == "only":
        return None
    return Choice(found.algorithm, tuple(found.knobs.items()))

"""How much each layer's arithmetic may add to the error of a net.

Layers round independently of one another, so that their errors add in squares
(docs/kernels.md). Each may add the same, as much as leaves all together within the budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vggc.backends.plan import Plan
from vggc.deploy.artifact import Target
from vggc.deploy.targets import tvm_target
from vggc.kernels.workloads import Choice, Workload


@dataclass(frozen=True)
class Offer:
    """An algorithm for a workload: the least cost of its knobs, and what it adds to the error."""

    cost: tuple[float, ...]
    error: float
    algorithm: str


Choices = dict[Workload, Choice | None]
"""By workload the choice that was measured, None for that of least stated cost."""


def share_of_error(calls: Plan, target: Target, budget: float) -> float:
    """The most that a layer may add, such that all choices of least cost stay within `budget`.

    It is what one of the algorithms adds, which there is to choose among.
    """
    offers = _offers(calls, target)
    for share in sorted({each.error for found in offers.values() for each in found}, reverse=True):
        if _together(calls, offers, {}, share) <= budget**2:
            return share
    return 0.0


def within_budget(
    calls: Plan, target: Target, choices: Mapping[Workload, Choice | None], budget: float
) -> Choices:
    """Choices, each within `share_of_error`, of which as many are kept as the budget allows.

    Measured ones may add more than those of least cost, from which that share is told: then
    those give way that add most.
    """
    offers, share = _offers(calls, target), share_of_error(calls, target, budget)
    kept = dict(choices)
    while _together(calls, offers, kept, share) > budget**2:
        measured = [workload for workload, choice in kept.items() if choice]
        if not measured:
            break
        kept[max(measured, key=lambda each: _error(offers[each], kept[each], share))] = None
    return kept


def _offers(calls: Plan, target: Target) -> dict[Workload, list[Offer]]:
    """The algorithms for each workload that leaves a choice; on GPUs there is none."""
    if target.kind == "cuda":
        return {}
    from vggc.kernels import cpu

    machine = cpu.Machine.of(tvm_target(target))
    found: dict[Workload, list[Offer]] = {}
    for workload in {step.workload for step in calls.steps}:
        offers = []
        for template in cpu.templates(workload, machine):
            if costs := [template.cost(knobs) for knobs in template.knobs]:
                offers.append(Offer(min(costs), template.error, template.algorithm))
        if offers:
            found[workload] = offers
    return found


def _together(
    calls: Plan,
    offers: Mapping[Workload, list[Offer]],
    choices: Mapping[Workload, Choice | None],
    share: float,
) -> float:
    """The square of what all layers add."""
    workloads = [step.workload for step in calls.steps if step.workload in offers]
    return sum(_error(offers[each], choices.get(each), share) ** 2 for each in workloads)


def _error(offers: list[Offer], choice: Choice | None, share: float) -> float:
    if choice:
        return max(each.error for each in offers if each.algorithm == choice.algorithm)
    return min((each.cost, each.error) for each in offers if each.error <= share)[1]

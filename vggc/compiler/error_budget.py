"""How much each layer's arithmetic may add to the error of a net, and what it then chooses.

Layers round independently of one another, so that their errors add in squares
(docs/kernels.md). Each may add the same, as much as leaves all together within the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vggc.compiler import diagnostics
from vggc.compiler.targets import tvm_target
from vggc.ir.weights import Weights
from vggc.kernels.workloads import Choice, Dense, Workload
from vggc.plan.plan import Plan
from vggc.runtime.artifact import Target
from vggc.support.diagnostics import UserError
from vggc.support.precision import ArtifactPrecision

if TYPE_CHECKING:
    from vggc.kernels.algorithm import Algorithm

MAX_ERROR = 1e-5
"""The relative L2 error that the arithmetic of a whole net may make in float32."""


def budget_for(target: Target, precision: ArtifactPrecision, asked: float | None) -> float:
    """The error that the arithmetic of a net may make.

    Raises: UserError for one `asked` for where no choice is a matter of error.
    """
    if asked is None:
        return MAX_ERROR
    if target.kind == "cuda":
        reason = "kernels for GPUs only sum products, which is as exact as float32 is"
    elif precision != "float32":
        reason = f"{precision} itself decides how exact the net is"
    else:
        return asked
    raise UserError(diagnostics.GivenInVain("--max-error", reason, ""))


@dataclass(frozen=True)
class Offer:
    """An algorithm that a workload may take: its least cost, by which choice, and the error it
    adds; how many choices it has.
    """

    cost: tuple[float, ...]
    error: float
    choice: Choice
    choices: int = 1


@dataclass(frozen=True)
class Allotment:
    """The algorithms that the layers of a net may take within a budget of error.

    `workloads` are those of its calls, each as often as it is called.
    """

    workloads: tuple[Workload, ...]
    offers: Mapping[Workload, tuple[Offer, ...]]
    budget: float

    @cached_property
    def share(self) -> float:
        """The most that a layer may add, such that all choices of least cost stay within budget.

        It is what one of the algorithms adds, which there is to choose among.
        """
        errors = {each.error for found in self.offers.values() for each in found}
        for share in sorted((each for each in errors if each <= self.budget), reverse=True):
            if self._together(self._least_costs(share)) <= self.budget**2:
                return share
        return 0.0

    @property
    def by_cost(self) -> dict[Workload, Choice]:
        """The choice of least cost for each workload, each within the share."""
        return {each: offer.choice for each, offer in self._least_costs(self.share).items()}

    def is_free(self, workload: Workload) -> bool:
        """Whether there is anything to choose for a workload."""
        return sum(offer.choices for offer in self.offers.get(workload, ())) > 1

    def kept(self, measured: Mapping[Workload, Choice]) -> dict[Workload, Choice]:
        """The part of the measured choices that the budget allows beside the other layers' choices.

        Measured choices may add more error than those of least cost, from which the share is told:
        then those give way that add most.
        """
        kept = dict(measured)
        by_cost = self._least_costs(self.share)
        offers = by_cost | {each: self._offer(each, choice) for each, choice in kept.items()}
        while kept and self._together(offers) > self.budget**2:
            largest = max(kept, key=lambda each: offers[each].error)
            del kept[largest]
            offers[largest] = by_cost[largest]
        return kept

    def _least_costs(self, share: float) -> dict[Workload, Offer]:
        return {
            workload: min(
                (each for each in found if each.error <= share), key=lambda each: each.cost
            )
            for workload, found in self.offers.items()
        }

    def _offer(self, workload: Workload, choice: Choice) -> Offer:
        """The offer of a choice's algorithm."""
        found = self.offers[workload]
        return next(each for each in found if each.choice.algorithm == choice.algorithm)

    def _together(self, offers: Mapping[Workload, Offer]) -> float:
        """The square of the error that all layers add."""
        return sum(offers[each].error ** 2 for each in self.workloads if each in offers)


def allotment(
    plan: Plan, target: Target, budget: float, weights: Weights | None = None
) -> Allotment:
    """What the calls of a plan may choose within a budget.

    Some algorithms add more with some weights than with usual ones, which `weights` tells, those
    of the folded net.
    """
    found: dict[Workload, list[str]] = {}
    for step in plan.steps:
        found.setdefault(step.workload, []).extend(step.weights[:1])
    offers, alternatives = {}, _alternatives(target)
    for workload, names in found.items():
        # Those of other workloads lie in memory in other shapes, and nothing asks for them.
        known = weights if isinstance(workload, Dense) and weights else {}
        of = [known[name] for name in names if name in known]
        if some := tuple(_offers(alternatives(workload), of)):
            offers[workload] = some
    return Allotment(tuple(step.workload for step in plan.steps), offers, budget)


def share_of_error(plan: Plan, target: Target, budget: float) -> float:
    """The most error that a layer may add within a budget for the net, with usual weights."""
    return allotment(plan, target, budget).share


def _alternatives(
    target: Target,
) -> Callable[[Workload], Sequence[Algorithm[Any, Any]]]:
    """The algorithms that a workload may take on a target; none where there is nothing to
    choose.
    """
    match target.kind:
        case "cpu":
            from vggc.kernels import cpu

            machine = cpu.Machine.of(tvm_target(target))
            return lambda workload: cpu.alternatives(workload, machine)
        case "cuda":
            from vggc.compiler.cards import card_for
            from vggc.kernels import cuda

            card = card_for(target.archs)
            return lambda workload: cuda.alternatives(workload, card)


def _offers(
    algorithms: Sequence[Algorithm[Any, Any]], weights: Sequence[NDArray[np.float32]]
) -> Iterator[Offer]:
    for algorithm in algorithms:
        costs = [(algorithm.cost(knobs), algorithm.choice(knobs)) for knobs in algorithm.knobs()]
        if costs:
            cost, choice = min(costs, key=lambda each: each[0])
            errors = [algorithm.error_with(weight) for weight in weights]
            yield Offer(cost, max(errors, default=algorithm.error), choice, len(costs))

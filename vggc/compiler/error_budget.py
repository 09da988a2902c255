"""How much each layer's arithmetic may add to the error of a net, and what it then chooses.

Layers round independently of one another, so that their errors add in squares
(docs/kernels.md). Each may add the same, as much as leaves all together within the budget.

Plans of one net, for several batches, share its weights. What their calls at one place choose must
therefore want the weight packed alike, and is chosen together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vggc.compiler import diagnostics
from vggc.compiler.targets import tvm_target
from vggc.ir.weights import Weights
from vggc.kernels.workloads import Choice, Dense, Packing, Workload
from vggc.plan.plan import Plan
from vggc.runtime.artifact import Target
from vggc.support.diagnostics import UserError
from vggc.support.precision import ArtifactPrecision

if TYPE_CHECKING:
    from vggc.kernels.algorithm import Algorithm, Cost

GIVEN_WAY = 0.05
"""The share of its cost that a layer may cost more where its weight is stored once then."""

MAX_ERROR = 1e-5
"""The relative L2 error that the arithmetic of a whole net may make in float32."""


def budget_for(target: Target, precision: ArtifactPrecision, asked: float | None) -> float:
    """The error that the arithmetic of a net may make.

    Raises: UserError for one `asked` for where no choice is a matter of error.
    """
    if asked is None:
        return MAX_ERROR
    if precision != "float32":
        reason = f"{precision} itself decides how exact the net is"
    else:
        return asked
    raise UserError(diagnostics.GivenInVain("--max-error", reason, ""))


@dataclass(frozen=True)
class Offer:
    """An algorithm that a workload may take with its weight packed in one way: its least cost, by
    which choice, and the error it adds; all choices of the kind.
    """

    cost: tuple[float, ...]
    error: float
    choice: Choice
    packing: Packing | None
    choices: frozenset[Choice]


@dataclass(frozen=True)
class Allotment:
    """The algorithms that the layers of a net may take within a budget of error.

    `calls` are the workloads of each plan's calls, each as often as it is called; those at one
    place of all plans take the same weight.
    """

    calls: tuple[tuple[Workload, ...], ...]
    offers: Mapping[Workload, tuple[Offer, ...]]
    budget: float
    stored: Mapping[Workload, Packing | None] = field(default_factory=dict)
    """How the weights of workloads are packed for other GPUs, with which they can be shared."""

    @cached_property
    def share(self) -> float:
        """The most that a layer may add, such that all choices of least cost stay within budget.

        It is what one of the algorithms adds, which there is to choose among.
        """
        errors = {each.error for found in self.offers.values() for each in found}
        for share in sorted((each for each in errors if each <= self.budget), reverse=True):
            if self._is_within_budget(self._together(share, {})):
                return share
        return 0.0

    @property
    def by_cost(self) -> dict[Workload, Choice]:
        """The choice for each workload where nothing was measured."""
        return self.chosen({})

    def is_free(self, workload: Workload) -> bool:
        """Whether there is anything to choose for a workload."""
        return sum(len(offer.choices) for offer in self.offers.get(workload, ())) > 1

    def chosen(self, measured: Mapping[Workload, Choice]) -> dict[Workload, Choice]:
        """The choice for each workload: the measured one, or that of least cost within the share.

        Workloads that take the same weight get the packing of which the sum of costs is least, each
        relative to what its plan costs at least. A measured choice is taken to cost as little as
        any of its workload, and gives way where it has another packing. A packing that is stored
        already is taken where it costs little more than the best (`GIVEN_WAY`), and no measured
        choice for it gives way. Measured choices may also
        add more error than those of least cost, from which the share is told: then those give way
        that add most.
        """
        kept = dict(measured)
        while True:
            offers = self._together(self.share, kept)
            if not kept or self._is_within_budget(offers):
                return {each: offer.choice for each, offer in offers.items()}
            del kept[max(kept, key=lambda each: self._offer(each, kept[each]).error)]

    def packings(self, made: Mapping[Workload, Choice]) -> dict[Workload, Packing | None]:
        """How choices want the weights of their workloads packed."""
        return {each: self._offer(each, choice).packing for each, choice in made.items()}

    @cached_property
    def _groups(self) -> tuple[tuple[Workload, ...], ...]:
        """The workloads that leave a choice, together with those that take the same weight."""
        group_of: dict[Workload, dict[Workload, None]] = {}
        for place in dict.fromkeys(zip(*self.calls, strict=True)):
            group: dict[Workload, None] = {}
            for each in place:
                group |= group_of.get(each, {each: None})
            group_of |= dict.fromkeys(group, group)
        groups = {id(group): group for group in group_of.values()}.values()
        free = (tuple(each for each in group if each in self.offers) for group in groups)
        return tuple(filter(None, free))

    def _together(self, share: float, measured: Mapping[Workload, Choice]) -> dict[Workload, Offer]:
        """What the workloads take within a share of the error, beside measured choices."""
        taken: dict[Workload, Offer] = {}
        shares_of_cost = self._shares_of_cost(share)
        for group in self._groups:
            found = [self._by_packing(each, share, measured.get(each)) for each in group]
            common = [each for each in found[0] if all(each in others for others in found[1:])]
            assert common, f"no packing is common to {group}"
            columns = [[offers[packing] for offers in found] for packing in common]
            scales = [shares_of_cost[each] for each in group]
            asked = [measured.get(each) for each in group]
            rank = partial(_rank, scales, asked)
            best = min(columns, key=rank)
            if group[0] in self.stored and (packing := self.stored[group[0]]) in common:
                alike = columns[common.index(packing)]
                (dearer, kept, _), (cost, most, _) = rank(alike), rank(best)
                is_near = dearer <= (1 + GIVEN_WAY) * cost
                best = alike if is_near and kept <= most else best
            taken |= zip(group, best, strict=True)
        return taken

    def _shares_of_cost(self, share: float) -> dict[Workload, float]:
        """What each workload adds to the costs of plans by a unit of its own, relative to what they
        cost at least within a share of the error.
        """
        least = {
            each: min(offer.cost[0] for offer in offers if offer.error <= share)
            for each, offers in self.offers.items()
        }
        found = dict.fromkeys(least, 0.0)
        for calls in self.calls:
            free = [each for each in calls if each in least]
            whole = sum(least[each] for each in free)
            for each in free:
                found[each] += 1 / whole
        return found

    def _by_packing(
        self, workload: Workload, share: float, measured: Choice | None
    ) -> dict[Packing | None, Offer]:
        """The best that a workload may take within a share of the error, by its packing."""
        found: dict[Packing | None, Offer] = {}
        for offer in self.offers[workload]:
            known = found.get(offer.packing)
            if offer.error <= share and (known is None or offer.cost < known.cost):
                found[offer.packing] = offer
        if measured is not None:
            offer = self._offer(workload, measured)
            cost = min(each.cost for each in found.values())
            found[offer.packing] = replace(offer, cost=cost, choice=measured)
        return found

    def _offer(self, workload: Workload, choice: Choice) -> Offer:
        """The offer that a choice is one of."""
        return next(each for each in self.offers[workload] if choice in each.choices)

    def _is_within_budget(self, offers: Mapping[Workload, Offer]) -> bool:
        """Whether all layers of each plan together add no more than the budget."""
        return all(
            sum(offers[each].error ** 2 for each in calls if each in offers) <= self.budget**2
            for calls in self.calls
        )


def _rank(
    scales: Sequence[float], asked: Sequence[Choice | None], offers: Sequence[Offer]
) -> tuple[float, int, list[tuple[float, ...]]]:
    """The order of preference of what a group may take, best first: the least cost, the most
    measured choices, and what breaks ties of cost.
    """
    cost = sum(scale * offer.cost[0] for scale, offer in zip(scales, offers, strict=True))
    kept = sum(offer.choice == choice for offer, choice in zip(offers, asked, strict=True))
    return cost, -kept, [offer.cost for offer in offers]


def allotment(
    plans: Sequence[Plan], target: Target, budget: float, weights: Weights | None = None
) -> Allotment:
    """What the calls of plans of one net may choose within a budget that each plan keeps.

    Some algorithms add more with some weights than with usual ones, which `weights` tells, those
    of the folded net.
    """
    found: dict[Workload, list[str]] = {}
    for step in (step for plan in plans for step in plan.steps):
        found.setdefault(step.workload, []).extend(step.weights[:1])
    offers, alternatives = {}, _alternatives(target)
    for workload, names in found.items():
        # Those of other workloads lie in memory in other shapes, and nothing asks for them.
        known = weights if isinstance(workload, Dense) and weights else {}
        of = [known[name] for name in names if name in known]
        if some := tuple(_offers(alternatives(workload), of)):
            offers[workload] = some
    calls = tuple(tuple(step.workload for step in plan.steps) for plan in plans)
    return Allotment(calls, offers, budget)


def share_of_error(plan: Plan, target: Target, budget: float) -> float:
    """The most error that a layer may add within a budget for the net, with usual weights."""
    return allotment([plan], target, budget).share


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
        by_packing: dict[Packing | None, list[tuple[Cost, Choice]]] = {}
        for knobs in algorithm.knobs():
            costs = by_packing.setdefault(algorithm.packing(knobs), [])
            costs.append((algorithm.cost(knobs), algorithm.choice(knobs)))
        errors = [algorithm.error_with(weight) for weight in weights] if by_packing else []
        error = max(errors, default=algorithm.error)
        for packing, costs in by_packing.items():
            cost, choice = min(costs, key=lambda each: each[0])
            yield Offer(cost, error, choice, packing, frozenset(choice for _, choice in costs))

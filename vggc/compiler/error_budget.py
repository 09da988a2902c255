"""How much each layer's arithmetic may add to the error of a net, and what it then chooses.

Layers round independently of one another, so that their errors add in squares
(docs/kernels.md). Each may add the same, as much as leaves all together within the budget.

Plans of one net, for several batches and sizes of images, share its weights, and an image's result
should not depend on its batch. What their calls with one weight choose must therefore want it
packed alike and, for images of one size, round alike, and is chosen together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from heapq import nsmallest
from itertools import product
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc.compiler import diagnostics
from vggc.compiler.targets import tvm_target
from vggc.ir.ops import Shape
from vggc.ir.weights import Weights
from vggc.kernels.workloads import Choice, Dense, Packing, Workload
from vggc.plan.plan import Plan
from vggc.runtime.artifact import Target
from vggc.support.diagnostics import UserError
from vggc.support.precision import ArtifactPrecision

if TYPE_CHECKING:
    from vggc.kernels.algorithm import Algorithm, Cost

PROMISING = 3
"""The forms whose best choices are measured for all workloads that take the same weight."""
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
class SharedForm:
    """What the choices of workloads that take the same weight have in common: how it is packed, and
    the arithmetic, which equal bits follow from where it is told.
    """

    packing: Packing | None
    arithmetic: str | None


@dataclass(frozen=True)
class Offer:
    """An algorithm that a workload may take in one form: its least cost, by which choice, and the
    error it adds; all choices of the kind.
    """

    cost: tuple[float, ...]
    error: float
    choice: Choice
    form: SharedForm
    choices: frozenset[Choice]


MeasuredTimes: TypeAlias = Mapping[Workload, Mapping[Choice, float]]
"""The seconds that choices took, by their workload; infinite for those that do not work."""


@dataclass(frozen=True)
class Allotment:
    """The algorithms that the layers of a net may take within a budget of error.

    `calls` are the workloads of each plan's calls, each as often as it is called; `alike` those
    that take the same weight, `of_one_size` those of them that are for images of one size.
    """

    calls: tuple[tuple[Workload, ...], ...]
    alike: tuple[tuple[Workload, ...], ...]
    of_one_size: tuple[tuple[Workload, ...], ...]
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

    def costs(self, taken: Mapping[Workload, Offer]) -> tuple[float, ...]:
        """What the calls of each plan cost together that leave a choice."""
        return tuple(
            sum(taken[each].cost[0] for each in calls if each in taken) for calls in self.calls
        )

    @property
    def by_cost(self) -> dict[Workload, Choice]:
        """The choice for each workload where nothing was measured."""
        return self.chosen({})

    def is_free(self, workload: Workload) -> bool:
        """Whether there is anything to choose for a workload."""
        return sum(len(offer.choices) for offer in self.offers.get(workload, ())) > 1

    def chosen(self, times: MeasuredTimes) -> dict[Workload, Choice]:
        """The choice for each workload, as `taken` tells."""
        return {each: offer.choice for each, offer in self.taken(times).items()}

    def taken(self, times: MeasuredTimes) -> dict[Workload, Offer]:
        """What is taken for each workload: of what was measured, or of least cost within the share.
        Where anything was measured, its cost is in seconds.

        `times` hold at least one choice that works of each workload that was measured.

        Workloads that take the same weight get the form of which the sum of costs is least, each
        relative to what its plan costs at least. Where what they would take unmeasured was measured
        of all of them, the sum is of times, over the forms of which all of them were measured: it
        is never more than that of the unmeasured choice. Otherwise those that were not measured
        are thought to take as long as their costs say beside what was (`_Prices`).

        A packing that is stored already is taken where it costs little more than the best
        (`GIVEN_WAY`), and no measured choice gives way for it. Measured choices may also
        add more error than those of least cost, from which the share is told: then those give way
        that add most, with all that take the same weight.
        """
        known = dict(times)
        while True:
            offers = self._together(self.share, known)
            kept = [each for each, offer in offers.items() if offer.choice in known.get(each, ())]
            if not kept or self._is_within_budget(offers):
                return offers
            worst = max(kept, key=lambda each: offers[each].error)
            for each in next(group for group in self._groups if worst in group):
                known.pop(each, None)

    def worth_measuring(self, times: MeasuredTimes) -> dict[Workload, list[Choice]]:
        """What is to be measured next of workloads that take the same weight as others: what they
        would take unmeasured, and the best in those forms that are thought to be best for all.
        """
        found: dict[Workload, list[Choice]] = {}
        for each in self._places(self.share, times):
            if len(each.group) == 1:
                continue
            best = nsmallest(PROMISING, each.columns, key=each.rank)
            for index, work in enumerate(each.group):
                choices = [] if each.unmeasured is None else [each.unmeasured[index]]
                choices += [column[index].choice for column in best]
                known = each.known[index]
                found[work] = [choice for choice in dict.fromkeys(choices) if choice not in known]
        return found

    def packings(self, made: Mapping[Workload, Choice]) -> dict[Workload, Packing | None]:
        """How choices want the weights of their workloads packed."""
        return {each: self._offer(each, choice).form.packing for each, choice in made.items()}

    @cached_property
    def _groups(self) -> tuple[tuple[Workload, ...], ...]:
        """The workloads that leave a choice, together with those that take the same weight."""
        return self._joined(self.alike)

    @cached_property
    def _parts(self) -> tuple[tuple[Workload, ...], ...]:
        """The workloads that leave a choice, together with those that take the same weight and are
        for images of one size.
        """
        return self._joined(self.of_one_size)

    def _joined(self, places: Sequence[tuple[Workload, ...]]) -> tuple[tuple[Workload, ...], ...]:
        """The workloads that leave a choice, together with those that share a place with them."""
        group_of: dict[Workload, dict[Workload, None]] = {}
        alone = ((each,) for calls in self.calls for each in calls)
        for place in dict.fromkeys((*places, *alone)):
            group: dict[Workload, None] = {}
            for each in place:
                group |= group_of.get(each, {each: None})
            group_of |= dict.fromkeys(group, group)
        groups = {id(group): group for group in group_of.values()}.values()
        free = (tuple(each for each in group if each in self.offers) for group in groups)
        return tuple(filter(None, free))

    def _together(self, share: float, times: MeasuredTimes) -> dict[Workload, Offer]:
        """What the workloads take within a share of the error, beside what was measured."""
        taken: dict[Workload, Offer] = {}
        for each in self._places(share, times):
            best = min(each.compared if each.is_compared else each.columns, key=each.rank)
            stored = [c for c in each.columns if self._is_stored(each.group[0], c[0].form)]
            if stored and not each.is_compared:
                alike = min(stored, key=each.rank)
                (dearer, fewer, _), (cost, fewest, _) = each.rank(alike), each.rank(best)
                is_near = dearer <= (1 + GIVEN_WAY) * cost
                best = alike if is_near and fewer <= fewest else best
            taken |= zip(each.group, best, strict=True)
        return taken

    def _places(self, share: float, times: MeasuredTimes) -> Iterator[_Place]:
        """What there is for each group of workloads within a share of the error."""
        unmeasured = self._together(share, {}) if times else {}
        within = {work: self._within(work, share, times.get(work, {})) for work in self.offers}
        prices = _Prices.of(within, times, unmeasured)
        priced = {work: prices.by_form(work, offers) for work, offers in within.items()}
        scales = self._shares_of_cost(priced)
        part_of = {each: part for part in self._parts for each in part}
        for group in self._groups:
            columns = _columns([*dict.fromkeys(part_of[each] for each in group)], priced)
            assert columns, f"no packing and arithmetic are common to {group}"
            yield _Place(
                group=group,
                columns=[[column[each] for each in group] for column in columns],
                scales=[scales[each] for each in group],
                known=[times.get(each, {}) for each in group],
                unmeasured=[unmeasured[each].choice for each in group] if times else None,
            )

    def _within(
        self, workload: Workload, share: float, measured: Mapping[Choice, float]
    ) -> list[Offer]:
        """What a workload may take within a share of the error, and what was measured of it."""
        return [
            offer
            for offer in self.offers[workload]
            if offer.error <= share or not offer.choices.isdisjoint(measured)
        ]

    def _is_stored(self, workload: Workload, form: SharedForm) -> bool:
        """Whether a weight is packed so for other GPUs."""
        return workload in self.stored and self.stored[workload] == form.packing

    def _shares_of_cost(
        self, priced: Mapping[Workload, Mapping[SharedForm, Offer]]
    ) -> dict[Workload, float]:
        """What each workload adds to the costs of plans by a unit of its own, relative to what they
        cost at least.
        """
        least = {
            each: min(offer.cost[0] for offer in offers.values()) for each, offers in priced.items()
        }
        found = dict.fromkeys(least, 0.0)
        for calls in self.calls:
            free = [each for each in calls if each in least]
            whole = sum(least[each] for each in free)
            for each in free:
                found[each] += 1 / whole
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


@dataclass(frozen=True)
class _Prices:
    """What choices cost: the seconds that were measured, and those that stated costs stand for.

    The choice of least cost tells what its cost stands for, or the one that would be taken
    unmeasured; where neither was measured, the fastest of those that were is thought to cost the
    least. All workloads that were measured together tell it for the others.
    """

    times: MeasuredTimes
    known: Mapping[Workload, tuple[float, float]]
    """A cost and the seconds that it stands for, of each measured workload."""
    usual: tuple[float, float]

    @classmethod
    def of(
        cls,
        offers: Mapping[Workload, Sequence[Offer]],
        times: MeasuredTimes,
        unmeasured: Mapping[Workload, Offer],
    ) -> _Prices:
        """The prices of offers, of which the `unmeasured` would be taken by cost; costs where
        nothing was measured.
        """
        known: dict[Workload, tuple[float, float]] = {}
        for each, seconds in times.items():
            least = min(offers[each], key=lambda offer: offer.cost)
            works = [
                offer for offer in (least, unmeasured[each]) if seconds.get(offer.choice, inf) < inf
            ]
            offer = next(iter(works), None)
            fastest = min(seconds.values())
            known[each] = (
                (offer.cost[0], seconds[offer.choice]) if offer else (least.cost[0], fastest)
            )
        if not known:
            return cls(times, known, (1.0, 1.0))
        cost, stands_for = (sum(part) for part in zip(*known.values(), strict=True))
        return cls(times, known, (cost, stands_for))

    def by_form(self, workload: Workload, offers: Sequence[Offer]) -> dict[SharedForm, Offer]:
        """The best of a workload's offers in each form, with seconds for costs: what was measured
        comes before what was not.
        """
        seconds = self.times.get(workload, {})
        cost, stands_for = self.known.get(workload, self.usual)
        found: dict[SharedForm, tuple[bool, Offer]] = {}
        for offer in offers:
            measured = [choice for choice in seconds if choice in offer.choices]
            choice = min(measured, key=seconds.__getitem__, default=offer.choice)
            price = seconds[choice] if measured else stands_for * (offer.cost[0] / cost)
            priced = replace(offer, cost=(price, *offer.cost[1:]), choice=choice)
            known = found.get(offer.form)
            if known is None or (not measured, priced.cost) < (known[0], known[1].cost):
                found[offer.form] = not measured, priced
        return {form: offer for form, (_, offer) in found.items()}


@dataclass(frozen=True)
class _Place:
    """What workloads that take the same weight may take: columns of an offer for each, packed alike
    and, for images of one size, in one form.

    `scales` are what a unit of each one's cost adds, `known` its measured seconds; `unmeasured` is
    what they would take by cost, None where nothing at all was measured.
    """

    group: tuple[Workload, ...]
    columns: list[list[Offer]]
    scales: list[float]
    known: list[Mapping[Choice, float]]
    unmeasured: list[Choice] | None

    @property
    def is_compared(self) -> bool:
        """Whether what they would take unmeasured was measured of all."""
        return self.unmeasured is not None and self._measured(self.unmeasured) == len(self.group)

    @property
    def compared(self) -> list[list[Offer]]:
        """The columns of which all was measured."""
        return [c for c in self.columns if self._measured(o.choice for o in c) == len(self.group)]

    def rank(self, column: Sequence[Offer]) -> tuple[float, int, list[tuple[float, ...]]]:
        """The order of preference of columns, best first: the least cost, the most measured
        choices, and what breaks ties of cost.
        """
        pairs = zip(self.scales, column, strict=True)
        cost = sum(scale * offer.cost[0] for scale, offer in pairs)
        measured = self._measured(offer.choice for offer in column)
        return cost, -measured, [offer.cost for offer in column]

    def _measured(self, choices: Iterable[Choice]) -> int:
        """How many of the choices, one for each workload, were measured and work."""
        pairs = zip(choices, self.known, strict=True)
        return sum(seconds.get(choice, inf) < inf for choice, seconds in pairs)


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
    by_size: dict[Shape, list[Plan]] = {}
    for plan in plans:
        by_size.setdefault(plan.input, []).append(plan)
    of_one_size = tuple(place for some in by_size.values() for place in _alike(some))
    return Allotment(
        calls=calls,
        alike=_alike(plans),
        of_one_size=of_one_size,
        offers=offers,
        budget=budget,
    )


def _columns(
    parts: Sequence[tuple[Workload, ...]],
    priced: Mapping[Workload, Mapping[SharedForm, Offer]],
) -> list[dict[Workload, Offer]]:
    """What workloads that take the same weight may take, packed alike: those of each part in one
    form.
    """
    found: list[dict[Packing | None, list[SharedForm]]] = []
    for part in parts:
        first, *others = (priced[each] for each in part)
        forms: dict[Packing | None, list[SharedForm]] = {}
        for form in first:
            if all(form in each for each in others):
                forms.setdefault(form.packing, []).append(form)
        found.append(forms)
    return [
        {each: priced[each][form] for part, form in zip(parts, taken, strict=True) for each in part}
        for packing in found[0]
        for taken in product(*(forms.get(packing, []) for forms in found))
    ]


def _alike(plans: Sequence[Plan]) -> tuple[tuple[Workload, ...], ...]:
    """The workloads that take one weight, of each weight of plans of one net."""
    found: dict[str, dict[Workload, None]] = {}
    for step in (step for plan in plans for step in plan.steps if step.weights):
        found.setdefault(step.weights[0], {})[step.workload] = None
    return tuple(map(tuple, found.values()))


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
        by_form: dict[SharedForm, list[tuple[Cost, Choice]]] = {}
        for knobs in algorithm.knobs():
            form = SharedForm(algorithm.packing(knobs), algorithm.arithmetic(knobs))
            costs = by_form.setdefault(form, [])
            costs.append((algorithm.cost(knobs), algorithm.choice(knobs)))
        errors = [algorithm.error_with(weight) for weight in weights] if by_form else []
        error = max(errors, default=algorithm.error)
        for form, costs in by_form.items():
            cost, choice = min(costs, key=lambda each: each[0])
            yield Offer(cost, error, choice, form, frozenset(choice for _, choice in costs))

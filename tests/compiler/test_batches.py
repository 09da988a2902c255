"""Several batches in one artifact: kernels that are chosen together want weights packed alike, and
round alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from tests.support.nets import graph_of
from vggc.compiler.choose import kernels_for
from vggc.compiler.error_budget import (
    MAX_ERROR,
    Allotment,
    MeasuredTimes,
    Offer,
    allotment,
)
from vggc.compiler.packing import packings
from vggc.compiler.pipeline import name_of, require_same_weights
from vggc.compiler.relax import with_kernels
from vggc.compiler.targets import resolve
from vggc.ir.graph import Graph
from vggc.kernels.workloads import Choice, Workload
from vggc.passes.dense import dense_at
from vggc.passes.prepare import prepared
from vggc.plan.plan import Plan
from vggc.program import load, zoo
from vggc.runtime.artifact import Target
from vggc.runtime.plans import plan_for, plans_for
from vggc.support.precision import ArtifactPrecision

CPU = resolve("cpu", mcpu="cooperlake")
"""A CPU that multiplies in every precision of CPUs."""
CUDA = resolve("cuda")
FORMS: list[tuple[Target, ArtifactPrecision]] = [
    (CPU, "float32"),
    (CPU, "bfloat16"),
    (CPU, "int8"),
    (CUDA, "float32"),
    (CUDA, "float16"),
    (CUDA, "int8"),
    (CUDA, "tf32"),
]
BATCHES = (1, 3, 40)
ODD = "conv3-24 | conv5-20 stride=2 | conv3-40 | pool | conv1-4 groups=4 | conv3-72 | fc-33 ×2"
"""Widths that are no multiples of tiles, and maps of few pixels, whose tiles are others."""


def plans(
    graph: Graph,
    target: Target,
    precision: ArtifactPrecision,
    batches: Sequence[int] = BATCHES,
) -> list[Plan]:
    return [plan_for(graph, batch, target, precision) for batch in batches]


def chosen(may: Allotment, times: MeasuredTimes) -> dict[Workload, Offer]:
    """What is chosen, as it was offered."""
    return {work: offered(may, work, choice) for work, choice in may.chosen(times).items()}


def offered(may: Allotment, work: Workload, choice: Choice) -> Offer:
    return next(offer for offer in may.offers[work] if choice in offer.choices)


def places(may: Allotment) -> list[tuple[Workload, ...]]:
    """The workloads of all batches that take one weight, and leave a choice."""
    return [place for place in zip(*may.calls, strict=True) if place[0] in may.offers]


@pytest.mark.parametrize(("target", "precision"), FORMS)
def test_kernels_of_all_batches_read_the_same_weights(
    target: Target, precision: ArtifactPrecision
) -> None:
    """Of kernels that leave no choice, too."""
    calls = {str(plan.batch): plan for plan in plans(graph_of(ODD), target, precision)}
    may = allotment([*calls.values()], target, MAX_ERROR)
    assert packings(with_kernels(calls, kernels_for(target, may.by_cost.get)).values())


@pytest.mark.parametrize(("target", "precision"), FORMS)
def test_kernels_for_crops_and_for_whole_images_read_the_same_weights(
    target: Target, precision: ArtifactPrecision
) -> None:
    """A fully-connected layer's weight is that of the convolution that slides."""
    text = "conv3-24 | conv5-20 stride=2 | conv3-40 | pool | fc-33 ×2 | fc-10 | softmax"
    net = graph_of(text, "3x24x28")
    graphs = [prepared(each) for each in (net, dense_at(net, (31, 44)).graph)]
    made = plans_for(graphs, (1, 3), target, precision)
    require_same_weights(made)
    may = allotment(made, target, MAX_ERROR)
    calls = with_kernels(
        {name_of(plan): plan for plan in made}, kernels_for(target, may.by_cost.get)
    )
    assert packings(calls.values())


IN_EVERY_FORM = ("vgg16_gap", "alexnet", "resnet18", "mobilenet_v1")
"""Nets of the zoo that have layers of all kinds that take weights and leave a choice: windows of
3×3 and others, steps, groups, one channel each, 1×1, fully-connected ones.
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", range(len(FORMS)), ids=lambda n: f"{FORMS[n][0].kind}-{FORMS[n][1]}"
)
def test_layers_of_the_zoo_have_a_packing_that_all_batches_read(number: int) -> None:
    """Each net in some form, and some nets in every form."""
    target, precision = FORMS[number]
    seen: set[Workload] = set()
    for name in (*IN_EVERY_FORM, *zoo()[number :: len(FORMS)]):
        calls = plans(load(name).graph, target, precision, (1, 40))
        new = [i for i, step in enumerate(calls[0].steps) if step.workload not in seen]
        seen |= {step.workload for step in calls[0].steps}
        only = [replace(plan, steps=tuple(plan.steps[i] for i in new)) for plan in calls]
        may = allotment(only, target, MAX_ERROR)
        found = chosen(may, {})
        for place in places(may):
            assert len({found[work].form for work in place}) == 1, place


@pytest.mark.parametrize(("target", "precision"), [FORMS[0], FORMS[4]])
def test_the_common_packing_is_the_one_of_the_least_relative_cost(
    target: Target, precision: ArtifactPrecision
) -> None:
    graph = graph_of("conv3-64 ×2 | pool | conv3-128 | pool | fc-256 ×2", "3x16x16")
    may = allotment(plans(graph, target, precision), target, MAX_ERROR)
    found = chosen(may, {})
    own = [allotment([plan], target, MAX_ERROR) for plan in plans(graph, target, precision)]
    least = [
        sum(chosen(one, {})[work].cost[0] for work in one.calls[0] if work in one.offers)
        for one in own
    ]

    def relative(offers: Sequence[Offer]) -> float:
        """What a layer adds to the time of each batch, relative to the whole net by itself."""
        return sum(each.cost[0] / whole for each, whole in zip(offers, least, strict=True))

    for place in places(may):
        within = [[o for o in may.offers[work] if o.error <= may.share] for work in place]
        alike = [
            offers
            for offers in product(*within)
            if all(offer.form == offers[0].form for offer in offers)
        ]
        taken = relative([found[work] for work in place])
        assert taken == pytest.approx(min(map(relative, alike)), rel=1e-12)


@pytest.mark.parametrize("budget", [0, 1e-6, 5e-6, 1e-5])
def test_each_batch_keeps_to_the_error_of_the_net(budget: float) -> None:
    may = allotment(plans(load("tiny_vgg").graph, CPU, "float32"), CPU, budget)
    fast = {
        work: {offer.choice: 1.0}
        for work, offers in may.offers.items()
        for offer in offers
        if offer.choice.algorithm == "winograd6"
    }
    for times in ({}, fast):
        found = chosen(may, times)
        for calls in may.calls:
            added = sum(found[work].error ** 2 for work in calls if work in found)
            assert added <= budget**2


@pytest.fixture
def dense() -> tuple[Allotment, tuple[Workload, ...]]:
    """A layer that reads its weight in several layouts, for one image and for four."""
    graph = graph_of("fc-256", "256x1x1")
    calls = [plan_for(graph, batch, CPU, "float32") for batch in (1, 4)]
    may = allotment(calls, CPU, MAX_ERROR)
    (place,) = places(may)
    return may, place


Dense = tuple[Allotment, tuple[Workload, ...]]


def test_a_measured_choice_of_one_batch_decides_for_those_that_were_not_measured(
    dense: Dense,
) -> None:
    may, (one, four) = dense
    now = chosen(may, {})
    costs = {offer.form: offer.cost[0] for offer in may.offers[four]}
    others = [offer for offer in may.offers[one] if offer.form in costs]
    for fast in (each for each in others if each.form != now[one].form):
        found = may.chosen({one: {now[one].choice: 1.0, fast.choice: 1e-6}})
        assert found[one] == fast.choice
        assert offered(may, four, found[four]).form == fast.form
        barely = may.chosen({one: {now[one].choice: 1.0, fast.choice: 1 - 1e-6}})
        loses_more = costs[fast.form] > 1.01 * now[four].cost[0]
        assert not loses_more or barely == may.by_cost


def test_of_choices_that_were_measured_for_all_batches_the_least_sum_is_taken(
    dense: Dense,
) -> None:
    """Relative to the time of each batch; however fast one of them is in another form."""
    may, place = dense
    unmeasured = may.chosen({})
    common = [
        [next((o for o in may.offers[work] if o.form == offer.form), None) for work in place]
        for offer in may.offers[place[0]]
    ]
    columns = [offers for offers in common if None not in offers]
    assert len(columns) > 4
    rng = np.random.default_rng(0)
    for _ in range(20):
        times: dict[Workload, dict[Choice, float]] = {
            work: {unmeasured[work]: 1.0 + index} for index, work in enumerate(place)
        }
        for number in rng.choice(len(columns), 3, replace=False):
            for work, offer in zip(place, columns[number], strict=True):
                if offer and rng.random() < 0.8:
                    times[work].setdefault(offer.choice, rng.uniform(0.2, 3))
        least = {work: min(seconds.values()) for work, seconds in times.items()}

        def relative(
            choices: Sequence[Choice],
            times: MeasuredTimes = times,
            least: dict[Workload, float] = least,
        ) -> float:
            both = zip(place, choices, strict=True)
            return sum(times[work][choice] / least[work] for work, choice in both)

        measured = [
            relative([offer.choice for offer in offers if offer])
            for offers in columns
            if all(o and o.choice in times[work] for o, work in zip(offers, place, strict=True))
        ]
        found = may.chosen(times)
        assert relative([found[work] for work in place]) == pytest.approx(min(measured))
        assert relative([found[work] for work in place]) <= relative([*unmeasured.values()])


def test_kernels_that_round_otherwise_are_not_taken_together(dense: Dense) -> None:
    """Even where one packing is read by both."""
    may, (one, four) = dense
    made = may.by_cost
    sums = {one: ["one", "two"], four: ["two", "four"]}

    def split(work: Workload) -> tuple[Offer, ...]:
        offer = offered(may, work, made[work])
        return tuple(
            replace(
                offer,
                cost=(1.0 + number, 0.0),
                form=replace(offer.form, arithmetic=arithmetic),
                choice=Choice(arithmetic, ()),
                choices=frozenset([Choice(arithmetic, ())]),
            )
            for number, arithmetic in enumerate(sorted(sums[work], key="two".__eq__))
        )

    apart = replace(may, offers={work: split(work) for work in (one, four)})
    assert apart.by_cost == {one: Choice("two", ()), four: Choice("two", ())}
    assert allotment_of_one(apart, one).by_cost == {one: Choice("one", ())}


def allotment_of_one(may: Allotment, work: Workload) -> Allotment:
    alone = {work: may.offers[work]}
    return replace(may, calls=((work,),), alike=(), of_one_size=(), offers=alone)

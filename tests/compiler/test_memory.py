"""Values of a plan share one piece of memory, and no byte of it while both are alive."""

from __future__ import annotations

from itertools import combinations

import pytest

from tests.support.nets import graph_of
from vggc.compiler.memory import Lifetime, Placement, lifetimes, most_alive, placed
from vggc.compiler.targets import resolve
from vggc.program import load, zoo
from vggc.runtime.plans import plan_for
from vggc.support.tensors import ALIGNMENT

CPU = resolve("cpu", mcpu="haswell")


def require_apart(values: tuple[Lifetime, ...], found: Placement) -> None:
    """That each value lies in the arena, and no two that are alive at once overlap."""
    spans = [
        (offset, offset + value.bytes) for offset, value in zip(found.offsets, values, strict=True)
    ]
    assert all(0 <= start <= end <= found.bytes for start, end in spans)
    assert all(start % ALIGNMENT == 0 for start, _ in spans)
    for (a, one), (b, other) in combinations(zip(values, spans, strict=True), 2):
        assert not a.meets(b) or one[1] <= other[0] or other[1] <= one[0], (a, b)


@pytest.mark.parametrize("name", sorted(zoo()))
def test_values_of_every_net_lie_apart_in_little_more_than_what_lives_at_once(name: str) -> None:
    for batch in (1, 8):
        values = lifetimes(plan_for(load(name).graph, batch, CPU, "float32"))
        found = placed(values)
        require_apart(values, found)
        assert found.bytes <= 1.2 * most_alive(values)


def test_a_value_lives_from_its_call_to_its_last_reader() -> None:
    """Of a join's values the first waits for the second; a head's stays to the end."""
    graph = graph_of("conv3-8 | add(conv3-8 act=none, conv1-8 act=none) | pool | fc-4", "3x8x8")
    plan = plan_for(graph, 1, CPU, "float32")
    names = [step.name for step in plan.steps]
    lives = dict(zip(names, lifetimes(plan), strict=True))
    readers = {
        name: [n for n, step in enumerate(plan.steps) if number in step.reads]
        for number, name in enumerate(names)
    }
    for number, name in enumerate(names[:-1]):
        assert lives[name].first == number
        assert lives[name].last == max(readers[name])
    assert lives[names[-1]].last == len(names)


def test_what_is_read_by_no_one_still_has_its_place() -> None:
    values = (Lifetime(100, 0, 0), Lifetime(64, 0, 2), Lifetime(1, 1, 2), Lifetime(128, 2, 2))
    found = placed(values)
    require_apart(values, found)
    assert found.bytes == 256


def test_an_empty_plan_takes_nothing() -> None:
    assert placed(()) == Placement((), 0)

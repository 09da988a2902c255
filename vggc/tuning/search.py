"""Which choices to measure next."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import zip_longest

from vggc.kernels.workloads import Choice
from vggc.tuning.database import KnownTimes
from vggc.tuning.space import Space, Task

TRUSTED = 16
"""So many of least stated cost are measured before what was measured leads the search."""


def proposals(
    task: Task,
    measured: KnownTimes,
    taken: Collection[Choice] = (),
    wanted: Collection[Choice] = (),
    joint: Choice | None = None,
) -> Iterator[Choice]:
    """Every choice of a task that is not measured yet, in the order in which it is worth it.

    First the default, and what is `wanted` for other batches; then others of least stated cost: the
    best of each other algorithm, and of each part that a net may be restricted to; then others of
    small cost; then the neighbours of the fastest, and of the `joint` choice of several batches;
    then the rest, as MetaSchedule samples it.
    """
    known = {*measured.seconds, *taken}
    for choice in _in_order(task, measured, wanted, joint):
        if choice not in known:
            known.add(choice)
            yield choice
    space = Space(task)
    while rest := [choice for choice in task.choices if choice not in known]:
        choice = space.draw(rest, seed=len(known) + 1)
        known.add(choice)
        yield choice


def _in_order(
    task: Task, measured: KnownTimes, wanted: Collection[Choice], joint: Choice | None
) -> Iterator[Choice]:
    yield task.choices[0]
    offered = {*task.choices}
    yield from (choice for choice in wanted if choice in offered)
    yield from task.firsts
    yield from task.choices[:TRUSTED]
    for best in dict.fromkeys((joint, measured.best(task.choices))):
        if best is not None:
            yield from neighbours(best, task.choices)


def neighbours(choice: Choice, among: Collection[Choice]) -> list[Choice]:
    """The choices of the same algorithm that differ in one knob, for each knob the nearest
    first.
    """
    near: dict[str, list[tuple[int, Choice]]] = {}
    for other in among:
        if other.algorithm == choice.algorithm:
            pairs = zip(choice.knobs, other.knobs, strict=True)
            differing = [(knob, abs(b - a)) for (knob, a), (_, b) in pairs if a != b]
            if len(differing) == 1:
                ((knob, distance),) = differing
                near.setdefault(knob, []).append((distance, other))
    by_knob = [sorted(others, key=lambda pair: pair[0]) for others in near.values()]
    turns = zip_longest(*by_knob)
    return [pair[1] for turn in turns for pair in turn if pair is not None]

"""Where the values of a plan lie while it runs: all in one piece of memory, the arena."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from vggc.kernels.workloads import buffer_shape, round_up, storage
from vggc.plan.plan import INPUT, Plan
from vggc.support.tensors import ALIGNMENT


@dataclass(frozen=True)
class Lifetime:
    """A value of so many bytes that is written by the call `first` and read by `last` at the
    latest; both calls are parts of its life.
    """

    bytes: int
    first: int
    last: int

    def meets(self, other: Lifetime) -> bool:
        """Whether both are alive during some call."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Placement:
    """Where values lie in an arena of so many bytes: the first byte of each, a multiple of
    `ALIGNMENT`.
    """

    offsets: tuple[int, ...]
    bytes: int


def lifetimes(plan: Plan) -> tuple[Lifetime, ...]:
    """The life of each step's value; those that heads give live until all is computed."""
    end = len(plan.steps)
    last = list(range(end))
    for number, step in enumerate(plan.steps):
        for read in step.reads:
            if read != INPUT:
                last[read] = number
    for output in plan.outputs:
        last[output.step] = end
    return tuple(
        Lifetime(prod(buffer_shape(y)) * np.dtype(storage(y)).itemsize, number, last[number])
        for number, y in enumerate(step.output for step in plan.steps)
    )


def placed(values: Sequence[Lifetime]) -> Placement:
    """A place for each value, so that no two that are alive at once share a byte.

    The largest is placed first, each as low as those that were placed before it let it.
    Source: Pisarchyk and Lee 2020, "Efficient Memory Management for Deep Neural Net Inference",
    greedy by size.
    """
    offsets: dict[int, int] = {}
    for number in sorted(range(len(values)), key=lambda number: -values[number].bytes):
        value, offset = values[number], 0
        taken = sorted(
            (start, start + _whole(values[other].bytes))
            for other, start in offsets.items()
            if values[other].meets(value)
        )
        for start, end in taken:
            if offset + _whole(value.bytes) <= start:
                break
            offset = max(offset, end)
        offsets[number] = offset
    ends = [offset + _whole(values[number].bytes) for number, offset in offsets.items()]
    return Placement(tuple(offsets[number] for number in range(len(values))), max(ends, default=0))


def most_alive(values: Sequence[Lifetime]) -> int:
    """The most bytes that live during one call, below which no arena can be."""
    calls = {value.first for value in values}
    return max(
        (
            sum(_whole(value.bytes) for value in values if value.first <= call <= value.last)
            for call in calls
        ),
        default=0,
    )


def _whole(size: int) -> int:
    """A size in bytes as it is taken, a multiple of `ALIGNMENT`."""
    return round_up(size, ALIGNMENT)

"""Where the values of a plan lie while it runs: all in one piece of memory, the arena."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from math import prod

import numpy as np

from vggc.kernels.workloads import Concat, buffer_shape, round_up, storage
from vggc.plan.plan import INPUT, Plan
from vggc.support.tensors import ALIGNMENT


@dataclass(frozen=True)
class Lifetime:
    """A piece of memory of so many bytes that is written by the call `first` and read by `last` at
    the latest; both calls are parts of its life.
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


def pieces(plan: Plan) -> tuple[int, ...]:
    """The number of the piece of memory that each step's value lies in: a new one for each but a
    concatenation that grows.
    """
    found: list[int] = []
    numbers = count()
    for step in plan.steps:
        grows = isinstance(step.workload, Concat) and step.workload.grows
        found.append(found[step.reads[0]] if grows else next(numbers))
    return tuple(found)


def lifetimes(plan: Plan) -> tuple[Lifetime, ...]:
    """The life of each piece of memory, which is that of the values in it; what heads give lives
    until all is computed.
    """
    of_step = pieces(plan)
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for number, (step, piece) in enumerate(zip(plan.steps, of_step, strict=True)):
        y = step.output
        sizes[piece] = prod(buffer_shape(y)) * np.dtype(storage(y)).itemsize
        first.setdefault(piece, number)
        last[piece] = number
        for read in step.reads:
            if read != INPUT:
                last[of_step[read]] = number
    for output in plan.outputs:
        last[of_step[output.step]] = len(plan.steps)
    return tuple(Lifetime(sizes[piece], first[piece], last[piece]) for piece in first)


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

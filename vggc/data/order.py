"""Which images come when, and to whom: functions of the seed and of the place in the training.

A step is of all processes together. Whoever resumes, with as many processes or others, finds
the same steps. Each image comes once an epoch, or each class as often as any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vggc.data.draws import Stream, generator
from vggc.data.stores import Numbers


@dataclass(frozen=True)
class Share:
    """The part of the work that one of `size` processes does, by its `rank` among them."""

    rank: int = 0
    size: int = 1

    def rows(self, total: int) -> slice:
        """The process's part of things in a row: whole pairs, nearly as many as every other has."""
        pairs = part_of(-(-total // 2), self.rank, self.size)
        return slice(2 * pairs.start, min(2 * pairs.stop, total))


@dataclass(frozen=True, eq=False)
class Classes:
    """The images of each class, by their places."""

    members: tuple[Numbers, ...]

    @classmethod
    def of(cls, labels: Numbers) -> Classes:
        """The classes of images with these `labels` (N,); one without images is left out."""
        return cls(tuple(np.flatnonzero(labels == label) for label in np.unique(labels)))


@dataclass(frozen=True)
class Order:
    """The order in which a training takes `num_images` images, at most `batch` a step.

    An epoch has as many images as there are. With `classes` it takes each class equally often, to
    within one, and so do all epochs together; images of a class come in rounds, each in an order of
    its own, that go on from epoch to epoch: those of a small class several times an epoch, those of
    a large one not in each.
    """

    num_images: int
    batch: int
    seed: int
    classes: Classes | None = None

    @property
    def num_batches(self) -> int:
        """Steps in an epoch: as few as hold all images, nearly equal, none above `batch`."""
        return -(-self.num_images // self.batch)

    def place(self, step: int) -> tuple[int, int]:
        """The epoch and the step within it, both from 0, of a step of the whole training."""
        return divmod(step, self.num_batches)

    def size(self, step: int) -> int:
        """How many images a step of the whole training has."""
        _, within = self.place(step)
        part = part_of(self.num_images, within, self.num_batches)
        return int(part.stop - part.start)

    def indices(self, epoch: int, step: int) -> Numbers:
        """The images of one step."""
        if self.classes is None:
            order = shuffled(self.num_images, self.seed, epoch)
        else:
            order = balanced(self.classes, self.num_images, self.seed, epoch)
        return order[part_of(self.num_images, step, self.num_batches)]


def part_of(total: int, index: int, parts: int) -> slice:
    """One of several nearly equal parts of so many things in a row; the first are the larger."""
    least, more = divmod(total, parts)
    start = index * least + min(index, more)
    return slice(start, start + least + (index < more))


@lru_cache(2)
def shuffled(count: int, seed: int, epoch: int) -> Numbers:
    """The numbers below `count` in the random order of an epoch."""
    return generator(seed, Stream.ORDER, epoch).permutation(count)


@lru_cache(2)
def balanced(classes: Classes, count: int, seed: int, epoch: int) -> Numbers:
    """The images of an epoch that takes each class equally often."""
    turns, which = np.divmod(np.arange(epoch * count, (epoch + 1) * count), len(classes.members))
    chosen = np.empty(count, np.int64)
    for index, members in enumerate(classes.members):
        mine = which == index
        chosen[mine] = in_rounds(members, turns[mine], seed, index)
    return chosen[shuffled(count, seed, epoch)]


LEAST_DRAWN = 1024
"""Rounds of small classes are drawn together, at least so many images at a time."""


def in_rounds(members: Numbers, turns: Numbers, seed: int, index: int) -> Numbers:
    """The images at these turns, from 0, of a class: all in some order, all in another, and on."""
    rounds = -(-LEAST_DRAWN // len(members))
    chunks, within = np.divmod(turns, rounds * len(members))
    found = np.empty_like(turns)
    for chunk in np.unique(chunks):
        draws = generator(seed, Stream.BALANCE, index, int(chunk)).random((rounds, len(members)))
        places = draws.argsort(axis=1, kind="stable").ravel()
        found[chunks == chunk] = members[places[within[chunks == chunk]]]
    return found

"""Which images come when, and to whom: functions of the seed and of the place in the training.

A step is of all processes together. Whoever resumes, with as many processes or others, finds
the same steps; each image comes once an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from vggc.data.draws import Stream, generator
from vggc.data.stores import Numbers


@dataclass(frozen=True)
class Share:
    """The part of the work that one of `size` processes does, by its `rank` among them."""

    rank: int = 0
    size: int = 1

    def rows(self, total: int) -> slice:
        """Its part of so many things in a row: nearly as many as everyone's, and whole pairs."""
        pairs = part_of(-(-total // 2), self.rank, self.size)
        return slice(2 * pairs.start, min(2 * pairs.stop, total))


@dataclass(frozen=True)
class Order:
    """The order in which a training takes `num_images` images, at most `batch` a step."""

    num_images: int
    batch: int
    seed: int

    @property
    def num_batches(self) -> int:
        """Steps in an epoch: as few as hold all images, nearly equal, none above `batch`."""
        return -(-self.num_images // self.batch)

    def place(self, step: int) -> tuple[int, int]:
        """The epoch and the step within it, both from 0, of a step of the whole training."""
        return divmod(step, self.num_batches)

    def indices(self, epoch: int, step: int) -> Numbers:
        """The images of one step."""
        order = shuffled(self.num_images, self.seed, epoch)
        return order[part_of(self.num_images, step, self.num_batches)]


def part_of(total: int, index: int, parts: int) -> slice:
    """One of several nearly equal parts of so many things in a row; the first are the larger."""
    least, more = divmod(total, parts)
    start = index * least + min(index, more)
    return slice(start, start + least + (index < more))


@lru_cache(2)
def shuffled(count: int, seed: int, epoch: int) -> Numbers:
    return generator(seed, Stream.ORDER, epoch).permutation(count)

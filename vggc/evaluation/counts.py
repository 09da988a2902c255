"""How often nets were wrong."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vggc.training.parallel import World

BEST = 5


@dataclass(frozen=True)
class Errors:
    """The shares of images whose class was not the first guess, and not among the first five."""

    top1: float
    top5: float


@dataclass(frozen=True)
class AllErrors:
    """The errors of each net, and of those together that are fused, where they are several."""

    each: tuple[Errors, ...]
    fused: Errors | None


class Counts:
    """Images, and how often the first guess and one of the first five was right: of each net,
    and, where several are `fused`, the first so many, of the mean of their probabilities.
    """

    def __init__(self, num_nets: int, fused: int) -> None:
        self.num_nets, self.fused = num_nets, fused
        self.images = 0
        self.right = torch.zeros(num_nets + (fused > 1), 2, dtype=torch.int64)

    def add(self, probabilities: Tensor, label: int) -> None:
        """Counts an image by its probabilities (nets, classes)."""
        if self.fused > 1:
            together = probabilities[: self.fused].mean(0, keepdim=True)
            probabilities = torch.cat([probabilities, together])
        before = num_before(probabilities, label)
        self.images += 1
        self.right += torch.stack([before < 1, before < BEST], dim=1)

    def summed(self, world: World) -> Counts:
        """The counts of all processes together."""
        images, *right = world.sums([self.images, *self.right.flatten().tolist()])
        counts = Counts(self.num_nets, self.fused)
        counts.images = int(images)
        counts.right = torch.tensor(right, dtype=torch.int64).view_as(self.right)
        return counts

    def errors(self) -> AllErrors:
        """The shares of images that were wrong."""
        wrong = (self.images - self.right).tolist()
        found = [Errors(top1 / self.images, top5 / self.images) for top1, top5 in wrong]
        return AllErrors(tuple(found[: self.num_nets]), found[-1] if self.fused > 1 else None)


def num_before(probabilities: Tensor, label: int) -> Tensor:
    """How many classes come before one, (nets,); of equally probable ones the first first."""
    own = probabilities[:, label, None]
    above = (probabilities > own).sum(1)
    return above + (probabilities[:, :label] == own).sum(1)

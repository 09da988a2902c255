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


class Counts:
    """Images, and how often the first guess and one of the first five was right: of each net,
    and, where there are several, of the mean of their probabilities.
    """

    def __init__(self, num_nets: int) -> None:
        self.num_nets = num_nets
        self.images = 0
        self.right = torch.zeros(num_nets + (num_nets > 1), 2, dtype=torch.int64)

    def add(self, probabilities: Tensor, label: int) -> None:
        """Counts an image by its probabilities (nets, classes)."""
        if self.num_nets > 1:
            probabilities = torch.cat([probabilities, probabilities.mean(0, keepdim=True)])
        before = num_before(probabilities, label)
        self.images += 1
        self.right += torch.stack([before < 1, before < BEST], dim=1)

    def summed(self, world: World) -> Counts:
        """The counts of all processes together."""
        images, *right = world.sums([self.images, *self.right.flatten().tolist()])
        counts = Counts(self.num_nets)
        counts.images = int(images)
        counts.right = torch.tensor(right, dtype=torch.int64).view_as(self.right)
        return counts

    def errors(self) -> list[Errors]:
        """Of each net, and last of all together where they are several."""
        wrong = (self.images - self.right).tolist()
        return [Errors(top1 / self.images, top5 / self.images) for top1, top5 in wrong]


def num_before(probabilities: Tensor, label: int) -> Tensor:
    """How many classes come before one, (nets,); of equally probable ones the first first."""
    own = probabilities[:, label, None]
    above = (probabilities > own).sum(1)
    return above + (probabilities[:, :label] == own).sum(1)

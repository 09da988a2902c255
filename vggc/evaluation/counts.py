"""How often nets were wrong, and what they took each image for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vggc.data.stores import Numbers
from vggc.training.parallel import World

BEST = 5
UNREAD = -1
"""The guess of an image that could not be read."""


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
        before = num_before(together(probabilities, self.fused), label)
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


class Guesses:
    """The first guess for each of so many images and its probability: of each net, and of all
    together where they are several.

    `classes` (nets, images) holds UNREAD, and `probabilities` 0, until an image has been added.
    """

    def __init__(self, num_nets: int, num_images: int) -> None:
        shape = num_nets + (num_nets > 1), num_images
        self.classes: Numbers = np.full(shape, UNREAD, np.int64)
        self.probabilities: npt.NDArray[np.float64] = np.zeros(shape)

    def add(self, index: int, probabilities: Tensor) -> None:
        """Notes what the image at a place was taken for, by its probabilities (nets, classes)."""
        values = together(probabilities, len(probabilities)).numpy()
        best = values.argmax(1)
        self.classes[:, index] = best
        self.probabilities[:, index] = values[np.arange(len(best)), best]

    def summed(self, world: World) -> Guesses:
        """The guesses of all processes, no two of which have looked at the same image."""
        guesses = Guesses(0, 0)
        shape = self.classes.shape
        found = world.sums((self.classes - UNREAD).ravel().tolist())
        guesses.classes = np.asarray(found, np.int64).reshape(shape) + UNREAD
        sure = world.sums(self.probabilities.ravel().tolist())
        guesses.probabilities = np.asarray(sure, np.float64).reshape(shape)
        return guesses


def together(probabilities: Tensor, fused: int) -> Tensor:
    """The probabilities of each net (nets, classes), and behind them, where the first `fused` are
    several, the mean of those.
    """
    if fused == 1:
        return probabilities
    return torch.cat([probabilities, probabilities[:fused].mean(0, keepdim=True)])


def num_before(probabilities: Tensor, label: int) -> Tensor:
    """How many classes come before one, (nets,); of equally probable ones the first first."""
    own = probabilities[:, label, None]
    above = (probabilities > own).sum(1)
    return above + (probabilities[:, :label] == own).sum(1)

"""How a net fares with each class, and which it takes for which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np

from vggc.data.stores import Numbers
from vggc.evaluation.counts import UNREAD


@dataclass(frozen=True)
class ClassScore:
    """A class: `support` counts its images, `predicted` those that were taken for it, `correct`
    those that are among both. What is a share of nothing is None: `precision` where none were
    taken for it, `recall` and `f1` where it has no images.

    `taken_for` is the class that most of its other images were taken for, the first of several.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    predicted: int
    correct: int
    taken_for: str | None


@dataclass(frozen=True)
class ClassScores:
    """All classes in their order. `confusion[i, j]` counts the images of class i that were taken
    for class j.
    """

    scores: tuple[ClassScore, ...]
    confusion: Numbers

    @property
    def mean_recall(self) -> float:
        """Over the classes that have images; accuracy as it would be with as many of each."""
        return mean([score.recall for score in self.scores])

    @property
    def mean_f1(self) -> float:
        """Over the classes that have images."""
        return mean([score.f1 for score in self.scores])

    @property
    def worst_first(self) -> list[ClassScore]:
        """By recall; of as much recall the one with more images first, those without any last."""
        return sorted(
            self.scores, key=lambda score: (score.recall is None, score.recall, -score.support)
        )


def class_scores(labels: Numbers, guesses: Numbers, names: Sequence[str]) -> ClassScores:
    """What came of images (N,), by the numbers of their classes and of what they were taken for;
    those that could not be read do not count, but there are others.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    seen = guesses != UNREAD
    found = labels[seen], guesses[seen]
    every = np.arange(len(names))
    confusion: Numbers = confusion_matrix(*found, labels=every)
    shares: Any = precision_recall_fscore_support(
        *found, labels=every, average=None, zero_division=np.nan
    )
    others = confusion.copy()
    np.fill_diagonal(others, 0)
    taken = others.argmax(1)
    supports, predictions = confusion.sum(1).tolist(), confusion.sum(0).tolist()
    scores = tuple(
        ClassScore(
            name=name,
            precision=defined(shares[0][index]),
            recall=defined(shares[1][index]),
            f1=defined(shares[2][index]) if supports[index] else None,
            support=supports[index],
            predicted=predictions[index],
            correct=int(confusion[index, index]),
            taken_for=names[taken[index]] if others[index].any() else None,
        )
        for index, name in enumerate(names)
    )
    return ClassScores(scores, confusion)


def defined(share: float) -> float | None:
    """A share, or None where it is not a number."""
    return None if isnan(share) else float(share)


def mean(shares: Sequence[float | None]) -> float:
    """The mean of the shares that are defined, of which there must be one."""
    there = [share for share in shares if share is not None]
    return sum(there) / len(there)

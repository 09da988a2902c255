"""Which pictures a linear classifier is trained on, and which it is tested on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vggc.data.find import HELD_OUT
from vggc.data.stores import Numbers
from vggc.features import diagnostics
from vggc.features.read import Features
from vggc.support.diagnostics import UserError


@dataclass(frozen=True)
class ProbeSplit:
    """The rows that are trained on, and those that are tested on."""

    train: Numbers
    test: Numbers


@dataclass(frozen=True)
class SplitOptions:
    """How the user wants pictures to be split: how many splits, how many of a class are trained on
    and at most tested on; None where all are. Drawn by `seed`.
    """

    splits: int = 1
    train_per_class: int | None = None
    test_per_class: int | None = None
    seed: int = 0


def splits_of(features: Features, options: SplitOptions) -> list[ProbeSplit]:
    """The splits of some pictures.

    Where these are of parts they are split so: the part to test on is tested on, or else the part
    to hold out, and all others are trained on. Otherwise a fifth of each class is tested on, drawn
    anew for each split. With a number a class, so many of those to train on are drawn, and the
    others of pictures without parts are tested on.

    Raises:
        UserError: there are too few.
    """
    pools = by_parts(features)
    labels = features.labels
    per_class = options.train_per_class, options.test_per_class
    if labels is None:
        if any(per_class):
            raise UserError(diagnostics.NoSingleClass(str(features.path)))
        labels = np.zeros(len(features), np.int64)
    if pools and not any(per_class):
        if options.splits > 1:
            raise UserError(diagnostics.OneSplit(str(features.path), options.splits))
        return [ProbeSplit(*pools)]
    return [
        drawn(features, labels, pools, options, np.random.default_rng([options.seed, number]))
        for number in range(options.splits)
    ]


def by_parts(features: Features) -> tuple[Numbers, Numbers] | None:
    """The rows to train on and those to test on, by the parts of the pictures; None where they have
    none.

    Raises:
        UserError: none are to be trained on, or none to be tested on.
    """
    if features.parts is None:
        return None
    there = {part.decode() for part in np.unique(features.parts)}
    if there == {""}:
        return None
    tested = next((part for part in ("test", "val") if part in there), "")
    test = np.flatnonzero(features.parts == tested.encode())
    train = np.flatnonzero(features.parts != tested.encode())
    for use, rows in (("train", train), ("test", test)):
        if not len(rows):
            shown = ", ".join(sorted(there - {""}))
            raise UserError(diagnostics.OnePart(str(features.path), use, shown))
    return train, test


def drawn(
    features: Features,
    labels: Numbers,
    pools: tuple[Numbers, Numbers] | None,
    options: SplitOptions,
    generator: np.random.Generator,
) -> ProbeSplit:
    """A split by chance, class by class."""
    train: list[Numbers] = []
    test: list[Numbers] = []
    for number in np.unique(labels).tolist():
        mine = np.flatnonzero(labels == number)
        if pools:
            first, second = (shuffled(np.intersect1d(pool, mine), generator) for pool in pools)
            count = options.train_per_class or len(first)
        else:
            first = second = shuffled(mine, generator)
            count = options.train_per_class or len(mine) - max(1, round(len(mine) / HELD_OUT))
            second = first[count:]
        if len(first) < count or count < 1 or (not pools and len(second) < 1):
            name = features.classes[number]
            raise UserError(
                diagnostics.TooFewOfClass(str(features.path), name, len(first), max(count, 1))
            )
        train.append(first[:count])
        test.append(second[: options.test_per_class])
    return ProbeSplit(np.sort(np.concatenate(train)), np.sort(np.concatenate(test)))


def shuffled(rows: Numbers, generator: np.random.Generator) -> Numbers:
    """The rows in an order by chance."""
    result: npt.NDArray[np.int64] = generator.permutation(rows)
    return result

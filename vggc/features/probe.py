"""What a linear support vector machine makes of features that stay as they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vggc.data.stores import Numbers
from vggc.features import diagnostics
from vggc.features.average_precision import average_precision
from vggc.features.read import Features
from vggc.features.splits import ProbeSplit, SplitOptions, splits_of
from vggc.support.diagnostics import UserError
from vggc.support.memory import memory

USUAL_GRID = (0.01, 0.1, 1.0, 10.0)
MOST_STEPS = 5000
"""So many steps the solver takes at most; it says where they were too few."""
COPIES = 20
"""Bytes that training takes for each feature of a picture: float64, and copies of it."""


@dataclass(frozen=True)
class ProbeOptions:
    """How the user wants features to be probed: the values of C to choose from, in how many folds,
    and how pictures are split.
    """

    grid: tuple[float, ...] = USUAL_GRID
    folds: int = 5
    split: SplitOptions = field(default_factory=SplitOptions)


@dataclass(frozen=True)
class SplitScores:
    """What came of a split: the C that was chosen by its score in each fold's turn, and what the
    classifier with it scored on the pictures to test on, by the names of the measures.
    """

    train: int
    test: int
    c: float
    by_c: Mapping[float, float]
    scores: Mapping[str, float]


@dataclass(frozen=True)
class ProbeResult:
    """What came of all splits; `notes` are whole sentences on what does not show in the scores."""

    classes: int
    width: int
    splits: tuple[SplitScores, ...]
    notes: tuple[str, ...]

    def mean(self, measure: str) -> float:
        """The mean of a measure over the splits."""
        return float(np.mean([each.scores[measure] for each in self.splits]))

    def deviation(self, measure: str) -> float:
        """The standard deviation of a measure over the splits, by one less than they are."""
        values = [each.scores[measure] for each in self.splits]
        return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def together(found: Sequence[Features]) -> Features:
    """The features of the same pictures by several nets, behind one another.

    Raises:
        UserError: they are of other pictures.
    """
    for other in found[1:]:
        if reason := difference(found[0], other):
            raise UserError(diagnostics.OtherPictures(str(found[0].path), str(other.path), reason))
    if len(found) == 1:
        return found[0]
    return replace(found[0], values=np.concatenate([each.values for each in found], 1))


def difference(first: Features, second: Features) -> str | None:
    """How the pictures of two files differ, in words; None where they do not."""
    if len(first) != len(second):
        return f"{len(first):,} pictures in one, {len(second):,} in the other"
    if first.classes != second.classes:
        return f"{len(first.classes)} classes in one, {len(second.classes)} others in the other"
    pairs = {
        "name": (first.names, second.names),
        "part": (first.parts, second.parts),
        "class": (first.labels, second.labels),
    }
    for what, (one, other) in pairs.items():
        if one is not None and other is not None and (differs := one != other).any():
            row = int(differs.argmax())
            pair = f"{told(one[row])} in one, {told(other[row])} in the other"
            return f"the {what} of picture {row + 1:,} is {pair}"
    shown, others = first.multilabels, second.multilabels
    if (shown is None) != (others is None) or (shown is not None and (shown != others).any()):
        return "they show other classes"
    return None


def told(value: Any) -> str:
    """A name or number of a picture in a message."""
    return repr(value.decode("utf-8", "replace")) if isinstance(value, bytes) else str(value)


def probe(
    features: Features, options: ProbeOptions, on_progress: Callable[[int, int], None]
) -> ProbeResult:
    """What a linear SVM, one class against the others, makes of features.

    In each split C is the value whose classifiers score best on the folds of the pictures to train
    on, the least of several. Pictures of one class each are scored by `accuracy` and by
    `mean_accuracy`, that of each class with the same weight, which chooses C; those that may show
    several by `map_eleven` and `map_area`, which chooses C (see `average_precision`).
    Source: Simonyan & Zisserman (2015), appendix B; sklearn.svm.LinearSVC.

    Raises:
        UserError: there are too few pictures, or they do not fit into memory.
    """
    require_memory(features)
    splits = splits_of(features, options.split)
    for each in splits:
        check(features, each, options)
    fits = len(splits) * (1 + (options.folds * len(options.grid) if len(options.grid) > 1 else 0))
    done = iter(range(1, fits + 1))
    on_progress(0, fits)

    def step() -> None:
        on_progress(next(done), fits)

    notes: dict[str, None] = {}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        scores = tuple(scored(features, each, options, step, notes) for each in splits)
    if any("converge" in str(each.message) for each in warned):
        notes[f"Some classifiers were not done after {MOST_STEPS:,} steps: a smaller C is."] = None
    return ProbeResult(len(features.classes), features.values.shape[1], scores, tuple(notes))


def scored(
    features: Features,
    split: ProbeSplit,
    options: ProbeOptions,
    step: Callable[[], None],
    notes: dict[str, None],
) -> SplitScores:
    """What came of a split.

    Raises: UserError where no class can be learnt and scored.
    """
    rater = Rater(features, options.split.seed)
    by_c: dict[float, float] = {}
    if len(options.grid) > 1:
        folds = [*rater.folds(split.train, options.folds)]
        for c in options.grid:
            values = []
            for train, test in folds:
                values.append(rater.scores(c, train, test, {}).get(rater.chosen_by, 0.0))
                step()
            by_c[c] = float(np.mean(values))
    c = max(sorted(by_c), key=by_c.__getitem__) if by_c else options.grid[0]
    scores = rater.scores(c, split.train, split.test, notes)
    if not scores:
        raise UserError(diagnostics.NoClassToScore(str(features.path)))
    step()
    return SplitScores(len(split.train), len(split.test), c, by_c, scores)


@dataclass(frozen=True)
class Rater:
    """Trains classifiers on some pictures of a set and scores them on others."""

    features: Features
    seed: int

    @property
    def chosen_by(self) -> str:
        """The measure that C is chosen by."""
        return "mean_accuracy" if self.single else "map_area"

    @property
    def single(self) -> bool:
        """Whether every picture shows one class."""
        return self.features.multilabels is None

    def folds(self, rows: Numbers, count: int) -> Iterator[tuple[Numbers, Numbers]]:
        """So many divisions of some rows into those to train on and those to score."""
        from sklearn.model_selection import KFold, StratifiedKFold

        labels = self.features.labels
        if self.single and labels is not None:
            chosen = StratifiedKFold(count, shuffle=True, random_state=self.seed)
            divided = chosen.split(rows, labels[rows])
        else:
            divided = KFold(count, shuffle=True, random_state=self.seed).split(rows)
        return ((rows[train], rows[test]) for train, test in divided)

    def scores(
        self, c: float, train: Numbers, test: Numbers, notes: dict[str, None]
    ) -> dict[str, float]:
        """What a classifier that is trained on some rows scores on others, by measure."""
        if self.single:
            return self.accuracies(c, train, test, notes)
        return self.precisions(c, train, test, notes)

    def accuracies(
        self, c: float, train: Numbers, test: Numbers, notes: dict[str, None]
    ) -> dict[str, float]:
        """The share of pictures whose class was found, and the mean of those of the classes."""
        labels, values = self.features.labels, self.features.values
        assert labels is not None
        found = self.fitted(c, values[train], labels[train]).predict(values[test])
        right, truth = found == labels[test], labels[test]
        there = np.unique(truth)
        if missing := np.setdiff1d(there, labels[train]).tolist():
            names = ", ".join(self.features.classes[each] for each in missing[:5])
            notes[f"Never trained on, so never found: {names}."] = None
        each = [right[truth == number].mean() for number in there]
        return {"accuracy": float(right.mean()), "mean_accuracy": float(np.mean(each))}

    def precisions(
        self, c: float, train: Numbers, test: Numbers, notes: dict[str, None]
    ) -> dict[str, float]:
        """The mean average precisions over the classes that some pictures show; nothing where no
        class can be learnt and scored.
        """
        shown, values = self.features.multilabels, self.features.values
        assert shown is not None
        found = []
        for number, name in enumerate(self.features.classes):
            learnt, asked = (rows[shown[rows, number] >= 0] for rows in (train, test))
            truth = shown[learnt, number] > 0
            if not 0 < truth.sum() < len(truth):
                notes[f"{name} is left out: pictures to train on all show it, or none does."] = None
                continue
            machine = self.fitted(c, values[learnt], truth)
            rated = machine.decision_function(values[asked]) if len(asked) else np.empty(0)
            precision = average_precision(rated, shown[asked, number] > 0)
            if precision is None:
                notes[f"{name} is left out: no picture to test on shows it."] = None
            else:
                found.append(precision)
        if not found:
            return {}
        return {
            "map_eleven": float(np.mean([each.eleven for each in found])),
            "map_area": float(np.mean([each.area for each in found])),
        }

    def fitted(self, c: float, values: npt.NDArray[np.float32], truth: npt.NDArray[Any]) -> Any:
        """A classifier that is trained."""
        from sklearn.svm import LinearSVC

        # Both solve the same problem; steps from picture to picture grow many where C is large.
        dual = c <= 1 or len(values) < values.shape[1]
        machine = LinearSVC(C=c, dual=dual, random_state=self.seed % 2**32, max_iter=MOST_STEPS)
        return machine.fit(values, truth)


def require_memory(features: Features) -> None:
    """Raises: UserError where training would take more memory than there is."""
    needed, present = COPIES * features.values.size, memory()
    if needed > present:
        path = str(features.path)
        raise UserError(diagnostics.ProbeTooLarge(path, needed / 1e9, present / 1e9))


def check(features: Features, split: ProbeSplit, options: ProbeOptions) -> None:
    """Raises: UserError where nothing can be learnt from the pictures to train on, or they cannot
    be divided into the folds.
    """
    path, folds = str(features.path), options.folds
    needs_folds = len(options.grid) > 1
    if features.multilabels is not None:
        if needs_folds and len(split.train) < folds:
            raise UserError(diagnostics.FewerThanFolds(path, "all", len(split.train), folds))
        return
    assert features.labels is not None
    numbers, counts = np.unique(features.labels[split.train], return_counts=True)
    if len(numbers) < 2:
        raise UserError(diagnostics.OneClassToLearn(path, features.classes[numbers[0]]))
    least = int(counts.argmin())
    if needs_folds and counts[least] < folds:
        name = features.classes[numbers[least]]
        raise UserError(diagnostics.FewerThanFolds(path, name, int(counts[least]), folds))


def same_nets(found: Sequence[Features]) -> bool:
    """Whether two of these files hold the features of one net at the same layers and scales."""
    told = [
        (each.provenance.weights_sha256, each.provenance.columns)
        for each in found
        if each.provenance
    ]
    return len({*told}) < len(told)

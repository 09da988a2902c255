"""What `vggc eval` tells beside errors: each class, and each image, as tables and files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import click

from vggc.api.evaluate import EvalPlan, EvalResult
from vggc.api.score_table import ways
from vggc.cli import console
from vggc.evaluation.classes import ClassScore, ClassScores, class_scores
from vggc.evaluation.counts import UNREAD
from vggc.evaluation.images import Labelled
from vggc.evaluation.tables import (
    PER_CLASS,
    PREDICTIONS,
    TableRow,
    confusion_record,
    confusion_rows,
    kind_of,
    per_class_record,
    per_class_rows,
    write_csv,
    write_table,
)
from vggc.support.files import all_or_none, check_target, is_one_place
from vggc.support.sheet import Sheet

TOGETHER = "all together"

ColumnNames: TypeAlias = Sequence[tuple[str, str | None]]
"""What was tested: a run and its net, and last, of several, all together."""


@dataclass(frozen=True)
class RunScores:
    """How a run fares with each class, or all runs together, whose `net` is None; `way` says how
    images were looked at.
    """

    run: str
    net: str | None
    way: str
    scores: ClassScores


def tested(planned: EvalPlan, result: EvalResult) -> ColumnNames:
    """What the columns of a table stand for: each run with its net, and all of them fused."""
    runs = [(entry.named, entry.net_name) for entry in planned.entries]
    return [*runs, (TOGETHER, None)] if result.fused else runs


def verdicts(planned: EvalPlan, images: Labelled, result: EvalResult) -> list[RunScores]:
    """How each fares with each class."""
    names, labels = tested(planned, result), images.part.labels
    looked = [ways(entry.views) for entry in planned.entries]
    together = ["their mean"] if result.fused else []
    found = zip(names, (*looked, *together), result.guesses.classes, strict=True)
    return [
        RunScores(run, net, way, class_scores(labels, guesses, planned.classes))
        for (run, net), way, guesses in found
    ]


def class_sheet(verdict: RunScores) -> Sheet:
    """A row a class, that of least recall first, but for classes that have neither images nor
    guesses.
    """
    scores = verdict.scores
    told = [each for each in scores.worst_first if each.support or each.predicted]

    def percent(share: float | None) -> str:
        return "–" if share is None else f"{100 * share:.1f}"

    rows = tuple(
        (
            score.name,
            percent(score.recall),
            percent(score.precision),
            percent(score.f1),
            f"{score.support:,}",
            score.taken_for or "",
        )
        for score in told
    )
    means = f"mean recall {percent(scores.mean_recall)} %, mean F1 {percent(scores.mean_f1)} %"
    return Sheet(
        title=f"{verdict.run}, class by class ({verdict.way})",
        header=("class", "recall, %", "precision, %", "F1, %", "images", "mostly taken for"),
        rows=rows,
        numbers=(False, True, True, True, True, False),
        notes=(f"{means}, over the classes that have images", *left_out(scores, told)),
    )


def left_out(scores: ClassScores, told: Sequence[ClassScore]) -> tuple[str, ...]:
    """A note on the classes of which a table tells nothing, if some of them are not told."""
    count = len(scores.scores) - len(told)
    if not count:
        return ()
    few = console.count(count, "class has", "classes have")
    return (f"{few} no images, and none was taken for one of them",)


@dataclass(frozen=True)
class TableFiles:
    """Where tables go, if they are asked for."""

    per_class: Path | None
    confusion: Path | None
    predictions: Path | None

    @property
    def named(self) -> list[Path]:
        """The files that were asked for."""
        return [path for path in (self.per_class, self.confusion, self.predictions) if path]

    @property
    def of_classes(self) -> bool:
        """Whether a table is asked for that needs the class of every image."""
        return bool(self.per_class or self.confusion)

    def check(self) -> None:
        """Raises: UserError, or UsageError, where one cannot be written."""
        if is_one_place(self.named):
            raise click.UsageError("two tables cannot be written to one file")
        for path in self.named:
            kind_of(path, ("csv",) if path == self.predictions else ("csv", "json"))
            check_target(path)

    def write(
        self, planned: EvalPlan, images: Labelled, result: EvalResult, found: Sequence[RunScores]
    ) -> None:
        """Writes those that are asked for. Of several runs a column tells which one it is.

        Raises:
            UserError: one cannot be written; then none is there.
        """
        several = len(tested(planned, result)) > 1
        run = ("run",) if several else ()

        def rows(table: Callable[[ClassScores], Iterable[TableRow]]) -> Iterator[TableRow]:
            for each in found:
                before = (each.run,) if several else ()
                yield from ((*before, *row) for row in table(each.scores))

        def record(told: Callable[[ClassScores], dict[str, object]]) -> dict[str, object]:
            runs = [{"run": each.run, "net": each.net, **told(each.scores)} for each in found]
            return {"data": images.path, "classes": planned.classes, "runs": runs}

        with all_or_none() as made:
            if path := self.per_class:
                scores = rows(per_class_rows), record(per_class_record)
                write_table(path, (*run, *PER_CLASS), *scores)
                made.append(path)
            if path := self.confusion:
                header = (*run, "class", *planned.classes)
                write_table(path, header, rows(confusion_rows), record(confusion_record))
                made.append(path)
            if path := self.predictions:
                write_csv(path, (*run, *PREDICTIONS), guessed(planned, images, result))
                made.append(path)
        for path in made:
            console.status(f"Written: {path}")


def guessed(planned: EvalPlan, images: Labelled, result: EvalResult) -> Iterator[TableRow]:
    """What each image that could be read was taken for, and how probable that was."""
    part, classes, names = images.part, planned.classes, tested(planned, result)
    found = zip(names, result.guesses.classes, result.guesses.probabilities, strict=True)
    for (run, _), guesses, sure in found:
        before = (run,) if len(names) > 1 else ()
        for index in (guesses != UNREAD).nonzero()[0].tolist():
            label, guess = classes[part.labels[index]], classes[guesses[index]]
            yield *before, part.name(index), label, guess, f"{sure[index]:.7g}"

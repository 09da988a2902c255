"""What a test found class by class and image by image, as files for other programs.

Names of files and classes may be no UTF-8; they are written as the bytes that they are.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

from vggc.data.strings import CODEC, ERRORS
from vggc.evaluation import diagnostics
from vggc.evaluation.classes import ClassScore, ClassScores
from vggc.support.diagnostics import UserError
from vggc.support.files import new_file

Cell: TypeAlias = str | int | float | None
TableRow: TypeAlias = Sequence[Cell]

PER_CLASS = (
    "class",
    "precision",
    "recall",
    "f1",
    "support",
    "predicted",
    "correct",
    "mostly_taken_for",
)
PREDICTIONS = "image", "class", "guess", "probability"


def kind_of(path: Path, kinds: Sequence[str] = ("csv", "json")) -> str:
    """The kind of table, one of `kinds`, that a file's name asks for.

    Raises:
        UserError: none of these.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in kinds:
        known = " or ".join(f".{each}" for each in kinds)
        suggestion = str(path.with_suffix(f".{kinds[0]}"))
        raise UserError(diagnostics.NoTable(str(path), known, suggestion))
    return kind


def score_record(score: ClassScore) -> dict[str, Cell]:
    """What a class came to, by the names of PER_CLASS."""
    return dict(zip(PER_CLASS, asdict(score).values(), strict=True))


def per_class_record(found: ClassScores) -> dict[str, object]:
    """What each class came to, as JSON; what is undefined is null."""
    return {
        "mean_recall": found.mean_recall,
        "mean_f1": found.mean_f1,
        "per_class": [score_record(score) for score in found.scores],
    }


def per_class_rows(found: ClassScores) -> Iterable[TableRow]:
    """What each class came to, as a row in the order of PER_CLASS; what is undefined stays
    empty.
    """
    return (tuple(score_record(score).values()) for score in found.scores)


def confusion_rows(found: ClassScores) -> Iterable[TableRow]:
    """The confusion matrix, a row a class: its name, and how many of its images were taken for
    each.
    """
    for score, counts in zip(found.scores, found.confusion, strict=True):
        yield score.name, *counts.tolist()


def confusion_record(found: ClassScores) -> dict[str, object]:
    """The confusion matrix as JSON; row i, column j: how many images of class i were taken for
    class j.
    """
    return {"confusion": found.confusion.tolist()}


def write_table(
    path: Path, header: Sequence[str], rows: Iterable[TableRow], record: object
) -> None:
    """Writes a new file, the rows as CSV or the record as JSON, as its name asks.

    Raises:
        UserError: it cannot be written.
    """
    if kind_of(path) == "csv":
        write_csv(path, header, rows)
        return
    with new_file(path) as part, part.open("w", encoding=CODEC) as file:
        json.dump(record, file, allow_nan=False)
        file.write("\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[TableRow]) -> None:
    """Writes a new file, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    with (
        new_file(path) as part,
        part.open("w", encoding=CODEC, errors=ERRORS, newline="") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)

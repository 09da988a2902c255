"""Several runs held against each other: what came of them, and in what they differ."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

from vggc.data.parts import Fingerprint
from vggc.ir.ops import describe
from vggc.program import Program, load
from vggc.recipe.protocol import TEST
from vggc.recipe.train import TRAIN
from vggc.support.diagnostics import Diagnostic, UserError
from vggc.syntax.format import format_net
from vggc.training.metrics import read_metrics
from vggc.training.progress import Epoch
from vggc.training.run import Run

MOST = 24
"""Runs on one page: of more nobody tells the curves apart."""
ABSENT = "–"
"""What a run has not said."""
CONTEXT = 2
"""Lines of a net that are shown around those that differ."""


class SameRun(Diagnostic):
    title = "`{path}` is named twice"
    label = "a run does not differ from itself"
    help = "name each run once"
    path: str


class TooManyRuns(Diagnostic):
    title = "{count} runs are too many for one page"
    label = "nobody tells the curves of more than {most} apart"
    help = "compare fewer at a time"
    count: int
    most: int


@dataclass(frozen=True)
class NamedRun:
    """A run under a name that no other on the page has, and its epochs so far."""

    name: str
    run: Run
    program: Program
    epochs: tuple[Epoch, ...]

    @property
    def last(self) -> Epoch | None:
        """The last whole epoch, if there is one."""
        return self.epochs[-1] if self.epochs else None

    @property
    def best(self) -> Epoch | None:
        """The first epoch with the greatest held-out accuracy."""
        return max(self.epochs, key=lambda row: row.accuracy, default=None)

    @property
    def seconds(self) -> float:
        """The seconds that all epochs took."""
        return sum(row.seconds for row in self.epochs)

    @property
    def num_parameters(self) -> int:
        """The trained numbers of its net."""
        return self.program.report().totals.params

    @property
    def net_text(self) -> list[str]:
        """The net without its recipe and its test, line by line."""
        return format_net(replace(self.program.net, blocks=())).splitlines()


@dataclass(frozen=True)
class Difference:
    """Something that not all runs have alike: its name, and what each has."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class RunComparison:
    """Runs, in the order in which they were named. `recipe` and `facts` hold what differs in how
    they were trained and tested, and in everything else; the others say how much is the same.
    """

    courses: tuple[NamedRun, ...]
    recipe: tuple[Difference, ...]
    same_recipe: int
    facts: tuple[Difference, ...]
    same_facts: int
    doubts: tuple[str, ...]
    """Why figures may not be comparable, in whole sentences."""

    def net_differences(self, course: NamedRun) -> list[str]:
        """The lines in which a net differs from the first run's, with some around them; each begins
        with a plus, a minus or a blank. None where the nets are the same.
        """
        lines = difflib.unified_diff(
            self.courses[0].net_text, course.net_text, n=CONTEXT, lineterm=""
        )
        return [*lines][2:]


def compare(folders: Sequence[Path]) -> RunComparison:
    """Reads runs.

    Raises:
        UserError: a folder is no run, or not sound; one is named twice, or there are too many.
    """
    if len(folders) > MOST:
        raise UserError(TooManyRuns(len(folders), MOST))
    seen: set[Path] = set()
    for folder in folders:
        if folder.resolve() in seen:
            raise UserError(SameRun(str(folder)))
        seen.add(folder.resolve())
    courses = tuple(
        course(name, folder) for name, folder in zip(names(folders), folders, strict=True)
    )
    recipes, facts = [recipe_of(each) for each in courses], [facts_of(each) for each in courses]
    recipe, same_recipe = differences(recipes)
    differing, same_facts = differences(facts)
    return RunComparison(
        courses=courses,
        recipe=recipe,
        same_recipe=same_recipe,
        facts=differing,
        same_facts=same_facts,
        doubts=doubts(courses),
    )


def names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names where they differ, or else their paths."""
    short = [folder.resolve().name for folder in folders]
    return short if len({*short}) == len(short) else [str(folder) for folder in folders]


def course(name: str, folder: Path) -> NamedRun:
    """A run with what a comparison shows of it, called `name`.

    Raises:
        UserError: the folder is no run, or its files do not fit one another.
    """
    run = Run.load(folder)
    program = load(str(run.net_path))
    run.require_fit(program.graph)
    return NamedRun(name, run, program, read_metrics(folder))


FactTable: TypeAlias = Mapping[str, str]


def recipe_of(course: NamedRun) -> FactTable:
    """How a run was trained, and how its file says that it is tested."""
    trained = TRAIN.flatten(course.run.recipe)
    tested = TEST.flatten(TEST.read(course.program.net.block("test")).value)
    test = {f"test.{key}": value for key, value in tested.items()}
    return {key: str(value) for key, value in {**trained, **test}.items()}


def facts_of(course: NamedRun) -> FactTable:
    """What else a run is of."""
    record = course.run.record
    how = record.preprocessing
    origin = {field.name: getattr(record.data, field.name) for field in fields(record.data)}
    marks = origin.pop("fingerprints")
    return {
        "net": record.net,
        "input": describe(record.input),
        "classes": f"{len(record.classes):,}: {', '.join(record.classes)}",
        "scale of inference": shown(how.scale),
        "mean": ", ".join(f"{value:.5g}" for value in how.mean),
        "std": ", ".join(f"{value:.5g}" for value in how.std),
        "seed": str(record.seed),
        "device": record.device,
        "precision": record.precision,
        **{f"images: {named(key)}": shown(value) for key, value in origin.items()},
        "images: fingerprint of those trained on": mark(marks.train),
        "images: fingerprint of those held out": mark(marks.val),
        **{f"version of {name}": version for name, version in record.versions.items()},
    }


def mark(fingerprint: Fingerprint) -> str:
    """The beginnings of what changes with names and classes, of what does with the pixels, and of
    what does with the boxes of objects, if there are any.
    """
    told = fingerprint.names, fingerprint.content, fingerprint.objects
    return " ".join(each[:10] for each in told if each)


def shown(value: object) -> str:
    """A value in a table's cell; what stands for none where it is None."""
    return ABSENT if value is None else str(value)


def named(key: str) -> str:
    """A field of a record in words."""
    words = {"path": "place", "val": "held out", "val_path": "place of those held out"}
    return words.get(key, key.replace("_", " "))


def differences(tables: Sequence[FactTable]) -> tuple[tuple[Difference, ...], int]:
    """What not all tables have alike, and how many keys they have alike."""
    keys = [*dict.fromkeys(key for table in tables for key in table)]
    rows = [Difference(key, tuple(table.get(key, ABSENT) for table in tables)) for key in keys]
    differing = tuple(row for row in rows if len({*row.values}) > 1)
    return differing, len(rows) - len(differing)


def doubts(courses: Sequence[NamedRun]) -> tuple[str, ...]:
    """Why the figures of runs may not be comparable."""
    records = [course.run.record for course in courses]
    found = []
    if len({record.classes for record in records}) > 1:
        found.append("The runs do not know the same classes: their accuracies are of other tasks.")
    elif not all(
        one.train.shows(other.train) and one.val.shows(other.val)
        for one, other in combinations((each.data.fingerprints for each in records), 2)
    ):
        found.append(
            "The runs were not trained and tested on the same images: their accuracies may differ "
            "by that alone."
        )
    going = [course.name for course in courses if course.run.record.state != "finished"]
    if going:
        found.append(f"Not at their end: {', '.join(going)}. Their last epochs are shown.")
    return tuple(found)

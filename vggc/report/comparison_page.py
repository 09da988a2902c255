"""The page of several runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from vggc.report.charts import Chart, Curve, figure
from vggc.report.comparison import ABSENT, Difference, NamedRun, RunComparison
from vggc.report.html import Element, HtmlNode, element
from vggc.report.page import Section, framed
from vggc.report.words import counted, duration, percent
from vggc.training.measures import MAIN_FIELDS, Accuracy, held_out
from vggc.training.progress import Epoch

MADE_BY = "vggc compare"
COLOURS, STROKES = 8, ("", " dashed", " dotted")


def look(number: int) -> str:
    """How the curve of a run is drawn, the first with number 0."""
    return f"run-{number % COLOURS + 1}{STROKES[number // COLOURS % len(STROKES)]}"


def comparison_page(comparison: RunComparison, now: datetime) -> str:
    """The whole page."""
    courses = comparison.courses
    title = f"{len(courses)} runs compared: {', '.join(each.name for each in courses)}"
    heading = [
        element("h1", f"{len(courses)} runs compared"),
        *(element("p", doubt, class_="notice", role="note") for doubt in comparison.doubts),
    ]
    sections = [*_sections(comparison)]
    made = f"Made by {MADE_BY} at {now:%Y-%m-%d %H:%M}."
    return framed(title, MADE_BY, heading, sections, made)


def _sections(comparison: RunComparison) -> Iterator[Section]:
    courses = comparison.courses
    yield "outcome", "Outcome", [_outcome(courses)]
    if any(course.epochs for course in courses):
        yield "course", "Course", [element("div", *_charts(courses), class_="charts")]
    yield (
        "recipe",
        "Recipe",
        _differences(courses, comparison.recipe, comparison.same_recipe, "setting"),
    )
    yield "net", "Net", _nets(comparison)
    yield "facts", "Facts", _differences(courses, comparison.facts, comparison.same_facts, "fact")


# What came of them


def _outcome(courses: Sequence[NamedRun]) -> Element:
    """A row a run; the best of each column stands out."""
    figures = held_out(row for course in courses for row in course.epochs)
    table = [_cells(course, figures) for course in courses]
    best = [greatest([cell.score for cell in column]) for column in zip(*table, strict=True)]
    rows = [
        element(
            "tr",
            element("th", *_name(courses, number)),
            *(
                element("td", _shown(cell, top), class_="number")
                for cell, top in zip(cells, best, strict=True)
            ),
        )
        for number, cells in enumerate(table)
    ]
    header = [element("th", cell.column, class_="number") for cell in table[0]]
    drawn = element("table", element("tr", element("th", "run"), *header), *rows, class_="outcome")
    return element("div", drawn, class_="wide", tabindex="0")


@dataclass(frozen=True)
class ScoredCell:
    """What stands in a column; the more `score`, the better, None where nothing is."""

    column: str
    text: str
    score: float | None = None


def _cells(course: NamedRun, figures: Sequence[Accuracy]) -> list[ScoredCell]:
    best, last = course.best, course.last
    if best is None or last is None:
        rising = (f"best {each.name}" for each in figures if each.field in MAIN_FIELDS)
        names = (*rising, *(f"last {each.name}" for each in figures))
        others = ("held-out loss", "training loss", "time in epochs")
        course_of = [ScoredCell(name, ABSENT) for name in (*names, *others)]
    else:
        course_of = [
            *(
                _share(f"best {each.name}", each.of(best), f", epoch {best.epoch:,}")
                for each in figures
                if each.field in MAIN_FIELDS
            ),
            *(_share(f"last {each.name}", each.of(last)) for each in figures),
            ScoredCell("held-out loss", f"{last.val_loss:.4g}", -last.val_loss),
            ScoredCell("training loss", f"{last.train_loss:.4g}"),
            ScoredCell("time in epochs", duration(course.seconds)),
        ]
    return [
        ScoredCell("state", course.run.record.state),
        ScoredCell("epochs", f"{len(course.epochs):,}"),
        *course_of,
        ScoredCell("parameters", f"{course.num_parameters:,}"),
    ]


def _share(name: str, value: float | None, more: str = "") -> ScoredCell:
    """The cell of a share from 0 to 1, which a run may not have."""
    if value is None:
        return ScoredCell(name, ABSENT)
    return ScoredCell(name, percent(value) + more, value)


def _shown(cell: ScoredCell, best: float | None) -> HtmlNode:
    is_best = best is not None and cell.score == best
    return element("b", cell.text) if is_best else cell.text


def _name(courses: Sequence[NamedRun], number: int) -> tuple[HtmlNode, ...]:
    """A run as the header of a row or a column: how its curve is drawn, and its name."""
    line = element("line", x1=1, y1=5, x2=21, y2=5, class_=f"curve {look(number)}")
    sample = element("svg", line, viewBox="0 0 22 10", class_="sample", aria_hidden="true")
    return sample, element("span", courses[number].name, class_="name")


def greatest(scores: Sequence[float | None]) -> float | None:
    """The greatest, where there is one that is greater than another."""
    there = {score for score in scores if score is not None}
    return max(there) if len(there) > 1 else None


def _percents(figure: Accuracy, row: Epoch) -> float | None:
    value = figure.of(row)
    return None if value is None else 100 * value


def _charts(courses: Sequence[NamedRun]) -> list[Element]:
    def chart(
        title: str,
        value: Callable[[Epoch], float | None],
        written: Callable[[float], str],
        *,
        low: float | None = None,
        by_decades: bool = False,
    ) -> Chart:
        curves = tuple(
            Curve(course.name, look(number), values)
            for number, course in enumerate(courses)
            if (values := tuple(v for row in course.epochs if (v := value(row)) is not None))
        )
        return Chart(
            title=title, first=1, curves=curves, written=written, low=low, by_decades=by_decades
        )

    def nats(value: float) -> str:
        return f"{value:.4g}"

    charts = (
        *(
            chart(
                f"Held-out {each.name}, %", partial(_percents, each), lambda value: f"{value:.1f}"
            )
            for each in held_out(row for course in courses for row in course.epochs)
            if each.field in MAIN_FIELDS
        ),
        chart("Held-out loss, nats", lambda row: row.val_loss, nats, low=0.0),
        chart("Training loss, nats", lambda row: row.train_loss, nats, low=0.0),
        chart(
            "Learning rate at the end of the epoch",
            lambda row: row.lr,
            lambda value: f"{value:.3g}",
            by_decades=True,
        ),
    )
    return [figure(each) for each in charts]


# In what they differ


def _differences(
    courses: Sequence[NamedRun], rows: Sequence[Difference], same: int, what: str
) -> list[Element]:
    others = f"{counted(same, what)} {'is' if same == 1 else 'are'}"
    if not rows:
        return [element("p", f"No {what} differs: {others} the same in all runs.")]
    header = element(
        "tr",
        element("th", what),
        *(element("th", *_name(courses, number)) for number in range(len(courses))),
    )
    lines = [
        element(
            "tr",
            element("td", element("code", row.key)),
            *(element("td", value, class_="name") for value in row.values),
        )
        for row in rows
    ]
    table = element("table", header, *lines, class_="differences")
    return [
        element("p", f"What differs. {others} the same in all runs."),
        element("div", table, class_="wide", tabindex="0"),
    ]


def _nets(comparison: RunComparison) -> list[Element]:
    first, *others = comparison.courses
    told: list[Element] = []
    same = [course.name for course in others if not comparison.net_differences(course)]
    if same:
        told.append(element("p", f"The same net as in {first.name}: {', '.join(same)}."))
    for course in others:
        if lines := comparison.net_differences(course):
            told.append(element("p", f"From {first.name} (−) to {course.name} (+):"))
            told.append(element("pre", *map(_line, lines), class_="diff"))
    text = element("pre", element("code", "\n".join(first.net_text)))
    return [*told, element("details", element("summary", f"The net of {first.name}"), text)]


def _line(line: str) -> Element:
    kinds = {"+": "added", "-": "taken", "@": "faint"}
    # Where in the file it stands is of no use here.
    text = "⋯" if line.startswith("@@") else line
    return element("span", f"{text}\n", class_=kinds.get(line[:1]))

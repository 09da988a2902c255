"""The page of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from statistics import harmonic_mean
from typing import TYPE_CHECKING, Any

from vggc.ir.ops import describe
from vggc.report import images
from vggc.report.charts import Chart, Curve, figure
from vggc.report.filters import Filters
from vggc.report.gather import ClassRow, Findings, Judged, JudgedBoxes, UsedSetting
from vggc.report.html import Element, document, element
from vggc.report.words import counted, duration, percent, rounded, spaced
from vggc.support.diagnostics import in_command
from vggc.support.sheet import Sheet
from vggc.training.best import accuracy, best_epoch
from vggc.training.measures import PANELS, accuracies, course
from vggc.training.progress import Epoch, StepRow
from vggc.training.run import Run, RunRecord

if TYPE_CHECKING:
    from vggc.training.judgement import MissedBox, WrongGuess

NAMES_LISTED = 2000
"""Classes that are named; there may be more than anyone reads."""
HARDEST = 20
"""Classes that are told of where there are too many for a table of all."""

STYLE = Path(__file__).with_name("page.css")

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser is held to: the page takes nothing from elsewhere."""


def mark_of(run: Run) -> str:
    """What tells reports of this run from those of others: one word."""
    record = run.record
    told = [record.net, record.started, str(record.seed), record.data.fingerprints.whole]
    return hashlib.sha256("\0".join(told).encode(errors="replace")).hexdigest()[:16]


def page(findings: Findings, layers: Sheet, now: datetime) -> str:
    """The whole page. `layers` is the net's table, with its totals in the last row."""
    sections = [section for section in _sections(findings, layers) if section is not None]
    title = f"{findings.run.record.net} · {_state(findings)}"
    made = f"Made by vggc report at {now:%Y-%m-%d %H:%M}."
    return framed(title, generator(findings.run), _heading(findings), sections, made)


def generator(run: Run) -> str:
    """What a report of this run says that it was made by."""
    return f"vggc report {mark_of(run)}"


def framed(
    title: str,
    made_by: str,
    heading: Sequence[Element],
    sections: Sequence[Section],
    foot: str,
) -> str:
    """A page that needs no other file and no network, in its style."""
    # The only addresses on the page are those of its sections.
    links = [element("a", name, href=f"#{key}") for key, name, _ in sections]
    body = element(
        "body",
        element("header", *heading, element("nav", *links)),
        element(
            "main",
            *(
                element("section", element("h2", name), *inside, id=key)
                for key, name, inside in sections
            ),
        ),
        element("footer", element("p", foot)),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="generator", content=made_by),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", STYLE.read_text("utf-8")),
    )
    return document(head, body)


Section = tuple[str, str, Sequence[Element]]


def _sections(findings: Findings, layers: Sheet) -> Iterable[Section | None]:
    """The sections that there is something for: address, title and what stands in them."""
    judged, record = findings.judged, findings.run.record
    if findings.epochs:
        charts = _charts(findings.epochs)
        if len(findings.epochs) == 1 and len(findings.steps) > 1:
            charts = _charts_of_steps(findings.steps)
        yield "course", "Course", [element("div", *charts, class_="charts")]
    if isinstance(judged, str):
        yield "errors", "Worst errors", [element("p", judged)]
    else:
        if judged.boxes:
            yield "boxes", "Worst boxes", _boxes(judged.boxes, findings.weights_from)
        if judged.classes:
            errors = _errors(judged.classes, record.classes, findings.weights_from)
            yield "errors", "Worst errors", errors
            yield "classes", "Classes", _classes(judged.classes)
    if findings.filters:
        yield "filters", "First-layer filters", filter_sheet(findings.filters)
    yield "recipe", "Recipe", _recipe(findings.settings)
    yield "net", "Net", _net(layers, findings)
    yield "facts", "Facts", _facts(findings)


# What comes first


def _heading(findings: Findings) -> list[Element]:
    record = findings.run.record
    inside = [
        element("h1", record.net, class_="name"),
        element(
            "p",
            element("b", _state(findings)),
            ", ",
            element("span", f"begun {spaced(record.started)}"),
            class_="state",
        ),
    ]
    if notice := _notice(findings):
        inside.append(element("p", notice, class_="notice", role="note"))
    if findings.epochs:
        inside.append(element("div", *_tiles(findings), class_="tiles"))
    return inside


def _state(findings: Findings) -> str:
    record, done = findings.run.record, len(findings.epochs)
    epochs = f"{done:,} of {counted(findings.num_epochs, 'epoch')}"
    match record.state:
        case "finished":
            return f"finished after {counted(done, 'epoch')}"
        case "running":
            return f"still going: {epochs}"
        case "interrupted":
            return f"interrupted: {epochs}"
        case "stopped":
            return f"stopped: {epochs}"


def _notice(findings: Findings) -> str | None:
    record, folder = findings.run.record, in_command(findings.run.folder)
    match record.state:
        case "stopped":
            return f"The training stopped: {record.reason or 'it gave no reason'}."
        case "interrupted":
            return f"Someone stopped the training. It goes on with: vggc train --resume {folder}"
        case "running":
            if not findings.epochs:
                return "No epoch has ended yet. Make this page again to see how it goes."
            return (
                "This is how far the training had come when the page was made. If it was ended "
                f"from outside, it goes on with: vggc train --resume {folder}"
            )
        case "finished":
            return record.reason and f"{record.reason[0].upper()}{record.reason[1:]}."


def _tiles(findings: Findings) -> list[Element]:
    epochs = findings.epochs
    last, measure = epochs[-1], findings.run.recipe.best_by
    best = best_epoch(epochs, measure)
    speed = harmonic_mean([max(1e-9, row.images_per_second) for row in epochs])
    tiles = [(f"held-out {e.name}", percent(v)) for e, v in accuracies(last, "held-out")]
    if best and best.epoch != last.epoch:
        names = {"top-1": "top-1", "iou": "mean IoU", "loss": "loss"}
        value = percent(accuracy(best, measure))
        if measure == "loss":
            value = f"{best.val_loss:.4g}"
        tiles.append((f"best {names[measure]}, epoch {best.epoch:,}", value))
    tiles += [
        ("held-out loss", f"{last.val_loss:.4g}"),
        ("images/s", rounded(speed)),
        ("time in epochs", duration(sum(row.seconds for row in epochs))),
    ]
    return [element("div", element("b", value), element("span", name)) for name, value in tiles]


# Course


def _charts(epochs: Sequence[Epoch]) -> list[Element]:
    def curve(label: str, look: str, values: Iterable[float]) -> Curve:
        return Curve(label, look, tuple(values))

    first = epochs[0].epoch
    looks = {"val_top5": "top-5", "val_iou50": "top-5"}
    charts = (
        Chart(
            title=loss_title(epochs),
            first=first,
            curves=(
                curve("training", "training", (row.train_loss for row in epochs)),
                curve("held-out", "held-out", (row.val_loss for row in epochs)),
            ),
            written=lambda value: f"{value:.4g}",
            low=0.0,
        ),
        *(
            Chart(
                title=f"{title}, %",
                first=first,
                curves=tuple(
                    curve(
                        f"{each.part} {each.name}",
                        looks.get(each.field, each.part),
                        (100 * value for value in values),
                    )
                    for each, values in course(epochs, kind)
                ),
                written=lambda value: f"{value:.1f}",
                low=0.0,
                high=100.0,
            )
            for kind, title in PANELS.items()
            if course(epochs, kind)
        ),
        Chart(
            title="Learning rate at the end of the epoch",
            first=first,
            curves=(curve("learning rate", "plain", (row.lr for row in epochs)),),
            written=lambda value: f"{value:.3g}",
            by_decades=True,
        ),
        Chart(
            title="Throughput, images/s",
            first=first,
            curves=(curve("training", "plain", (row.images_per_second for row in epochs)),),
            written=rounded,
            low=0.0,
        ),
    )
    return [figure(chart) for chart in charts]


def loss_title(epochs: Sequence[Epoch]) -> str:
    """What a chart of losses is called: they are in nats where they are of classes alone."""
    return "Loss" if course(epochs, "boxes") else "Loss, nats"


def _charts_of_steps(steps: Sequence[StepRow]) -> list[Element]:
    """The course of a single epoch, of which each curve over epochs would be a dot."""
    numbers = tuple(row.step for row in steps)

    def chart(
        title: str, look: str, values: Iterable[float], written: Callable[[float], str], **more: Any
    ) -> Element:
        curve = Curve("training", look, tuple(values))
        return figure(
            Chart(title=title, first=1, curves=(curve,), written=written, steps=numbers, **more)
        )

    shares = {
        "Top-1 accuracy, %": [100 * row.top1 for row in steps if row.top1 is not None],
        "Mean IoU, %": [100 * row.iou for row in steps if row.iou is not None],
    }
    rates, speed = (row.lr for row in steps), (row.images_per_second for row in steps)
    return [
        chart(
            "Loss, nats" if steps[0].iou is None else "Loss",
            "training",
            (row.loss for row in steps),
            "{:.4g}".format,
            low=0.0,
        ),
        *(
            chart(title, "training", values, "{:.1f}".format, low=0.0, high=100.0)
            for title, values in shares.items()
            if values
        ),
        chart("Learning rate", "plain", rates, "{:.3g}".format, by_decades=True),
        chart("Throughput, images/s", "plain", speed, rounded, low=0.0),
    ]


# Errors and classes


def _boxes(judged: JudgedBoxes, weights_from: str | None) -> list[Element]:
    told = (
        f"By {weights_from}, at the centre crops of {counted(judged.images, 'held-out image')}, "
        f"the boxes overlap with the objects by {percent(judged.mean_overlap)} in the mean (IoU), "
        f"{judged.num_found:,} of them by more than a half "
        f"({percent(judged.num_found / max(1, judged.images))})."
    )
    if judged.unreadable:
        told += f" {counted(judged.unreadable, 'image')} could not be read."
    drawn = "These are the worst: the objects' boxes in blue, those that the net gives in orange."
    pictures = [_missed(box) for box in judged.worst]
    return [element("p", told), element("p", drawn), element("div", *pictures, class_="errors")]


def _missed(missed: MissedBox) -> Element:
    overlap = f"IoU {percent(missed.overlap)}"
    return element(
        "div",
        element("img", src=images.with_boxes(missed), alt=f"{missed.name}: {overlap}"),
        element("p", element("b", overlap), class_="guess"),
        element("p", missed.name, class_="path name faint clip", title=missed.name),
    )


def _errors(judged: Judged, classes: Sequence[str], weights_from: str | None) -> list[Element]:
    right = judged.images - judged.num_wrong
    told = (
        f"By {weights_from}, {right:,} of {counted(judged.images, 'held-out image')} are right at "
        f"the first guess ({percent(right / max(1, judged.images))})."
    )
    if judged.unreadable:
        told += f" {counted(judged.unreadable, 'image')} could not be read."
    if not judged.worst:
        return [element("p", told)]
    shown = len(judged.worst)
    told += (
        f" These are the {shown} wrong guesses with the greatest loss"
        if shown < judged.num_wrong
        else " These are the wrong guesses, the greatest loss first"
    )
    told += ", with the probability that the net gave to the true class and to its guess."
    pictures = [_error(error, classes) for error in judged.worst]
    return [element("p", told), element("div", *pictures, class_="errors")]


def _error(error: WrongGuess, classes: Sequence[str]) -> Element:
    label, guess = classes[error.label], classes[error.guess]
    small = max(error.pixels.shape[:2]) <= images.SMALL
    return element(
        "div",
        element(
            "img",
            src=images.thumbnail(error.pixels),
            alt=f"{error.name}: {label}, taken for {guess}",
            class_="small" if small else None,
        ),
        _guess("", label, error.right),
        _guess("taken for ", guess, error.sure),
        element("p", error.name, class_="path name faint clip", title=error.name),
    )


def _guess(before: str, name: str, probability: float) -> Element:
    """A class and how probable the net found it."""
    text = element("span", before, element("b", name, class_="name"), class_="clip", title=name)
    return element(
        "p", text, element("span", percent(probability), class_="number"), class_="guess"
    )


def _classes(judged: Judged) -> list[Element]:
    if judged.confusion is None:
        return _hardest(judged.scores)
    told = "Each row: the held-out images of a class, by what they were taken for. "
    names = [score.name for score in judged.scores]
    header = element(
        "tr",
        element("th"),
        *(element("th", element("div", n, class_="top label", title=n)) for n in names),
        element("th", "right", class_="number"),
    )
    rows = [
        element(
            "tr",
            element("th", element("div", score.name, class_="label", title=score.name)),
            *(
                element(
                    "td",
                    f"{count:,}" if count else "",
                    class_="hit" if column == row else "miss",
                    style=f"--share:{count / max(1, score.images):.3f}",
                    title=f"{score.name} taken for {names[column]}: {count:,}",
                )
                for column, count in enumerate(counts)
            ),
            element("th", _score(score), class_="number"),
        )
        for row, (score, counts) in enumerate(zip(judged.scores, judged.confusion, strict=True))
    ]
    table = element("table", header, *rows, class_="confusion")
    return [element("p", told), element("div", table, class_="wide", tabindex="0")]


def _hardest(scores: Sequence[ClassRow]) -> list[Element]:
    judged = [score for score in scores if score.images]
    chosen = sorted(judged, key=lambda score: score.accuracy)[:HARDEST]
    told = f"The {len(chosen)} of {len(scores):,} classes with the lowest top-1 accuracy."
    rows = tuple(
        (score.name, percent(score.accuracy), f"{score.images:,}", score.taken_for or "")
        for score in chosen
    )
    sheet = Sheet(
        title="",
        header=("class", "right", "images", "mostly taken for"),
        rows=rows,
        numbers=(False, True, True, False),
    )
    return [element("p", told), *drawn_table(sheet, "hardest")]


def _score(score: ClassRow) -> str:
    return percent(score.accuracy) if score.images else "–"


# The net and its recipe


def filter_sheet(filters: Filters) -> list[Element]:
    """All filters of a layer in one picture, and what it shows."""
    count, sheet = len(filters.tiles), filters.sheet
    shown = f"All {count:,}" if count == filters.total else f"{count:,} of {filters.total:,}"
    told = (
        f"{shown} filters of {filters.layer}, each from its least weight (black) to its greatest "
        "(white)."
    )
    picture = element(
        "img",
        src=images.exact(sheet),
        alt=f"{count} filters of {filters.layer}",
        width=sheet.shape[1],
        height=sheet.shape[0],
        class_="filters",
    )
    return [element("p", told), picture]


def _recipe(settings: Sequence[UsedSetting]) -> list[Element]:
    rows = [
        element(
            "tr",
            element("td", element("code", setting.key)),
            element("td", setting.value),
            element("td", setting.default or "", class_="faint"),
            class_="departs" if setting.default is not None else None,
        )
        for setting in settings
    ]
    header = element("tr", *(element("th", name) for name in ("setting", "value", "default")))
    told = (
        "As used. Marked: what departs from the defaults of vggc settings, which stand beside it."
    )
    table = element("table", header, *rows, class_="recipe")
    return [element("p", told), element("div", table, class_="wide", tabindex="0")]


def _net(layers: Sheet, findings: Findings) -> list[Element]:
    from vggc.syntax.format import format_net

    text = element("pre", element("code", format_net(findings.program.net)))
    return [
        element("p", layers.title),
        *drawn_table(layers, "layers", total=True),
        *(element("p", note, class_="faint") for note in layers.notes),
        element("details", element("summary", "The net and its recipe as text"), text),
    ]


def drawn_table(table: Sheet, kind: str, *, total: bool = False) -> list[Element]:
    """A table as HTML, of the class `kind`; the last row is a sum where there is a `total`."""
    looks = ["number" if number else None for number in table.numbers]
    header = [element("th", n, class_=c) for n, c in zip(table.header, looks, strict=True)]
    rows = [
        element(
            "tr",
            *(element("td", cell, class_=look) for cell, look in zip(cells, looks, strict=True)),
            class_="total" if total and index == len(table.rows) - 1 else None,
        )
        for index, cells in enumerate(table.rows)
    ]
    drawn = element("table", element("tr", *header), *rows, class_=kind)
    return [element("div", drawn, class_="wide", tabindex="0")]


# Facts


def _facts(findings: Findings) -> list[Element]:
    run, record = findings.run, findings.run.record
    data = record.data
    last = findings.epochs[-1] if findings.epochs else None
    facts = {
        "run": str(run.folder.absolute()),
        "begun": spaced(record.started),
        "time in epochs": duration(sum(row.seconds for row in findings.epochs)) if last else "",
        "steps": f"{last.step:,}" if last else "",
        "images": data.path or "the scanned digits that come with scikit-learn",
        "held-out images": data.val_path or "",
        "trained on": f"{data.train:,}",
        "held out": f"{data.val:,}",
        "left out": _left_out(run),
        "classes": f"{len(record.classes):,}",
        "input": describe(record.input),
        "pixels": _pixels(record),
        "seed": str(record.seed),
        "device": record.device,
        "precision": record.precision,
        "versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        "fingerprint of the images": data.fingerprints.whole,
    }
    rows = [
        element("tr", element("th", name, scope="row"), element("td", value, class_="name"))
        for name, value in facts.items()
        if value
    ]
    named = record.classes[:NAMES_LISTED]
    names = [element("li", name, class_="name") for name in named]
    more = len(record.classes) - len(named)
    return [
        element("div", element("table", *rows, class_="facts"), class_="wide", tabindex="0"),
        element(
            "details",
            element("summary", f"The names of the {len(record.classes):,} classes"),
            element("ol", *names, start=0, class_="names"),
            element("p", f"… and {more:,} more") if more else None,
        ),
    ]


def _left_out(run: Run) -> str:
    """How many images the run left out, and where they are named."""
    count = run.record.data.skipped
    where = f"; {run.skipped_path.name} in the run's folder names them"
    return f"{count:,}{where * run.skipped_path.is_file()}" if count else ""


def _pixels(record: RunRecord) -> str:
    how = record.preprocessing
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (how.mean, how.std))
    scale = f"shorter side {how.scale}" if how.scale else "just covering the input"
    return f"{scale}, centre {describe(how.size)}; (value / 255 − {mean}) / {std}"

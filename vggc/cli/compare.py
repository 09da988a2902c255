"""`vggc compare`."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vggc.cli import console
from vggc.support.sheet import Sheet
from vggc.training.measures import MAIN_FIELDS, Accuracy, held_out
from vggc.training.progress import Epoch

if TYPE_CHECKING:
    from vggc.report.comparison import NamedRun, RunComparison

BESIDE = 4
"""Runs whose settings have room beside one another in a terminal."""


@click.command("compare")
@click.argument(
    "runs", nargs=-1, required=True, metavar="RUN RUN...", type=click.Path(path_type=Path)
)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("comparison.html"),
    show_default=True,
    help="The page, a new file or an older comparison.",
)
@click.option("--json", "as_json", is_flag=True, help="Tell all in one line of JSON.")
def command(runs: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Show runs beside one another as a page: one HTML file that needs no other and no network.

    It holds what came of each, their curves over one another, and in what they differ: recipe,
    net, images, seed, versions. Runs that are still going will do.
    """
    from vggc.report.comparison import compare
    from vggc.report.comparison_page import MADE_BY, comparison_page
    from vggc.report.write import refuse_others, write

    if len(runs) < 2:
        raise click.UsageError("a comparison takes two runs or more")
    refuse_others(out, MADE_BY)
    comparison = compare(runs)
    written = write(out, MADE_BY, comparison_page(comparison, datetime.now()))
    if as_json:
        console.out(json.dumps(as_record(comparison, out, written)))
        return
    for doubt in comparison.doubts:
        console.status(doubt)
    console.sheet(outcome(comparison))
    if len(runs) > BESIDE:
        console.status("What differs between so many runs stands on the page.")
    for title, rows in (("recipe", comparison.recipe), ("fact", comparison.facts)):
        if rows and len(runs) <= BESIDE:
            header = (title, *(course.name for course in comparison.courses))
            cells = tuple((row.key, *row.values) for row in rows)
            console.sheet(
                Sheet(title="", header=header, rows=cells, numbers=(False,) * len(header))
            )
    console.out(f"{out}: {len(runs)} runs, {written / 1e6:.2f} MB")


def outcome(comparison: RunComparison) -> Sheet:
    """A row a run: what has come of it."""
    figures = [
        each
        for each in held_out(row for course in comparison.courses for row in course.epochs)
        if each.field in MAIN_FIELDS
    ]

    def row(course: NamedRun) -> tuple[str, ...]:
        best, last = course.best, course.last
        return (
            course.name,
            course.run.record.state,
            f"{len(course.epochs):,}",
            *(share(each, epoch) for each in figures for epoch in (best, last)),
            f"{last.val_loss:.4g}" if last else "–",
        )

    shares = [f"{when} {each.name}, %" for each in figures for when in ("best", "last")]
    header = ("run", "state", "epochs", *shares, "held-out loss")
    return Sheet(
        title="",
        header=header,
        rows=tuple(map(row, comparison.courses)),
        numbers=(False, False, *(True,) * (len(header) - 2)),
    )


def share(figure: Accuracy, epoch: Epoch | None) -> str:
    """A figure of an epoch in percent, a dash where there is none."""
    value = figure.of(epoch) if epoch else None
    return "–" if value is None else f"{100 * value:.2f}"


def as_record(comparison: RunComparison, out: Path, written: int) -> dict[str, object]:
    """What `--json` prints of a comparison: the page, its bytes, and a record for each run."""
    from vggc.support.records import to_json

    return {
        "page": str(out),
        "bytes": written,
        "runs": [
            {
                "run": str(course.run.folder),
                "name": course.name,
                "net": course.run.record.net,
                "state": course.run.record.state,
                "epochs": len(course.epochs),
                "parameters": course.num_parameters,
                "best": to_json(course.best),
                "last": to_json(course.last),
                "same_net": not comparison.net_differences(course),
            }
            for course in comparison.courses
        ],
        "recipe": {row.key: row.values for row in comparison.recipe},
        "facts": {row.key: row.values for row in comparison.facts},
        "doubts": comparison.doubts,
    }

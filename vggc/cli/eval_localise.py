"""`vggc eval --localise`: what is told of a test of boxes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vggc.api.localise import (
    LocaliseOptions,
    LocalisePlan,
    LocaliseProtocol,
    LocaliseResult,
    LocatingRun,
    images_for,
    measure,
    plan,
)
from vggc.api.score_table import scales_told
from vggc.cli import console
from vggc.cli.eval import progress
from vggc.cli.skipped import told
from vggc.support.sheet import Sheet
from vggc_runtime.text import in_line

if TYPE_CHECKING:
    from vggc.evaluation.images import Labelled
    from vggc.evaluation.located import LocalisationErrors

WAYS: dict[LocaliseProtocol, str] = {
    "centre": "1: centre crop, class given",
    "dense": "2: dense, boxes merged",
}
"""What the paper's protocols are called in the table."""
HEADER = "run", "net", "protocol", "scales Q", "top-1 error, %", "top-5 error, %", "mean IoU"
NONE = "–"


def test_boxes(
    runs: Sequence[Path],
    classifiers: Sequence[Path],
    data: str | None,
    options: LocaliseOptions,
    protocols: Sequence[LocaliseProtocol],
    as_json: bool,
) -> None:
    """Tests where the nets of runs see objects, and tells what came of it."""
    planned = plan(runs, classifiers, options, protocols, needs_class=False)
    first = planned.world.is_first
    images = images_for(planned, data)
    if first:
        announce(planned, images, data)
    with progress("testing", first) as on_progress:
        result = measure(planned, images, on_progress)
    if not first:
        return
    for line in told(result.skipped, result.num_skipped):
        console.status(line)
    if as_json:
        console.out(json.dumps(as_record(planned, images, result)))
        return
    console.sheet(table(planned, images, result))


def announce(planned: LocalisePlan, images: Labelled, data: str | None) -> None:
    """Says what is tested, on what and how."""
    world, machine = planned.world, planned.machine
    held_out = "held-out " if data is None else ""
    processes = f" in {world.size} processes" if world.size > 1 else ""
    console.status(
        f"Testing boxes on {console.count(len(images.part), f'{held_out}picture')} of "
        f"{images.shown}, on {machine.device} in {machine.precision}{processes}."
    )
    for note in (*images.notes, *planned.notes):
        console.status(in_line(note))
    if not planned.has_classifier:
        console.status("No net tells classes: those of the pictures are given.")


def table(planned: LocalisePlan, images: Labelled, result: LocaliseResult) -> Sheet:
    """The errors by each protocol, a row a run, and one of all whose boxes are united."""
    return Sheet(
        title=f"boxes in {result.pictures:,} pictures of {images.shown}",
        header=HEADER,
        rows=tuple(rows(planned, result)),
        numbers=(False,) * 4 + (True,) * 3,
    )


def rows(planned: LocalisePlan, result: LocaliseResult) -> Iterator[tuple[str, ...]]:
    """The rows of the table."""
    boxes = planned.runs[: planned.num_boxes]
    for protocol in planned.protocols:
        for each, errors in zip(boxes, result.each[protocol], strict=True):
            names = str(each.run.folder), each.run.record.net
            looks = WAYS[protocol], scales_of(each, protocol)
            yield *names, *looks, *figures(planned, protocol, errors)
        if protocol in result.united:
            all_of_them = "all", f"{len(boxes)} nets", WAYS[protocol], ""
            yield *all_of_them, *figures(planned, protocol, result.united[protocol])


def figures(
    planned: LocalisePlan, protocol: LocaliseProtocol, errors: LocalisationErrors
) -> tuple[str, str, str]:
    """Errors as the table shows them: where the class is given there is one pair, not five."""
    given = protocol == "centre" or not planned.has_classifier
    five = NONE if given else f"{100 * errors.top5:.2f}"
    return f"{100 * errors.top1:.2f}", five, f"{errors.mean_iou:.3f}"


def scales_of(each: LocatingRun, protocol: LocaliseProtocol) -> str:
    """The scales at which a run looks at pictures."""
    return scales_told(each.subject.preprocessing, each.views[protocol])


def as_record(planned: LocalisePlan, images: Labelled, result: LocaliseResult) -> dict[str, object]:
    """The result as JSON. Errors are shares from 0 to 1."""
    boxes = planned.runs[: planned.num_boxes]
    return {
        "data": images.path,
        "pictures": result.pictures,
        "skipped": result.num_skipped,
        "classes": len(planned.classes),
        "classifiers": [str(each.run.folder) for each in planned.runs if "classes" in each.kinds],
        "offsets": planned.offsets,
        "device": planned.machine.device,
        "precision": planned.machine.precision,
        "seconds": result.seconds,
        "runs": [
            {
                "run": str(each.run.folder),
                "net": each.run.record.net,
                **{key: errors_record(found[place]) for key, found in result.each.items()},
            }
            for place, each in enumerate(boxes)
        ],
        "united": {key: errors_record(found) for key, found in result.united.items()} or None,
    }


def errors_record(errors: LocalisationErrors) -> dict[str, float]:
    """Errors and the mean IoU, shares from 0 to 1, as JSON holds them."""
    return {
        "top1_error": errors.top1,
        "top5_error": errors.top5,
        "mean_iou": errors.mean_iou,
    }

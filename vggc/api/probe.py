"""What `probe` works on: files of features, and what a linear classifier makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vggc.support.sheet import Sheet

if TYPE_CHECKING:
    from vggc.features.probe import ProbeOptions, ProbeResult
    from vggc.features.read import Features

MEASURES = {
    "accuracy": "accuracy, %",
    "mean_accuracy": "mean over classes, %",
    "map_eleven": "11-point mAP, %",
    "map_area": "area mAP, %",
}
"""The measures by their names in JSON, and what a table calls them."""

SAME_TWICE = "Two of the files hold the same features: of the same net, layers and scales."


def read(paths: Sequence[Path]) -> list[Features]:
    """The features in some files.

    Raises:
        UserError: one is no such file, or does not fit into memory.
    """
    from vggc.features.read import read_features

    return [read_features(path) for path in paths]


def probe(
    found: Sequence[Features], options: ProbeOptions, on_progress: Callable[[int, int], None]
) -> ProbeResult:
    """What a linear classifier makes of features, those of several files behind one another.

    Raises:
        UserError: they are of different pictures, or those are too few.
    """
    from vggc.features.probe import probe, same_nets, together

    result = probe(together(found), options, on_progress)
    if same_nets(found):
        result = replace(result, notes=(SAME_TWICE, *result.notes))
    return result


def probe_table(found: Sequence[Features], options: ProbeOptions, result: ProbeResult) -> Sheet:
    """What came of a probe, as a table: a row for each split, and one for their mean."""
    measures = [*result.splits[0].scores]
    rows = [
        (
            str(number),
            f"{each.train:,}",
            f"{each.test:,}",
            f"{each.c:g}",
            *(f"{100 * each.scores[measure]:.2f}" for measure in measures),
        )
        for number, each in enumerate(result.splits, start=1)
    ]
    if len(rows) > 1:
        shown = [
            f"{100 * result.mean(each):.2f} ± {100 * result.deviation(each):.2f}"
            for each in measures
        ]
        rows.append(("mean", "", "", "", *shown))
    names = tuple(MEASURES[each] for each in measures)
    shown_nets = " + ".join(each.shown for each in found)
    return Sheet(
        title=f"linear SVM on {result.width:,} features of {shown_nets}, {result.classes} classes",
        header=("split", "train", "test", "C", *names),
        rows=tuple(rows),
        numbers=(False, *(True for _ in range(3 + len(names)))),
        notes=(*choices(options, result), *result.notes),
        rules=(len(rows) - 2,) if len(rows) > 1 else (),
    )


def choices(options: ProbeOptions, result: ProbeResult) -> list[str]:
    """How C was chosen in each split, in words."""
    if len(options.grid) == 1:
        return []
    how = f"C by {options.folds} folds of the images to train on"
    several = len(result.splits) > 1
    return [
        f"{how}{f', split {number}' if several else ''}: "
        + ", ".join(f"{c:g} {100 * score:.2f} %" for c, score in each.by_c.items())
        for number, each in enumerate(result.splits, start=1)
    ]


def probe_record(
    found: Sequence[Features], options: ProbeOptions, result: ProbeResult
) -> dict[str, object]:
    """What came of a probe as JSON holds it. Scores are shares from 0 to 1."""
    measures = [*result.splits[0].scores]
    return {
        "features": [str(each.path) for each in found],
        "nets": [each.provenance.net if each.provenance else None for each in found],
        "images": len(found[0]),
        "width": result.width,
        "classes": result.classes,
        "grid": options.grid,
        "folds": options.folds if len(options.grid) > 1 else None,
        "seed": options.split.seed,
        "splits": [
            {
                "train": each.train,
                "test": each.test,
                "c": each.c,
                "by_c": [{"c": c, "score": score} for c, score in each.by_c.items()],
                **each.scores,
            }
            for each in result.splits
        ],
        **{each: result.mean(each) for each in measures},
        **{f"{each}_deviation": result.deviation(each) for each in measures},
        "notes": result.notes,
    }

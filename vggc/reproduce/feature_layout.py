"""The tables of features as the paper lays them out, its numbers beside ours."""

from __future__ import annotations

from collections.abc import Sequence

from vggc.reproduce.feature_study import MIDDLE, PER_CLASS, SCALES, SPLITS, FeatureStudy
from vggc.reproduce.feature_tables import (
    COLUMNS,
    FEATURE_TITLES,
    FeatureLine,
    FeatureTableName,
)
from vggc.reproduce.layout import Laid

NOTHING = "–"
PIXELS_KEY = "pixels average"


def laid(
    table: FeatureTableName, lines: Sequence[FeatureLine], study: FeatureStudy, command: str
) -> Laid:
    """A table of features as far as it has been measured."""
    papers = COLUMNS[table]
    ours = "features of", "scales Q", "combined", "width", "accuracy, %", "above pixels"
    header = (*ours, *papers)
    failures = dict.fromkeys(failure for line in lines if (failure := study.failure(line)))
    notes = [f"`{command}`", about(study), *(f"Stopped: {failure}." for failure in failures)]
    rows = tuple(row(line, study, papers) for line in lines)
    numbers = (False,) * 3 + (True,) * (3 + len(papers))
    return Laid(FEATURE_TITLES[table], header, rows, numbers, tuple(notes))


def row(line: FeatureLine, study: FeatureStudy, papers: Sequence[str]) -> tuple[str, ...]:
    """A line of a table: what was measured, beside the paper's numbers."""
    scales = ", ".join(map(str, SCALES)) if line.sets else "32"
    score, pixels = study.record.scores.get(line.key), study.record.scores.get(PIXELS_KEY)
    ours = (NOTHING,) * 3
    if score:
        accuracy = f"{score.accuracy:.1f} ± {score.deviation:.1f}"
        above = f"{score.accuracy - pixels.accuracy:+.1f}" if pixels and line.sets else NOTHING
        ours = f"{score.width:,}", accuracy, above
    combined = line.combine if line.sets else NOTHING
    return line.name, scales, combined, *ours, *(line.paper.get(name, NOTHING) for name in papers)


def about(study: FeatureStudy) -> str:
    """The note below a table: how it was measured, and how it differs from the paper."""
    epochs = "1 epoch" if study.record.epochs == 1 else f"{study.record.epochs} epochs"
    return (
        "Small: nets an eighth as wide, on images of 32×32, trained on half of the classes for "
        f"{epochs}; a linear SVM on their features of the other classes, {PER_CLASS} images of "
        f"each to train on, mean and deviation of {SPLITS} splits, as the paper on Caltech-101. "
        "The tuned net has learnt from all images of those classes that may be trained on. "
        f"The middle is the 32×32 in the middle at Q = {MIDDLE}, in place of a box. The paper's "
        "numbers are of its own nets and images: what can be compared is which features are better."
    )

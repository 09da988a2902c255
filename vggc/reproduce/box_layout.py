"""The tables of localisation as the paper lays them out, its numbers beside ours."""

from __future__ import annotations

from collections.abc import Sequence

from vggc.reproduce.box_setting import SmallBoxes
from vggc.reproduce.box_study import BoxStudy
from vggc.reproduce.box_tables import BOX_TITLES, COLUMNS, BoxLine, BoxTableName, table8
from vggc.reproduce.layout import Laid

NOTHING = "–"
TUNED = {"FC": "fully-connected layers", "all": "all layers"}
HEADERS = {
    "table8": ("tuned", "regression", "train S", "error, %", "mean IoU"),
    "table9": ("train S", "test Q", "top-1 error, %", "top-5 error, %", "mean IoU"),
}


def laid(table: BoxTableName, lines: Sequence[BoxLine], study: BoxStudy, command: str) -> Laid:
    """A table of localisation as far as it has been measured."""
    ours, papers = HEADERS[table], COLUMNS[table]
    failures = dict.fromkeys(each for line in lines for each in study.failures(line))
    notes = [f"`{command}`", *about(table, lines, study)]
    notes += [f"Stopped: {failure}." for failure in failures]
    row = row_of_table8 if table == "table8" else row_of_table9
    rows = tuple((*row(line, study), *map(paper, line.paper)) for line in lines)
    texts = 3 if table == "table8" else 2
    numbers = (False,) * texts + (True,) * (len(ours) + len(papers) - texts)
    return Laid(BOX_TITLES[table], (*ours, *papers), rows, numbers, tuple(notes))


def row_of_table8(line: BoxLine, study: BoxStudy) -> tuple[str, ...]:
    """What was measured of a line by the centre crop."""
    (test,) = line.tests
    error = study.error(line)
    ours = (f"{error.top1:.1f}", f"{error.mean_iou:.3f}") if error else (NOTHING,) * 2
    scale = study.setting.length(test.net.scale)
    return TUNED[test.net.tuned], test.net.regression, str(scale), *ours


def row_of_table9(line: BoxLine, study: BoxStudy) -> tuple[str, ...]:
    """What was measured of a line by whole pictures."""
    error = study.error(line)
    ours = (NOTHING,) * 3
    if error:
        ours = f"{error.top1:.1f}", f"{error.top5:.1f}", f"{error.mean_iou:.3f}"
    trained = " + ".join(str(study.setting.length(test.net.scale)) for test in line.tests)
    tested = " + ".join(", ".join(map(str, study.scales(test.scales))) for test in line.tests)
    return trained, tested, *ours


def paper(value: float | None) -> str:
    """A number of the paper's, where it has one."""
    return NOTHING if value is None else f"{value:.1f}"


def about(table: BoxTableName, lines: Sequence[BoxLine], study: BoxStudy) -> list[str]:
    """The notes below a table: how it was measured, and how that differs from the paper."""
    pictures = {error.pictures for line in lines if (error := study.error(line))}
    count = f"On {', '.join(f'{n:,}' for n in sorted(pictures))} pictures. " if pictures else ""
    notes = [count + (CENTRE if table == "table8" else DENSE)]
    if table == "table9" and (given := by_the_centre(study)):
        notes.append(given)
    small = isinstance(study.setting, SmallBoxes)
    notes.append(about_small(study) if small else "The paper's numbers are of ILSVRC-2014.")
    return notes


CENTRE = (
    "A box is wrong whose intersection over union with every object of the picture's class is 0.5 "
    "or less."
)
DENSE = (
    "A picture is wrong where none of five pairs of class and box is right (top-5), or the most "
    "probable one is not (top-1). PCR, all layers tuned. Boxes are rated by D trained at the same "
    "S, those of several S by the mean over their Ds; the paper does not say at which S the net "
    "was trained that rates."
)


def by_the_centre(study: BoxStudy) -> str | None:
    """How often the net of the first line is wrong by the other protocol, where that is known."""
    line = table8(study.setting.start)[-1]
    error = study.error(line)
    if error is None:
        return None
    (test,) = line.tests
    return (
        f"By the centre crop, the class given (table 8), the net trained at "
        f"{study.setting.length(test.net.scale)} errs on {error.top1:.1f} %, with a mean IoU of "
        f"{error.mean_iou:.3f}."
    )


def about_small(study: BoxStudy) -> str:
    """How the small setting differs from the paper."""
    epochs = "1 epoch" if study.record.epochs == 1 else f"{study.record.epochs} epochs"
    return (
        f"Small: D a quarter as wide for crops of 62×62, with batch normalisation, three pools and "
        f"no padding, lengths about 0.28 of the paper's, {epochs}; it begins with random weights, "
        "not those of A. Of five classes or fewer each is among the five. The paper's numbers are "
        "of ILSVRC-2014: what can be compared is what is better."
    )

"""A table of the paper as a grid of runs in a folder: what is done, and what is left to do.

reproduce.json     a `StudyRecord`: how the runs were made, and the errors measured so far
runs/NAME          the runs of the trainings, shared by all tables
table3.md          the tables, as they are so far
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from vggc.reproduce import diagnostics
from vggc.reproduce.setting import PAPER, SMALL, StudySetting
from vggc.reproduce.tables import NETS, TableLine, Trained
from vggc.support.diagnostics import UserError
from vggc.support.files import refuse_full
from vggc.support.paths import exists, is_run
from vggc.support.records import read_record, write_record
from vggc.training.run import Run
from vggc_runtime.json_file import MalformedError

RECORD = "reproduce.json"
SETTINGS = {setting.name: setting for setting in (PAPER, SMALL)}


@dataclass(frozen=True)
class TestError:
    """Top-1 and top-5 error in % of so many images."""

    top1: float
    top5: float
    images: int


@dataclass(frozen=True)
class BoxError:
    """Top-1 and top-5 error of localisation in % of so many pictures, and the mean IoU of the
    boxes with the objects.
    """

    top1: float
    top5: float
    mean_iou: float
    pictures: int


@dataclass(frozen=True)
class StudyRecord:
    """What `reproduce.json` holds. `errors` are those of lines by `Study.key`, `boxes` those of
    lines of the tables of localisation by `BoxStudy.key`.
    """

    format: Literal[1]
    setting: Literal["paper", "small", "boxes"]
    data: str
    val: str | None
    epochs: int
    seed: int
    errors: dict[str, TestError]
    boxes: dict[str, BoxError] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """Runs and results in a folder."""

    folder: Path
    record: StudyRecord

    @property
    def setting(self) -> StudySetting:
        """The setting that the study was begun with."""
        return replace(SETTINGS[self.record.setting], epochs=self.record.epochs)

    def run_folder(self, net: Trained) -> Path:
        """The folder of a net's run."""
        return self.folder / "runs" / net.name

    def run_of(self, net: Trained) -> Run | None:
        """The run of a training, as far as it has come; None before it has begun.

        Raises:
            UserError: it is none, or that of something else.
        """
        return run_in(self.run_folder(net), NETS[net.column], self.record)

    def failure(self, net: Trained) -> str | None:
        """Why a training, or one before it, was stopped."""
        run = self.run_of(net)
        if run and run.record.state == "stopped":
            return f"{net.name}: {run.record.reason}"
        return self.failure(net.before) if net.before else None

    def lacks(self, line: TableLine) -> bool:
        """Whether a line can be measured and is not yet."""
        return not self.error(line) and not any(self.failure(net) for net in line.nets)

    def error(self, line: TableLine) -> TestError | None:
        """What was measured of a line."""
        return self.record.errors.get(self.key(line))

    def with_error(self, line: TableLine, error: TestError) -> Study:
        """The study that knows the errors of a line."""
        errors = {**self.record.errors, self.key(line): error}
        return replace(self, record=replace(self.record, errors=errors))

    def key(self, line: TableLine) -> str:
        """Names what a line is measured of."""
        tests = ",".join(map(str, self.setting.tests(line)))
        way = self.setting.looks[line.way].name
        return f"{'+'.join(net.name for net in line.nets)} {way} {tests}"

    def save(self) -> None:
        """Writes how the runs are made, and what was measured.

        Raises:
            UserError: that cannot be done.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_record(self.folder / RECORD, self.record)


def run_in(folder: Path, net: str, record: StudyRecord) -> Run | None:
    """The run of a net in a folder of a study, as far as it has come; None before it has begun.

    Raises:
        UserError: it is none, or that of something else.
    """
    if not is_run(folder):
        return None
    run = Run.load(folder)
    found = run.record
    pairs = {
        "net": (found.net, net),
        "seed": (found.seed, record.seed),
        "`--data`": (found.data.path, record.data),
    }
    for name, (there, due) in pairs.items():
        if there != due:
            shown = str(folder), name, str(there), str(due)
            raise UserError(diagnostics.RunOfSomethingElse(*shown))
    return run


def opened(folder: Path, wanted: StudyRecord) -> Study:
    """The study in a folder: that which was begun there the same way, or a new one, of which
    nothing is written yet.

    Raises:
        UserError: the folder holds something else.
    """
    path = folder / RECORD
    if not exists(path):
        refuse_full(folder)
        return Study(folder, wanted)
    try:
        record = read_record(path, StudyRecord)
    except MalformedError as fault:
        raise UserError(diagnostics.NotAStudy(str(folder), str(fault))) from None
    if not record.errors and not record.boxes and not any((folder / "runs").glob("*/run.json")):
        return Study(folder, wanted)
    for name in ("setting", "data", "val", "epochs", "seed"):
        before, now = getattr(record, name), getattr(wanted, name)
        if before != now:
            shown = str(folder), name, str(before), str(now)
            raise UserError(diagnostics.BegunOtherwise(*shown))
    return Study(folder, record)

"""A table of localisation as a grid of runs in a folder, which is that of the tables of classes at
the paper's size: there they share runs and `reproduce.json`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vggc.reproduce.box_setting import BoxSetting, PaperBoxes, SmallBoxes
from vggc.reproduce.box_tables import BoxLine, BoxTraining
from vggc.reproduce.study import BoxError, Study, StudyRecord, opened, run_in
from vggc.training.run import Run


@dataclass(frozen=True)
class BoxStudy:
    """Runs and results of localisation in a folder, of nets of a `setting`."""

    study: Study
    setting: BoxSetting

    @property
    def folder(self) -> Path:
        """Where runs and results are."""
        return self.study.folder

    @property
    def record(self) -> StudyRecord:
        """How the runs are made, and what was measured."""
        return self.study.record

    def run_folder(self, net: BoxTraining) -> Path:
        """The folder of a net's run."""
        return self.folder / "runs" / net.name

    def run_of(self, net: BoxTraining) -> Run | None:
        """The run of a training, as far as it has come; None before it has begun.

        Raises:
            UserError: it is none, or that of something else.
        """
        return run_in(self.run_folder(net), self.takes(net), self.record)

    def takes(self, net: BoxTraining) -> str:
        """The name of the net that a training takes."""
        return self.setting.program(net).net.name

    def failure(self, net: BoxTraining) -> str | None:
        """Why a training, or one before it, was stopped."""
        run = self.run_of(net)
        if run and run.record.state == "stopped":
            return f"{net.name}: {run.record.reason}"
        return self.failure(net.before) if net.before else None

    def failures(self, line: BoxLine) -> list[str]:
        """Why trainings that a line needs were stopped."""
        return [found for test in line.tests if (found := self.failure(test.net))]

    def lacks(self, line: BoxLine) -> bool:
        """Whether a line can be measured and is not yet."""
        return not self.error(line) and not self.failures(line)

    def scales(self, scales: tuple[int, ...]) -> tuple[int, ...]:
        """The scales in this setting for those of the paper."""
        return tuple(map(self.setting.length, scales))

    def error(self, line: BoxLine) -> BoxError | None:
        """What was measured of a line."""
        return self.record.boxes.get(self.key(line))

    def with_error(self, line: BoxLine, error: BoxError) -> BoxStudy:
        """The study that knows the errors of a line."""
        boxes = {**self.record.boxes, self.key(line): error}
        return replace(self, study=replace(self.study, record=replace(self.record, boxes=boxes)))

    def key(self, line: BoxLine) -> str:
        """Names what a line is measured of."""
        each = (f"{t.net.name} {','.join(map(str, self.scales(t.scales)))}" for t in line.tests)
        return f"{' + '.join(each)} {line.way}"

    def save(self) -> None:
        """Writes how the runs are made, and what was measured.

        Raises:
            UserError: that cannot be done.
        """
        self.study.save()


def boxes_opened(folder: Path, wanted: StudyRecord) -> BoxStudy:
    """The study of localisation in a folder, as `opened` has it.

    Raises:
        UserError: the folder holds something else.
    """
    return BoxStudy(opened(folder, wanted), box_setting(wanted))


def box_setting(record: StudyRecord) -> BoxSetting:
    """The setting of a study of localisation."""
    return (PaperBoxes if record.setting == "paper" else SmallBoxes)(record.epochs)

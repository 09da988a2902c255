"""What `reproduce` works on for the tables of localisation: nets of classes, nets of boxes that
begin with them, and tests by both of the paper's protocols.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from vggc.api import localise
from vggc.api.localise import LocaliseOptions, LocalisePlan
from vggc.api.reproduce import columns
from vggc.api.reproduce_grid import (
    GridPlan,
    ReproduceOptions,
    Spectator,
    enough_images,
    where,
)
from vggc.api.train import TrainOptions, TrainPlan, new_run, resume_run
from vggc.data.remote import without_secrets
from vggc.evaluation.views import View, Views
from vggc.reproduce import diagnostics
from vggc.reproduce.box_layout import laid
from vggc.reproduce.box_setting import BoxSetting, PaperBoxes, SmallBoxes
from vggc.reproduce.box_study import BoxStudy, boxes_opened
from vggc.reproduce.box_tables import (
    BOX_TABLES,
    BoxLine,
    BoxTableName,
    BoxTest,
    BoxTraining,
    box_trainings,
)
from vggc.reproduce.layout import Laid
from vggc.reproduce.study import BoxError, StudyRecord
from vggc.support.diagnostics import UserError


@dataclass(frozen=True, kw_only=True)
class BoxTablePlan(GridPlan[BoxStudy, BoxTraining, BoxLine]):
    """A table of localisation that is to be made."""

    table: BoxTableName

    def study(self) -> BoxStudy:
        """What the folder has of the table.

        Raises:
            UserError: it is taken, or its study was begun with other settings.
        """
        return boxes_opened(self.folder, self.record)

    @property
    def trainings(self) -> tuple[BoxTraining, ...]:
        """What is to be trained, each after what it begins with."""
        return box_trainings(self.lines)

    def laid(self, study: BoxStudy) -> Laid:
        """The table as it is so far."""
        return laid(self.table, self.lines, study, self.options.command)

    def require_boxes(self, study: BoxStudy, plan: TrainPlan) -> None:
        """Raises: UserError where pictures have no boxes, of which the last training would be the
        first to tell.
        """
        from vggc.training.diagnostics import ImagesWithoutBoxes

        if plan.images.train.objects is None or plan.images.val.objects is None:
            name = study.setting.program(self.trainings[-1]).net.name
            raise UserError(ImagesWithoutBoxes(name, self.record.data))

    def training_of(self, study: BoxStudy, net: BoxTraining) -> TrainPlan:
        """The training of a net, or what is left of it.

        Raises:
            UserError: the pictures have no boxes, or do not suit the net.
        """
        found = self.begun_or_new(study, net)
        self.require_boxes(study, found)
        return found

    def begun_or_new(self, study: BoxStudy, net: BoxTraining) -> TrainPlan:
        """What is left of the training of a net, or all of it."""
        folder, options = study.run_folder(net), self.options
        asked = TrainOptions(data=self.data, val=self.val, device=options.device)
        if study.run_of(net):
            return resume_run(None, folder, asked)
        asked = replace(
            asked,
            precision=options.precision,
            out=folder,
            init_from=study.run_folder(net.before) if net.before else None,
            seed=study.record.seed,
            changes=study.setting.changes(net),
        )
        with enough_images():
            return new_run(study.setting.program(net), asked)

    def tested(self, study: BoxStudy, line: BoxLine, spectator: Spectator) -> BoxStudy:
        """The study that knows the errors of a line, whose nets are trained."""
        names = " + ".join(test.net.name for test in line.tests)
        plan = self.test_of(study, line)
        with spectator.working(f"testing {names}") as on_progress:
            result = localise.measure(plan, localise.images_for(plan, None), on_progress)
        errors = result.united.get(line.way) or result.each[line.way][0]
        top1, top5 = 100 * errors.top1, 100 * errors.top5
        error = BoxError(top1, top5, errors.mean_iou, result.pictures)
        return study.with_error(line, error)

    def test_of(self, study: BoxStudy, line: BoxLine) -> LocalisePlan:
        """The test of a line: nets that give boxes, and by whole pictures beside each the net of
        classes that it began with, at the same scales.
        """
        options = LocaliseOptions(device=self.options.device, precision=self.options.precision)
        boxes = [study.run_folder(test.net) for test in line.tests]
        if line.way == "centre":
            return localise.plan(boxes, (), options, [line.way], needs_class=False)
        classes = [study.run_folder(test.net.before) for test in line.tests]
        plan = localise.plan(boxes, classes, options, [line.way])
        views = [views_at(study, test) for test in (*line.tests, *line.tests)]
        runs = [replace(r, views={"dense": v}) for r, v in zip(plan.runs, views, strict=True)]
        return replace(plan, runs=tuple(runs))


def views_at(study: BoxStudy, test: BoxTest) -> Views:
    """Whole pictures, and their mirror images, at the scales of a test."""
    scales = study.scales(test.scales)
    return Views(tuple(View(scale, None, 1 / len(scales)) for scale in scales), flip=True)


def plan(table: BoxTableName, options: ReproduceOptions) -> BoxTablePlan:
    """A table of localisation before anything is trained.

    Raises:
        UserError: no pictures are named, or the table has no such lines.
    """
    if options.data is None:
        raise UserError(diagnostics.NoPicturesWithBoxes(table))
    setting: BoxSetting = SmallBoxes() if options.small else PaperBoxes()
    data, val = where(options.data), options.val and where(options.val)
    record = StudyRecord(
        format=1,
        setting="boxes" if options.small else "paper",
        data=without_secrets(data),
        val=val and without_secrets(val),
        epochs=options.epochs or setting.epochs,
        seed=options.seed,
        errors={},
    )
    folder = options.out or Path("reproduced-boxes" if options.small else "reproduced")
    return BoxTablePlan(
        table=table,
        lines=wanted_lines(table, BOX_TABLES[table](setting.start), options.nets),
        folder=folder,
        record=record,
        data=data,
        val=val,
        options=options,
    )


def wanted_lines(
    table: BoxTableName, lines: tuple[BoxLine, ...], nets: str | None
) -> tuple[BoxLine, ...]:
    """The lines of a table, of table 8 those of the regressions that are named.

    Raises:
        UserError: there is none of one of them, or all lines compare one.
    """
    if nets is None:
        return lines
    if table == "table9":
        raise UserError(diagnostics.AllNets(table))
    regressions = dict.fromkeys(line.tests[0].net.regression for line in lines)
    wanted = columns(table, regressions, nets)
    return tuple(line for line in lines if line.tests[0].net.regression in wanted)

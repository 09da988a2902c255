"""What `reproduce` works on: a table of the paper, and a folder of what it takes to make it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from vggc.api import evaluate
from vggc.api.reproduce_grid import (
    GridPlan,
    ReproduceOptions,
    Spectator,
    enough_images,
    where,
)
from vggc.api.train import TrainOptions, TrainPlan, new_run, resume_run
from vggc.data.remote import without_secrets
from vggc.reproduce import diagnostics
from vggc.reproduce.layout import Laid, laid, parameters
from vggc.reproduce.setting import PAPER, SMALL
from vggc.reproduce.study import Study, StudyRecord, TestError, opened
from vggc.reproduce.tables import (
    NETS,
    TABLES,
    TableLine,
    TableName,
    Trained,
    also_random,
    trainings,
)
from vggc.support.diagnostics import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class TablePlan(GridPlan[Study, Trained, TableLine]):
    """A table of classification that is to be made."""

    table: TableName

    def study(self) -> Study:
        """What the folder has of the table.

        Raises:
            UserError: it is taken, or its study was begun with other settings.
        """
        return opened(self.folder, self.record)

    @property
    def trainings(self) -> tuple[Trained, ...]:
        """What is to be trained, each after what it begins with."""
        return trainings(self.lines)

    def laid(self, study: Study) -> Laid:
        """The table as it is so far."""
        return laid(self.table, self.lines, study, self.options.command)

    def training_of(self, study: Study, net: Trained) -> TrainPlan:
        """The training of a net, or what is left of it."""
        folder, setting, options = study.run_folder(net), study.setting, self.options
        asked = TrainOptions(data=self.data, val=self.val, device=options.device)
        if study.run_of(net):
            return resume_run(None, folder, asked)
        asked = replace(
            asked,
            size=setting.input,
            precision=options.precision,
            out=folder,
            init_from=study.run_folder(net.before) if net.before else None,
            seed=study.record.seed,
            changes=setting.recipe(net),
        )
        with enough_images():
            return new_run(setting.spec(net.column), asked)

    def tested(self, study: Study, line: TableLine, spectator: Spectator) -> Study:
        """The study that knows the errors of a line, whose nets are trained."""
        look = study.setting.looks[line.way]
        options = evaluate.EvalOptions(
            scales=",".join(map(str, study.setting.tests(line))),
            protocol=look.protocol,
            grid=f"{look.grid}x{look.grid}" if look.grid else None,
            flip=True,
            device=self.options.device,
            precision=self.options.precision,
        )
        plan = evaluate.plan([study.run_folder(net) for net in line.nets], options)
        with spectator.working(f"testing {line.columns}") as on_progress:
            result = evaluate.measure(plan, evaluate.images_for(plan, None), on_progress)
        errors = result.fused or result.each[0]
        error = TestError(100 * errors.top1, 100 * errors.top5, result.images)
        return study.with_error(line, error)


def plan(table: TableName, options: ReproduceOptions) -> TablePlan:
    """A table of results before anything is trained.

    Raises:
        UserError: no images are named, or there is no such net in the table.
    """
    if options.data is None:
        raise UserError(diagnostics.NoData(table))
    setting = SMALL if options.small else PAPER
    lines = TABLES[table]
    wanted = columns(table, dict.fromkeys(line.columns for line in lines), options.nets)
    lines = tuple(line for line in lines if line.columns in wanted and line.way in setting.looks)
    if table == "table3":
        lines = also_random(lines)
    data, val = where(options.data), options.val and where(options.val)
    record = StudyRecord(
        format=1,
        setting="small" if options.small else "paper",
        data=without_secrets(data),
        val=val and without_secrets(val),
        epochs=options.epochs or setting.epochs,
        seed=options.seed,
        errors={},
    )
    folder = options.out or Path("reproduced-small" if options.small else "reproduced")
    return TablePlan(
        table=table,
        lines=lines,
        folder=folder,
        record=record,
        data=data,
        val=val,
        options=options,
    )


def counted(nets: str | None) -> Laid:
    """Table 2, which counts parameters, with these columns of table 1.

    Raises:
        UserError: there is none of one of them.
    """
    return parameters(columns("table2", NETS, nets))


def columns(table: str, there: Collection[str], nets: str | None) -> tuple[str, ...]:
    """The columns of table 1 that are wanted of those that are there.

    Raises:
        UserError: there is none of one of them.
    """
    if nets is None:
        return tuple(there)
    known = {column.replace(" ", ""): column for column in there}
    wanted = []
    for name in nets.replace(" ", "").split(","):
        if name not in known:
            hint = did_you_mean(name, tuple(known))
            raise UserError(diagnostics.UnknownColumn(table, name, hint))
        wanted.append(known[name])
    return tuple(wanted)

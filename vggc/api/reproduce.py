"""What `reproduce` works on: a table of the paper, and a folder of what it takes to make it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from vggc.api import evaluate
from vggc.api.train import Training, TrainOptions, TrainPlan, new_run, resume_run, training
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
from vggc.support.files import replacing
from vggc.support.precision import TrainPrecision
from vggc.training.progress import Finished, Interrupted, Outcome

if TYPE_CHECKING:
    from vggc.data.prepare import Data
    from vggc.training.parallel import World

ImagesDone: TypeAlias = Callable[[int, int | None], None]
"""Is told how many images of how many are done."""


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """What the user asks `reproduce` for, of table 3 and those behind it; None where nothing is
    said. `command` is what the table says that it was made by.
    """

    data: str | None = None
    val: str | None = None
    small: bool = False
    nets: str | None = None
    epochs: int | None = None
    out: Path | None = None
    device: Literal["cpu", "cuda", "auto"] = "auto"
    precision: TrainPrecision = "float32"
    seed: int = 0
    command: str = "vggc reproduce"


class Spectator(Protocol):
    """Who carries out the long parts of making a table, and shows how they go."""

    def say(self, text: str) -> None:
        """Takes a line that the user should know."""

    def begins(self, training: str) -> None:
        """Is told the name of the training that comes next."""

    def read(self, plan: TrainPlan) -> Data:
        """Reads the images of a training."""
        ...

    def train(self, ready: Training) -> Outcome:
        """Trains to the end, or until somebody interrupts it."""
        ...

    def testing(self, line: TableLine) -> AbstractContextManager[ImagesDone]:
        """Shows how the test of a line goes."""
        ...

    def working(self, what: str) -> AbstractContextManager[ImagesDone]:
        """Shows how other work goes that is told in words."""
        ...


@dataclass(frozen=True, kw_only=True)
class TablePlan:
    """A table that is to be made in a folder, by trainings and tests on images that are at `data`
    and `val`.
    """

    table: TableName
    lines: tuple[TableLine, ...]
    folder: Path
    record: StudyRecord
    data: str
    val: str | None
    options: ReproduceOptions

    def study(self) -> Study:
        """What the folder has of the table.

        Raises:
            UserError: it is taken, or its study was begun with other settings.
        """
        return opened(self.folder, self.record)

    def laid(self, study: Study) -> Laid:
        """The table as it is so far."""
        return laid(self.table, self.lines, study, self.options.command)

    def save(self, study: Study) -> None:
        """Writes the table as it is so far.

        Raises:
            UserError: it cannot be written.
        """
        with replacing(study.folder / f"{self.table}.md") as part:
            part.write_text(self.laid(study).markdown(), encoding="utf-8")

    def make(self, spectator: Spectator) -> Study | None:
        """Trains and tests what the table lacks, alone or as one of several processes; what the
        folder then has of it, None where somebody interrupted that.

        What is left to do, each process reads in the folder; they wait for each other before they
        look, and before the first one writes.

        Raises:
            UserError: a folder is taken, or images cannot be used.
        """
        from vggc.training.learner import choose_machine, device_of
        from vggc.training.parallel import World, joined

        world = World.here()
        machine = choose_machine(self.options.device, self.options.precision)
        with joined(world, device_of(machine, world)):
            study = self.study()
            for net in trainings(self.lines):
                if finished(study, net) or study.failure(net):
                    continue
                if not self.train(study, net, world, spectator):
                    return None
                world.wait()
                if world.is_first:
                    self.save(study)
            for line in self.lines:
                if study.error(line) or any(study.failure(net) for net in line.nets):
                    continue
                study = study.with_error(line, self.measured(study, line, spectator))
                if world.is_first:
                    study.save()
                    self.save(study)
        return study

    def train(self, study: Study, net: Trained, world: World, spectator: Spectator) -> bool:
        """Trains a net to its end, from the beginning or on; whether nobody interrupted that.

        Raises:
            UserError: the images do not suit the table, or the run does not suit the study.
        """
        spectator.begins(net.name)
        return trained(self.training_of(study, net), study.save, world, spectator)

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

    def measured(self, study: Study, line: TableLine, spectator: Spectator) -> TestError:
        """The errors of a line, whose nets are trained."""
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
        with spectator.testing(line) as on_progress:
            result = evaluate.measure(plan, evaluate.images_for(plan, None), on_progress)
        errors = result.fused or result.each[0]
        return TestError(100 * errors.top1, 100 * errors.top5, result.images)


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


def trained(plan: TrainPlan, save: Callable[[], None], world: World, spectator: Spectator) -> bool:
    """Trains to the end, from the beginning or on, after the study is saved; whether nobody
    interrupted that.

    Raises:
        UserError: the images do not suit the net, or a file cannot be written.
    """

    def images() -> Data:
        data = spectator.read(plan)
        world.wait()
        if world.is_first:
            save()
        return data

    with training(plan, images, spectator.say) as ready:
        outcome = spectator.train(ready)
    match outcome:
        case Interrupted() | Finished(interrupted=True):
            return False
        case _:
            return True


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


def where(data: str) -> str:
    """Where images are, wherever one is; a URL stays one."""
    return data if "://" in data else str(Path(data).resolve())


def finished(study: Study, net: Trained) -> bool:
    """Whether the training of a net of the study has come to its end."""
    run = study.run_of(net)
    return run is not None and run.record.state == "finished"


@contextmanager
def enough_images() -> Iterator[None]:
    """Within it, what is said of batches is said of tables, whose batches nobody can change."""
    from vggc.training.diagnostics import BatchTooLarge

    try:
        yield
    except UserError as error:
        found = error.diagnostics[0]
        if isinstance(found, BatchTooLarge):
            raise UserError(diagnostics.TooFewImages(found.batch, found.count)) from None
        raise

"""How `reproduce` makes a table whose lines are tests of trained nets: a grid of runs in a folder.

What tables of classes and of boxes have in common stands here; `reproduce` and `reproduce_boxes`
say what is trained and tested.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, TypeVar

from vggc.api.train import Training, TrainPlan, training
from vggc.reproduce import diagnostics
from vggc.reproduce.layout import Laid
from vggc.reproduce.study import StudyRecord
from vggc.support.diagnostics import UserError
from vggc.support.files import replacing
from vggc.support.precision import TrainPrecision
from vggc.training.progress import Finished, Interrupted, Outcome

if TYPE_CHECKING:
    from vggc.data.prepare import Data
    from vggc.training.parallel import World
    from vggc.training.run import Run

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

    def working(self, what: str) -> AbstractContextManager[ImagesDone]:
        """Shows how work on images goes that is told in words."""
        ...


class GridNet(Protocol):
    """What is trained once, whatever the number of lines that need it."""

    @property
    def name(self) -> str:
        """Names its run."""
        ...

    @property
    def before(self) -> GridNet | None:
        """What it begins with."""
        ...


NetIn = TypeVar("NetIn", bound=GridNet, contravariant=True)
LineIn = TypeVar("LineIn", contravariant=True)


class RunGrid(Protocol[NetIn, LineIn]):
    """What a folder has of a table: runs, and what was measured of lines."""

    @property
    def folder(self) -> Path:
        """Where runs and tables are."""
        ...

    def run_of(self, net: NetIn) -> Run | None:
        """The run of a training, as far as it has come; None before it has begun."""
        ...

    def failure(self, net: NetIn) -> str | None:
        """Why a training, or one before it, was stopped."""
        ...

    def lacks(self, line: LineIn) -> bool:
        """Whether a line can be measured and is not yet."""
        ...

    def save(self) -> None:
        """Writes how the runs are made, and what was measured."""
        ...


NetT = TypeVar("NetT", bound=GridNet)
LineT = TypeVar("LineT")
GridT = TypeVar("GridT", bound=RunGrid[Any, Any])


@dataclass(frozen=True, kw_only=True)
class GridPlan(ABC, Generic[GridT, NetT, LineT]):
    """A table that is to be made in a folder, by trainings and tests on images that are at `data`
    and `val`.
    """

    table: str
    lines: tuple[LineT, ...]
    folder: Path
    record: StudyRecord
    data: str
    val: str | None
    options: ReproduceOptions

    @abstractmethod
    def study(self) -> GridT:
        """What the folder has of the table.

        Raises:
            UserError: it is taken, or its study was begun with other settings.
        """

    @property
    @abstractmethod
    def trainings(self) -> tuple[NetT, ...]:
        """What is to be trained, each after what it begins with."""

    @abstractmethod
    def training_of(self, study: GridT, net: NetT) -> TrainPlan:
        """The training of a net, or what is left of it."""

    @abstractmethod
    def tested(self, study: GridT, line: LineT, spectator: Spectator) -> GridT:
        """The study that knows the errors of a line, whose nets are trained."""

    @abstractmethod
    def laid(self, study: GridT) -> Laid:
        """The table as it is so far."""

    def save(self, study: GridT) -> None:
        """Writes the table as it is so far.

        Raises:
            UserError: it cannot be written.
        """
        write_table(study.folder, self.table, self.laid(study))

    def make(self, spectator: Spectator) -> GridT | None:
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
            for net in self.trainings:
                if finished(study.run_of(net)) or study.failure(net):
                    continue
                spectator.begins(net.name)
                if not trained(self.training_of(study, net), study.save, world, spectator):
                    return None
                world.wait()
                if world.is_first:
                    self.save(study)
            for line in self.lines:
                if not study.lacks(line):
                    continue
                study = self.tested(study, line, spectator)
                if world.is_first:
                    study.save()
                    self.save(study)
        return study


def write_table(folder: Path, name: str, table: Laid) -> None:
    """Writes a table into a folder, in place of what it was before.

    Raises:
        UserError: it cannot be written.
    """
    with replacing(folder / f"{name}.md") as part:
        part.write_text(table.markdown(), encoding="utf-8")


def finished(run: Run | None) -> bool:
    """Whether a training has come to its end."""
    return run is not None and run.record.state == "finished"


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
        return uninterrupted(spectator.train(ready))


def uninterrupted(outcome: Outcome) -> bool:
    """Whether nobody interrupted a training."""
    match outcome:
        case Interrupted() | Finished(interrupted=True):
            return False
        case _:
            return True


def where(data: str) -> str:
    """Where images are, wherever one is; a URL stays one."""
    return data if "://" in data else str(Path(data).resolve())


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

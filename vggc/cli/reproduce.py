"""`vggc reproduce`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, get_args

import click
from click.core import ParameterSource

from vggc.api.reproduce import counted, plan
from vggc.api.reproduce_boxes import plan as boxes_plan
from vggc.api.reproduce_features import FeatureTablePlan
from vggc.api.reproduce_features import plan as features_plan
from vggc.api.reproduce_grid import (
    GridNet,
    GridPlan,
    GridT,
    ImagesDone,
    LineT,
    NetT,
    ReproduceOptions,
    Spectator,
)
from vggc.cli import console
from vggc.cli.options import TRAIN_PRECISION
from vggc.reproduce import diagnostics
from vggc.reproduce.box_tables import BoxTableName
from vggc.reproduce.feature_tables import FeatureTableName
from vggc.reproduce.layout import Laid
from vggc.reproduce.tables import NETS, TableName
from vggc.support import signals
from vggc.support.diagnostics import UserError
from vggc.support.precision import TrainPrecision
from vggc.support.sheet import Sheet

if TYPE_CHECKING:
    from vggc.api.train import Training, TrainPlan
    from vggc.data.prepare import Data
    from vggc.training.progress import Outcome
    from vggc.training.run import Run

Made = TypeVar("Made")

ALL_TABLES = *get_args(TableName), *get_args(BoxTableName), *get_args(FeatureTableName)


@click.command("reproduce")
@click.argument("table", type=click.Choice(ALL_TABLES))
@click.option(
    "--data",
    metavar="DIR|SHARDS",
    help="ImageNet as `vggc train` takes it, CIFAR-10, or pictures with boxes.",
)
@click.option("--val", metavar="DIR|SHARDS", help="What is held out, unless --data says it.")
@click.option("--small", is_flag=True, help="On small images, with small nets.")
@click.option(
    "--nets", metavar="A,B,…", help="Only lines of these nets: columns of table 1, SCR or PCR."
)
@click.option(
    "--epochs",
    type=click.IntRange(1),
    help="Of a training.  [default: 74; small: 10, of features 5, of boxes 16]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder.  [default: reproduced; small: -small, -features, -boxes]",
)
@click.option("--device", type=click.Choice(["cpu", "cuda", "auto"]), default="auto")
@click.option("--precision", type=TRAIN_PRECISION, default="float32")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option("--dry-run", is_flag=True, help="Only list the trainings and how far each has come.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def command(
    table: TableName | BoxTableName | FeatureTableName,
    data: str | None,
    val: str | None,
    small: bool,
    nets: str | None,
    epochs: int | None,
    out: Path | None,
    device: Literal["cpu", "cuda", "auto"],
    precision: TrainPrecision,
    seed: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a table of results of the paper anew: train its nets, test them as it did.

    Trainings that several tables have in common are done once. What was interrupted goes on
    with the same command; the table so far is in the folder. table2 counts parameters.
    """
    if table == "table2":
        refuse_options()
        show(counted(nets), as_json)
        return
    options = ReproduceOptions(
        data=data,
        val=val,
        small=small,
        nets=nets,
        epochs=epochs,
        out=out,
        device=device,
        precision=precision,
        seed=seed,
        command=told(),
    )
    if table == "table11" or table == "table12":
        make_features(features_plan(table, options), dry_run=dry_run, as_json=as_json)
    elif table == "table8" or table == "table9":
        boxes = boxes_plan(table, options)
        make_grid(boxes, lambda net: boxes.study().takes(net), dry_run=dry_run, as_json=as_json)
    else:
        classes = plan(table, options)
        make_grid(classes, lambda net: NETS[net.column], dry_run=dry_run, as_json=as_json)


def make_grid(
    planned: GridPlan[GridT, NetT, LineT],
    takes: Callable[[NetT], str],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Makes a table whose lines are tests of trained nets, or only lists its trainings, each with
    the name of the net that it `takes`.
    """
    if dry_run:
        there = planned.study()
        due = planned.trainings
        listed(there.folder, [row_of(net, takes(net), there.run_of(net)) for net in due])
        return
    make(planned, as_json)


def make_features(planned: FeatureTablePlan, *, dry_run: bool, as_json: bool) -> None:
    """Makes a table of features, or only lists its trainings."""
    if dry_run:
        begun = planned.study()
        for each in planned.trainings:
            run = begun.run_of(*each)
            console.out(f"{begun.run_folder(*each).name}  {run.record.state if run else 'to do'}")
        return
    make(planned, as_json)


class MadeTable(Protocol[Made]):
    """A table that is to be made."""

    def make(self, spectator: Spectator) -> Made | None:
        """Makes what it lacks; None where somebody interrupted that."""
        ...

    def laid(self, study: Made) -> Laid:
        """The table as it is then."""
        ...


def make(planned: MadeTable[Made], as_json: bool) -> None:
    """Makes a table and prints it; exits where somebody interrupts that."""
    shown = Shown()
    study = planned.make(shown)
    if study is None:
        shown.say("Saved. The same command goes on.")
        raise click.exceptions.Exit(signals.exit_code())
    if shown.world.is_first:
        show(planned.laid(study), as_json)


def told() -> str:
    """The command as it was given."""
    return join(["vggc", *sys.argv[1:]])


def refuse_options() -> None:
    """Raises: UserError where the command was given options that counting does not heed."""
    context = click.get_current_context()
    given = [
        f"`{option.opts[0]}`"
        for option in context.command.params
        if isinstance(option, click.Option)
        and option.name not in ("nets", "as_json")
        and context.get_parameter_source(option.name or "") == ParameterSource.COMMANDLINE
    ]
    if given:
        raise UserError(diagnostics.CountsOnly(", ".join(given)))


def row_of(net: GridNet, takes: str, run: Run | None) -> tuple[str, ...]:
    """A training of a net of the name that it `takes`, and how far it has come."""
    epochs = run.record.metrics.epoch if run and run.record.metrics else 0
    begins = net.before.name if net.before else "random weights"
    return net.name, takes, begins, run.record.state if run else "to do", str(epochs)


def listed(folder: Path, rows: Iterable[tuple[str, ...]]) -> None:
    """What is to be trained, in order, and how far each has come."""
    header = ("training", "net", "begins with", "state", "epochs")
    numbers = (False, False, False, False, True)
    console.sheet(
        Sheet(
            title=f"trainings in {folder}/runs",
            header=header,
            rows=tuple(rows),
            numbers=numbers,
        )
    )


class Shown(Spectator):
    """Trains and tests as `vggc train` and `vggc eval` do, and shows how it goes."""

    def __init__(self) -> None:
        from vggc.training.parallel import World

        self.world = World.here()

    def say(self, text: str) -> None:
        if self.world.is_first:
            console.status(text)

    def begins(self, training: str) -> None:
        self.say(f"\n{training}")

    def read(self, plan: TrainPlan) -> Data:
        from vggc.cli.train import read

        return read(plan, self.say)

    def train(self, ready: Training) -> Outcome:
        from vggc.cli.train import watch
        from vggc.training.session import Keeping

        return watch(ready, Keeping(), None, self.say, tensorboard=False)

    def working(self, what: str) -> AbstractContextManager[ImagesDone]:
        from vggc.cli.eval import progress

        return progress(what, self.world.is_first)


# Showing


def show(table: Laid, as_json: bool) -> None:
    """Prints a table, as one object of JSON or for people."""
    if as_json:
        rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
        console.out(json.dumps({"title": table.title, "rows": rows}, ensure_ascii=False))
    else:
        notes = tuple(note.replace("`", "") for note in table.notes)
        console.sheet(
            Sheet(
                title=table.title,
                header=table.header,
                rows=table.rows,
                numbers=table.numbers,
                notes=notes,
            )
        )

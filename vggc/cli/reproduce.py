"""`vggc reproduce`."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Literal, get_args

import click
from click.core import ParameterSource

from vggc.cli import console
from vggc.cli.options import TRAIN_PRECISION
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
from vggc.support import signals
from vggc.support.diagnostics import UserError, did_you_mean
from vggc.support.files import replacing
from vggc.support.precision import TrainPrecision
from vggc.support.sheet import Sheet

if TYPE_CHECKING:
    from vggc.data.prepare import Data
    from vggc.training.parallel import World
    from vggc.training.progress import Outcome


@click.command("reproduce")
@click.argument("table", type=click.Choice(get_args(TableName)))
@click.option(
    "--data",
    metavar="DIR|SHARDS",
    help="ImageNet as `vggc train` takes it, or CIFAR-10.",
)
@click.option("--val", metavar="DIR|SHARDS", help="What is held out, unless --data says it.")
@click.option("--small", is_flag=True, help="On 32×32 images, with nets a quarter as wide.")
@click.option("--nets", metavar="A,B,…", help="Only lines of these columns of table 1.")
@click.option("--epochs", type=click.IntRange(1), help="Of a training.  [default: 74; small: 10]")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder.  [default: reproduced, or -small]"
)
@click.option("--device", type=click.Choice(["cpu", "cuda", "auto"]), default="auto")
@click.option("--precision", type=TRAIN_PRECISION, default="float32")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True)
@click.option("--dry-run", is_flag=True, help="Only list the trainings and how far each has come.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
def command(
    table: TableName,
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
        show(parameters(columns(table, NETS, nets)), as_json)
        return
    if data is None:
        raise UserError(diagnostics.NoData(table))
    setting = SMALL if small else PAPER
    lines = TABLES[table]
    wanted = columns(table, dict.fromkeys(line.columns for line in lines), nets)
    lines = tuple(line for line in lines if line.columns in wanted and line.way in setting.looks)
    if table == "table3":
        lines = also_random(lines)
    folder = out or Path("reproduced-small" if small else "reproduced")
    name: Literal["paper", "small"] = "small" if small else "paper"
    places = where(data), val and where(val)
    record = StudyRecord(
        format=1,
        setting=name,
        data=noted(data),
        val=val and noted(val),
        epochs=epochs or setting.epochs,
        seed=seed,
        errors={},
    )
    if dry_run:
        listed(opened(folder, record), lines)
    elif not make(table, lines, folder, record, Means(*places, device, precision), as_json):
        raise click.exceptions.Exit(signals.exit_code())


@dataclass(frozen=True)
class Means:
    """Where the images are, and what nets are trained and tested on, as it was asked for."""

    data: str
    val: str | None
    device: Literal["cpu", "cuda", "auto"]
    precision: TrainPrecision


def make(
    table: TableName,
    lines: tuple[TableLine, ...],
    folder: Path,
    record: StudyRecord,
    means: Means,
    as_json: bool,
) -> bool:
    """Trains and tests what a table lacks, alone or as one of several processes, and shows it;
    whether nobody interrupted that.

    What is left to do, each of them reads in the folder; they wait for each other before they
    look, and before the first one writes.
    """
    from vggc.training.learner import choose_machine, device_of
    from vggc.training.parallel import World, joined

    world = World.here()
    machine = choose_machine(means.device, means.precision)
    with joined(world, device_of(machine, world)):
        study = opened(folder, record)
        for net in trainings(lines):
            if finished(study, net) or study.failure(net):
                continue
            if not train(study, net, means, world):
                return False
            world.wait()
            if world.is_first:
                save(table, lines, study)
        for line in lines:
            if study.error(line) or any(study.failure(net) for net in line.nets):
                continue
            study = study.with_error(line, measured(study, line, means, world))
            if world.is_first:
                study.save()
                save(table, lines, study)
    if world.is_first:
        show(laid(table, lines, study, told()), as_json)
    return True


def told() -> str:
    """The command as it was given."""
    return join(["vggc", *sys.argv[1:]])


def where(data: str) -> str:
    """Where images are, wherever one is; a URL stays one."""
    return data if "://" in data else str(Path(data).resolve())


def noted(data: str) -> str:
    """What is written down of where images are: nothing secret."""
    from vggc.data.remote import without_secrets

    return without_secrets(where(data))


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


def listed(study: Study, lines: tuple[TableLine, ...]) -> None:
    """What is to be trained, in order, and how far each has come."""
    rows = []
    for net in trainings(lines):
        run = study.run_of(net)
        epochs = run.record.metrics.epoch if run and run.record.metrics else 0
        begins = net.before.name if net.before else "random weights"
        state = run.record.state if run else "to do"
        rows.append((net.name, NETS[net.column], begins, state, str(epochs)))
    header = ("training", "net", "begins with", "state", "epochs")
    numbers = (False, False, False, False, True)
    console.sheet(
        Sheet(
            title=f"trainings in {study.folder}/runs",
            header=header,
            rows=tuple(rows),
            numbers=numbers,
        )
    )


# Training


def finished(study: Study, net: Trained) -> bool:
    """Whether the training of a net of the study has come to its end."""
    run = study.run_of(net)
    return run is not None and run.record.state == "finished"


def train(study: Study, net: Trained, means: Means, world: World) -> bool:
    """Trains a net to its end, from the beginning or on; whether nobody interrupted that."""
    from vggc.api.train import TrainOptions, new_run, resume_run, training
    from vggc.cli.train import read, silent, watch
    from vggc.training.progress import Finished, Interrupted
    from vggc.training.session import Keeping

    folder, setting = study.run_folder(net), study.setting
    speak = console.status if world.is_first else silent
    speak(f"\n{net.name}")
    if study.run_of(net):
        plan = resume_run(
            None, folder, TrainOptions(data=means.data, val=means.val, device=means.device)
        )
    else:
        options = TrainOptions(
            data=means.data,
            val=means.val,
            size=setting.input,
            device=means.device,
            precision=means.precision,
            out=folder,
            init_from=study.run_folder(net.before) if net.before else None,
            seed=study.record.seed,
            changes=setting.recipe(net),
        )
        with enough_images():
            plan = new_run(setting.spec(net.column), options)

    def images() -> Data:
        data = read(plan, speak)
        world.wait()
        if world.is_first:
            study.save()
        return data

    with training(plan, images, speak) as ready:
        outcome: Outcome = watch(ready, Keeping(), None, speak, tensorboard=False)
    match outcome:
        case Interrupted() | Finished(interrupted=True):
            speak("Saved. The same command goes on.")
            return False
        case _:
            return True


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


# Testing


def measured(study: Study, line: TableLine, means: Means, world: World) -> TestError:
    """The errors of a line, whose nets are trained."""
    from vggc.api import evaluate
    from vggc.cli.eval import progress

    look = study.setting.looks[line.way]
    options = evaluate.EvalOptions(
        scales=",".join(map(str, study.setting.tests(line))),
        protocol=look.protocol,
        grid=f"{look.grid}x{look.grid}" if look.grid else None,
        flip=True,
        device=means.device,
        precision=means.precision,
    )
    plan = evaluate.plan([study.run_folder(net) for net in line.nets], options)
    with progress(f"testing {line.columns}", world.is_first) as on_progress:
        result = evaluate.measure(plan, evaluate.images_for(plan, None), on_progress)
    errors = result.fused or result.each[0]
    return TestError(100 * errors.top1, 100 * errors.top5, result.images)


# Showing


def save(table: TableName, lines: tuple[TableLine, ...], study: Study) -> None:
    """Writes the table as it is so far."""
    with replacing(study.folder / f"{table}.md") as part:
        part.write_text(laid(table, lines, study, told()).markdown(), encoding="utf-8")


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

"""`vggc reproduce`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Literal, get_args

import click

from vggc.cli import console
from vggc.cli.sheet import Sheet
from vggc.diagnostics import UserError, did_you_mean
from vggc.files import replacing
from vggc.reproduce import mistakes
from vggc.reproduce.layout import Laid, laid, parameters
from vggc.reproduce.setting import PAPER, SMALL
from vggc.reproduce.study import Error, Record, Study, opened
from vggc.reproduce.tables import (
    NETS,
    TABLES,
    Line,
    TableName,
    Trained,
    also_random,
    trainings,
)

if TYPE_CHECKING:
    from vggc.training.parallel import World
    from vggc.training.progress import Outcome

INTERRUPTED = 130


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
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32")
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
    precision: Literal["fp32", "bf16", "fp16"],
    seed: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make a table of results of the paper anew: train its nets, test them as it did.

    Trainings that several tables have in common are done once. What was interrupted goes on
    with the same command; the table so far is in the folder. table2 counts parameters.
    """
    if table == "table2":
        show(parameters(), as_json)
        return
    if data is None:
        raise UserError(mistakes.NoData(None, table))
    setting = SMALL if small else PAPER
    lines = chosen(table, TABLES[table], nets)
    if table == "table3":
        lines = also_random(lines)
    folder = out or Path("reproduced-small" if small else "reproduced")
    name: Literal["paper", "small"] = "small" if small else "paper"
    record = Record(1, name, where(data), val and where(val), epochs or setting.epochs, seed, {})
    if dry_run:
        listed(opened(folder, record), lines)
    else:
        make(table, lines, folder, record, Means(device, precision), as_json)


@dataclass(frozen=True)
class Means:
    """What nets are trained and tested on, as it was wished."""

    device: Literal["cpu", "cuda", "auto"]
    precision: Literal["fp32", "bf16", "fp16"]


def make(
    table: TableName,
    lines: tuple[Line, ...],
    folder: Path,
    record: Record,
    means: Means,
    as_json: bool,
) -> None:
    """Trains and tests what a table lacks, alone or as one of several processes.

    What is left to do, each of them reads in the folder; they wait for each other before they
    look, and before the first one writes.
    """
    from vggc.training.learner import choose_machine, device_of
    from vggc.training.parallel import World, joined

    world = World.here()
    machine = choose_machine(means.device, means.precision)
    with joined(world, device_of(machine, world)):
        if world.is_first:
            opened(folder, record)
        world.wait()
        study = opened(folder, record)
        for net in trainings(lines):
            if not (finished(study, net) or study.failure(net)):
                train(study, net, means, world)
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


def told() -> str:
    """The command as it was given."""
    return join(["vggc", *sys.argv[1:]])


def where(data: str) -> str:
    """Where images are, wherever one is; a URL stays one."""
    return data if "://" in data else str(Path(data).resolve())


def chosen(table: str, lines: tuple[Line, ...], nets: str | None) -> tuple[Line, ...]:
    """The lines of some columns of table 1.

    Raises:
        UserError: the table has none of one of them.
    """
    if nets is None:
        return lines
    wanted = nets.split(",")
    there = dict.fromkeys(line.columns for line in lines)
    for column in wanted:
        if column not in there:
            hint = did_you_mean(column, tuple(there))
            raise UserError(mistakes.UnknownColumn(None, table, column, hint))
    return tuple(line for line in lines if line.columns in wanted)


def listed(study: Study, lines: tuple[Line, ...]) -> None:
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
    console.sheet(Sheet(f"trainings in {study.folder}/runs", header, tuple(rows), numbers))


# Training


def finished(study: Study, net: Trained) -> bool:
    run = study.run_of(net)
    return run is not None and run.record.state == "finished"


def train(study: Study, net: Trained, means: Means, world: World) -> None:
    """Trains a net to its end, from the beginning or on."""
    from vggc.cli.train import read, silent, watch
    from vggc.train import Wishes, again, anew
    from vggc.training.progress import Interrupted
    from vggc.training.session import Keeping

    folder, setting = study.run_folder(net), study.setting
    speak = console.status if world.is_first else silent
    speak(f"\n{net.name}")
    if study.run_of(net):
        plan = again(None, folder, Wishes(device=means.device))
    else:
        wishes = Wishes(
            study.record.data,
            val=study.record.val,
            size=setting.input,
            device=means.device,
            precision=means.precision,
            out=folder,
            init_from=study.run_folder(net.before) if net.before else None,
            seed=study.record.seed,
            changes=setting.recipe(net),
        )
        plan = anew(setting.spec(net.column), wishes)
    world.wait()
    training = plan.start(read(plan, speak))
    outcome: Outcome = watch(training, Keeping(), None, speak, tensorboard=False)
    if isinstance(outcome, Interrupted):
        speak("Saved. The same command goes on.")
        raise click.exceptions.Exit(INTERRUPTED)


# Testing


def measured(study: Study, line: Line, means: Means, world: World) -> Error:
    """The errors of a line, whose nets are trained."""
    from vggc import evaluate
    from vggc.cli.eval import progress

    setting = study.setting
    tests = ",".join(str(setting.length(test)) for test in line.tests)
    wishes = evaluate.Wishes(
        scales=tests,
        protocol=line.way,
        flip=True,
        device=means.device,
        precision=means.precision,
    )
    plan = evaluate.plan([study.run_folder(net) for net in line.nets], wishes)
    with progress(f"testing {line.columns}", world.is_first) as on_progress:
        result = evaluate.measure(plan, evaluate.images_for(plan, None), on_progress)
    errors = result.fused or result.each[0]
    return Error(100 * errors.top1, 100 * errors.top5, result.images)


# Showing


def save(table: TableName, lines: tuple[Line, ...], study: Study) -> None:
    """Writes the table as it is so far."""
    with replacing(study.folder / f"{table}.md") as part:
        part.write_text(laid(table, lines, study, told()).markdown(), encoding="utf-8")


def show(table: Laid, as_json: bool) -> None:
    if as_json:
        rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
        console.out(json.dumps({"title": table.title, "rows": rows}, ensure_ascii=False))
    else:
        notes = tuple(note.replace("`", "") for note in table.notes)
        console.sheet(Sheet(table.title, table.header, table.rows, table.numbers, notes))

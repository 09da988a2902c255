"""`vggc train`."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from statistics import harmonic_mean
from typing import TYPE_CHECKING, Literal

import click

from vggc.cli import console
from vggc.cli.options import IMAGE_SIZE
from vggc.cli.sheet import Sheet
from vggc.diagnostics import CheckFailed, UserError, printable, render
from vggc.driver import Program, load, with_block, with_classes, with_input
from vggc.files import refuse_full
from vggc.source import Source
from vggc.syntax.format import format_net
from vggc.syntax.parse import parse
from vggc.training import mistakes
from vggc.training.progress import (
    EpochDone,
    Event,
    Finished,
    Interrupted,
    Outcome,
    Progress,
    StepDone,
    Stopped,
)
from vggc.training.recipe import (
    He,
    OneCycle,
    Recipe,
    check_scale,
    differences,
    override,
    to_block,
)

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from vggc.training.images import Data, Images
    from vggc.training.loop import Learner, Precision
    from vggc.training.run import Run
    from vggc.training.session import Task

DIGITS_SIZE = (32, 32)

SKIPPED_SHOWN = 20
"""Broken images that are named one by one; the others are only counted."""

INTERRUPTED = 130
"""The exit code that shells give a program that Ctrl-C ended."""


@dataclass(frozen=True)
class Wishes:
    """What the command line says; None where it says nothing."""

    data: Path | None
    epochs: int | None
    batch: int | None
    lr: float | None
    size: tuple[int, int] | None
    device: Literal["cpu", "cuda", "auto"] | None
    precision: Precision | None
    out: Path | None
    seed: int | None
    changes: tuple[str, ...]


@click.command("train")
@click.argument("spec", required=False)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Folder of class folders, or with such in train/ and val/.  [default: scanned digits]",
)
@click.option("--epochs", type=int, help="Passes over the training images.")
@click.option("--batch", type=int, help="Images in a step.")
@click.option("--lr", type=float, help="Learning rate; its peak where it cycles.")
@click.option("--input", "size", type=IMAGE_SIZE, help="Height and width of the input.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda", "auto"]), help="[default: auto, CUDA if present]"
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    help="Type that layers compute in; weights stay float32.  [default: fp32]",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/NET-TIME]"
)
@click.option("--resume", type=click.Path(path_type=Path), help="Go on with the run in a folder.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Of all randomness.  [default: 0]")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the recipe: momentum=0.8, schedule=one-cycle, init=he, flip=off …",
)
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def command(spec: str | None, resume: Path | None, as_json: bool, **rest: object) -> None:
    """Train the net SPEC by the recipe in its file.

    Without --data it trains on the 1,797 scanned digits that come with scikit-learn.
    The run's folder gets the net, the recipe as used, a table and a picture of the
    course, the weights and, until it has finished, a checkpoint to --resume from.

    Ctrl-C saves before it stops; the resumed run ends with the same weights.
    Exit 1: the loss is not finite or never leaves that of guessing.
    """
    wishes = Wishes(**rest)  # type: ignore[arg-type]  # click has checked the types
    run, outcome = again(spec, resume, wishes) if resume else anew(spec, wishes)
    report(run, outcome, as_json)
    match outcome:
        case Finished():
            pass
        case Interrupted():
            raise click.exceptions.Exit(INTERRUPTED)
        case Stopped(_, reason):
            raise CheckFailed(render(reason).removeprefix("error: "))


# A new run


def anew(spec: str | None, wishes: Wishes) -> tuple[Run, Outcome]:
    """Trains a net from the start."""
    if spec is None:
        raise UserError(mistakes.NothingToTrain(None))
    program = load(spec)
    recipe = recipe_for(program, wishes)

    from vggc.training.loop import choose_machine
    from vggc.training.session import Task, begin

    machine = choose_machine(wishes.device or "auto", wishes.precision or "fp32")
    if wishes.out is not None:
        refuse_full(wishes.out)
    seed = wishes.seed or 0
    images = find(wishes.data, seed)
    fitted = fit_program(program, images, recipe, wishes)
    if machine.device == "cpu":
        fitted.check_memory(recipe.batch)
    module = fitted.logits_module()
    data = read(images, recipe, fitted)
    tell_differences(program, fitted, recipe)
    task = Task(fitted.net.name, format_net(fitted.net), module, data, recipe, machine, seed)
    run, learner = begin(task, wishes.out, datetime.now())
    return watch(run, learner, task, Progress())


def recipe_for(program: Program, wishes: Wishes) -> Recipe:
    """The file's recipe; for the digits with defaults of their own; as the flags change it."""
    recipe = program.recipe
    if wishes.data is None:
        recipe = for_digits(recipe)
    for key in ("epochs", "batch", "lr"):
        value = getattr(wishes, key)
        if value is not None:
            recipe = override(recipe, [f"{key}={value}"], f"--{key}")
    return override(recipe, wishes.changes)


def for_digits(recipe: Recipe) -> Recipe:
    """What suits 1,437 small grey images better than what ImageNet asks for."""
    return replace(
        recipe, batch=32, epochs=9, schedule=OneCycle(), init=He(), scale=None, flip=False
    )


def fit_program(program: Program, images: Images, recipe: Recipe, wishes: Wishes) -> Program:
    """The net for these images: their size, their classes, and the recipe as used.

    It is read back from its own text, the one that the run's folder will hold, so that
    whatever is wrong with it shows where it is wrong.

    Raises:
        UserError: the net cannot take them.
    """
    net = with_block(program.net, to_block(recipe))
    size = wishes.size or (DIGITS_SIZE if wishes.data is None else None)
    if size is not None:
        net = with_input(net, size)
    if program.graph.output != (len(images.classes),):
        net = with_classes(net, len(images.classes))
    fitted = program.replace(parse(Source(f"{net.name}.vgg as fitted", format_net(net))))
    _, height, width = fitted.graph.input
    block = program.net.block("train")
    settings = block.settings if block else ()
    span = next((setting.span for setting in settings if setting.key == "scale"), None)
    check_scale(recipe, (height, width), span)
    return fitted


def tell_differences(program: Program, fitted: Program, recipe: Recipe) -> None:
    """Says where the run departs from the file."""
    changes = [
        ("input", shape(program.graph.input), shape(fitted.graph.input)),
        ("classes", shape(program.graph.output), shape(fitted.graph.output)),
        *differences(program.recipe, recipe),
    ]
    changes = [change for change in changes if change[1] != change[2]]
    if changes:
        console.status(f"This run departs from the file of {program.net.name}:")
    for key, before, after in changes:
        console.status(f"  {key:<18} {before or '-'} → {after or '-'}")


def shape(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


# A run to go on with


def again(spec: str | None, folder: Path, wishes: Wishes) -> tuple[Run, Outcome]:
    """Goes on with a run that was interrupted."""
    refuse_changes(spec, folder, wishes)

    from vggc.training.loop import choose_machine
    from vggc.training.run import Run
    from vggc.training.session import Task, resume

    run = Run.load(folder)
    record = run.record
    if record.state == "finished" and record.metrics:
        last = record.metrics
        raise UserError(mistakes.RunFinished(None, str(folder), last.epoch, last.val_top1))
    machine = choose_machine(wishes.device or record.device, record.precision)
    program = load(str(run.net_path))
    run.require_fit(program.graph.input, program.graph.output)
    recorded = Path(record.data.path) if record.data.path else None
    images = find(wishes.data or recorded, record.seed)
    data = read(images, run.recipe, program)
    text = format_net(program.net)
    module = program.logits_module()
    task = Task(record.net, text, module, data, run.recipe, machine, record.seed)
    learner, progress = resume(run, task)
    done = len(progress.epochs)
    console.status(f"Going on with {folder} after {done} epochs and {progress.sums.steps} steps.")
    return watch(run, learner, task, progress)


def refuse_changes(spec: str | None, folder: Path, wishes: Wishes) -> None:
    """Only where the images are and what computes may change when a run goes on."""
    given = {
        "SPEC": spec,
        "`--epochs`": wishes.epochs,
        "`--batch`": wishes.batch,
        "`--lr`": wishes.lr,
        "`--input`": wishes.size,
        "`--precision`": wishes.precision,
        "`--out`": wishes.out,
        "`--seed`": wishes.seed,
        "`--set`": wishes.changes or None,
    }
    flags = [flag for flag, value in given.items() if value is not None]
    if flags:
        raise UserError(mistakes.FixedByRun(None, ", ".join(flags), str(folder)))


# Images


def find(folder: Path | None, seed: int) -> Images:
    """The images in a folder; with None, the digits."""
    from vggc.training.images import digits, find_images

    if folder is not None:
        return find_images(folder, seed)
    images = digits()
    console.status(
        "No --data: training on scikit-learn's "
        f"{len(images.train) + len(images.val):,} scanned digits. "
        "For your own images: --data DIR, with a folder of images for each class."
    )
    return images


def read(images: Images, recipe: Recipe, program: Program) -> Data:
    """Reads and checks all images, and says which were left out."""
    from vggc.training.images import prepare

    channels, height, width = program.graph.input
    with bar() as progress:
        row = progress.add_task("reading images", total=None, detail="")
        data = prepare(
            images,
            recipe,
            channels,
            (height, width),
            lambda done, total: progress.update(row, completed=done, total=total),
        )
    for skipped in data.skipped[:SKIPPED_SHOWN]:
        console.status(f"  skipped {printable(skipped.name)}: {printable(skipped.reason)}")
    if len(data.skipped) > SKIPPED_SHOWN:
        console.status(f"  … and {len(data.skipped) - SKIPPED_SHOWN} more")
    if data.skipped:
        console.status(f"{len(data.skipped):,} broken images were skipped.")
    console.status(
        f"{len(data.train):,} images to train on, {len(data.val):,} held out, "
        f"{len(data.classes)} classes."
    )
    return data


# Watching


def watch(run: Run, learner: Learner, task: Task, progress: Progress) -> tuple[Run, Outcome]:
    """Trains on, showing how it goes."""
    from vggc.training.session import proceed

    machine = task.machine
    console.status(
        f"Training {task.net} on {machine.device} in {machine.precision} into {run.folder}/; "
        "Ctrl-C saves and stops."
    )
    with bar() as drawn:
        row = drawn.add_task("training", total=None, detail="")
        outcome = proceed(run, learner, task, progress, Watcher(drawn, row, task.recipe.epochs))
    return run, outcome


@dataclass(frozen=True)
class Watcher:
    """Shows each step in the bar and leaves a line for each epoch."""

    bar: Bar
    row: TaskID
    num_epochs: int

    def __call__(self, event: Event) -> None:
        match event:
            case StepDone():
                self.bar.update(
                    self.row,
                    description=f"epoch {event.epoch}/{self.num_epochs}",
                    completed=event.done,
                    total=event.total,
                    detail=f"loss {event.loss:.3f}  top-1 {event.top1:.1%}  "
                    f"{event.images_per_second:,.0f} images/s",
                )
            case EpochDone(epoch):
                self.bar.console.print(
                    f"epoch {epoch.epoch}/{self.num_epochs}  loss {epoch.train_loss:.4f}  "
                    f"top-1 {epoch.train_top1:.1%}  held-out loss {epoch.val_loss:.4f}  "
                    f"top-1 {epoch.val_top1:.1%}  top-5 {epoch.val_top5:.1%}  "
                    f"{epoch.images_per_second:,.0f} images/s  {epoch.seconds:.1f} s"
                )


def bar() -> Bar:
    """A progress bar on stderr; nothing where stderr is no terminal."""
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    drawn = console.stderr()
    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
        console=drawn,
        transient=True,
        disable=not drawn.is_terminal,
    )


# What came of it


def report(run: Run, outcome: Outcome, as_json: bool) -> None:
    """The result on stdout; where it all lies and how to go on on stderr."""
    epochs = outcome.progress.epochs
    last = epochs[-1] if epochs else None
    speed = harmonic_mean([epoch.images_per_second for epoch in epochs]) if epochs else None
    if as_json:
        result = {
            "run": str(run.folder),
            "epochs": len(epochs),
            "val_top1": last.val_top1 if last else None,
            "val_top5": last.val_top5 if last else None,
            "images_per_second": speed,
        }
        console.out(json.dumps(result))
    elif last and speed:
        rows = (
            ("epochs", f"{last.epoch} of {run.recipe.epochs}"),
            ("held-out top-1", f"{last.val_top1:.2%}"),
            ("held-out top-5", f"{last.val_top5:.2%}"),
            ("held-out loss", f"{last.val_loss:.4f}"),
            ("speed", f"{speed:,.1f} images/s"),
            ("time", f"{sum(epoch.seconds for epoch in epochs):,.0f} s"),
        )
        console.sheet(
            Sheet(f"{run.record.net}, trained", ("run", str(run.folder)), rows, (False, True))
        )
    match outcome:
        case Finished():
            console.status(f"Next: vggc compile {run.folder}")
        case Interrupted():
            console.status(f"Saved. Go on with: vggc train --resume {run.folder}")
        case Stopped():
            console.status(f"What was saved after {len(epochs)} epochs is kept in {run.folder}.")

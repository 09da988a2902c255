"""`vggc train`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import harmonic_mean
from typing import TYPE_CHECKING, Literal, TypeAlias

import click

from vggc.api.train import (
    RunFinished,
    Training,
    TrainOptions,
    TrainPlan,
    new_run,
    resume_run,
    training,
)
from vggc.cli import console
from vggc.cli.options import IMAGE_SIZE, TRAIN_PRECISION, device_option, workers_option
from vggc.cli.skipped import told
from vggc.data.diagnostics import WorkerEnded
from vggc.recipe.layers import layers_by_recipe
from vggc.support import signals
from vggc.support.diagnostics import CheckFailed, in_command, listed, render
from vggc.support.memory import keep_memory
from vggc.support.precision import TrainPrecision
from vggc.support.sheet import Sheet
from vggc.training.best import best_epoch, said
from vggc.training.measures import MeasuredPart, accuracies
from vggc.training.progress import (
    Epoch,
    EpochDone,
    Event,
    Finished,
    ImagesLost,
    Interrupted,
    NotSaved,
    Outcome,
    StepDone,
    StepsNotWritten,
    Stopped,
)
from vggc_runtime.text import in_line

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from vggc.data.prepare import Data
    from vggc.training.run import Run
    from vggc.training.session import Keeping

WEIGHTS_SHOWN = 20
"""Classes whose weights are told one by one."""


@click.command("train")
@click.argument("spec", required=False)
@click.option(
    "--data",
    metavar="PLACE",
    help="Folder of class folders, or with such in train/ and val/ (or what parts are usually "
    "called); pictures with boxes (Pascal VOC, ILSVRC, COCO, YOLO or a table); CIFAR's binary "
    "files; shards, as a folder or a pattern: s3://photos/train-{0000..0146}.tar  "
    "[default: scanned digits]",
)
@click.option(
    "--val",
    metavar="PLACE",
    help="Images to hold out, of the same kinds.  [default: those in --data, or a fifth of it]",
)
@click.option("--epochs", type=int, help="Passes over the training images.")
@click.option("--batch", type=int, help="Images in a step.")
@click.option("--lr", type=float, help="Learning rate; its peak where it cycles.")
@click.option("--input", "size", type=IMAGE_SIZE, help="Height and width of the input.")
@device_option
@click.option(
    "--precision",
    type=TRAIN_PRECISION,
    help="Type that layers compute in; weights stay float32.  [default: float32]",
)
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=None,
    help="Compute by torch.compile.  [default: on GPUs]",
)
@click.option(
    "--shard",
    "sharded",
    is_flag=True,
    help="Under torchrun: processes share weights and momenta, and each needs less memory.",
)
@click.option(
    "--save-steps",
    type=click.IntRange(1),
    metavar="N",
    help="Save every N steps, too.  [default: after each epoch and every ten minutes]",
)
@click.option(
    "--keep",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="How many checkpoints are kept, the newest; when it has finished one, or with 0 none.",
)
@workers_option
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/NET-TIME]"
)
@click.option(
    "--init-from",
    type=click.Path(path_type=Path),
    metavar="PATH|imagenet",
    help="Run or weights of the net that the recipe's `init-from` names; or published weights, for "
    "all layers that they fit where the recipe names none.  [default: the last run of that net]",
)
@click.option(
    "--weights",
    type=click.Choice(["last", "best"]),
    callback=lambda context, option, value: value and Path(value),
    help="Which weights of that run.  [default: last]",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Go on with a run; with more --epochs for longer than it was to, finished or not.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Of all randomness.  [default: 0]")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the recipe: train.lr=0.001, schedule=one-cycle, init=he, flip=off …",
)
@click.option(
    "--tensorboard", is_flag=True, help="Write for TensorBoard, too, into the run's `tensorboard`."
)
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def command(
    spec: str | None,
    data: str | None,
    val: str | None,
    epochs: int | None,
    batch: int | None,
    lr: float | None,
    size: tuple[int, int] | None,
    device: Literal["cpu", "cuda", "auto"] | None,
    precision: TrainPrecision | None,
    compiled: bool | None,
    sharded: bool,
    save_steps: int | None,
    keep: int,
    workers: int | None,
    out: Path | None,
    init_from: Path | None,
    weights: Path | None,
    resume: Path | None,
    seed: int | None,
    changes: tuple[str, ...],
    tensorboard: bool,
    as_json: bool,
) -> None:
    """Train the net SPEC by the recipe in its file.

    Without --data it trains on the 1,797 scanned digits that come with scikit-learn.
    The run's folder gets the net, the recipe as used, a table and a picture of the
    course, the weights and, until it has finished, a checkpoint to --resume from.

    Ctrl-C saves before it stops; the resumed run ends with the same weights.
    Exit 1: a loss or the weights are not finite, or nothing is learned.
    """
    from vggc.training.learner import device_of
    from vggc.training.parallel import World, joined
    from vggc.training.session import Keeping
    from vggc.training.tensorboard import require_tensorboard

    if tensorboard:
        require_tensorboard()
    options = TrainOptions(
        data=data,
        val=val,
        epochs=epochs,
        batch=batch,
        lr=lr,
        size=size,
        device=device,
        precision=precision,
        compiled=compiled,
        sharded=sharded,
        out=out,
        init_from=init_from,
        weights=weights,
        seed=seed,
        changes=changes,
    )
    try:
        plan = resume_run(spec, resume, options) if resume else new_run(spec, options)
    except RunFinished as finished:
        if World.here().is_first:
            tell_finished(finished.run, as_json)
        return
    speak = console.status if plan.world.is_first else silent
    with joined(plan.world, device_of(plan.machine, plan.world)):
        announce(plan, speak)
        with training(plan, lambda: read(plan, speak), speak) as ready:
            if plan.run:
                done, steps = len(ready.progress.epochs), ready.progress.sums.steps
                speak(f"Going on with {resume} after {done} epochs and {steps} steps.")
            outcome = watch(ready, Keeping(save_steps, keep), workers, speak, tensorboard)
    if plan.world.is_first:
        report(ready, outcome, as_json)
    match outcome:
        case Finished():
            pass
        case Interrupted():
            raise click.exceptions.Exit(signals.exit_code())
        case Stopped(_, reason):
            raise CheckFailed(render(reason).removeprefix("error: "))


Speak: TypeAlias = Callable[[str], None]


def silent(text: str) -> None:
    """What other processes than the first say."""


# Before


def announce(plan: TrainPlan, speak: Speak) -> None:
    """Says what is trained on by default, and where a new run departs from its file."""
    images = plan.images
    if plan.run is None and images.path is None:
        speak(
            "No --data: training on scikit-learn's "
            f"{len(images.train) + len(images.val):,} scanned digits. "
            "For your own images: --data DIR, with a folder of images for each class."
        )
    if plan.first.path:
        speak(f"It begins with {len(plan.first.weights)} weights of {plan.first.path}.")
    if plan.first.remark:
        speak(plan.first.remark)
    departures = plan.departures
    if departures and departures.changes:
        speak(f"This run departs from {departures.base}:")
        width = max(18, *(len(key) for key, _, _ in departures.changes))
        for key, before, after in departures.changes:
            speak(f"  {key:<{width}} {before} → {after}")
    if plan.run is None:
        for said, layers in layers_by_recipe(plan.program.graph).items():
            speak(f"Trained with {said}, as the net says: {listed(layers)}.")


def read(plan: TrainPlan, speak: Speak) -> Data:
    """Reads and checks all images; says what is used of a place, which were left out, and how much
    classes count.
    """
    from vggc.training.augment import Weighing

    for note in plan.images.notes:
        speak(in_line(note))
    with bar(plan.world.is_first) as progress:
        row = progress.add_task("reading images", total=None, detail="")
        data = plan.read(lambda done, total: progress.update(row, completed=done, total=total))
    for line in told(data.skipped):
        speak(line)
    speak(
        f"{len(data.train):,} images to train on, {len(data.val):,} held out, "
        f"{console.count(len(data.classes), 'class', 'classes')}."
    )
    white = data.preprocessing.white
    for what, value in (("whole numbers", white.whole), ("fractions", white.real)):
        if value is not None:
            speak(f"White in greys of more than eight bits, in {what}, is {value:,.0f}.")
    if weighing := Weighing.of(plan.recipe, data.train.part.labels, len(data.classes)):
        speak(f"In the training loss {weights_told(data.classes, weighing.weights.tolist())}.")
    return data


def weights_told(classes: Sequence[str], weights: Sequence[float]) -> str:
    """Which class counts how much, the first of them where there are many."""
    pairs = zip(classes[:WEIGHTS_SHOWN], weights, strict=False)
    told = ", ".join(f"{in_line(name)} counts {weight:.3g}" for name, weight in pairs)
    more = len(classes) - WEIGHTS_SHOWN
    return f"{told}; {more:,} more classes have weights, too" if more > 0 else told


# Watching


def watch(
    training: Training, keeping: Keeping, workers: int | None, speak: Speak, tensorboard: bool
) -> Outcome:
    """Trains on, showing how it goes, and to TensorBoard if that is asked for."""
    from vggc.training.session import proceed
    from vggc.training.tensorboard import board

    run, task, progress = training.run, training.task, training.progress
    machine, world = task.machine, task.world
    processes = f" in {world.size} processes" if world.size > 1 else ""
    speak(
        f"Training {task.net} on {machine.device} in {machine.precision}{processes} into "
        f"{run.folder}/; Ctrl-C saves and stops."
    )
    if task.data.skipped:
        speak(f"{run.skipped_path} names the images that were left out, and why.")
    if machine.device == "cpu":
        keep_memory()
    with ExitStack() as stack:
        drawn = stack.enter_context(bar(world.is_first))
        row = drawn.add_task("training", total=None, detail="")
        watchers: list[Callable[[Event], None]] = [
            ProgressView(drawn, row, task.num_epochs, world.is_first)
        ]
        if tensorboard and world.is_first:
            opened = board(run.folder, task.net_text, task.recipe, progress, speak)
            watchers.append(stack.enter_context(opened))

        def tell(event: Event) -> None:
            for watcher in watchers:
                watcher(event)

        return proceed(run, training.learner, task, progress, tell, keeping, workers)


@dataclass(frozen=True)
class ProgressView:
    """Shows each step in the bar and leaves a line for each epoch."""

    bar: Bar
    row: TaskID
    num_epochs: int
    speaks: bool

    def __call__(self, event: Event) -> None:
        match event:
            case StepDone():
                self.bar.update(
                    self.row,
                    description=f"epoch {event.epoch}/{self.num_epochs}",
                    completed=event.done,
                    total=event.total,
                    detail=f"loss {event.loss:.3f}  {rising(event)}"
                    f"{event.images_per_second:,.0f} images/s",
                )
            case EpochDone(epoch):
                self.tell(epoch)
            case ImagesLost(lost):
                for each in lost:
                    console.status(f"  left out {in_line(each.name)}: {in_line(each.reason)}")
            case NotSaved(reason):
                console.status(f"A checkpoint was not saved; the training goes on. {reason}")
            case StepsNotWritten(reason):
                console.status(f"steps.csv waits to be written; the training goes on. {reason}.")

    def tell(self, epoch: Epoch) -> None:
        """Leaves the line of an epoch."""
        if self.speaks:
            trained, held_out = told_of(epoch, "training"), told_of(epoch, "held-out")
            self.bar.console.print(
                f"epoch {epoch.epoch}/{self.num_epochs}  loss {epoch.train_loss:.4f}  {trained}"
                f"held-out loss {epoch.val_loss:.4f}  {held_out}"
                f"{epoch.images_per_second:,.0f} images/s  {epoch.seconds:.1f} s"
            )


def told_of(epoch: Epoch, part: MeasuredPart) -> str:
    """What has come of one part of the images in an epoch, for its line."""
    return "".join(f"{each.name} {value:.1%}  " for each, value in accuracies(epoch, part))


def rising(event: StepDone) -> str:
    """What has come of the images of an epoch so far, for the bar."""
    told = {"top-1": event.top1, "mean IoU": event.iou}
    return "".join(f"{name} {value:.1%}  " for name, value in told.items() if value is not None)


def bar(shown: bool) -> Bar:
    """A progress bar on stderr; nothing where stderr is no terminal, or it is not to be shown."""
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
        disable=not (shown and drawn.is_terminal),
    )


# What came of it


def report(training: Training, outcome: Outcome, as_json: bool) -> None:
    """The result on stdout; where it all lies and how to go on on stderr."""
    run = training.run
    epochs, named = outcome.progress.epochs, in_command(run.folder)
    show(run, epochs, training.task.num_epochs, as_json)
    match outcome:
        case Finished(reason=reason):
            if reason:
                console.status(f"{reason[0].upper()}{reason[1:]}.")
            console.status(f"Next: vggc report {named}, vggc compile {named}")
        case Interrupted():
            console.status(f"Saved. Go on with: vggc train --resume {named}")
        case Stopped(_, WorkerEnded()):
            console.status(f"Saved. Go on with: vggc train --resume {named}")
        case Stopped() if run.has_weights:
            after = console.count(len(epochs), "whole epoch")
            console.status(f"The weights saved last, after {after}, are kept in {run.folder}.")
        case Stopped():
            console.status(f"No weights are kept in {run.folder}: there were no sound ones yet.")


def tell_finished(run: Run, as_json: bool) -> None:
    """The result of a run of which nothing is left to train."""
    from vggc.training.metrics import read_metrics

    epochs = read_metrics(run.folder)
    num_epochs = run.recipe.num_epochs(-(-run.record.data.train // run.recipe.batch))
    show(run, epochs, num_epochs, as_json)
    console.status(
        f"{run.folder} has finished; nothing is left to train. For longer: "
        f"vggc train --resume {in_command(run.folder)} --epochs {2 * num_epochs}"
    )


def show(run: Run, epochs: Sequence[Epoch], num_epochs: int, as_json: bool) -> None:
    """The result of a run on stdout."""
    last = epochs[-1] if epochs else None
    measure = run.recipe.best_by
    best = best_epoch(epochs, measure)
    speed = harmonic_mean([epoch.images_per_second for epoch in epochs]) if epochs else None
    if as_json:
        result = {
            "run": str(run.folder),
            "epochs": len(epochs),
            "val_top1": last.val_top1 if last else None,
            "val_top5": last.val_top5 if last else None,
            "val_iou": last.val_iou if last else None,
            "val_iou50": last.val_iou50 if last else None,
            "best_epoch": best.epoch if best else None,
            "best_val_top1": best.val_top1 if best else None,
            "best_val_iou": best.val_iou if best else None,
            "best_val_loss": best.val_loss if best else None,
            "images_per_second": speed,
        }
        console.out(json.dumps(result))
    elif last and best and speed:
        rows = (
            ("epochs", f"{last.epoch} of {num_epochs}"),
            *((f"held-out {each.name}", f"{v:.2%}") for each, v in accuracies(last, "held-out")),
            ("held-out loss", f"{last.val_loss:.4f}"),
            (f"best, epoch {best.epoch}", said(best, measure)),
            ("speed", f"{speed:,.1f} images/s"),
            ("time", f"{sum(epoch.seconds for epoch in epochs):,.0f} s"),
        )
        console.sheet(
            Sheet(
                title=f"{run.record.net}, trained",
                header=("run", str(run.folder)),
                rows=rows,
                numbers=(False, True),
            )
        )

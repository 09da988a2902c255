"""A training together with its folder: begun, saved, interrupted, resumed, finished."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from vggc.data.order import Classes, Order
from vggc.data.prepare import Data
from vggc.data.remote import absolute
from vggc.ir.layer_recipe import LayerRecipe
from vggc.recipe.train import TRAIN, Measure, Recipe, without_end
from vggc.support import signals
from vggc.support.diagnostics import UserError
from vggc.support.files import Taken, new_folder, refuse_irreplaceable
from vggc.support.source import Source
from vggc.syntax.format import format_net
from vggc.syntax.parse import parse
from vggc.training import diagnostics
from vggc.training.augment import Augmentation, Normaliser, Weighing
from vggc.training.best import best_epoch
from vggc.training.checkpoint import (
    Snapshot,
    Writer,
    checkpoints,
    kept_weights,
    read_checkpoint,
    restore,
    save_tensors,
    shared,
    snapshot,
    step_of,
    untested,
    write_checkpoint,
    written_tensors,
)
from vggc.training.curves import FEW, POINTS, draw_curves
from vggc.training.curves import NAME as CURVES
from vggc.training.initialise import initialise
from vggc.training.learner import Learner, TrainMachine
from vggc.training.loop import Saving, Watching, fit
from vggc.training.measures import accuracies
from vggc.training.metrics import NAME as METRICS
from vggc.training.metrics import write_metrics
from vggc.training.objective import CLASSIFYING, Objective
from vggc.training.parallel import ALONE, World
from vggc.training.progress import (
    Epoch,
    Event,
    Finished,
    Interrupted,
    NotSaved,
    Outcome,
    Progress,
    StepDone,
    StepsNotWritten,
    Stopped,
)
from vggc.training.run import (
    Moment,
    Origin,
    Run,
    RunRecord,
    place_for,
    write_run,
    write_text,
)
from vggc.training.schedules import needs_its_end
from vggc.training.skipped import write_skipped
from vggc.training.steps import StepTable, read_steps
from vggc_runtime.version import __version__

SAVE_SECONDS = 600.0
"""A long epoch is saved whenever this much time has passed."""


@dataclass(frozen=True)
class TrainTask:
    """What is to be trained: a net by name and as text, built, on these images.

    `module` maps images float32 (N, C, H, W) to class scores (N, classes), or to what each of
    several heads gives, by their names; the names of its weights are those in the weights file.
    `frozen` are those of them that keep their first values, `undecayed` those that the L2 penalty
    leaves alone; `layers` holds by their names what their layers say of their training, and
    `objective` is what is made small. `first` holds the weights by name that
    another training gave; the others are drawn by the seed. `beside`
    holds the texts of the nets that this one's names.
    """

    net: str
    net_text: str
    module: nn.Module
    data: Data
    recipe: Recipe
    machine: TrainMachine
    seed: int
    frozen: tuple[str, ...] = ()
    undecayed: tuple[str, ...] = ()
    layers: Mapping[str, LayerRecipe] = field(default_factory=dict)
    objective: Objective = CLASSIFYING
    first: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    world: World = ALONE
    beside: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def order(self) -> Order:
        """In which order the images come."""
        labels = self.data.train.part.labels
        classes = Classes.of(labels) if self.recipe.sampler == "balanced" else None
        return Order(len(self.data.train), self.recipe.batch, self.seed, classes)

    @property
    def num_epochs(self) -> int:
        """Epochs of the whole training, the last of which may be cut short."""
        return self.recipe.num_epochs(self.order.num_batches)

    def fingerprint(self, step: int) -> str:
        """Changes with the net, the seed and all of the recipe that has decided the training up to
        a step: what comes later may still be changed.
        """
        net = parse(Source("net.vgg", self.net_text))
        text = format_net(replace(net, blocks=tuple(b for b in net.blocks if b.key != "train")))
        fixed = [text, TRAIN.flatten(without_end(self.recipe)), self.seed, *self.ends(step)]
        return hashlib.sha256(json.dumps(fixed).encode()).hexdigest()

    def ends(self, step: int) -> list[int]:
        """Where the rounds of the schedule that have begun before a step end, if that matters."""
        if not needs_its_end(self.recipe):
            return []
        batches = self.order.num_batches
        starts = [0, *(epoch * batches for epoch in self.recipe.restarts or ())]
        ends = [*starts[1:], self.recipe.num_steps(batches)]
        return [end for start, end in zip(starts, ends, strict=True) if start < step]

    def learner(self) -> Learner:
        """The learner of the task, on the device and with the weights that it begins with."""
        data = self.data

        def augmentation(device: torch.device) -> Augmentation:
            normaliser = Normaliser.of(data.preprocessing, device)
            weighing = Weighing.of(self.recipe, data.train.part.labels, len(data.classes))
            return Augmentation(self.recipe, self.order, data.colour_axes, normaliser, weighing)

        return Learner(
            self.module,
            self.recipe,
            self.machine,
            augmentation,
            self.frozen,
            self.undecayed,
            self.world,
            self.objective,
            self.layers,
        )


@dataclass(frozen=True)
class Keeping:
    """Which checkpoints are written and kept: every so many steps, if at all, beside those after
    each epoch and every ten minutes; the newest so many. One of them is kept when the training has
    finished, too, if any are.
    """

    every: int | None = None
    newest: int = 2


def begin(task: TrainTask, first: Snapshot | None, out: Path | None, now: datetime) -> Run:
    """Makes the folder of a new run; it is there whole or not at all.

    Its `first` state, if the seed does not give it, is its first checkpoint.

    Raises:
        UserError: `out` is there and not an empty folder, or a file cannot be written.
    """
    while True:
        try:
            return begun(task, first, place_for(out, task.net, now), now)
        except UserError as error:
            # Another run that starts in this second has taken the place meanwhile.
            if out is not None or not isinstance(error.diagnostics[0], Taken):
                raise


def begun(task: TrainTask, first: Snapshot | None, folder: Path, now: datetime) -> Run:
    """`begin`, in this very folder."""
    run = Run(folder, record_of(task, now))
    with new_folder(run.folder) as part:
        inside = Run(part, run.record)
        write_text(inside.net_path, task.net_text)
        for name, text in task.beside.items():
            write_text(part / f"{name}.vgg", text)
        write_run(part, run.record)
        write_skipped(inside.skipped_path, task.data.skipped)
        if first:
            mark = task.data.fingerprints.whole
            write_checkpoint(inside.checkpoint_path, first, mark, task.fingerprint(0))
    return run


def record_of(task: TrainTask, now: datetime) -> RunRecord:
    """The record of a run that begins at the moment `now`."""
    data = task.data
    channels, size = len(data.preprocessing.mean), data.preprocessing.size
    return RunRecord(
        format=2,
        net=task.net,
        state="running",
        reason=None,
        started=now.isoformat(timespec="seconds"),
        seed=task.seed,
        device=task.machine.device,
        precision=task.machine.precision,
        input=(channels, *size),
        classes=data.classes,
        preprocessing=data.preprocessing,
        recipe=TRAIN.flatten(task.recipe),
        data=Origin(
            path=absolute(data.path) if data.path else None,
            train=len(data.train),
            val=len(data.val),
            skipped=len(data.skipped),
            fingerprints=data.fingerprints,
            val_path=absolute(data.val_path) if data.val_path else None,
            pictures=data.num_bytes,
        ),
        versions={
            "vggc": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        metrics=None,
    )


def proceed(
    run: Run,
    learner: Learner,
    task: TrainTask,
    progress: Progress,
    on_event: Callable[[Event], None],
    keeping: Keeping,
    workers: int | None = None,
) -> Outcome:
    """Trains on from `progress`, and leaves in the run's folder what came of it.

    Ctrl-C, SIGTERM and SIGHUP let the step finish and save; a second one ends at once. Of several
    processes the first writes.

    Raises:
        UserError: a file cannot be read or written.
    """
    if task.world.is_first:
        run = taken_up_again(run, task)
    with (
        Interrupts() as interrupts,
        writer(run, task, keeping) as checkpoint_writer,
        ExitStack() as stack,
    ):
        table: StepTable | None = None
        if task.world.is_first:
            say = partial(told, on_event)
            table = stack.enter_context(StepTable(run.folder, progress.step, say))

        def tell(event: Event) -> None:
            if table and isinstance(event, StepDone):
                table.add(event.row)
            on_event(event)

        def write(progress: Progress, is_last: bool) -> None:
            if task.world.is_first or task.machine.sharded:
                taken = snapshot(learner, progress)
            if table:
                table.write(sync=True)  # no checkpoint is of steps that it does not have
                save(run, taken, task.recipe.best_by, checkpoint_writer, is_last, on_event)

        outcome = fit(
            learner,
            task.data,
            task.recipe,
            task.order,
            progress=progress,
            saving=Saving(write, SAVE_SECONDS, keeping.every),
            watching=Watching(tell, interrupts.any),
            workers=workers,
        )
        with suppress(UserError):
            checkpoint_writer.wait()
        if task.world.is_first:
            conclude(run, outcome, task.recipe.best_by, keeping)
        task.world.wait()
        if isinstance(outcome, Finished):
            outcome = replace(outcome, interrupted=interrupts.any())
    return outcome


def told(on_event: Callable[[Event], None], reason: str) -> None:
    """Tells that steps are not written any more, and why."""
    on_event(StepsNotWritten(reason))


def taken_up_again(run: Run, task: TrainTask) -> Run:
    """The run whose files say that it is going, and by which recipe: its end may be another than
    it was. `run.json` comes first, which is the one that counts.

    Raises:
        UserError: in the place of a file that will be written lies what is none.
    """
    for name in (METRICS, CURVES, run.weights_path.name, run.best_path.name):
        refuse_irreplaceable(run.folder / name)
    record = replace(run.record, state="running", reason=None, recipe=TRAIN.flatten(task.recipe))
    if record != run.record:
        write_run(run.folder, record)
    if run.net_path.read_text("utf-8") != task.net_text:
        write_text(run.net_path, task.net_text)
    return replace(run, record=record)


def writer(run: Run, task: TrainTask, keeping: Keeping) -> Writer:
    """What writes the checkpoints of a run, marked with its images and its task."""
    mark, newest = task.data.fingerprints.whole, max(1, keeping.newest)
    return Writer(run.checkpoint_path, newest, mark, task.fingerprint)


def save(
    run: Run,
    taken: Snapshot,
    measure: Measure,
    checkpoint_writer: Writer,
    is_last: bool,
    on_event: Callable[[Event], None],
) -> None:
    """Writes a checkpoint, its weights and the table of epochs; the last one must not fail.

    Raises:
        UserError: the last one cannot be written.
    """
    try:
        checkpoint_writer.wait()
    except UserError as fault:
        # A full disk may have room again for this one; the one before that is still there.
        on_event(NotSaved(str(fault).removeprefix("error: ")))
    checkpoint_writer.write(taken, partial(follow, run, taken, measure))
    if is_last:
        checkpoint_writer.wait()


def follow(run: Run, taken: Snapshot, measure: Measure) -> None:
    """Writes what follows from a checkpoint that is there now."""
    progress = taken.progress
    keep_best(run, taken, measure)
    write_weights(run.weights_path, taken.tensors, Moment.of(progress))
    write_metrics(run.folder, progress.epochs)  # which tells that there is a checkpoint
    if progress.epochs and not progress.sums.steps:
        write_run(run.folder, with_figures(run.record, progress.epochs, measure))


def with_figures(record: RunRecord, epochs: Sequence[Epoch], measure: Measure) -> RunRecord:
    """The record with what the last epoch and the best have come to."""
    last = epochs[-1] if epochs else None
    return replace(record, metrics=last, best=best_epoch(epochs, measure))


def keep_best(run: Run, taken: Snapshot, measure: Measure) -> None:
    """Writes the weights after the best epoch, if that is the one which has just ended."""
    progress = taken.progress
    if not progress.sums.steps and progress.epochs:
        best = best_epoch(progress.epochs, measure)
        if best is progress.epochs[-1]:
            write_weights(run.best_path, taken.tensors, Moment.of(progress))


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor], moment: Moment) -> None:
    """Writes the weights of a checkpoint for others, with the moment that they are of."""
    save_tensors(path, kept_weights(tensors), moment.metadata)


def resume(run: Run, task: TrainTask) -> tuple[Learner, Progress]:
    """The learner and the progress of a run's newest checkpoint.

    Before the first checkpoint a run starts over, with the same weights.

    Raises:
        UserError: the checkpoint is damaged, or the images are not the same.
    """
    learner = fresh(task)
    taken = taken_up(run, learner, task) if task.world.is_first else None
    if task.world.is_first:
        write_skipped(run.skipped_path, task.data.skipped)
    state = shared(taken, learner, task.world)
    if state is None:
        return learner, Progress()
    if task.world.is_first:
        # Whoever wrote this checkpoint may have been ended before what follows from it.
        follow(run, state, task.recipe.best_by)
    restore(learner, state)
    return learner, state.progress


def agree(task: TrainTask) -> None:
    """Makes sure that all processes have the same images.

    Raises:
        UserError: they do not.
    """
    data = task.data
    found = task.world.lists([(data.fingerprints.whole, len(data.train), len(data.val))])
    for rank, other in enumerate(found):
        if other != found[0]:
            counts = (found[0][1:], other[1:])
            first, here = (f"{train:,} and {val:,}" for train, val in counts)
            raise UserError(diagnostics.ImagesDiffer(rank, first, here))


def fresh(task: TrainTask) -> Learner:
    """A learner with first weights."""
    initialise(task.module, task.recipe.init, task.seed, task.layers)
    with torch.no_grad():
        for name, tensor in task.module.state_dict().items():
            if name in task.first:
                tensor.copy_(torch.from_numpy(task.first[name]))
    return task.learner()


def taken_up(run: Run, learner: Learner, task: TrainTask) -> Snapshot | None:
    """The state in the newest checkpoint; None before there is one."""
    name, data, record = task.data.path or "scikit-learn", task.data, run.record
    changed = record.data.fingerprints.change(data.fingerprints)
    if data.classes != record.classes:
        changed = "the classes, or their order, are others"
    if changed:
        raise UserError(diagnostics.DataChanged(name, changed))
    found = checkpoints(run.checkpoint_path)
    if not found:
        if run.has_progress or task.recipe.init_from:
            reason = "it is missing, and the weights can be had from nowhere else"
            raise UserError(diagnostics.BadCheckpoint(str(run.checkpoint_path), reason))
        return None
    num_steps = task.recipe.num_steps(task.order.num_batches)
    mark = data.fingerprints.whole
    return read_checkpoint(found[0], learner, mark, name, task.fingerprint, num_steps)


def conclude(run: Run, outcome: Outcome, measure: Measure, keeping: Keeping) -> None:
    """Writes curves and the record. Of a finished run the newest checkpoint is kept, by which it
    can be extended, unless none is to be.

    The weights are those of the last checkpoint: where a loss was not finite, of the last that
    did not give it. A checkpoint is sound: what diverged was never written.
    """
    epochs = outcome.progress.epochs
    if isinstance(outcome, Stopped) and isinstance(outcome.reason, diagnostics.LossNotFinite):
        take_back(run, outcome.progress)
    record = with_figures(run.record, epochs, measure)
    match outcome:
        case Finished(reason=reason):
            record = replace(record, state="finished", reason=reason)
        case Interrupted():
            record = replace(record, state="interrupted", reason=None)
        case Stopped(_, reason):
            record = replace(record, state="stopped", reason=reason.fill(reason.title))
    if epochs:
        figures = (f"{each.name} {v:.1%}" for each, v in accuracies(epochs[-1], "held-out"))
        title = f"{run.record.net} · held-out {next(figures)}"
        steps = read_steps(run.folder, POINTS) if len(epochs) <= FEW else ()
        draw_curves(run.folder / CURVES, title, epochs, steps)
    write_run(run.folder, record)
    if record.state == "finished":
        for old in checkpoints(run.checkpoint_path)[1:]:
            shutil.rmtree(old, ignore_errors=True)
        if keeping.newest == 0:
            shutil.rmtree(run.checkpoint_path, ignore_errors=True)


def take_back(run: Run, progress: Progress) -> None:
    """Keeps the weights of the last checkpoint that did not give a loss which is not finite; where
    there is none, there are no weights.
    """
    found = checkpoints(run.checkpoint_path)
    sound = [path for path in found if path.name != untested(progress.step)]
    if not sound:
        run.weights_path.unlink(missing_ok=True)
    elif sound[0] != found[0]:
        step = step_of(sound[0])
        epochs = sum(row.step <= step for row in progress.epochs)
        write_weights(run.weights_path, written_tensors(sound[0]), Moment(epochs, step))


class Interrupts(AbstractContextManager["Interrupts"]):
    """Within it, the first signal that asks to end is noted only; the next one acts as ever."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.before: dict[int, Any] = {}

    def any(self) -> bool:
        return self.received is not None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is not threading.main_thread():
            return self  # which no signal reaches
        for number in signals.ENDING:
            if (was := signal.getsignal(number)) != signal.SIG_IGN:  # as `nohup` has it
                self.before[number] = was
                signal.signal(number, self.note)
        return self

    def note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signals.note(number)
        self.restore()

    def restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.restore()

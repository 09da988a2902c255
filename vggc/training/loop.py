"""The training loop: a learner and images in; trained weights out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import astuple, dataclass, replace
from itertools import islice
from math import inf, log, sqrt
from time import perf_counter

import numpy as np
import torch

from vggc.data.loader import Batch, TrainBatches, ValBatches, load, num_workers
from vggc.data.order import Order
from vggc.data.parts import Skipped
from vggc.data.prepare import Data
from vggc.data.workers import WorkerLost, never
from vggc.recipe.train import Recipe
from vggc.support.diagnostics import UserError
from vggc.training import diagnostics
from vggc.training.augment import changes_of
from vggc.training.best import stopped_early
from vggc.training.checkpoint import unsound
from vggc.training.learner import Learner, StepResult
from vggc.training.prefetch import prefetched
from vggc.training.progress import (
    Epoch,
    EpochDone,
    EpochSums,
    Event,
    Finished,
    ImagesLost,
    Interrupted,
    Measured,
    Outcome,
    Progress,
    StepDone,
    StepRow,
    StepSums,
    Stopped,
    is_sound,
)
from vggc.training.schedules import learning_rate

FLAT_EPOCHS, FLAT_STEPS, FLAT_SHARE = 2, 200, 0.98
"""A training stops as flat after this many epochs and this many steps, if in no epoch its net
had learned anything: the training loss or the held-out loss was below this share of the way from
the least loss there can be to ln(classes), the loss of guessing, or the held-out top-1 accuracy
beyond chance."""

CHANCE_DEVIATIONS = 3
"""An accuracy is beyond chance by more than so many standard deviations of what comes of always
guessing the most frequent class."""

MOST_LOST = 0.01
"""The share of an epoch's images that may get lost before a training stops."""


@dataclass(frozen=True)
class Saving:
    """When to save: whenever so many seconds have passed, and every so many steps, if at all.

    `write` takes the state of the learner; with `wait` it comes back when that is written.
    """

    write: Callable[[Progress, bool], None]
    seconds: float = inf
    every: int | None = None


@dataclass(frozen=True)
class Watching:
    """Who is told of what happens, and asked whether to stop."""

    on_event: Callable[[Event], None]
    interrupted: Callable[[], bool]


def fit(
    learner: Learner,
    data: Data,
    recipe: Recipe,
    order: Order,
    *,
    progress: Progress,
    saving: Saving,
    watching: Watching,
    workers: int | None = None,
) -> Outcome:
    """Trains from `progress` to the end of the recipe.

    Stops before that when interrupted, when a loss or what would be saved is not finite, or when
    nothing is learned (see FLAT_EPOCHS). What is saved after each epoch, on the way and on an
    interrupt is such that whoever restores it and calls again ends with the same weights.

    The learner holds initial weights, or those that belong to `progress`. Whether to stop is
    asked after each step and while accuracy is measured. Batches are made by so many `workers`,
    or as many as suit the images.

    Raises:
        UserError: too many images cannot be read any more, or the device is out of memory.
    """
    world = learner.world
    if workers is None:
        workers = num_workers(data.train, world.local_size, changes_of(recipe))
    total = recipe.num_steps(order.num_batches)
    training = TrainBatches(data.train, order, world.share, changes_of(recipe))
    pin = learner.device.type == "cuda"
    steps = range(progress.step, total)
    try:
        # Of several processes none may stop by itself: the others would wait for it.
        stop = watching.interrupted if world.size == 1 else never
        with closing(load(training, steps, workers, pin=pin, stop=stop)) as batches:
            prefetch = prefetched(batches, learner.device)
            loop = Loop(
                learner=learner,
                data=data,
                recipe=recipe,
                order=order,
                saving=saving,
                watching=watching,
                workers=workers,
            )
            while progress.step < total or progress.sums.steps:
                # Perhaps the one who wrote this progress was ended before it could conclude.
                ended = None if progress.sums.steps else stopped_early(recipe, progress.epochs)
                if ended:
                    return Finished(progress, reason=ended)
                outcome = loop.epoch(progress, prefetch)
                if not isinstance(outcome, Progress):
                    return outcome
                progress = outcome
    except torch.OutOfMemoryError:
        device, batch = learner.machine.device, min(recipe.batch, len(data.train))
        raise UserError(diagnostics.OutOfMemory(device, batch, max(1, batch // 2))) from None
    return Finished(progress)


@dataclass(frozen=True)
class Loop:
    """What stays the same from epoch to epoch."""

    learner: Learner
    data: Data
    recipe: Recipe
    order: Order
    saving: Saving
    watching: Watching
    workers: int

    @property
    def num_parts(self) -> int:
        """Into how many parts a step's images are divided, over processes and one by one."""
        return self.learner.world.size * self.recipe.accumulate

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.recipe.num_steps(self.order.num_batches)

    def epoch(
        self, progress: Progress, prefetch: Iterator[Batch]
    ) -> Progress | Interrupted | Stopped:
        """What is left of one epoch."""
        first = len(progress.epochs) * self.order.num_batches
        last = min(first + self.order.num_batches, self.num_steps)
        course = self.train(progress, islice(prefetch, last - progress.step), last)
        if isinstance(course, Stopped):
            return course
        sums, lr, start = course.sums, self.rate(progress, last - 1), perf_counter()
        try:
            measured = self.measure() if course.step == last else None
        except WorkerLost as fault:
            if self.learner.world.size > 1:
                raise
            return self.without_workers(course, fault)
        if measured is None:
            return self.save(course, True) or Interrupted(course)
        if not is_sound(measured.loss):
            return Stopped(progress, self.not_finite("held-out", measured.loss, last - 1, lr))
        train = self.means(sums)
        row = Epoch(
            epoch=len(progress.epochs) + 1,
            step=last,
            lr=lr,
            train_loss=train.loss,
            train_top1=train.top1,
            train_iou=train.iou,
            val_loss=measured.loss,
            val_top1=measured.top1,
            val_top5=measured.top5,
            val_iou=measured.iou,
            val_iou50=measured.iou50,
            images_per_second=sums.images / max(1e-9, sums.seconds),
            seconds=sums.seconds + perf_counter() - start,
        )
        before, progress = progress, Progress((*progress.epochs, row))
        ends = last == self.num_steps or stopped_early(self.recipe, progress.epochs) is not None
        if diverged := self.save(progress, ends):
            return replace(diverged, progress=before)
        self.watching.on_event(EpochDone(row))
        flat = self.flat(progress) if self.recipe.give_up else None
        return Stopped(progress, flat) if flat else progress

    def save(self, progress: Progress, is_last: bool) -> Stopped | None:
        """Has the state written, unless nothing can come of it: what was written before stays."""
        what = unsound(self.learner)
        if what is None:
            self.saving.write(progress, is_last)
            return None
        step = progress.step
        epoch, lr = self.order.place(step - 1)[0] + 1, self.rate(progress, step - 1)
        return Stopped(progress, diagnostics.Diverged(what, epoch, step, lr, lr / 10))

    def train(self, progress: Progress, batches: Iterator[Batch], last: int) -> Progress | Stopped:
        """The steps before `last`, or until someone asks to stop."""
        step, lost, saved_at = progress.step, 0, perf_counter()
        pending: deque[PendingStep] = deque()
        # A GPU has begun on the next step before anyone asks what came of the last.
        lag = 1 if self.learner.device.type == "cuda" else 0
        started, asked, every = perf_counter(), False, self.saving.every
        coming = Coming(batches, alone=self.learner.world.size == 1)
        while pending or not coming.ended:
            if (batch := coming.next()) is not None:
                lr = self.rate(progress, step)
                measured = self.learner.step(batch, step, lr)
                pending.append(PendingStep(step, lr, measured, tuple(batch.lost)))
                step += 1
                asked = asked or (every is not None and step % every == 0)
            while len(pending) > (0 if asked or step == last or coming.ended else lag):
                begun = pending.popleft()
                done = self.told(begun, perf_counter() - saved_at > self.saving.seconds)
                mean = done.sums.loss / max(1, done.sums.images)
                if not is_sound(mean):
                    return Stopped(
                        progress, self.not_finite("training", mean, begun.step, begun.lr)
                    )
                lost += done.lost
                self.bear(lost, self.order.num_images, begun.lost)
                now = perf_counter()
                sums = progress.sums.plus(done.sums, now - started)
                seconds, started = now - started, now
                progress = replace(progress, sums=sums)
                row = self.row(begun, done, seconds)
                self.watching.on_event(self.step_done(progress, row))
                asked = asked or done.stop or done.save
                if done.stop and not pending:
                    return progress
            if asked:
                asked, saved_at = False, perf_counter()
                if step < last and (diverged := self.save(progress, False)):
                    return diverged
        if coming.fault:
            return self.without_workers(progress, coming.fault)
        return progress

    def without_workers(self, progress: Progress, fault: WorkerLost) -> Stopped:
        """Saves what there is when no more batches come."""
        return self.save(progress, True) or Stopped(progress, fault.problem)

    def row(self, begun: PendingStep, done: Done, seconds: float) -> StepRow:
        """A step in the table of steps."""
        epoch, means = self.order.place(begun.step)[0] + 1, self.means(done.sums)
        return StepRow(
            step=begun.step + 1,
            epoch=epoch,
            lr=begun.lr,
            loss=means.loss,
            top1=means.top1,
            iou=means.iou,
            images_per_second=max(1, done.sums.images) / max(1e-9, seconds),
        )

    def step_done(self, progress: Progress, row: StepRow) -> StepDone:
        """The event of a step: the means of its epoch so far, and how many steps of all are
        done.
        """
        sums, means = progress.sums, self.means(progress.sums)
        return StepDone(
            epoch=len(progress.epochs) + 1,
            done=progress.step,
            total=self.num_steps,
            loss=means.loss,
            top1=means.top1,
            iou=means.iou,
            images_per_second=sums.images / max(1e-9, sums.seconds),
            row=row,
        )

    def means(self, sums: StepSums | EpochSums) -> Measured:
        """The means over the images of a step, or of the steps of an epoch."""
        images, boxed = max(1, sums.images), max(1, sums.boxed)
        objective = self.learner.objective
        return Measured(
            sums.loss / images,
            top1=sums.correct / images if objective.classes else None,
            iou=sums.overlap / boxed if objective.boxes else None,
            iou50=sums.found / boxed if objective.boxes else None,
        )

    def told(self, begun: PendingStep, is_late: bool) -> Done:
        """What came of a step in all processes together, and whether to save or to stop then."""
        world = self.learner.world
        stop, late = self.watching.interrupted(), is_late and world.is_first
        mine = astuple(begun.measured.read())
        *sums, lost, stops, saves = world.sums([*mine, len(begun.lost), stop, late])
        images, loss, correct, boxed, overlap, right = sums
        together = StepSums(
            images=int(images),
            loss=loss,
            correct=int(correct),
            boxed=int(boxed),
            overlap=overlap,
            found=int(right),
        )
        return Done(sums=together, lost=int(lost), save=bool(saves), stop=bool(stops))

    def bear(self, count: int, images: int, newest: tuple[Skipped, ...]) -> None:
        """Tells of the newest lost images; `count` of so many are lost in this epoch so far.

        Raises:
            UserError: they are too many to go on.
        """
        if newest:
            self.watching.on_event(ImagesLost(newest))
        if count > MOST_LOST * images:
            named = [f"{each.name}: {each.reason}" for each in newest[:1]]
            reason = named[0] if named else "another process could not read it"
            raise UserError(diagnostics.ImageLost(count, reason))

    def measure(self) -> Measured | None:
        """How the net does on the held-out images; None if it was interrupted.

        Raises:
            UserError: too many of them cannot be read any more.
        """
        learner, world = self.learner, self.learner.world
        # As many at once as a process trains on: of those it is known that there is room.
        batches = ValBatches(self.data.val, -(-self.recipe.batch // self.num_parts))
        steps = range(world.rank, len(batches), world.size)
        workers = min(self.workers, len(steps)) if self.data.val.kept is None else 0
        pin = learner.device.type == "cuda"
        lost: list[Skipped] = []
        with closing(load(batches, steps, workers, pin=pin)) as loaded:
            there = readable(prefetched(loaded, learner.device), lost)
            measured = learner.evaluate(there, self.watching.interrupted)
        if measured:
            (count,) = world.sums([len(lost)])
            self.bear(int(count), len(self.data.val), tuple(lost))
        return measured

    def rate(self, progress: Progress, step: int) -> float:
        """The learning rate of a step."""
        past = tuple(row.accuracy for row in progress.epochs)
        restarts = [epoch * self.order.num_batches for epoch in self.recipe.restarts or ()]
        return learning_rate(self.recipe, step, self.num_steps, past, restarts)

    def flat(self, progress: Progress) -> diagnostics.LossFlat | None:
        """The warning that the loss stays at what guessing gives, where it does. What boxes come to
        by guessing is known of none.
        """
        heads = self.learner.objective.heads
        if any(head.kind != "classes" for head in heads):
            return None
        part = self.data.val.part
        count = np.bincount(part.labels).max()
        chance = beyond_chance(int(count), len(part.labels))
        smoothing = self.recipe.label_smoothing or 0.0
        weight = sum(head.loss.weight for head in heads)
        return flat_loss(progress, len(self.data.classes), smoothing, chance, weight)

    def not_finite(self, part: str, loss: float, step: int, lr: float) -> diagnostics.LossNotFinite:
        """The mistake of a loss that is no finite number, at a step with its learning rate."""
        epoch, _ = self.order.place(step)
        return diagnostics.LossNotFinite(part, loss, epoch + 1, step + 1, lr, lr / 10)


@dataclass
class Coming:
    """The batches of a training until they end, or a process that makes them does: the `fault`.

    Not `alone`, the training ends with it, and the other processes hear of that.
    """

    batches: Iterator[Batch]
    alone: bool
    ended: bool = False
    fault: WorkerLost | None = None

    def next(self) -> Batch | None:
        """The next batch; None at the end."""
        try:
            batch = None if self.ended else next(self.batches, None)
        except WorkerLost as fault:
            if not self.alone:
                raise
            batch, self.fault = None, fault
        self.ended = batch is None
        return batch


@dataclass(frozen=True)
class PendingStep:
    """A step whose outcome nobody has asked for yet."""

    step: int
    lr: float
    measured: StepResult
    lost: tuple[Skipped, ...]


@dataclass(frozen=True)
class Done:
    """A step's sums over the images of all processes, and what someone asks for after it."""

    sums: StepSums
    lost: int
    save: bool
    stop: bool


def readable(batches: Iterable[Batch], lost: list[Skipped]) -> Iterator[Batch]:
    """The batches that have images; notes those that could not be read."""
    for batch in batches:
        lost.extend(batch.lost)
        if len(batch.labels):
            yield batch


def flat_loss(
    progress: Progress, num_classes: int, smoothing: float, chance: float, weight: float = 1.0
) -> diagnostics.LossFlat | None:
    """The reason to stop if the net has learned nothing (see FLAT_EPOCHS); held-out accuracies
    up to `chance` are none. The loss is the sum over heads, each by its weight, all of which
    together are `weight`.

    Mixed and disguised images keep the training loss of a net that learns near that of guessing,
    so the held-out images, which are neither, are asked as well.
    """
    epochs, last, guess = len(progress.epochs), progress.epochs[-1], weight * log(num_classes)
    least = weight * least_loss(num_classes, smoothing)
    limit = least + FLAT_SHARE * (guess - least)
    learned = any(
        row.train_loss < limit or row.val_loss < FLAT_SHARE * guess or row.accuracy > chance
        for row in progress.epochs
    )
    if learned or epochs < FLAT_EPOCHS or last.step < FLAT_STEPS:
        return None
    return diagnostics.LossFlat(epochs, last.step, last.train_loss, num_classes, guess, last.lr)


def beyond_chance(most: int, images: int) -> float:
    """The accuracy on so many images, `most` of them of one class, that no guessing is beyond."""
    share = most / images
    return share + CHANCE_DEVIATIONS * sqrt(share * (1 - share) / images)


def least_loss(num_classes: int, smoothing: float) -> float:
    """The loss of a net that says just what smoothed labels do: their entropy, in nats."""
    others = smoothing / num_classes
    shares = [1 - smoothing + others, *[others] * (num_classes - 1)]
    return -sum(share * log(share) for share in shares if share > 0)

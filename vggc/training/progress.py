"""Where a training stands: plain records that travel in JSON. Imports no torch."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from itertools import chain
from math import isfinite

from vggc.data.parts import Skipped
from vggc.support.diagnostics import Diagnostic

MOST = 1e30
"""No loss, rate or time of a sound training is beyond it."""


def is_sound(loss: float) -> bool:
    """Whether a training can go on from a loss: one that is not finite, or beyond `MOST`, tells of
    weights that nothing can come of.
    """
    return isfinite(loss) and abs(loss) <= MOST


@dataclass(frozen=True)
class Measured:
    """The means over held-out images: of the loss, of top-1 and top-5 accuracy, and of boxes the
    mean overlap (`iou`) and the share of them that overlap by more than half (`iou50`). None is
    what no head of the net gives.
    """

    loss: float
    top1: float | None = None
    top5: float | None = None
    iou: float | None = None
    iou50: float | None = None


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One row of the metrics table, written after an epoch.

    `epoch` counts from 1, `step` all steps so far; `lr` is that of the last step. Losses
    are means over images, of classes in nats; accuracies and overlaps lie between 0 and 1, and are
    None where the net tells no classes, or gives no boxes. `iou` is the mean intersection over
    union of boxes with the objects, `iou50` the share of boxes where it is above a half. Training
    figures are those of the steps, with dropout and augmentation, as the weights moved.
    """

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_top1: float | None = None
    train_iou: float | None = None
    val_loss: float
    val_top1: float | None = None
    val_top5: float | None = None
    val_iou: float | None = None
    val_iou50: float | None = None
    images_per_second: float
    seconds: float

    @property
    def accuracy(self) -> float:
        """What a training wants to rise: the held-out top-1 accuracy, or the boxes' mean overlap
        where the net tells no classes.
        """
        return next(each for each in (self.val_top1, self.val_iou, 0.0) if each is not None)


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """One row of the table of steps: that step alone.

    `step` counts from 1, over the whole training. The rest is as in `Epoch`: of the images of the
    step, with dropout and augmentation, by the weights before it; the speed from the end of the
    step before to the end of this one.
    """

    step: int
    epoch: int
    lr: float
    loss: float
    top1: float | None = None
    iou: float | None = None
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class StepSums:
    """Sums over the images of a step: of the loss; of the images whose class was the first guess;
    and of the boxes that were measured (`boxed`), how much they overlap with their objects, and
    how many by more than half.
    """

    images: int
    loss: float
    correct: int = 0
    boxed: int = 0
    overlap: float = 0.0
    found: int = 0


@dataclass(frozen=True, kw_only=True)
class EpochSums:
    """The steps of an unfinished epoch: the sums of `StepSums` over them, and the seconds that
    they took.
    """

    steps: int = 0
    images: int = 0
    loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0
    boxed: int = 0
    overlap: float = 0.0
    found: int = 0

    def plus(self, step: StepSums, seconds: float) -> EpochSums:
        """The sums with one more step."""
        return EpochSums(
            steps=self.steps + 1,
            images=self.images + step.images,
            loss=self.loss + step.loss,
            correct=self.correct + step.correct,
            seconds=self.seconds + seconds,
            boxed=self.boxed + step.boxed,
            overlap=self.overlap + step.overlap,
            found=self.found + step.found,
        )


@dataclass(frozen=True)
class Progress:
    """All finished epochs, and what was done of the next one."""

    epochs: tuple[Epoch, ...] = ()
    sums: EpochSums = EpochSums()

    @property
    def step(self) -> int:
        """Steps done."""
        return (self.epochs[-1].step if self.epochs else 0) + self.sums.steps

    def problem(self, num_batches: int, num_steps: int) -> str | None:
        """Why this cannot be of a training of so many steps, so many an epoch."""
        epochs, sums = self.epochs, self.sums
        due = [(i, min(i * num_batches, num_steps)) for i in range(1, len(epochs) + 1)]
        told = [*chain.from_iterable(map(astuple, epochs)), *astuple(sums)]
        numbers = [value for value in told if value is not None]
        problems = {
            "its epochs do not follow one another": [(e.epoch, e.step) for e in epochs] != due
            or len(epochs) > -(-num_steps // num_batches),
            "it has more steps than the training": not 0 <= sums.steps <= num_batches
            or self.step > num_steps,
            "its sums are out of range": not all(isfinite(n) and n >= 0 for n in numbers)
            or max(sums.correct, sums.boxed) > sums.images
            or max(sums.overlap, sums.found) > sums.boxed,
        }
        return next((text for text, is_so in problems.items() if is_so), None)


@dataclass(frozen=True)
class StepDone:
    """A step is done. `epoch` counts from 1; `done` and `total` count steps of the whole
    training; loss, accuracy, the boxes' overlap and images/s are means over the epoch so far;
    `row` is of the step alone.
    """

    epoch: int
    done: int
    total: int
    loss: float
    images_per_second: float
    row: StepRow
    top1: float | None = None
    iou: float | None = None


@dataclass(frozen=True)
class EpochDone:
    """An epoch is done and its held-out accuracy is known."""

    epoch: Epoch


@dataclass(frozen=True)
class ImagesLost:
    """Images that could be read when the training began, and cannot any more, are left out."""

    lost: tuple[Skipped, ...]


@dataclass(frozen=True)
class NotSaved:
    """A checkpoint could not be written; the one before is still there, the training goes on."""

    reason: str


@dataclass(frozen=True)
class StepsNotWritten:
    """The table of steps could not be written to; its rows wait, the training goes on."""

    reason: str


Event = StepDone | EpochDone | ImagesLost | NotSaved | StepsNotWritten


@dataclass(frozen=True)
class Finished:
    """All epochs of the recipe are done, or enough of them, for a `reason`; perhaps someone
    `interrupted` what was left to write.
    """

    progress: Progress
    interrupted: bool = False
    reason: str | None = None


@dataclass(frozen=True)
class Interrupted:
    """Someone asked to stop; the step under way was finished and everything is saved."""

    progress: Progress


@dataclass(frozen=True)
class Stopped:
    """Going on makes no sense, for a reason. `progress` is what was saved last."""

    progress: Progress
    reason: Diagnostic


Outcome = Finished | Interrupted | Stopped

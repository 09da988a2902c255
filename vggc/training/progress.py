"""Where a training stands: plain records that travel in JSON. Imports no torch."""

from __future__ import annotations

from dataclasses import astuple, dataclass
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
class Epoch:
    """One row of the metrics table, written after an epoch.

    `epoch` counts from 1, `step` all steps so far; `lr` is that of the last step. Losses
    are means over images in nats, accuracies lie between 0 and 1. Training figures are
    those of the steps, with dropout and augmentation, as the weights moved.
    """

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_top1: float
    val_loss: float
    val_top1: float
    val_top5: float
    images_per_second: float
    seconds: float


@dataclass(frozen=True)
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
    top1: float
    images_per_second: float


@dataclass(frozen=True)
class EpochSums:
    """The steps of an unfinished epoch: the sum of the loss over images, the images whose
    class was the first guess, and the seconds that the steps took.
    """

    steps: int = 0
    images: int = 0
    loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0

    def plus(self, images: int, loss: float, correct: int, seconds: float) -> EpochSums:
        """The sums with one more step, whose `loss` is a sum over its images."""
        return EpochSums(
            self.steps + 1,
            self.images + images,
            self.loss + loss,
            self.correct + correct,
            self.seconds + seconds,
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
        numbers = [v for row in epochs for v in astuple(row)] + [*astuple(sums)]
        problems = {
            "its epochs do not follow one another": [(e.epoch, e.step) for e in epochs] != due
            or len(epochs) > -(-num_steps // num_batches),
            "it has more steps than the training": not 0 <= sums.steps <= num_batches
            or self.step > num_steps,
            "its sums are out of range": not all(isfinite(n) and n >= 0 for n in numbers)
            or sums.correct > sums.images,
        }
        return next((text for text, is_so in problems.items() if is_so), None)


@dataclass(frozen=True)
class StepDone:
    """A step is done. `epoch` counts from 1; `done` and `total` count steps of the whole
    training; loss, accuracy and images/s are means over the epoch so far; `row` is of the step
    alone.
    """

    epoch: int
    done: int
    total: int
    loss: float
    top1: float
    images_per_second: float
    row: StepRow


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

"""What `find-lr` works on: a net fitted to images, and the rates that are tried on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vggc.api.train import TrainOptions, TrainPlan, new_run
from vggc.program import Program
from vggc.support.diagnostics import CheckFailed, Diagnostic, UserError
from vggc.support.files import all_or_none, check_target
from vggc.support.memory import keep_memory

if TYPE_CHECKING:
    from vggc.training.rate_search import Sweep, SweepCurve, SweepResult, Tried
    from vggc.training.session import TrainTask

PICTURES = (".svg", ".png")


class UnknownCurve(Diagnostic):
    title = "{path} is no picture that vggc draws"
    label = "the end of its name tells the kind of picture: .svg or .png"
    help = "did you mean {suggestion}?"
    path: str
    suggestion: str


@dataclass(frozen=True, kw_only=True)
class FindRateOptions:
    """What the user asks `find-lr` for: `steps` of training at rates from `low` to `high`; the
    files, None where there are to be none, that losses are written to and drawn in.
    """

    train: TrainOptions
    low: float = 1e-6
    high: float = 10.0
    steps: int = 100
    workers: int | None = None
    csv: Path | None = None
    picture: Path | None = None


@dataclass(frozen=True)
class FindRatePlan:
    """A search of rates before any image is read."""

    training: TrainPlan
    rates: Sweep
    options: FindRateOptions

    def search(self, task: TrainTask, on_step: Callable[[Tried], None]) -> SweepCurve:
        """Trains at greater and greater rates; `on_step` is told of each step.

        Raises:
            UserError: the device is out of memory.
        """
        from vggc.training.rate_search import SweepCurve, sweep
        from vggc.training.session import fresh

        if task.machine.device == "cpu":
            keep_memory()
        tried = sweep(fresh(task), task, self.rates, on_step, self.options.workers)
        return SweepCurve.of(tried, len(task.data.classes))

    def save(self, net: str, curve: SweepCurve) -> list[Path]:
        """Writes the files that were asked for, all or none; where they are.

        Raises:
            UserError: one cannot be written.
        """
        from vggc.training.rate_search import draw_sweep, write_sweep

        csv, picture = self.options.csv, self.options.picture
        with all_or_none() as made:
            if csv:
                write_sweep(csv, curve)
                made.append(csv)
            if picture and curve.tried:
                draw_sweep(picture, f"{net}: the loss over the learning rate", curve)
                made.append(picture)
        return made

    def result(self, net: str, curve: SweepCurve) -> SweepResult:
        """The rates that suggest themselves.

        Raises:
            CheckFailed: there are none.
        """
        if curve.found is None:
            tried, low = curve.tried, self.rates.low
            raise CheckFailed(
                f"the loss of {net} does not fall at any rate from {low:g} to "
                f"{tried[-1].lr if tried else low:.2g}: try more `--steps`, a lower `--from`, or "
                "look at the images and their classes"
            )
        return curve.found


def plan(spec: str | Program, options: FindRateOptions) -> FindRatePlan:
    """A search for a net and its images, which leaves no run behind.

    Raises:
        UserError: there is no such net, something that was asked for does not fit, or a file
            cannot be written.
    """
    csv, picture = options.csv, options.picture
    if picture and picture.suffix.lower() not in PICTURES:
        raise UserError(UnknownCurve(str(picture), str(picture.with_suffix(".svg"))))
    training = new_run(spec, options.train, kept=False)
    for path in (csv, picture):
        if path and training.world.is_first:
            check_target(path)

    from vggc.training.rate_search import Sweep

    return FindRatePlan(training, Sweep(options.low, options.high, options.steps), options)

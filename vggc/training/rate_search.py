"""At which learning rates a net learns: a sweep of steps, each at a greater rate.

Source: L. N. Smith (2017), "Cyclical Learning Rates for Training Neural Networks", section 3.3, the
range test, with rates in geometric progression as in fastai.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, fields
from math import isfinite, log
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from vggc.data.loader import TrainBatches, load, num_workers
from vggc.support.diagnostics import UserError
from vggc.support.files import new_file
from vggc.training import diagnostics
from vggc.training.augment import changes_of
from vggc.training.curves import FAINT, INK, RATE, TRAIN
from vggc.training.learner import Learner
from vggc.training.prefetch import prefetched
from vggc.training.session import TrainTask

EXPLODED = 4.0
"""A sweep ends where the loss, averaged over the last steps, is so many times the least that it has
been."""
MEMORY = 0.9
"""The share of itself that this average keeps at each step."""
BREADTH = 0.25
"""Decades of the rate to either side over which a loss and its slope are averaged, as the standard
deviation of the weights."""
FALLEN = 0.02
"""A loss that has fallen by less than this share of itself has not fallen."""
LEAST_STEPS = 4
TENTH = 10.0


@dataclass(frozen=True)
class Sweep:
    """Steps at rates from `low` to `high`, each the same multiple of the one before."""

    low: float = 1e-6
    high: float = 10.0
    steps: int = 100

    def rate(self, step: int) -> float:
        """The learning rate of a step, from the lowest to the highest in equal factors."""
        return float(self.low * (self.high / self.low) ** (step / (self.steps - 1)))


@dataclass(frozen=True)
class Tried:
    """A step: its rate, and the mean loss over its images before it, in nats."""

    step: int
    lr: float
    loss: float


@dataclass(frozen=True)
class SweepResult:
    """What a sweep says: the loss falls most steeply at the rate `steepest`, and is least at
    `least`, from where on training is unstable.
    """

    steepest: float
    least: float

    @property
    def tenth(self) -> float:
        """A tenth of the rate of the least loss, the other usual choice."""
        return self.least / TENTH


def sweep(
    learner: Learner,
    task: TrainTask,
    rates: Sweep,
    on_step: Callable[[Tried], None],
    workers: int | None = None,
) -> tuple[Tried, ...]:
    """Trains step by step, until the rates or the images' patience end: the steps before the loss
    was no number, or many times what it had been. The learner's weights are spoilt by it.

    Raises:
        UserError: the device is out of memory.
    """
    world, device = learner.world, learner.device
    changes = changes_of(task.recipe)
    if workers is None:
        workers = num_workers(task.data.train, world.local_size, changes)
    batches = TrainBatches(task.data.train, task.order, world.share, changes)
    tried: list[Tried] = []
    average, least = 0.0, float("inf")
    try:
        with closing(
            load(batches, range(rates.steps), workers, pin=device.type == "cuda")
        ) as loaded:
            for step, batch in enumerate(prefetched(loaded, device)):
                measured = learner.step(batch, step, rates.rate(step)).read()
                total, images = world.sums([measured.loss, measured.images])
                loss = total / max(1, images)
                if not isfinite(loss):
                    break
                tried.append(Tried(step + 1, rates.rate(step), loss))
                on_step(tried[-1])
                average = MEMORY * average + (1 - MEMORY) * loss
                unbiased = average / (1 - MEMORY ** (step + 1))
                least = min(least, unbiased)
                if unbiased > EXPLODED * least:
                    break
    except torch.OutOfMemoryError:
        count = min(task.recipe.batch, len(task.data.train))
        half = max(1, count // 2)
        raise UserError(diagnostics.OutOfMemory(device.type, count, half)) from None
    return tuple(tried)


@dataclass(frozen=True)
class SweepCurve:
    """The steps of a sweep over a number of classes, and their losses with those of their
    neighbours: the mean of these, and how much it rises a decade of the rate.
    """

    tried: tuple[Tried, ...]
    losses: npt.NDArray[np.float64]
    slopes: npt.NDArray[np.float64]
    guessing: float

    @classmethod
    def of(cls, tried: Sequence[Tried], num_classes: int) -> SweepCurve:
        """A line through each step and its neighbours, the nearer the more (local regression)."""
        guessing = log(num_classes)
        rates = np.log10([each.lr for each in tried])
        losses = np.asarray([each.loss for each in tried])
        if len(tried) < LEAST_STEPS:
            return cls(tuple(tried), losses, np.zeros(len(tried)), guessing)
        # Where a step has exploded, its neighbours have not.
        losses = losses.clip(max=2 * max(losses[0], guessing))
        lines = []
        for rate in rates:
            first, last = np.searchsorted(rates, (rate - 3 * BREADTH, rate + 3 * BREADTH))
            around = slice(max(0, min(first, last - LEAST_STEPS)), max(last, first + LEAST_STEPS))
            away = rates[around] - rate
            weights = np.exp(-((away / BREADTH) ** 2) / 4)  # whose squares are those of the losses
            lines.append(np.polyfit(away, losses[around], 1, w=weights))
        slopes, means = np.asarray(lines).T
        return cls(tuple(tried), means, slopes, guessing)

    @property
    def found(self) -> SweepResult | None:
        """The rates that the curve suggests; None where the loss has fallen at no rate.

        What it falls by while it is above that of guessing is not learned: first weights that are
        far from balance come to rest at any rate.
        """
        if len(self.tried) < LEAST_STEPS:
            return None
        least = int(self.losses.argmin())
        learning = np.flatnonzero(self.losses[: least + 1] <= self.guessing)
        if self.losses[least] > (1 - FALLEN) * min(self.losses[0], self.guessing):
            return None
        steepest = learning[self.slopes[learning].argmin()]
        return SweepResult(self.tried[steepest].lr, self.tried[least].lr)


def write_sweep(path: Path, curve: SweepCurve) -> None:
    """Writes the steps as CSV, with the loss as smoothed.

    Raises:
        UserError: it cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*(field.name for field in fields(Tried)), "smoothed"])
    table.writerows(
        (*astuple(each), loss) for each, loss in zip(curve.tried, curve.losses, strict=True)
    )
    with new_file(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")


def draw_sweep(path: Path, title: str, curve: SweepCurve) -> None:
    """Draws the loss over the rate, as SVG or PNG, and what was found in it.

    Raises:
        UserError: it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rates, losses = [each.lr for each in curve.tried], curve.losses
    figure = Figure(figsize=(8, 4.6), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    panel.plot(rates, [each.loss for each in curve.tried], color=FAINT, lw=1.2, label="each step")
    panel.plot(rates, losses, color=TRAIN, lw=2, label="averaged")
    if result := curve.found:
        marks = {"steepest": result.steepest, "a tenth of the least": result.tenth}
        for (name, rate), style in zip(marks.items(), ("-", "--"), strict=True):
            told = f"{name}: {rounded(rate)}"
            panel.axvline(rate, color=RATE, lw=1.4, ls=style, label=told)
    panel.set_xscale("log")
    # The last steps may be many times as high, and would flatten all others.
    low = float(min(losses.min(), *(each.loss for each in curve.tried)))
    high = float(max(losses[0], curve.guessing))
    room = max(high - low, 0.1 * high)
    panel.set_ylim(max(0.0, low - 0.1 * room), high + 0.3 * room)
    panel.set_title(title, loc="left", fontsize=12, fontweight="bold", color=INK)
    panel.set_xlabel("learning rate", color=INK)
    panel.set_ylabel("training loss, nats", color=INK)
    panel.grid(axis="y", color=FAINT, lw=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set_color(FAINT)
    panel.tick_params(colors=INK, length=0, labelsize=9, which="both")
    figure.legend(frameon=False, labelcolor=INK, fontsize=9, loc="outside lower center", ncols=4)
    with new_file(path) as part:
        figure.savefig(part, format=path.suffix.lower().removeprefix("."))


def rounded(rate: float) -> str:
    """Two digits: more would claim what no sweep knows."""
    return f"{float(f'{rate:.2g}'):g}"

"""Learning rates as pure functions of how far the training is. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi
from typing import assert_never

from vggc.recipe.train import Constant, Cosine, OneCycle, Plateau, Poly, Recipe, StepSchedule


def learning_rate(
    recipe: Recipe,
    step: int,
    num_steps: int,
    accuracies: Sequence[float],
    restarts: Sequence[int] = (),
) -> float:
    """The rate for one step.

    `step` counts the steps before it, `num_steps` those of the whole training;
    `accuracies` holds `Epoch.accuracy` after each epoch so far. A schedule that runs to an end
    begins anew after so many steps as `restarts` say. The formulas stand with the schedules in
    `vggc.recipe.train`. Source: Loshchilov & Hutter (2017), section 3, for the restarts.
    """
    peak, done = recipe.optimiser.lr, step if recipe.unit == "steps" else len(accuracies)
    if needs_its_end(recipe):
        first = max((start for start in restarts if start <= step), default=0)
        last = min((start for start in restarts if start > step), default=num_steps)
        step, num_steps = step - first, last - first
    match recipe.schedule:
        case Constant(warm_up):
            return peak * rise(warm_up, step, num_steps)
        case Plateau() as plateau:
            left = plateau.factor ** drops(plateau, accuracies)
            return peak * left * rise(plateau.warm_up, step, num_steps)
        case StepSchedule(at, factor, warm_up):
            count = sum(drop <= done for drop in at)
            return peak * factor**count * rise(warm_up, step, num_steps)
        case Poly() as poly:
            return peak * power_of_rest(poly, step, num_steps)
        case OneCycle() as cycle:
            return peak * one_cycle(cycle, step, num_steps)
        case Cosine() as cosine:
            return peak * half_cosine(cosine, step, num_steps)
        case _:
            assert_never(recipe.schedule)


def needs_its_end(recipe: Recipe) -> bool:
    """Whether the rate depends on how many steps there will be."""
    match recipe.schedule:
        case Constant(warm_up) | Plateau(warm_up=warm_up) | StepSchedule(warm_up=warm_up):
            return warm_up > 0
        case OneCycle() | Cosine() | Poly():
            return True
        case _:
            assert_never(recipe.schedule)


def drops(plateau: Plateau, accuracies: Sequence[float]) -> int:
    """How often the rate has dropped: once for each `patience` epochs without a new best."""
    best, waited, count = -1.0, 0, 0
    for accuracy in accuracies:
        waited = 0 if accuracy > best else waited + 1
        best = max(best, accuracy)
        if waited == plateau.patience:
            count, waited = count + 1, 0
    return min(count, plateau.drops)


def one_cycle(cycle: OneCycle, step: int, num_steps: int) -> float:
    """The fraction of the peak rate: `start` at the first step, 1 at the peak, `end` last."""
    last = max(1, num_steps - 1)
    peak = cycle.warm_up * last
    if step < peak:
        return ramp(cycle.start, 1, step / peak)
    return ramp(1, cycle.end, (step - peak) / max(1e-9, last - peak))


def half_cosine(cosine: Cosine, step: int, num_steps: int) -> float:
    """The fraction of the peak rate: from the first step on in a line to 1, and `end` last."""
    warm = round(cosine.warm_up * num_steps)
    if step < warm:
        return rise(cosine.warm_up, step, num_steps)
    return ramp(1, cosine.end, (step - warm) / max(1, num_steps - 1 - warm))


def power_of_rest(poly: Poly, step: int, num_steps: int) -> float:
    """The fraction of the peak rate: from the first step on in a line to 1, then a power of the
    share of steps that are left.
    """
    warm = round(poly.warm_up * num_steps)
    if step < warm:
        return rise(poly.warm_up, step, num_steps)
    left = max(0.0, 1 - (step - warm) / max(1, num_steps - warm))
    share: float = left**poly.power
    return poly.end + (1 - poly.end) * share


def rise(warm_up: float, step: int, num_steps: int) -> float:
    """The fraction of the peak rate while it rises in a line; 1 from then on."""
    warm = round(warm_up * num_steps)
    return (step + 1) / (warm + 1) if step < warm else 1.0


def ramp(first: float, last: float, progress: float) -> float:
    """Half a cosine from `first` at progress 0 to `last` at 1."""
    return last + (first - last) * (1 + cos(pi * min(1.0, progress))) / 2

"""Runs of a small net: begun, interrupted, gone on with."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from tests.support.training_data import RECIPE
from tests.support.training_data import task as task_of
from vggc.recipe.train import Recipe
from vggc.training.progress import Event, Outcome, Progress
from vggc.training.run import Run
from vggc.training.session import Keeping, TrainTask, begin, fresh, proceed, resume
from vggc_runtime.files import sha256

KEEPING, KEEP_ALL = Keeping(), Keeping(every=1)

NOW = datetime(2026, 1, 2, 3, 4, 5)


def task(recipe: Recipe = RECIPE, count: int = 5, **more: tuple[str, ...]) -> TrainTask:
    return task_of(recipe, count=count, seed=7, **more)


def ignore(event: Event) -> None:
    """Nobody looks on."""


def train(
    folder: Path,
    recipe: Recipe = RECIPE,
    on_event: Callable[[Event], None] = ignore,
    keeping: Keeping = KEEPING,
    **more: tuple[str, ...],
) -> Outcome:
    whole = task(recipe, **more)
    learner = fresh(whole)
    run = begin(whole, None, folder, NOW)
    return proceed(run, learner, whole, Progress(), on_event, keeping)


def go_on(
    folder: Path,
    count: int = 5,
    on_event: Callable[[Event], None] = ignore,
    **more: tuple[str, ...],
) -> Outcome:
    run = Run.load(folder)
    rest = task(run.recipe, count, **more)
    learner, progress = resume(run, rest)
    return proceed(run, learner, rest, progress, on_event, KEEP_ALL)


def weights_of(folder: Path) -> str:
    """The hash of a run's weights."""
    return sha256(folder / "weights.safetensors")


def interrupt_after(count: int) -> Callable[[Event], None]:
    """Sends this process a Ctrl-C at the given event."""
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if len(events) == count:
            os.kill(os.getpid(), signal.SIGINT)

    return on_event


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoint").glob("*"))

"""A training together with its folder: begun, saved, interrupted, resumed, finished."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import nn

import vggc
from vggc.diagnostics import UserError
from vggc.recipe.train import TRAIN, Recipe
from vggc.training import mistakes
from vggc.training.batches import num_batches
from vggc.training.checkpoint import load_checkpoint, save_checkpoint, save_tensors
from vggc.training.curves import draw_curves
from vggc.training.images import Data
from vggc.training.initialise import initialise
from vggc.training.loop import Learner, Machine, fit
from vggc.training.progress import Event, Finished, Interrupted, Outcome, Progress, Stopped
from vggc.training.run import (
    Origin,
    Record,
    Run,
    new_folder,
    write_metrics,
    write_run,
    write_text,
)


@dataclass(frozen=True)
class Task:
    """What is to be trained: a net by name and as text, built, on these images.

    `module` maps images float32 (N, C, H, W) to class scores (N, classes); the names of
    its parameters are those in the weights file. `frozen` are those of them that keep
    their first values.
    """

    net: str
    net_text: str
    module: nn.Module
    data: Data
    recipe: Recipe
    machine: Machine
    seed: int
    frozen: tuple[str, ...] = ()

    @property
    def num_epochs(self) -> int:
        """Epochs of the whole training, the last of which may be cut short."""
        return self.recipe.num_epochs(num_batches(len(self.data.train), self.recipe.batch))

    @property
    def fingerprint(self) -> str:
        """Changes with the net, the recipe or the seed."""
        fixed = [self.net_text, TRAIN.flatten(self.recipe), self.seed]
        return hashlib.sha256(json.dumps(fixed).encode()).hexdigest()

    def learner(self) -> Learner:
        preprocessing = self.data.preprocessing
        return Learner(self.module, self.recipe, self.machine, preprocessing, self.frozen)


def begin(task: Task, out: Path | None, now: datetime) -> tuple[Run, Learner]:
    """Makes the folder of a new run, and initial weights by the seed.

    Raises:
        UserError: `out` is there and not an empty folder, or a file cannot be written.
    """
    folder = new_folder(out, task.net, now)
    run = Run(folder, record_of(task, now))
    initialise(task.module, task.recipe.init, task.seed)
    write_text(run.net_path, task.net_text)
    write_run(folder, run.record)
    return run, task.learner()


def record_of(task: Task, now: datetime) -> Record:
    data = task.data
    channels, size = len(data.preprocessing.mean), data.preprocessing.size
    return Record(
        format=1,
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
            path=str(Path(data.path).resolve()) if data.path else None,
            train=len(data.train),
            val=len(data.val),
            skipped=len(data.skipped),
            fingerprint=data.fingerprint,
        ),
        versions={
            "vggc": vggc.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        metrics=None,
    )


def proceed(
    run: Run, learner: Learner, task: Task, progress: Progress, on_event: Callable[[Event], None]
) -> Outcome:
    """Trains on from `progress`, and leaves in the run's folder what came of it.

    Ctrl-C and SIGTERM let the step finish and save; a second one ends at once.

    Raises:
        UserError: a file cannot be read or written.
    """
    mark = task.data.fingerprint

    def save(progress: Progress) -> None:
        save_checkpoint(run.checkpoint_path, learner, progress, mark, task.fingerprint)
        write_metrics(run.folder, progress.epochs)

    with Interrupts() as interrupts:
        outcome = fit(
            learner,
            task.data,
            task.recipe,
            task.seed,
            progress=progress,
            save=save,
            on_event=on_event,
            interrupted=interrupts.any,
        )
        conclude(run, learner, task, outcome)
    return outcome


def resume(run: Run, task: Task) -> tuple[Learner, Progress]:
    """The learner and the progress of a run's checkpoint.

    Before the first checkpoint a run starts over, with the same weights.

    Raises:
        UserError: the checkpoint is damaged, or the images are not the same.
    """
    initialise(task.module, task.recipe.init, task.seed)
    learner = task.learner()
    if task.data.fingerprint != run.record.data.fingerprint:
        raise UserError(mistakes.DataChanged(None, task.data.path or "scikit-learn"))
    if not (run.checkpoint_path / "state.json").exists():
        if run.has_progress:
            reason = "it is missing, though the run has come some way"
            raise UserError(mistakes.BadCheckpoint(None, str(run.checkpoint_path), reason))
        return learner, Progress()
    name, mark = task.data.path or "scikit-learn", task.data.fingerprint
    progress = load_checkpoint(run.checkpoint_path, learner, mark, name, task.fingerprint)
    return learner, progress


def conclude(run: Run, learner: Learner, task: Task, outcome: Outcome) -> None:
    """Writes weights, curves and the record. A finished run needs no checkpoint any more."""
    epochs = outcome.progress.epochs
    saved = (run.checkpoint_path / "state.json").exists()
    record = replace(run.record, metrics=epochs[-1] if epochs else None)
    match outcome:
        case Finished():
            record = replace(record, state="finished", reason=None)
        case Interrupted():
            record = replace(record, state="interrupted", reason=None)
        case Stopped(_, reason):
            record = replace(record, state="stopped", reason=reason.fill(reason.title))
            if saved:
                # The weights at hand may be those that gave no finite loss.
                mark = task.data.fingerprint
                load_checkpoint(run.checkpoint_path, learner, mark, "", task.fingerprint)
    if saved:
        save_tensors(run.weights_path, learner.module.state_dict())
    if epochs:
        title = f"{run.record.net} · held-out top-1 {epochs[-1].val_top1:.1%}"
        draw_curves(run.folder / "curves.png", title, epochs)
    write_run(run.folder, record)
    if record.state == "finished":
        shutil.rmtree(run.checkpoint_path, ignore_errors=True)


class Interrupts(AbstractContextManager["Interrupts"]):
    """Within it, the first SIGINT or SIGTERM is noted only; the next one acts as ever."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.received: int | None = None
        self.before: dict[int, Any] = {}

    def any(self) -> bool:
        return self.received is not None

    def __enter__(self) -> Interrupts:
        self.before = {number: signal.signal(number, self.note) for number in self.SIGNALS}
        return self

    def note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
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

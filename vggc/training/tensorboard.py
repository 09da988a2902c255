"""The events of a training written for TensorBoard, which is a package of its own.

Written here, at once and record by record: PyTorch's writer does it in a thread, where a full disk
ends in a traceback.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from vggc.recipe.train import TRAIN, Recipe
from vggc.support.diagnostics import UserError
from vggc.support.files import CannotWrite
from vggc.training import diagnostics
from vggc.training.measures import PANELS, Accuracy, accuracies
from vggc.training.progress import (
    Epoch,
    EpochDone,
    Event,
    ImagesLost,
    NotSaved,
    Progress,
    StepDone,
    StepsNotWritten,
)

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event as TensorBoardEvent

FOLDER = "tensorboard"
EVERY = 10
"""Steps from one that is written to the next."""


def require_tensorboard() -> None:
    """Raises: UserError where the package is not installed."""
    if find_spec("tensorboard") is None:
        raise UserError(diagnostics.NoTensorBoard())


@contextmanager
def board(
    run: Path, net_text: str, recipe: Recipe, progress: Progress, say: Callable[[str], None]
) -> Iterator[Board]:
    """Within it, a watcher that writes into the folder `tensorboard` of a run.

    `progress` is where the training begins: what the run had written beyond that before it was
    interrupted is hidden.

    Raises:
        UserError: the package is not installed, or nothing can be written there.
    """
    require_tensorboard()
    folder = run / FOLDER
    is_new = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
        file = EventFile(folder, None if is_new else progress.step + 1)
    except OSError as fault:
        raise UserError(CannotWrite(str(folder), fault.strerror or str(fault))) from None
    with closing(file):
        written = Board(file, say)
        if is_new:
            written.write(lambda: file.texts({"recipe": table_of(recipe), "net": code(net_text)}))
        yield written


class Board:
    """Writes what it is told of.

    A disk that is full ends the writing, of which `say` is told once, and not the training.
    """

    def __init__(self, file: EventFile, say: Callable[[str], None]) -> None:
        self.file, self.say = file, say
        self.writes = True

    def __call__(self, event: Event) -> None:
        match event:
            case StepDone() if event.done % EVERY == 0 or event.done == event.total:
                self.write(lambda: self.file.scalars(of_step(event), event.done))
            case EpochDone(epoch):
                self.write(lambda: self.file.scalars(of_epoch(epoch), epoch.step))
            case StepDone() | ImagesLost() | NotSaved() | StepsNotWritten():
                pass

    def write(self, how: Callable[[], None]) -> None:
        """Writes, until that once fails."""
        if not self.writes:
            return
        try:
            how()
        except OSError as fault:
            self.writes = False
            reason = fault.strerror or str(fault)
            self.say(f"Nothing more is written for TensorBoard; the training goes on. {reason}.")


def of_step(event: StepDone) -> dict[str, float]:
    """What is written of a step, by tag: those with the same first part share a picture."""
    rising = {"accuracy/step-top-1": event.top1, "boxes/step-mean-IoU": event.iou}
    return {
        "loss/step": event.loss,
        **{tag: value for tag, value in rising.items() if value is not None},
        "learning-rate/step": event.row.lr,
        "speed/step-images-per-second": event.images_per_second,
    }


def of_epoch(epoch: Epoch) -> dict[str, float]:
    """What is written of an epoch."""
    return {
        "loss/training": epoch.train_loss,
        "loss/held-out": epoch.val_loss,
        **{tag(each): value for each, value in accuracies(epoch)},
        "learning-rate/epoch": epoch.lr,
        "speed/epoch-images-per-second": epoch.images_per_second,
        "speed/epoch-seconds": epoch.seconds,
    }


def tag(accuracy: Accuracy) -> str:
    """What a figure is called: those of one kind of heads share a picture."""
    name = accuracy.name.replace(" > 0.5", "-above-half").replace(" ", "-")
    return f"{PANELS[accuracy.kind].lower()}/{accuracy.part}-{name}"


def table_of(recipe: Recipe) -> str:
    """The recipe as a table in Markdown."""
    rows = [f"| {key} | {value} |" for key, value in TRAIN.flatten(recipe).items()]
    return "\n".join(["| setting | value |", "| --- | --- |", *rows])


def code(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines())


class EventFile:
    """A new file of TensorBoard's in a folder.

    Where there is a `purge_step`, what other files hold from that step on does not count.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event as TensorBoardEvent
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        # TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self.file = (folder / name).open("xb")
        self.records = RecordWriter(self.file)
        self.add(TensorBoardEvent(file_version="brain.Event:2"))
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self.add(TensorBoardEvent(step=purge_step, session_log=start))

    def add(self, event: TensorBoardEvent) -> None:
        """Writes an event with the time of now."""
        event.wall_time = time.time()
        self.records.write(event.SerializeToString())
        self.file.flush()

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Writes numbers by their tags."""
        from tensorboard.compat.proto.event_pb2 import Event as TensorBoardEvent
        from tensorboard.compat.proto.summary_pb2 import Summary

        numbers = [Summary.Value(tag=tag, simple_value=number) for tag, number in values.items()]
        self.add(TensorBoardEvent(step=step, summary=Summary(value=numbers)))

    def texts(self, values: Mapping[str, str]) -> None:
        """Writes texts in Markdown by their tags."""
        from tensorboard.compat.proto.event_pb2 import Event as TensorBoardEvent
        from torch.utils.tensorboard.summary import text

        for tag, value in values.items():
            self.add(TensorBoardEvent(summary=text(tag, value)))  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """Closes the file."""
        # What a full disk has not taken has been told of.
        with suppress(OSError):
            self.file.close()

"""The table of steps: written while a training goes on, and read back. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from math import isfinite
from pathlib import Path
from statistics import fmean
from time import monotonic
from types import TracebackType
from typing import BinaryIO

from vggc.support.diagnostics import UserError
from vggc.support.files import CannotWrite, open_file
from vggc.training.progress import StepRow

NAME = "steps.csv"
HEADER = (",".join(field.name for field in fields(StepRow)) + "\n").encode()
LONGEST = 256
"""Bytes that no row is longer than."""
SECONDS = 2.0
"""So long rows may wait before they are written."""


class StepTable:
    """Takes rows, and writes them from time to time and whenever a checkpoint is to be written.

    It begins after so many steps: what a file that is there tells of later ones is of a course
    that nobody goes on with, and cut off. A disk that is full ends no training: rows wait until
    it has room again, and `say` is told once.

    Raises: UserError where there is no such file to be had.
    """

    def __init__(self, folder: Path, step: int, say: Callable[[str], None]) -> None:
        path, self.say = folder / NAME, say
        if path.exists() and not path.is_file():
            raise UserError(CannotWrite(str(path), "it is no file"))
        try:
            self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            self.size = kept(path, step)
        except OSError as fault:
            raise UserError(CannotWrite(str(path), fault.strerror or str(fault))) from None
        self.rows: list[bytes] = [] if self.size else [HEADER]
        self.written_at, self.told = monotonic(), False

    def add(self, row: StepRow) -> None:
        """Adds a step; writes the table every few seconds."""
        self.rows.append(line(row))
        if monotonic() - self.written_at > SECONDS:
            self.write()

    def write(self, sync: bool = False) -> None:
        """Writes what waits; with `sync` it is on the disk then."""
        self.written_at = monotonic()
        content = b"".join(self.rows)
        try:
            done = 0
            while done < len(content):
                done += os.pwrite(self.file, content[done:], self.size + done)
            os.ftruncate(self.file, self.size + len(content))
            if sync:
                os.fsync(self.file)
        except OSError as fault:
            if not self.told:
                self.say(fault.strerror or str(fault))
            self.told = True
            return
        self.size += len(content)
        self.rows.clear()

    def __enter__(self) -> StepTable:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.write()
        os.close(self.file)


MOST_BYTES = 256 * 2**20
"""The largest table that is read: some four million steps."""


def read_steps(folder: Path, most: int) -> tuple[StepRow, ...]:
    """The steps of a run so far, of many the means of at most so many stretches; what is no row
    ends the table. None where there is no table, or it is too large to be read.
    """
    with suppress(OSError), open_file(folder / NAME) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= MOST_BYTES and file.readline(LONGEST) == HEADER:
            return thinned([*rows(file)], most)
    return ()


def rows(file: BinaryIO) -> Iterator[StepRow]:
    """The rows of a table, up to the first that is none."""
    while text := file.readline(LONGEST):
        try:
            step, epoch, *numbers = text.decode("ascii").split(",")
            lr, loss, top1, speed = map(float, numbers)
            row = StepRow(
                step=int(step),
                epoch=int(epoch),
                lr=lr,
                loss=loss,
                top1=top1,
                images_per_second=speed,
            )
        except ValueError:
            return
        if not all(map(isfinite, (lr, loss, top1, speed))):
            return
        yield row


def thinned(steps: Sequence[StepRow], most: int) -> tuple[StepRow, ...]:
    """The means of at most so many stretches of steps, each said to be of its last step."""
    size = max(1, -(-len(steps) // most))
    stretches = (steps[start : start + size] for start in range(0, len(steps), size))
    return tuple(
        StepRow(
            step=stretch[-1].step,
            epoch=stretch[-1].epoch,
            lr=stretch[-1].lr,
            loss=fmean(row.loss for row in stretch),
            top1=fmean(row.top1 for row in stretch),
            images_per_second=fmean(row.images_per_second for row in stretch),
        )
        for stretch in stretches
    )


def line(row: StepRow) -> bytes:
    """A row as it is written: losses, shares and rates exactly, the speed to a tenth."""
    exact = f"{row.step},{row.epoch},{row.lr!r},{row.loss!r},{row.top1!r}"
    return f"{exact},{row.images_per_second:.1f}\n".encode()


def kept(path: Path, step: int) -> int:
    """How many bytes of a table tell of its first steps, up to and with this one."""
    with path.open("rb") as file:
        if file.readline(LONGEST) != HEADER:
            return 0
        length, last = len(HEADER), 0
        while row := file.readline(LONGEST):
            number = row.partition(b",")[0]
            is_row = row.endswith(b"\n") and number.isdigit()
            if not is_row or not last < int(number) <= step:
                break
            length, last = length + len(row), int(number)
    return length

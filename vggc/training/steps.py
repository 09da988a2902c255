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
from vggc.support.files import CannotWrite
from vggc.training.progress import StepRow
from vggc_runtime.files import open_file

NAME = "steps.csv"
COLUMNS = tuple(field.name for field in fields(StepRow))
OPTIONAL = ("top1", "iou")
"""The columns of what a net may not give: a table has those that its first step has."""
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
        self.rows: list[bytes] = []
        self.written_at, self.told = monotonic(), False

    def add(self, row: StepRow) -> None:
        """Adds a step; writes the table every few seconds."""
        if not self.size and not self.rows:
            self.rows.append(header(row))
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
        if size <= MOST_BYTES and (columns := columns_of(file.readline(LONGEST))):
            return thinned([*rows(file, columns)], most)
    return ()


def columns_of(text: bytes) -> tuple[str, ...]:
    """The columns that the first line of a table names; none where it is no table of steps."""
    names = tuple(text.decode("ascii", "replace").removesuffix("\n").split(","))
    known = tuple(name for name in COLUMNS if name not in OPTIONAL or name in names)
    return names if text.endswith(b"\n") and names == known else ()


def rows(file: BinaryIO, columns: Sequence[str]) -> Iterator[StepRow]:
    """The rows of a table with these columns, up to the first that is none."""
    while text := file.readline(LONGEST):
        try:
            cells = dict(zip(columns, text.decode("ascii").split(","), strict=True))
            step, epoch = int(cells.pop("step")), int(cells.pop("epoch"))
            numbers = {name: float(cell) for name, cell in cells.items()}
        except ValueError:
            return
        if not all(map(isfinite, numbers.values())):
            return
        yield StepRow(step=step, epoch=epoch, **numbers)


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
            top1=mean([row.top1 for row in stretch]),
            iou=mean([row.iou for row in stretch]),
            images_per_second=fmean(row.images_per_second for row in stretch),
        )
        for stretch in stretches
    )


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of values; None where there are none."""
    there = [value for value in values if value is not None]
    return fmean(there) if there else None


def header(row: StepRow) -> bytes:
    """The first line of a table whose steps are like this one."""
    names = (name for name in COLUMNS if getattr(row, name) is not None)
    return (",".join(names) + "\n").encode()


def line(row: StepRow) -> bytes:
    """A row as it is written: losses, shares and rates exactly, the speed to a tenth."""
    values = {name: value for name in COLUMNS if (value := getattr(row, name)) is not None}
    values["images_per_second"] = f"{row.images_per_second:.1f}"
    return (",".join(map(str, values.values())) + "\n").encode()


def kept(path: Path, step: int) -> int:
    """How many bytes of a table tell of its first steps, up to and with this one."""
    with path.open("rb") as file:
        first = file.readline(LONGEST)
        if not columns_of(first):
            return 0
        length, last = len(first), 0
        while row := file.readline(LONGEST):
            number = row.partition(b",")[0]
            is_row = row.endswith(b"\n") and number.isdigit()
            if not is_row or not last < int(number) <= step:
                break
            length, last = length + len(row), int(number)
    return length

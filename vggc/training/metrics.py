"""The table of epochs: written, and read back."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import MISSING, asdict, astuple, fields
from pathlib import Path

from vggc.support.diagnostics import UserError
from vggc.support.records import from_json
from vggc.training import diagnostics
from vggc.training.progress import MOST, Epoch
from vggc.training.run import write_text
from vggc_runtime.json_file import MAX_BYTES, MalformedError

NAME = "metrics.csv"
REQUIRED = tuple(f.name for f in fields(Epoch) if f.default is MISSING)
"""The columns that every table has."""


def write_metrics(folder: Path, epochs: Sequence[Epoch]) -> None:
    """Writes the table: a header and one row an epoch. What the net does not give has no column.

    Raises:
        UserError: it cannot be written.
    """
    text = io.StringIO()
    first = asdict(epochs[0]) if epochs else dict.fromkeys(REQUIRED, "")
    names = [name for name, value in first.items() if value is not None]
    table = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(asdict(epoch) for epoch in epochs)
    write_text(folder / NAME, text.getvalue())


def read_metrics(folder: Path) -> tuple[Epoch, ...]:
    """The epochs of a run so far; none before the first has ended.

    Raises:
        UserError: the table is not sound.
    """
    path = folder / NAME
    if not path.exists():
        return ()
    try:
        return parsed(text_of(path))
    except MalformedError as fault:
        raise UserError(diagnostics.NotARun(str(folder), f"{NAME}: {fault}")) from None


def text_of(path: Path) -> str:
    """Raises: MalformedError where the file is unreadable, or too large."""
    try:
        if not path.is_file():
            raise MalformedError("not a file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise MalformedError(f"larger than {MAX_BYTES // 2**20} MiB")
        return content.decode()
    except OSError as fault:
        raise MalformedError(fault.strerror) from None
    except UnicodeDecodeError:
        raise MalformedError("not UTF-8 text") from None


def parsed(text: str) -> tuple[Epoch, ...]:
    """Raises: MalformedError where a line is no epoch, or not the next one."""
    lines = csv.reader(text.splitlines())
    names = next(lines, [])
    kinds = {
        field.name: int if field.type == "int" else float
        for field in fields(Epoch)
        if field.name in (*REQUIRED, *names)
    }
    if names != list(kinds):
        raise MalformedError(f"line 1 is not {','.join(kinds)}")
    epochs: list[Epoch] = []
    for number, cells in enumerate(lines, start=2):
        try:
            pairs = zip(kinds.items(), cells, strict=True)
            epoch = from_json(Epoch, {name: kind(cell) for (name, kind), cell in pairs})
        except (ValueError, MalformedError) as fault:
            raise MalformedError(f"line {number}: {fault}") from None
        if any(abs(value) > MOST for value in astuple(epoch) if value is not None):
            raise MalformedError(f"line {number} holds a number that is out of range")
        if epoch.epoch != len(epochs) + 1:
            raise MalformedError(f"line {number} is epoch {epoch.epoch}, not {len(epochs) + 1}")
        epochs.append(epoch)
    return tuple(epochs)

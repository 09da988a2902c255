"""Features that are not all there yet: rows in a file beside the one that they are to become.

NAME.partial    the rows that are finished, float32, one behind the other
NAME.journal    a `Journal`: what they are of, how many pictures are done, which were lost

The journal is written after the rows that it tells of, so that it is true whenever the process
ends: whoever goes on cuts off what lies behind them.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from io import BufferedRandom
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from vggc.data.parts import Skipped
from vggc.features import diagnostics
from vggc.features.file import Provenance
from vggc.features.read import scales_shown
from vggc.support.diagnostics import UserError
from vggc.support.files import CannotWrite, open_lock
from vggc.support.paths import exists
from vggc.support.records import read_record, write_record
from vggc.support.tensors import PIECE, Pieces
from vggc_runtime.json_file import MalformedError

NAMED = 20
"""Pictures that were lost and are named one by one; the others are only counted."""


@dataclass(frozen=True)
class LostPicture:
    """A picture that could not be read, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Journal:
    """What the finished rows are of. `work` is how they come about, `stamp` changes with the
    pictures; of the first `done` pictures those at the places `lost` have no row, and the first of
    these are `named`.
    """

    format: Literal[1]
    work: Provenance
    stamp: str
    done: int = 0
    lost: tuple[int, ...] = ()
    named: tuple[LostPicture, ...] = ()

    @property
    def rows(self) -> int:
        """The number of rows that are finished."""
        return self.done - len(self.lost)

    def after(self, stop: int, lost: dict[int, Skipped]) -> Journal:
        """The journal once the pictures before `stop` are done, of which these more were lost."""
        named = tuple(LostPicture(each.name, each.reason) for _, each in sorted(lost.items()))
        return replace(
            self,
            done=stop,
            lost=(*self.lost, *sorted(lost)),
            named=(*self.named, *named)[:NAMED],
        )


@dataclass
class PartialFile:
    """The rows of features that are finished, and their journal."""

    target: Path
    file: BufferedRandom
    journal: Journal

    def add(self, rows: npt.NDArray[np.float32], stop: int, lost: dict[int, Skipped]) -> None:
        """Keeps the rows of the next pictures, those before `stop`, of which some were lost.

        Raises:
            UserError: they cannot be written; what was kept before still is.
        """
        path = partial_path(self.target)
        try:
            self.file.seek(self.row_bytes * self.journal.rows)
            self.file.write(np.ascontiguousarray(rows, "<f4").data)
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise UserError(CannotWrite(str(path), error.strerror or str(error))) from None
        journal = self.journal.after(stop, lost)
        write_record(journal_path(self.target), journal)
        self.journal = journal

    @property
    def row_bytes(self) -> int:
        """The bytes of a row."""
        return 4 * self.journal.work.width

    def pieces(self) -> Pieces:
        """All rows, read back a piece at a time."""
        width, total = self.journal.work.width, self.journal.rows
        step = max(1, PIECE // self.row_bytes)

        def make() -> Iterator[npt.NDArray[np.float32]]:
            self.file.seek(0)
            for start in range(0, total, step):
                count = min(step, total - start)
                yield np.fromfile(self.file, "<f4", count * width).reshape(count, width)

        return Pieces(np.dtype(np.float32), (total, width), make)


def partial_path(target: Path) -> Path:
    """Where the finished rows of features lie that `target` is to hold."""
    return target.with_name(f"{target.name}.partial")


def journal_path(target: Path) -> Path:
    """Where the journal of those rows lies."""
    return target.with_name(f"{target.name}.journal")


@contextmanager
def partial_file(target: Path, work: Journal, *, anew: bool) -> Iterator[PartialFile]:
    """The rows that an earlier process finished of the same work, or none yet; no other process is
    within it for the same target. With `anew` what is there of other work is given up.

    When the block ends well they are removed, and otherwise they stay if there are any.

    Raises:
        UserError: what is there is of other work, or is damaged; another process is at it; a file
            cannot be made.
    """
    path = partial_path(target)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_lock(path))
            held = locked(file) and is_at(path, file)
        except OSError as error:
            raise UserError(CannotWrite(str(path), error.strerror or str(error))) from None
        if not held:
            raise UserError(diagnostics.FeaturesInUse(str(target)))
        found = PartialFile(target, file, journal_in(target, work, anew=anew))
        if file.seek(0, 2) < found.row_bytes * found.journal.rows:
            if not anew:
                reason = "there are fewer rows than its journal tells of"
                raise UserError(diagnostics.PartialDamaged(str(path), reason))
            found.journal = work
        file.truncate(found.row_bytes * found.journal.rows)
        try:
            yield found
        except BaseException:
            if found.journal.done == 0:
                remove(target)
            raise
        remove(target)


def remove(target: Path) -> None:
    """Takes away the rows and their journal."""
    journal_path(target).unlink(missing_ok=True)
    partial_path(target).unlink(missing_ok=True)


def locked(file: BufferedRandom) -> bool:
    """Whether this process now has the lock of a file, or the system has no locks there."""
    try:
        # As for runs: not handed down to workers, who may live on for a while.
        fcntl.lockf(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        return fault.errno not in (errno.EACCES, errno.EAGAIN)
    return True


def is_at(path: Path, file: BufferedRandom) -> bool:
    """Whether an open file still lies at a path: who had its lock before may have removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def journal_in(target: Path, work: Journal, *, anew: bool) -> Journal:
    """The journal of what an earlier process finished, or that of new work.

    Raises:
        UserError: it is of other work, or damaged.
    """
    path = journal_path(target)
    if not exists(path):
        return work
    try:
        found = read_record(path, Journal)
        check(found)
    except MalformedError as fault:
        if anew:
            return work
        raise UserError(diagnostics.PartialDamaged(str(path), str(fault))) from None
    if difference := other_work(found, work):
        if anew:
            return work
        raise UserError(diagnostics.OtherFeaturesBegun(str(target), *difference))
    return found


def check(journal: Journal) -> None:
    """Raises: MalformedError where a journal tells what cannot be."""
    lost = journal.lost
    if sorted({*lost}) != [*lost] or (lost and not 0 <= lost[0] <= lost[-1] < journal.done):
        raise MalformedError("its lost pictures are none of those that are done")
    if journal.done < 0 or not journal.work.columns or journal.work.width < 1:
        raise MalformedError("it tells of rows that cannot be")


def other_work(found: Journal, wanted: Journal) -> tuple[str, str, str] | None:
    """The first thing that differs between what was begun and what is asked for, before and now;
    None where nothing does.
    """
    now = facts_of(wanted.work)
    for name, before in facts_of(found.work).items():
        if before != now[name]:
            return name, before, now[name]
    if found.work != wanted.work:
        return "how rows come about", "others", "these"
    if found.stamp != wanted.stamp:
        return "the pictures", "others", "some have changed since"
    return None


def facts_of(work: Provenance) -> dict[str, str]:
    """How features come about, each fact in words by its name, what a user says first."""
    columns, pictures = work.columns, work.pictures
    seen = "the whole image" if work.dense else ""
    crops = f"{work.grid}×{work.grid} crops" if work.grid else ""
    told = {
        "net": work.net,
        "source": work.source,
        "weights": f"{work.weights_from} ({work.weights_sha256[:12]})",
        "layers": ", ".join(dict.fromkeys(each.layer for each in columns)),
        "scales": scales_shown(work),
        "combine": work.combine,
        "looked at": " and ".join(filter(None, (seen, crops))),
        "flip": "on" if work.flip else "off",
        "place of the pictures": pictures.place,
        "parts": ", ".join(role or "none" for role in pictures.parts),
        "names and classes of the pictures": pictures.sha256[:12],
    }
    special = {"columns", "pictures", "dense", "grid", "weights_from", "weights_sha256"}
    rest = (field.name for field in fields(Provenance) if field.name not in special)
    return told | {name: str(getattr(work, name)) for name in rest if name not in told}

"""What a database says to whoever compiles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vggc.kernels.workloads import Choice, Workload
from vggc.runtime.artifact import Target
from vggc.support.diagnostics import UserError
from vggc.support.processors import num_cores
from vggc.tuning import diagnostics
from vggc.tuning.database import (
    RECORDS,
    KnownTimes,
    default_folder,
    other_threads,
    outdated,
    read,
    unreadable,
)
from vggc.tuning.space import Task, canonical, choices, require_tunable


def default_threads(target: Target) -> int:
    """The threads to tune for: the cores of a CPU, of this machine where the target does not
    say.
    """
    cores = target.attrs.get("num-cores")
    return cores if isinstance(cores, int) and cores > 0 else num_cores()


@dataclass
class Lookup:
    """The fastest choices that were measured for a target, on `threads` threads."""

    target: Target
    threads: int
    known: Mapping[str, KnownTimes] = field(default_factory=dict)
    unread: str | None = None
    """Why nothing is known."""
    asked: list[Task] = field(default_factory=list)

    def __call__(self, workload: Workload, max_error: float) -> Choice | None:
        """The fastest of the choices that add a relative L2 error of at most `max_error`.

        None for what was not measured, and where what was, within a smaller error perhaps,
        was never compared with the choice of least stated cost.
        """
        if not self.known:
            return None
        task = Task(canonical(workload), self.target, self.threads, max_error)
        self.asked.append(task)
        measured = self.known.get(task.text)
        if measured is None or task.choices[0] not in measured.seconds:
            return None
        # Of the very workload: what is canonical might leave it fewer choices.
        return measured.best(choices(workload, self.target, self.threads, max_error))

    @property
    def notes(self) -> list[str]:
        """What is to be told the user when all choices are made, a line each."""
        found = []
        if self.unread:
            found.append(f"no measurement is known: {self.unread}")
        if number := outdated(self.known, self.asked):
            found.append(
                f"{number:,} measurements are of kernels as they were in another version, and "
                "count no more; `vggc tune` measures again"
            )
        if others := other_threads(self.known, self.asked):
            numbers = " and ".join(map(str, others))
            found.append(
                f"there are measurements for {numbers} threads, and none for {self.threads}: "
                "each number has its own"
            )
        return found


def choices_for(
    target: Target, folder: Path | None, threads: int, *, ignore: bool = False
) -> Lookup:
    """What was measured for a target, with so many threads.

    `folder` is the default database's where it is None. Nothing is known for GPUs, where it is
    to be ignored, and where the default one does not exist or may not be read.

    Raises: UserError where the database is damaged, or one was named that there is none of or
        that says nothing about such targets.
    """
    if folder is not None:
        require_tunable(target, here=False)
        if not (folder / RECORDS).exists():
            raise UserError(diagnostics.NoDatabase(str(folder)))
    found = folder or default_folder()
    if ignore or found is None or target.kind != "cpu":
        return Lookup(target, threads)
    if folder is None and (reason := unreadable(found)):
        return Lookup(target, threads, unread=f"{found / RECORDS}: {reason}")
    return Lookup(target, threads, read(found))

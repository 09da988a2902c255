"""What a database says to whoever compiles."""

from __future__ import annotations

from pathlib import Path

from vggc.deploy.artifact import Target
from vggc.deploy.build import ChoiceOf, by_cost
from vggc.deploy.processor import num_cores
from vggc.deploy.tuning import mistakes
from vggc.deploy.tuning.database import RECORDS, default_folder, read
from vggc.deploy.tuning.space import Task, canonical, choices, require_tunable
from vggc.diagnostics import UserError
from vggc.kernels.workloads import Choice, Workload


def default_threads(target: Target) -> int:
    """The cores of a CPU: of this machine where the target does not say."""
    cores = target.attrs.get("num-cores")
    return cores if isinstance(cores, int) and cores > 0 else num_cores()


def choices_for(
    target: Target,
    folder: Path | None,
    threads: int | None,
    *,
    ignore: bool = False,
) -> ChoiceOf:
    """The fastest choices that were measured for a target, with so many threads.

    `folder` is the default database's where it is None. None for what was not measured, and
    where what was, within a smaller error perhaps, was never compared with the choice of least
    stated cost.

    Raises: UserError where the database is damaged, or one was named that there is none of or
        that says nothing about such targets.
    """
    if folder is not None:
        require_tunable(target, here=False)
        if not (folder / RECORDS).exists():
            raise UserError(mistakes.NoDatabase(None, str(folder)))
    if ignore or target.kind != "cpu":
        return by_cost
    known = read(folder or default_folder())
    number = threads or default_threads(target)

    def choice_of(workload: Workload, max_error: float) -> Choice | None:
        task = Task(canonical(workload), target, number, max_error)
        measured = known.get(task.text)
        if measured is None or task.choices[0] not in measured.seconds:
            return None
        # Of the very workload: what is canonical might leave it fewer choices.
        return measured.best(choices(workload, target, max_error))

    return choice_of

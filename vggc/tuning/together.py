"""Kernels of several batches, which are chosen together as they share the weights of a net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

from vggc.compiler.error_budget import Allotment, MeasuredTimes, allotment
from vggc.kernels.workloads import Choice, Workload
from vggc.plan.plan import Plan
from vggc.runtime.artifact import Target
from vggc.tuning.database import Database
from vggc.tuning.machines import TunedMachine
from vggc.tuning.space import Task, canonical


@dataclass(frozen=True)
class JointChoice:
    """What a task gets together with those of other batches: unmeasured, and by what was measured.

    `best` is None as long as that choice was not measured. `wanted` are choices that others stand
    to gain by, or to be compared with, once they are measured.
    """

    default: Choice
    best: Choice | None
    wanted: tuple[Choice, ...]


@dataclass(frozen=True)
class Together:
    """What the kernels of a net's plans for several batches may choose, tuned on `machine`."""

    may: Allotment
    machine: TunedMachine

    @classmethod
    def of(
        cls, plans: Sequence[Plan], target: Target, machine: TunedMachine, error: float
    ) -> Together:
        """The kernels of plans that each keep to an `error`."""
        return cls(allotment(plans, target, error), machine)

    def choices(self, database: Database) -> dict[str, JointChoice]:
        """What each task gets by what a database knows, by the task's text.

        Of workloads that are one task the first one tells.
        """
        times = self._times(database)
        made, wanted = self.may.chosen(times), self.may.worth_measuring(times)
        found: dict[str, JointChoice] = {}
        for work, task in self._tasks.items():
            known, before = times.get(work, {}), found.get(task.text)
            best = made[work] if known.get(made[work], inf) < inf else None
            asked = wanted.get(work, [])
            if before:
                more = tuple(choice for choice in asked if choice not in before.wanted)
                found[task.text] = JointChoice(before.default, before.best, before.wanted + more)
            else:
                found[task.text] = JointChoice(self._unmeasured[work], best, tuple(asked))
        return found

    def _times(self, database: Database) -> MeasuredTimes:
        found: dict[Workload, dict[Choice, float]] = {}
        for work, task in self._tasks.items():
            times = database.measured(task).times(self._choices[work])
            if any(seconds < inf for seconds in times.values()):
                found[work] = times
        return found

    @cached_property
    def _tasks(self) -> Mapping[Workload, Task]:
        return {
            work: Task(canonical(work), self.machine, self.may.share)
            for work in self.may.offers
            if self.may.is_free(work)
        }

    @cached_property
    def _choices(self) -> Mapping[Workload, tuple[Choice, ...]]:
        """The choices of the workloads as they are; the canonical ones of tasks may have others."""
        return {work: self.machine.choices(work, self.may.share) for work in self._tasks}

    @cached_property
    def _unmeasured(self) -> Mapping[Workload, Choice]:
        return self.may.by_cost

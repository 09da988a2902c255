"""What was measured of a workload's choices, and what is pretended to have been."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

import pytest

from vggc.kernels.workloads import Choice
from vggc.tuning import tuner
from vggc.tuning.measure import Built, Failure, MeasuredTime, TrackerAddress, TrialOutcome
from vggc.tuning.space import Task


def fastest(times: Mapping[Choice, float]) -> Choice | None:
    """The fastest of the choices that were measured; None where none was."""
    return min(times, key=times.__getitem__, default=None)


Seconds: TypeAlias = Callable[[Task, Choice], TrialOutcome | None]


class Pretender:
    """In the place of compilers and clocks: `seconds` says what comes of a choice."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: Seconds) -> None:
        self.seconds, self.ran = seconds, []
        pretender = self

        class NoCrew:
            def __init__(self, size: int) -> None: ...
            def stop(self) -> None: ...
            def map(self, function: object, calls: list[object], patience: float) -> list[object]:
                return [None for _ in calls]

        class NoBench:
            def __init__(self, server: TrackerAddress | None) -> None:
                self.server, self.at = server, -1

            def is_there(self) -> bool:
                return True

            def stop(self) -> None: ...

            def start(self, batch: tuner.TrialBatch, built: dict[Choice, Built]) -> None:
                self.batch = batch

            def finish(self) -> dict[Choice, TrialOutcome]:
                batch, task = self.batch, self.batch.layer.task
                pretender.ran += [(task.text, choice) for choice in batch.new]
                told = {choice: pretender.seconds(task, choice) for choice in batch.timed}
                told_reference = pretender.seconds(task, batch.reference)
                if isinstance(told_reference, Failure):
                    return {batch.reference: told_reference}
                unit = told[batch.yardstick]
                if not isinstance(unit, MeasuredTime):
                    return {c: o for c, o in told.items() if isinstance(o, Failure)}
                return {
                    choice: replace(o, ratio=o.seconds / unit.seconds)
                    if isinstance(o, MeasuredTime)
                    else o
                    for choice, o in told.items()
                    if o is not None
                }

        monkeypatch.setattr(tuner, "Crew", NoCrew)
        monkeypatch.setattr(tuner, "Bench", NoBench)

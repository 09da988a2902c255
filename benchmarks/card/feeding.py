"""What a run has measured on a card as records of vggc's tuning database."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from card.making import BundleError
from vggc.kernels.workloads import Choice, Workload
from vggc.support.records import from_json
from vggc.support.tvm_alone import tvm
from vggc.tuning.database import FAILED, opened
from vggc.tuning.machines import TunedCard, tuned_card
from vggc.tuning.revision import revision
from vggc.tuning.space import Task, canonical
from vggc_runtime.json_file import MAX_BYTES, MalformedError

KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Workload)}
OWN_FAULTS = ("WrongKernel", "DriverError", "the process ended")
"""What an error begins with that is the kernel's own."""


@dataclass(frozen=True)
class CardFound:
    """The card of a run, as its driver told of it."""

    name: str
    capability: str
    multiprocessors: int
    cache: int


@dataclass(frozen=True)
class KernelFound:
    """A choice for a workload: its seconds, or why it has none, and the code that it is of."""

    algorithm: str
    knobs: dict[str, int]
    code: str
    seconds: float | None = None
    error: str | None = None

    @property
    def choice(self) -> Choice:
        return Choice(self.algorithm, tuple(self.knobs.items()))


@dataclass
class TaskTimes:
    """The seconds of the choices for a workload, as the database has them."""

    task: Task
    workload: Workload
    seconds: dict[Choice, float] = field(default_factory=dict)


def feed(results: Path, folder: Path, *, emulated: bool = False) -> Iterator[str]:
    """Adds the times of a run to a tuning database, and tells what came of it, a line each.

    Raises: BundleError where `results` is no file of a run, or of an emulated card where these are
    not allowed, or of other code than this; UserError for a folder that is no database.
    """
    card, found = read_results(results, emulated=emulated)
    number = 0
    with opened(folder) as database:
        for each in found:
            if min(each.seconds.values(), default=FAILED) == FAILED:
                continue
            if each.task.choices[0] not in each.seconds:
                yield f"without the model's first choice nothing is decided for {each.workload}"
            for choice, seconds in each.seconds.items():
                database.add(each.task, choice, seconds)
                number += 1
    yield f"{folder}: {number} records of {len(found)} kernels on {card.words}"


def read_results(path: Path, *, emulated: bool = False) -> tuple[TunedCard, list[TaskTimes]]:
    """The card of a run, and what it has measured there.

    Raises: as `feed`.
    """
    said = _json(path)
    try:
        if said["emulated"] is not False and not emulated:
            raise BundleError(f"{path} is of an emulated card, whose times say nothing")
        about = from_json(CardFound, said["card"])
        card = tuned_card(about.name, about.capability, about.multiprocessors, about.cache)
        tasks: dict[str, TaskTimes] = {}
        for row in said["kernels"]:
            _note(tasks, card, _workload(row.pop("workload")), from_json(KernelFound, row))
        if said["tvm"] != tvm.__version__:
            raise BundleError(f"{path} is of kernels that another TVM has made")
    except BundleError:
        raise
    except Exception as error:  # whatever a workload from outside leads to
        reason = f"{type(error).__name__}: {error}"[:300]
        raise BundleError(f"{path} is no file that a run writes: {reason}") from None
    return card, [each for each in tasks.values() if each.task.choices]


def _json(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise MalformedError(f"it is larger than {MAX_BYTES >> 20} MiB")
        found = json.loads(content)["records"]
        if not isinstance(found, dict):
            raise MalformedError("it has no records")
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError, MalformedError) as error:
        raise BundleError(f"{path} is no file that a run writes: {error!r}"[:300]) from None
    return found


def _workload(said: Mapping[str, Any]) -> Workload:
    ((kind, fields),) = said.items()
    workload: Workload = from_json(KINDS[kind], fields)
    return workload


def _note(
    tasks: dict[str, TaskTimes], card: TunedCard, workload: Workload, kernel: KernelFound
) -> None:
    """Puts a kernel's time to those of its task. Of several layers that are one task, as halos and
    activations decide nothing, the first one's count that has some: times of two do not compare.

    Raises: BundleError for a kernel of other code than is here.
    """
    task = Task(canonical(workload), card)
    code = revision(card.algorithms(task.workload))
    if kernel.code != code:
        raise BundleError(
            f"{kernel.algorithm} was measured as code {kernel.code}, and here it is {code}: "
            "records count for the code that they were measured with"
        )
    times = tasks.setdefault(task.text, TaskTimes(task, workload))
    if not task.choices or (times.workload != workload and times.seconds):
        return
    times.workload = workload
    if kernel.choice not in task.choices:
        raise BundleError(f"there is no {kernel.choice} for {task.workload}")
    if kernel.error is None and kernel.seconds is not None:
        if not 0 < kernel.seconds < FAILED:
            raise BundleError(f"{kernel.seconds} s is no time of a kernel")
        times.seconds[kernel.choice] = kernel.seconds
    elif (kernel.error or "").startswith(OWN_FAULTS):
        times.seconds[kernel.choice] = FAILED

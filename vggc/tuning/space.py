"""What is tuned, and the choices there are for it, in MetaSchedule's terms.

MetaSchedule keeps its records by module and by trace. A workload becomes a module that
says in an attribute what is to be computed where, in canonical text; a choice becomes a
trace that samples the algorithm and its knobs and annotates a block with them. The traces
schedule nothing: code comes from `vggc.kernels`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from math import inf
from typing import Any

from tvm.s_tir import Schedule
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from vggc.kernels.workloads import Choice, Conv, Dense, Workload
from vggc.runtime.artifact import Target
from vggc.runtime.cpu_session import obstacle
from vggc.support.diagnostics import UserError
from vggc.support.records import to_json
from vggc.support.tvm_alone import tvm
from vggc.tuning import diagnostics
from vggc.tuning.machines import TunedMachine, card_in
from vggc.tuning.revision import revision

ATTRIBUTE = "vggc.task"
BLOCK = "kernel"
ALGORITHM = "vggc.algorithm"
KNOB = "vggc.knob."


@dataclass(frozen=True)
class Task:
    """A workload on a machine: the unit of tuning, measured once and for all.

    `workload` is `canonical`. `max_error`, the relative L2 error that a choice may add, decides
    which choices there are, and nothing about what is known of them.
    """

    workload: Workload
    machine: TunedMachine
    max_error: float = inf

    @cached_property
    def text(self) -> str:
        """A line of JSON that tells this task from others, and from itself in other code."""
        said = {
            "workload": {type(self.workload).__name__: to_json(self.workload)},
            **self.machine.said,
            "code": revision(self.machine.algorithms(self.workload)),
            "tvm": tvm.__version__,
        }
        return json.dumps(said, sort_keys=True)

    @cached_property
    def choices(self) -> tuple[Choice, ...]:
        """Every way to carry out the task, the one of least stated cost first."""
        return self.machine.choices(self.workload, self.max_error)

    @cached_property
    def firsts(self) -> tuple[Choice, ...]:
        """The choices of least stated cost: of all, of each algorithm, and of each part that a net
        may be restricted to.
        """
        parts = [self.choices, *map(set, self.machine.narrower(self.workload))]
        found: dict[Choice, None] = {}
        for part in parts:
            firsts: dict[str, Choice] = {}
            for choice in self.choices:
                if choice in part:
                    firsts.setdefault(choice.algorithm, choice)
            found |= dict.fromkeys(firsts.values())
        return tuple(found)

    @cached_property
    def reference(self) -> Choice:
        """The choice of least stated cost of the simplest algorithm, with which all must agree."""
        simplest = self.machine.algorithms(self.workload)[0].name
        return next(choice for choice in self.choices if choice.algorithm == simplest)


def without_code(text: str) -> str:
    """What a task's text says whatever its code is.

    Raises: ValueError where it is no task's.
    """
    said = json.loads(text)
    if not isinstance(said, dict):
        raise ValueError("not what a task says")
    return json.dumps({k: v for k, v in said.items() if k not in ("code", "tvm")}, sort_keys=True)


def digest(text: str) -> str:
    """The hash by which a record names its task, besides the number of a line."""
    return sha256(text.encode()).hexdigest()[:16]


def is_of_this_tvm(text: str) -> bool:
    """Whether a task was put into words by the TVM that is here."""
    return bool(json.loads(text).get("tvm") == tvm.__version__)


def kind_of(text: str) -> str:
    """The kind of machine, `cpu` or `cuda`, that the text of a task is about."""
    return "cuda" if card_in(json.loads(text)) else "cpu"


def require_tunable(target: Target) -> None:
    """Raises: UserError where code for a CPU does not run on this machine, to be measured."""
    if reason := obstacle(target):
        raise UserError(diagnostics.CannotMeasureHere(target.name, reason))


def canonical(workload: Workload) -> Workload:
    """A workload without what does not decide between choices.

    That is the activation and what is added before it, which all choices compute on as many values,
    and the halos beyond what the padding needs, which move addresses only.
    """
    match workload:
        case Conv():
            return replace(
                workload,
                input=replace(workload.input, halo=workload.reach),
                output=replace(workload.output, halo=0),
                act=None,
                addend=None,
            )
        case Dense():
            return replace(workload, act=None)
        case _:
            return workload


@lru_cache(maxsize=1024)
def placeholder(text: str) -> Any:
    """The module by which MetaSchedule knows a task: equal texts, equal modules."""
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name("main")
        T.func_attr({ATTRIBUTE: text})
        y = T.arg("y", T.buffer((1,), "float32"))
        with T.sblock("root"), T.serial(1) as i, T.sblock(BLOCK):
            at = T.axis.spatial(1, i)
            T.buffer_store(y, T.float32(0), [at])
    return tvm.IRModule({"main": builder.get()})


def text_of(module: Any) -> str:
    """The text of the task behind a placeholder."""
    return str(module["main"].attrs[ATTRIBUTE])


@dataclass(frozen=True)
class Space:
    """The choices of a task as a tree: the algorithm first, then its knobs, one by one."""

    task: Task

    def schedule(self, choice: Choice) -> Schedule:
        """The schedule whose trace says `choice`, and which task it is of."""
        return self._walk(Schedule(placeholder(self.task.text)), (choice,))

    def draw(self, among: Collection[Choice], seed: int) -> Choice:
        """One of the choices `among`, each as likely as the others, sampled by MetaSchedule."""
        return choice_of(self._walk(Schedule(placeholder(self.task.text), seed=seed), among))

    def _walk(self, schedule: Schedule, among: Collection[Choice]) -> Schedule:
        block = schedule.get_sblock(BLOCK)
        schedule.annotate(block, ATTRIBUTE, digest(self.task.text))
        names = sorted({choice.algorithm for choice in self.task.choices})
        left = Counter(names.index(choice.algorithm) for choice in among)
        index = _sample(schedule, range(len(names)), left)
        name = names[int(schedule.get(index))]
        schedule.annotate(block, ALGORITHM, name)
        offered = [choice.knobs for choice in self.task.choices if choice.algorithm == name]
        wanted = [choice.knobs for choice in among if choice.algorithm == name]
        for position, (knob, _) in enumerate(wanted[0]):
            values = sorted({knobs[position][1] for knobs in offered})
            value = _sample(schedule, values, Counter(knobs[position][1] for knobs in wanted))
            schedule.annotate(block, KNOB + knob, value)
            chosen = int(schedule.get(value))
            offered = [knobs for knobs in offered if knobs[position][1] == chosen]
            wanted = [knobs for knobs in wanted if knobs[position][1] == chosen]
        return schedule


def _sample(schedule: Schedule, values: Sequence[int], left: Counter[int]) -> Any:
    """One of `values`, with a probability in proportion to how many choices are `left` of it."""
    total = left.total()
    return schedule.sample_categorical(list(values), [left[value] / total for value in values])


def choice_of(schedule: Schedule) -> Choice:
    """The choice that a schedule's block is annotated with."""
    return choice_in(
        {
            str(key): value
            for key, value in schedule.get(schedule.get_sblock(BLOCK)).annotations.items()
        }
    )


def choice_in(annotations: dict[str, Any]) -> Choice:
    """The choice that annotations, in order, say.

    Raises: KeyError, ValueError or TypeError where they say none.
    """
    knobs = tuple(
        (key.removeprefix(KNOB), int(value))
        for key, value in annotations.items()
        if key.startswith(KNOB)
    )
    return Choice(str(annotations[ALGORITHM]), knobs)

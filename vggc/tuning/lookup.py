"""What databases say to whoever compiles: the user's own, and beneath it the one that comes with
vggc.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import TypeAlias

from vggc.compiler.cards import card_for
from vggc.kernels import cuda
from vggc.kernels.workloads import Choice, Workload
from vggc.runtime.archs import Capability, capability, is_specific, listed, runs_on
from vggc.runtime.artifact import Target
from vggc.support.diagnostics import UserError
from vggc.tuning import diagnostics
from vggc.tuning.database import (
    RECORDS,
    KnownTimes,
    default_folder,
    other_batches,
    other_threads,
    outdated,
    read,
    unreadable,
)
from vggc.tuning.machines import TunedCard, TunedCpu, card_in
from vggc.tuning.space import Task, canonical
from vggc_runtime.processors import num_cores

SHIPPED = Path(__file__).with_name("records")
"""The database that comes with vggc: what was measured on machines that many have."""


def default_threads(target: Target) -> int:
    """The threads to tune for: the cores of a CPU, of this machine where the target does not
    say.
    """
    cores = target.attrs.get("num-cores")
    return cores if isinstance(cores, int) and cores > 0 else num_cores()


@dataclass(frozen=True)
class Measurements:
    """What is known: by the user's own database, and by the one that comes with vggc."""

    own: Mapping[str, KnownTimes] = field(default_factory=dict)
    shipped: Mapping[str, KnownTimes] = field(default_factory=dict)
    unread: str | None = None
    """Why the user's own says nothing."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known at all."""
        return not self.own and not self.shipped

    def of(self, task: Task) -> KnownTimes:
        """What is known of a task, by one of the databases: times of two do not compare."""
        for known in (self.own, self.shipped):
            if (measured := known.get(task.text)) and measured.seconds:
                return measured
        return KnownTimes()

    def notes(self, asked: list[Task]) -> Iterator[str]:
        """What is to be told the user of databases that were asked about these tasks."""
        if self.unread:
            yield f"no measurement of yours is known: {self.unread}"
        if number := outdated(self.own, asked):
            yield (
                f"{number:,} measurements are of kernels as they were in another version, and "
                "count no more; `vggc tune` measures again"
            )


@dataclass
class Lookup:
    """The choices that were measured for a CPU."""

    machine: TunedCpu
    known: Measurements = field(default_factory=Measurements)
    asked: list[Task] = field(default_factory=list)

    def __call__(self, workload: Workload, max_error: float) -> Mapping[Choice, float]:
        """The seconds of the choices that add a relative L2 error of at most `max_error`.

        Nothing of what was not measured, and where what was, within a smaller error perhaps,
        was never compared with the choice of least stated cost.
        """
        if self.known.is_empty:
            return {}
        task = Task(canonical(workload), self.machine, max_error)
        self.asked.append(task)
        measured = self.known.of(task)
        if not measured.seconds or task.choices[0] not in measured.seconds:
            return {}
        # Of the very workload: what is canonical might leave it fewer choices.
        return _of_use(measured.times(self.machine.choices(workload, max_error)))

    @property
    def notes(self) -> list[str]:
        """What is to be told the user when all choices are made, a line each."""
        found = [*self.known.notes(self.asked)]
        if others := other_threads(self.known.own, self.asked):
            numbers = " and ".join(map(str, others))
            found.append(
                f"there are measurements for {numbers} threads, and none for "
                f"{self.machine.threads}: each number has its own"
            )
        others, lacking = other_batches(self.known.own, self.asked)
        if others and lacking:
            had, asked = listed([*map(str, others)]), listed([*map(str, lacking)])
            found.append(
                f"there are measurements for batches of {had}, and none for {asked}: `vggc tune` "
                "with the same `--batch` measures these"
            )
        return found


@dataclass
class CardLookup:
    """The choices that were measured on cards which run code for some architectures.

    There is one choice for all `archs`. Of all that are compiled for, the `whole`, some have
    kernels of their own, and cards that run these have no say. Where several cards have records of
    a kernel, that card decides which is first in order: those that the user's own database knows
    before those that only come with vggc, then the newest architecture, then the most
    multiprocessors.
    """

    archs: tuple[str, ...]
    whole: tuple[str, ...]
    known: Measurements = field(default_factory=Measurements)
    asked: list[Task] = field(default_factory=list)
    decided: Counter[TunedCard] = field(default_factory=Counter)
    """For how many workloads the records of a card have decided."""

    def __post_init__(self) -> None:
        own, shipped = cards_in(self.known.own), cards_in(self.known.shipped)
        found = [*own, *(card for card in shipped if card not in own)]
        self.cards = [card for card in found if self._runs_on(card)]
        self.others = [card for card in own if not _is_one_of(card, self.whole)]

    def __call__(self, workload: Workload, max_error: float) -> Mapping[Choice, float]:
        """The seconds of the choices that add a relative L2 error of at most `max_error`, by the
        records of the first card that has some.

        Nothing of what was not measured, and of what was never compared with that card's choice of
        least stated cost among those that all architectures can run.
        """
        if not self.cards:
            return {}
        allowed = {*cuda.choices(workload, card_for(self.archs), max_error)}
        for card in self.cards:
            task = Task(canonical(workload), card, max_error)
            self.asked.append(task)
            measured = self.known.of(task)
            among = tuple(choice for choice in task.choices if choice in allowed)
            if among and among[0] in measured.seconds and (times := _of_use(measured.times(among))):
                self.decided[card] += 1
                return times
        return {}

    @property
    def notes(self) -> list[str]:
        """What is to be told the user when all choices are made, a line each."""
        found = [*self.known.notes(self.asked)]
        for card, number in self.decided.items():
            kernels = f"{number:,} distinct kernel{'s' * (number > 1)}"
            found.append(f"records of {card.words} decide on {kernels}")
        if self.others and not self.decided:
            cards = listed([card.words for card in self.others])
            found.append(
                f"there are measurements on {cards}: code for {listed(self.whole)} runs "
                "on no such card"
            )
        return found

    def _runs_on(self, card: TunedCard) -> bool:
        own = (arch for arch in self.whole if is_specific(arch) and arch not in self.archs)
        has_own = any(capability(arch) == capability(card.arch) for arch in own)
        return not has_own and _is_one_of(card, self.archs)


def _of_use(times: Mapping[Choice, float]) -> Mapping[Choice, float]:
    """The times of a workload's choices, or nothing where none of these works."""
    return times if any(map(isfinite, times.values())) else {}


def _is_one_of(card: TunedCard, archs: tuple[str, ...]) -> bool:
    """Whether a card runs code for some architectures."""
    return any(runs_on(arch, capability(card.arch)) for arch in archs)


AnyLookup: TypeAlias = Lookup | CardLookup


def cards_in(known: Mapping[str, KnownTimes]) -> list[TunedCard]:
    """The cards that something is known of, the newest first."""
    cards = {card_in(json.loads(text)) for text, measured in known.items() if measured.seconds}

    def newness(card: TunedCard) -> tuple[Capability, int, str]:
        return capability(card.arch), card.multiprocessors, card.name

    return sorted((card for card in cards if card), key=newness, reverse=True)


def times_for(
    target: Target,
    folder: Path | None,
    threads: int,
    *,
    ignore: bool = False,
    whole: tuple[str, ...] = (),
) -> AnyLookup:
    """What was measured for a target; for a CPU with so many threads. Where it is for some of the
    architectures that are compiled for, `whole` are all.

    `folder` is the default database's where it is None. Nothing is known where it is to be ignored;
    only what comes with vggc where the default one does not exist or may not be read.

    Raises: UserError where the database is damaged, or one was named that there is none of.
    """
    known = Measurements() if ignore else _measurements(folder)
    match target.kind:
        case "cpu":
            return Lookup(TunedCpu(target, threads), known)
        case "cuda":
            return CardLookup(target.archs, whole or target.archs, known)


def _measurements(folder: Path | None) -> Measurements:
    if folder is not None and not (folder / RECORDS).exists():
        raise UserError(diagnostics.NoDatabase(str(folder)))
    shipped, found = read(SHIPPED), folder or default_folder()
    if found is None:
        return Measurements(shipped=shipped)
    if folder is None and (reason := unreadable(found)):
        return Measurements(shipped=shipped, unread=f"{found / RECORDS}: {reason}")
    return Measurements(read(found), shipped)

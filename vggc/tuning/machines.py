"""What kernels are tuned for: a CPU with a number of threads, or a card.

Both say what tells them from others in the text of a task, which ways there are to carry out a
workload, and what code a choice is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import inf
from typing import Any, ClassVar, Literal, TypeAlias

from vggc.compiler.cards import card_like
from vggc.compiler.targets import on_threads, tvm_target
from vggc.kernels import cpu, cuda
from vggc.kernels.algorithm import Algorithm
from vggc.kernels.workloads import Choice, Kernel, Workload
from vggc.runtime.artifact import Target
from vggc.support.records import to_json
from vggc.support.tvm_alone import tvm

MAX_MULTIPROCESSORS = 1024
MAX_CACHE = 2**30
"""The largest numbers that a card is believed."""

CARD_NAME = re.compile(r"[\w .()+/-]{1,64}")
"""What the name of a card may be; a driver may be anybody's."""


@dataclass(frozen=True)
class TunedCpu:
    """A CPU, and the threads that a kernel runs on."""

    kind: ClassVar[Literal["cpu"]] = "cpu"
    target: Target
    threads: int

    @property
    def said(self) -> dict[str, Any]:
        """What the text of a task says of the CPU."""
        attrs = {key: self.target.attrs.get(key) for key in ("mtriple", "mcpu", "mattr")}
        of_cpu = {key: to_json(value) for key, value in attrs.items() if value is not None}
        return {"target": of_cpu, "threads": self.threads}

    @property
    def description(self) -> Any:
        """The CPU as TVM describes it."""
        return tvm_target(self.target)

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process is to find in its environment that measures on the CPU."""
        return {"TVM_NUM_THREADS": str(self.threads), "TVM_BIND_THREADS": "0"}

    @cached_property
    def machine(self) -> cpu.Machine:
        """The CPU as kernels see it, with as many cores as there are threads."""
        return cpu.Machine.of(tvm_target(on_threads(self.target, self.threads)))

    def algorithms(self, workload: Workload) -> Sequence[Algorithm[Any, Any]]:
        """The algorithms that apply to a workload, the simplest first."""
        return cpu.algorithms(workload, self.machine)

    def choices(self, workload: Workload, max_error: float = inf) -> tuple[Choice, ...]:
        """Every way to carry out a workload with so much error, that of least stated cost first."""
        return cpu.choices(workload, self.machine, max_error)

    def narrower(self, workload: Workload) -> tuple[tuple[Choice, ...], ...]:
        """The parts of the choices that a net may be restricted to, but by error; none."""
        return ()

    def kernel(self, workload: Workload, choice: Choice) -> Kernel:
        """The kernel of a choice."""
        return cpu.kernel(workload, self.machine, choice)


@dataclass(frozen=True)
class TunedCard:
    """A card, as its driver tells of it: its name, its architecture and its multiprocessors.

    `cache` are the bytes of its L2 cache, which decide how it is measured and tell no card from
    another.
    """

    kind: ClassVar[Literal["cuda"]] = "cuda"
    name: str
    arch: str
    multiprocessors: int
    cache: int = field(default=0, compare=False)

    @property
    def said(self) -> dict[str, Any]:
        """What the text of a task says of the card."""
        return {
            "target": {
                "card": self.name,
                "arch": self.arch,
                "multiprocessors": self.multiprocessors,
            }
        }

    @property
    def words(self) -> str:
        """The card in words."""
        return f"{self.name} ({self.arch}, {self.multiprocessors} multiprocessors)"

    @property
    def description(self) -> Any:
        """The card as TVM describes it."""
        return tvm.target.Target({"kind": "cuda", "arch": self.arch})

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process is to find in its environment that measures on the card."""
        return {}

    @property
    def target(self) -> Target:
        """Code for this card alone, with all that the model knows cards of its kind to have."""
        archs = (self.model.arch,)
        return Target(name="cuda", kind="cuda", attrs={"kind": "cuda"}, archs=archs)

    @cached_property
    def model(self) -> cuda.Card:
        """The card as the stated cost sees it."""
        return card_like(self.arch, self.multiprocessors)

    def algorithms(self, workload: Workload) -> Sequence[Algorithm[Any, Any]]:
        """The algorithms that apply to a workload, the simplest first."""
        return cuda.algorithms(workload, self.model)

    def choices(self, workload: Workload, max_error: float = inf) -> tuple[Choice, ...]:
        """Every way to carry out a workload with so much error, that of least stated cost first."""
        return cuda.choices(workload, self.model, max_error)

    def narrower(self, workload: Workload) -> tuple[tuple[Choice, ...], ...]:
        """The choices that there is code for where other cards must run it, too: without the
        instructions that this architecture alone has, and for each smaller amount of shared memory.
        """
        own = self.model.block_shared
        plain = replace(self.model, arch=self.model.arch.removesuffix("a"))
        amounts = {own} | {card.block_shared for card in cuda.CARDS if card.block_shared < own}
        cards = (replace(plain, block_shared=amount) for amount in sorted(amounts))
        return tuple(cuda.choices(workload, card) for card in cards)

    def kernel(self, workload: Workload, choice: Choice) -> Kernel:
        """The kernel of a choice."""
        return cuda.kernel(workload, self.model, choice)


TunedMachine: TypeAlias = TunedCpu | TunedCard


def tuned_card(name: Any, version: Any, multiprocessors: Any, cache: Any) -> TunedCard:
    """The card of which a driver says this; `version` is its compute capability, "9.0".

    Raises: ValueError where it is no card.
    """
    found = re.fullmatch(r"(\d{1,2})\.(\d)", str(version))
    if found is None or not CARD_NAME.fullmatch(str(name)):
        raise ValueError("what its driver says of it is no card")
    if not 0 < int(multiprocessors) <= MAX_MULTIPROCESSORS or not 0 <= int(cache) <= MAX_CACHE:
        raise ValueError("what its driver says of its size is no card's")
    return TunedCard(str(name), f"sm_{found[1]}{found[2]}", int(multiprocessors), int(cache))


def card_in(said: Mapping[str, Any]) -> TunedCard | None:
    """The card that the text of a task is about; None where it is about none."""
    match said.get("target"):
        case {"card": str(name), "arch": str(arch), "multiprocessors": int(number)}:
            known = re.fullmatch(r"sm_\d{2,3}", arch) and CARD_NAME.fullmatch(name)
            return TunedCard(name, arch, number) if known else None
        case _:
            return None

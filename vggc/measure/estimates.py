"""What an artifact for GPUs is thought to take on a card, kernel by kernel, without one.

The model is that by which kernels are chosen (`vggc/kernels/cuda/card.py`). Beside it stands a
floor: what the card's fastest instructions need for the arithmetic that is asked for, or its memory
for what must be moved, whichever is longer. What kernels do move is counted, not estimated
(`vggc/kernels/cuda/memory.py`), where it is known what their blocks touch: of convolutions and
dense layers in fewer bits, and of what makes a map of a caller's input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from vggc.compiler.cards import card_for
from vggc.kernels.cuda import CARDS, AnyCudaAlgorithm, Card, algorithms
from vggc.kernels.cuda.algorithm import moved_bytes
from vggc.kernels.cuda.memory import Moved, moved
from vggc.kernels.workloads import Conv, Format, Workload
from vggc.measure.profile import useful_macs
from vggc.passes.fold import fold
from vggc.runtime.archs import capability
from vggc.runtime.artifact import (
    KernelEntry,
    entry_in,
    graph_in,
    manifest_at,
    read_manifest,
)
from vggc.runtime.plans import plans_in
from vggc.support.diagnostics import Diagnostic, UserError, listed, nearest

FloorBound: TypeAlias = Literal["arithmetic", "memory"]


class UnknownCard(Diagnostic):
    title = "unknown card `{name}`"
    label = "known: {known}"
    help = "{hint}"
    name: str
    known: str
    hint: str


class NotForCards(Diagnostic):
    title = "{artifact} is not for GPUs"
    label = "it is for the target {target}"
    help = "leave `--card` out: its kernels are timed on this machine"
    artifact: str
    target: str


@dataclass(frozen=True)
class KernelEstimate:
    """What a kernel call is thought to take, and the floor for what it computes, in seconds."""

    layer: str
    step: str
    algorithm: str
    seconds: float
    floor: float
    bound: FloorBound
    """What the floor is the time of."""
    moved: Moved | None
    """What the kernel moves to and from memory, where that is known."""


@dataclass(frozen=True)
class CardEstimate:
    """What the kernel calls of a batch are thought to take on a card, one after the other."""

    card: Card
    batch: int
    calls: tuple[KernelEstimate, ...]
    archs: tuple[str, ...] = ()
    """The architectures that the kernels are for, where other GPUs have others in the artifact."""

    @property
    def seconds(self) -> float:
        """What all calls are thought to take."""
        return sum(call.seconds for call in self.calls)

    @property
    def floor(self) -> float:
        """The floor of all calls."""
        return sum(call.floor for call in self.calls)

    @property
    def moved(self) -> Moved | None:
        """What is moved in those calls of which it is known; None where there are none."""
        known = [call.moved for call in self.calls if call.moved is not None]
        return sum(known[1:], start=known[0]) if known else None


def card_named(name: str) -> Card:
    """Raises: UserError for a name that no known card has."""
    known = {card.name: card for card in CARDS}
    if name.lower() not in known:
        near = nearest(name.lower(), known)
        hint = f"did you mean `{near}`?" if near else "name one of them"
        raise UserError(UnknownCard(name, listed(list(known)), hint))
    return known[name.lower()]


def estimate(
    folder: Path, name: str, batch: int | None = None, size: tuple[int, int] | None = None
) -> CardEstimate:
    """What one of the batches and sizes (H, W) of an artifact, the largest batch and the main size
    unless told, is thought to take on the card of a name.

    Raises: UserError for an artifact that is damaged or not for GPUs or such images, or an unknown
    card.
    """
    card, manifest = card_named(name), read_manifest(folder)
    if manifest.target.kind != "cuda":
        raise UserError(NotForCards(str(folder), manifest.target.name))
    several = manifest.has_variants
    manifest = manifest.variant_for(capability(card.arch))
    plans = plans_in(folder, manifest)
    manifest = manifest_at(folder, manifest, size)
    entry = entry_in(folder, manifest, batch)
    plan = plans[entry.name]
    macs = useful_macs(entry, fold(graph_in(folder, manifest)).graph)
    # Knobs are those that the artifact's architectures allow; what they cost is told for the card.
    allowed = card_for(manifest.target.archs).block_shared
    calls = [
        _call(kernel, step.workload, replace(card, block_shared=allowed), useful)
        for kernel, step, useful in zip(entry.kernels, plan.steps, macs, strict=True)
    ]
    archs = manifest.target.archs if several else ()
    return CardEstimate(card, entry.batch, tuple(calls), archs)


def _call(kernel: KernelEntry, workload: Workload, card: Card, macs: int) -> KernelEstimate:
    algorithm = next(each for each in algorithms(workload, card) if each.name == kernel.algorithm)
    knobs = _knobs(algorithm, kernel)
    accesses = algorithm.accesses(knobs)
    arithmetic = 2 * macs / card.peak(_multiplied(workload))
    memory = moved_bytes(workload) / card.memory_rate
    return KernelEstimate(
        layer=kernel.layer,
        step=kernel.step,
        algorithm=kernel.algorithm,
        seconds=algorithm.seconds(knobs),
        floor=max(arithmetic, memory),
        bound="arithmetic" if arithmetic > memory else "memory",
        moved=moved(accesses, card.cache) if accesses is not None else None,
    )


def _multiplied(workload: Workload) -> Format:
    """The format of the numbers that a workload multiplies."""
    return workload.input.format if isinstance(workload, Conv) else "float32"


def _knobs(algorithm: AnyCudaAlgorithm, kernel: KernelEntry) -> Any:
    for knobs in algorithm.knobs():
        if algorithm.shown(knobs) == kernel.knobs:
            return knobs
    raise AssertionError(f"{kernel.step} has knobs that there is no code for")

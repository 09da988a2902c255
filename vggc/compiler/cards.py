"""The card that kernels are chosen for, when code is for one or more architectures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vggc.kernels.cuda.card import CARDS, KIB, Card
from vggc.runtime.archs import capability, is_ptx, is_specific, runs_on
from vggc.runtime.artifact import Target

LITTLE_SHARED = {(8, 6), (8, 9), (12, 0), (12, 1)}
"""The capabilities of cards for games from Ampere on, whose blocks have 99 KiB of shared memory at
most. Source: CUDA C++ Programming Guide, technical specifications per compute capability."""
LITTLE_BYTES = 99 * KIB
OLDEST_TENSOR_CORES = (8, 0)
"""The first compute capability with all instructions that kernels for tensor cores are made of."""


def variants(target: Target) -> dict[str, Target]:
    """The machines that kernels are chosen for by themselves, by what `ArtifactEntry.arch` says:
    each architecture of a target that has instructions which only a card of it has, and the others
    together under the empty name. Where no others are asked for, it is one, without a name.
    """
    specific = {card.arch for card in CARDS if is_specific(card.arch)}
    own = [arch for arch in target.archs if arch in specific]
    others = tuple(arch for arch in target.archs if arch not in specific)
    if not own or (len(own) == 1 and not others):
        return {"": target}
    archs = {"": others} | {arch: (arch,) for arch in own}
    return {name: replace(target, archs=each) for name, each in archs.items()}


def card_for(archs: Sequence[str]) -> Card:
    """The newest card that there is machine code for, with no more shared memory a block than all
    have that run the code, and with tensor cores where all architectures have them.

    PTX is for cards that are not known yet: it counts as machine code where there is no other.
    """
    known = sorted(CARDS, key=lambda card: capability(card.arch))
    card_of = {arch: _nearest(known, arch) for arch in archs}
    machine_code = [arch for arch in archs if not is_ptx(arch)]
    chosen = [card_of[arch] for arch in machine_code or archs]
    newest = max(chosen, key=lambda card: capability(card.arch))
    if set(archs) != {newest.arch}:  # other code has no instructions of that card alone
        newest = replace(newest, arch=newest.arch.removesuffix("a"))
    return replace(
        newest,
        block_shared=min(_block_shared(card, arch) for arch, card in card_of.items()),
        tensor_cores=all(capability(arch) >= OLDEST_TENSOR_CORES for arch in archs),
    )


def card_like(arch: str, multiprocessors: int) -> Card:
    """What is known of a card of an architecture with so many multiprocessors: what all of them
    do together grows with their number, what memory gives does not. Instructions that one
    architecture alone has are for cards of that one.
    """
    known = _nearest(sorted(CARDS, key=lambda card: capability(card.arch)), arch)
    same = capability(known.arch) == capability(arch)
    share = multiprocessors / known.multiprocessors
    little = capability(arch) in LITTLE_SHARED
    return replace(
        known,
        arch=known.arch if same else arch,
        block_shared=min(known.block_shared, LITTLE_BYTES if little else known.block_shared),
        tensor_cores=capability(arch) >= OLDEST_TENSOR_CORES,
        multiprocessors=multiprocessors,
        half_rate=known.half_rate * share,
        peak_rate=known.peak_rate * share,
        float_rate=known.float_rate * share,
        cache_rate=known.cache_rate * share,
    )


def _nearest(known: Sequence[Card], arch: str) -> Card:
    """The newest card that is no newer than an architecture, or else the oldest."""
    older = [card for card in known if capability(card.arch) <= capability(arch)]
    return older[-1] if older else known[0]


def _block_shared(card: Card, arch: str) -> int:
    """The shared memory that a block has on every card that runs code for an architecture."""
    little = any(runs_on(arch, capability) for capability in LITTLE_SHARED)
    return min(card.block_shared, LITTLE_BYTES) if little else card.block_shared

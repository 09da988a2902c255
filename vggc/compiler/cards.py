"""The card that kernels are chosen for, when code is for one or more architectures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vggc.kernels.cuda.card import CARDS, Card
from vggc.runtime.device import capability


def card_for(archs: Sequence[str]) -> Card:
    """The newest card that there is code for, with no more shared memory a block than all of the
    architectures have.
    """
    known = sorted(CARDS, key=lambda card: capability(card.arch))
    chosen = [_nearest(known, arch) for arch in archs]
    newest = max(chosen, key=lambda card: capability(card.arch))
    if set(archs) != {newest.arch}:  # other code has no instructions of that card alone
        newest = replace(newest, arch=newest.arch.removesuffix("a"))
    return replace(newest, block_shared=min(card.block_shared for card in chosen))


def _nearest(known: Sequence[Card], arch: str) -> Card:
    """The newest card that is no newer than an architecture, or else the oldest."""
    older = [card for card in known if capability(card.arch) <= capability(arch)]
    return older[-1] if older else known[0]

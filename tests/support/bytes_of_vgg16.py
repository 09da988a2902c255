"""What each kernel of VGG-16 in float16 moves between memory and the L2 cache of a card, counted.

`python -m tests.support.bytes_of_vgg16` prints it for all kernels but that of the soft-max at batch
1, 8 and 32, as a table in Markdown: how many times the ideal it is, through the whole cache of the
card and through half of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tests.support.vgg16_on_gpus import BATCHES, Chosen, chosen_for
from vggc.compiler.targets import resolve
from vggc.kernels.cuda import A100, H200, Card
from vggc.kernels.cuda.accesses import Accesses
from vggc.kernels.cuda.memory import Moved, moved
from vggc.program import load
from vggc.runtime.plans import plan_for

CARDS: dict[str, Card] = {
    "A100": A100,
    "H200, sm_90": replace(H200, arch="sm_90"),
    "H200, sm_90a": H200,
}
"""Cards, and the architecture of code that each of an H200 runs."""


@dataclass(frozen=True)
class LayerKernel:
    """The kernel that is chosen for a layer, and what its blocks touch."""

    layer: str
    chosen: Chosen
    accesses: Accesses


def layer_kernels(card: Card, batch: int) -> list[LayerKernel]:
    """The kernels of VGG-16 of which it is known what their blocks touch."""
    found = []
    for step in plan_for(load("vgg16").graph, batch, resolve("cuda"), "float16").steps:
        chosen = chosen_for(step.workload, card)
        accesses = chosen.algorithm.accesses(chosen.knobs)
        if accesses is not None:
            found.append(LayerKernel(step.layer, chosen, accesses))
    assert len(found) == 17, "all but the soft-max"
    return found


def main() -> None:
    for batch in BATCHES:
        columns = [counted(card, batch) for card in CARDS.values()]
        print(f"\n| batch {batch} | ideal MB | {' | '.join(CARDS)} |")
        print("| --- | ---: |" + " ---: |" * len(columns))
        layers = [each.layer for each in layer_kernels(A100, batch)]
        for layer, *row in zip([*layers, "all"], *columns, strict=True):
            told = [f"{whole.ratio:.3f}, {half.ratio:.3f}" for whole, half in row]
            print(f"| {layer} | {row[0][0].ideal / 1e6:.2f} | {' | '.join(told)} |")


def counted(card: Card, batch: int) -> list[tuple[Moved, Moved]]:
    """What each layer moves, and at last all, through the card's whole cache and half of it."""
    accesses = [each.accesses for each in layer_kernels(card, batch)]
    found = [(moved(each, card.cache), moved(each, card.cache // 2)) for each in accesses]
    whole, half = zip(*found, strict=True)
    return [*found, (total(whole), total(half))]


def total(each: Sequence[Moved]) -> Moved:
    """What all move together."""
    return sum(each[1:], start=each[0])


if __name__ == "__main__":
    main()

"""What NVIDIA's compiler makes of each kernel of VGG-16 in a precision.

`python -m tests.support.vgg16_on_gpus int8` prints registers, spilled bytes and products of each at
batch 1, 8 and 32, and fails where something is spilled.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.cuda_on_cpu import generate_all
from tests.support.machine_code import (
    compiled,
    feeds_products,
    instructions,
    is_product,
    main_loop,
)
from vggc.compiler.cards import card_for, variants
from vggc.compiler.targets import resolve
from vggc.kernels.cuda import AnyCudaAlgorithm, Card, algorithms
from vggc.kernels.workloads import Conv
from vggc.program import load
from vggc.runtime.plans import plan_for
from vggc.support.precision import ArtifactPrecision

ARCH = "sm_90"
BATCHES = (1, 8, 32)
OTHERS = variants(resolve("cuda"))[""].archs
"""The architectures of an artifact that have their kernels in common."""


@dataclass(frozen=True)
class Chosen:
    """The kernel of least cost for a convolution or dense layer."""

    algorithm: AnyCudaAlgorithm
    knobs: Any


def chosen_for(conv: Conv, card: Card) -> Chosen:
    """The algorithm of least cost for a convolution, with its knobs."""
    offers = [Chosen(each, knobs) for each in algorithms(conv, card) for knobs in each.knobs()]
    return min(offers, key=lambda offer: offer.algorithm.cost(offer.knobs))


def kernels(
    precision: ArtifactPrecision, card: Card, batches: Sequence[int] = BATCHES
) -> dict[str, Chosen]:
    """Each different convolution at each batch size, by a name; in fewer bits dense layers, too."""
    graph, target = load("vgg16").graph, resolve("cuda")
    works = {
        step.workload: f"batch{batch}_{step.layer.replace('.', '_')}"
        for batch in batches
        for step in plan_for(graph, batch, target, precision).steps
        if isinstance(step.workload, Conv)
    }
    return {name: chosen_for(work, card) for work, name in works.items()}


def main() -> None:
    found = kernels(sys.argv[1], card_for(OTHERS))  # type: ignore[arg-type]
    made = {name: each.algorithm.kernel(each.knobs).func for name, each in found.items()}
    cubin, taken = compiled(next(iter(generate_all(made, ARCH).values())).source, ARCH)
    with TemporaryDirectory() as folder:
        listing = instructions(cubin, Path(folder))
    for name, chosen in found.items():
        code, each = listing[f"{name}_kernel"], taken[f"{name}_kernel"]
        loop = main_loop(code)
        products = Counter(instruction for instruction, _ in code if is_product(instruction))
        share = sum(map(feeds_products, loop)) / max(1, len(loop))
        told = f"{each.registers} registers, {each.spilled} bytes spilled, {dict(products)}"
        knobs = tuple(vars(chosen.knobs).values())
        print(f"{name} {chosen.algorithm.name} {knobs}: {told}, {share:.2f}")
    sys.exit(any(each.spilled or each.stack for each in taken.values()))


if __name__ == "__main__":
    main()

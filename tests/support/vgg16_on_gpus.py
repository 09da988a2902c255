"""What NVIDIA's compiler makes of the kernels that an artifact of VGG-16 has for GPUs.

`python -m tests.support.vgg16_on_gpus int8` compiles those in a precision for batches of 1, 8 and
32 images, all that machine code is made for by default, and prints what each takes, then a row for
each architecture and batch. It fails where something is spilled, or a kernel for tensor cores does
not multiply there.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from tests.support.cuda_on_cpu import CudaCode, Launch, generate_all
from tests.support.machine_code import (
    KernelResources,
    compiled,
    feeds_products,
    instructions,
    is_product,
    main_loop,
)
from vggc.compiler.cards import variants
from vggc.compiler.choose import kernels_for
from vggc.compiler.error_budget import MAX_ERROR, allotment
from vggc.compiler.relax import PlannedCalls, with_kernels
from vggc.compiler.targets import resolve
from vggc.kernels.cuda import CARDS, AnyCudaAlgorithm, Card, algorithms
from vggc.kernels.cuda.card import KIB
from vggc.kernels.workloads import Conv, Kernel, Packing, Workload, round_up
from vggc.program import load
from vggc.runtime.archs import is_ptx
from vggc.runtime.plans import plan_for
from vggc.support.precision import ArtifactPrecision

BATCHES = (1, 8, 32)
OTHERS = variants(resolve("cuda"))[""].archs
"""The architectures of an artifact that have their kernels in common."""
MOST_BLOCKS = 32
"""The blocks that a multiprocessor of an A100 or H200 has at once, however small they are."""


@dataclass(frozen=True)
class Chosen:
    """The kernel of least cost for a workload."""

    algorithm: AnyCudaAlgorithm
    knobs: Any


def chosen_for(work: Workload, card: Card) -> Chosen:
    """The algorithm of least cost for a workload, with its knobs."""
    offers = [Chosen(each, knobs) for each in algorithms(work, card) for knobs in each.knobs()]
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


def calls_of(precision: ArtifactPrecision) -> Iterator[tuple[str, dict[str, PlannedCalls]]]:
    """The calls of an artifact of VGG-16 in a precision at each batch size, for each architecture
    that there is machine code for.
    """
    graph, whole = load("vgg16").graph, resolve("cuda")
    plans = {str(batch): plan_for(graph, batch, whole, precision) for batch in BATCHES}
    stored: dict[Workload, Packing | None] = {}
    for target in reversed(variants(whole).values()):
        may = allotment([*plans.values()], target, MAX_ERROR)
        may = replace(may, stored=dict(stored))
        made = may.by_cost
        stored |= may.packings(made)
        calls = with_kernels(plans, kernels_for(target, made.get))
        for arch in target.archs:
            if not is_ptx(arch):
                yield arch, calls


@dataclass(frozen=True)
class Made:
    """What the compiler made of a kernel of an algorithm."""

    algorithm: str
    launch: Launch
    taken: KernelResources
    code: list[tuple[str, str]]

    @property
    def shared(self) -> int:
        """A block's bytes of shared memory."""
        return self.launch.shared + self.taken.shared

    @property
    def products(self) -> Counter[str]:
        """How often its code has each instruction that multiplies on tensor cores."""
        return Counter(name for name, _ in self.code if is_product(name))

    @property
    def is_faulty(self) -> bool:
        """Whether it spills, or does not multiply on tensor cores though it is for them."""
        idle = "mma" in self.algorithm and not self.products
        return bool(self.taken.spilled or self.taken.stack or idle)

    def blocks(self, card: Card) -> int:
        """How many of its blocks a multiprocessor of a card has room for."""
        return min(
            MOST_BLOCKS,
            card.shared // (self.shared + KIB),
            card.threads // self.launch.threads,
            card.registers // (round_up(self.taken.registers, 8) * self.launch.threads),
        )


def made_of(calls: Mapping[str, PlannedCalls], arch: str) -> dict[str, list[Made]]:
    """The different kernels of each plan, by its name, compiled for an architecture."""
    names: dict[Any, str] = {}
    for name, each in calls.items():
        for step, kernel in each.steps:
            names.setdefault(kernel.func, f"batch{name}_{step.layer.replace('.', '_')}")
    codes = generate_all({name: func for func, name in names.items()}, arch)
    cubin, taken = compiled(next(iter(codes.values())).source, arch)
    with TemporaryDirectory() as folder:
        listing = instructions(cubin, Path(folder))

    def of(kernel: Kernel, code: CudaCode) -> Iterator[Made]:
        for launch in code.launches:
            yield Made(kernel.algorithm, launch, taken[launch.name], listing[launch.name])

    return {
        name: [
            made
            for func, kernel in {kernel.func: kernel for kernel in each.kernels}.items()
            for made in of(kernel, codes[names[func]])
        ]
        for name, each in calls.items()
    }


def told(made: Made) -> str:
    """A kernel in a line, with the share of products and what feeds them in its main loop."""
    loop, taken = main_loop(made.code), made.taken
    share = f", {sum(map(feeds_products, loop)) / len(loop):.2f}" if loop else ""
    takes = f"{taken.registers} registers, {taken.spilled} bytes spilled, {made.shared} shared"
    return f"{made.launch.name} {made.algorithm}: {takes}, {dict(made.products)}{share}"


HEAD = (
    "precision",
    "architecture",
    "batch",
    "kernels",
    "most registers",
    "spilled",
    "most shared memory",
    "blocks",
    "instructions",
)


def row(precision: str, arch: str, batch: str, found: Sequence[Made]) -> tuple[str, ...]:
    """What the kernels of a batch take, as `HEAD` says."""
    card = next(card for card in CARDS if card.arch == arch)
    blocks = [each.blocks(card) for each in found]
    products = sum((each.products for each in found), Counter[str]())
    return (
        precision,
        arch,
        batch,
        str(len(found)),
        str(max(each.taken.registers for each in found)),
        str(sum(each.taken.spilled for each in found)),
        f"{max(each.shared for each in found) / KIB:.1f} KiB",
        f"{min(blocks)} to {max(blocks)}",
        ", ".join(f"{count:,} `{name}`" for name, count in sorted(products.items())),
    )


def main() -> None:
    precision: ArtifactPrecision = sys.argv[1]  # type: ignore[assignment]
    if precision not in get_args(ArtifactPrecision):
        sys.exit(f"the precisions are {', '.join(get_args(ArtifactPrecision))}")
    rows, faulty = [HEAD, ("---",) * len(HEAD)], False
    for arch, calls in calls_of(precision):
        found = made_of(calls, arch)
        for made in {each.launch.name: each for some in found.values() for each in some}.values():
            print(told(made), flush=True)
            faulty = faulty or made.is_faulty
        rows += [row(precision, arch, batch, some) for batch, some in found.items()]
    print("", *(f"| {' | '.join(each)} |" for each in rows), sep="\n")
    sys.exit(faulty)


if __name__ == "__main__":
    main()

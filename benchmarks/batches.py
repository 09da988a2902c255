"""What one artifact for several batches loses beside one for each.

    python benchmarks/batches.py [NET ...] [--batches 1,4,16] [--precision float32 ...] [--rounds N]

By stated cost first: of each batch its kernels beside those chosen by themselves, with one packing
of each weight for all batches, and with one arithmetic, too, so that an image gives the same bits
in each; what an image costs beside one of the first batch; the fewest images that each batch is
taken for. With `--rounds N` artifacts are compiled, with seeded weights, and timed in turns: the
ratio of the medians is told, and the milliseconds of an image. int8, which is calibrated on
pictures, is not timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

import vggc
from vggc.compiler.buckets import fewest_images
from vggc.compiler.error_budget import MAX_ERROR, Allotment, Offer, allotment
from vggc.compiler.targets import on_threads, resolve
from vggc.program import load
from vggc.runtime.artifact import Target
from vggc.runtime.plans import plan_for
from vggc.support.batches import parse_batches
from vggc.support.precision import ARTIFACT_PRECISIONS, ArtifactPrecision
from vggc_runtime.processors import num_cores


def costs(may: Allotment) -> tuple[float, ...]:
    """The stated cost of each plan."""
    return may.costs(may.taken({}))


def packed_alike(may: Allotment) -> Allotment:
    """The same, whatever the arithmetic of choices."""

    def free(offer: Offer) -> Offer:
        return replace(offer, form=replace(offer.form, arithmetic=None))

    offers = {work: tuple(map(free, each)) for work, each in may.offers.items()}
    return replace(may, offers=offers)


def show_costs(
    net: str, precision: ArtifactPrecision, batches: Sequence[int], target: Target
) -> None:
    graph = load(net).graph
    plans = [plan_for(graph, batch, target, precision) for batch in batches]
    alone = [costs(allotment([plan], target, MAX_ERROR))[0] for plan in plans]
    may = allotment(plans, target, MAX_ERROR)
    together, packed = costs(may), costs(packed_alike(may))
    fewest = fewest_images(batches, together)
    for batch, own, one, both, least in zip(batches, alone, packed, together, fewest, strict=True):
        share = both / batch / (together[0] / batches[0])
        row(net, precision, batch, f"{one / own:.3f}", f"{both / own:.3f}", f"{share:.2f}", least)


def show_times(
    net: str, precision: ArtifactPrecision, batches: Sequence[int], threads: int, rounds: int
) -> None:
    with TemporaryDirectory() as folder:

        def made(name: str, of: Sequence[int]) -> vggc.Artifact:
            out = Path(folder) / name
            return vggc.compile(
                vggc.load(net), out=out, batch=of, seed=0, precision=precision, threads=threads
            )

        together = made("together", batches)
        for batch in batches:
            alone = made(f"alone{batch}", [batch])
            x = np.random.default_rng(0).standard_normal(
                (batch, *load(net).graph.input), dtype=np.float32
            )
            times: dict[str, list[float]] = {"alone": [], "together": []}
            for _ in range(rounds + 1):
                for name, artifact in (("alone", alone), ("together", together)):
                    started = perf_counter()
                    artifact(x)
                    times[name].append(perf_counter() - started)
            own, one = (median(each[1:]) for each in times.values())
            row(net, precision, batch, f"{one / own:.3f}", f"{1e3 * one / batch:.2f}")


def row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("nets", nargs="*", default=["vgg16", "vgg11", "nin", "alexnet", "resnet18"])
    parser.add_argument("--batches", type=parse_batches, default=(1, 4, 16))
    parser.add_argument("--precision", nargs="*", choices=ARTIFACT_PRECISIONS, default=["float32"])
    parser.add_argument("--threads", type=int, default=num_cores())
    parser.add_argument("--rounds", type=int, default=0)
    given = parser.parse_args()
    target = on_threads(resolve("cpu"), given.threads)
    row("net", "precision", "batch", "one packing", "and arithmetic", "an image", "fewest images")
    row(*["---"] * 2, *["---:"] * 5)
    for net in given.nets:
        for precision in given.precision:
            show_costs(net, precision, given.batches, target)
    if given.rounds:
        print()
        row("net", "precision", "batch", "time beside its own artifact", "ms an image")
        row(*["---"] * 2, *["---:"] * 3)
        for net in given.nets:
            for precision in (each for each in given.precision if each != "int8"):
                show_times(net, precision, given.batches, given.threads, given.rounds)


if __name__ == "__main__":
    main()

"""What a net loses where one artifact computes several sizes and batches: each of them beside an
artifact for it alone.

    python benchmarks/sizes.py vgg16 --input 224 --dense 256x320 --batch 1,4 --rounds 15

By stated cost first, of this machine's kernels in float32. With `--rounds N` artifacts are
compiled, with random weights, and called in turns in one process: of each size and batch the ratio
of the medians is told, together over alone, and the relative L2 difference of the scores; of the
artifacts the bytes of their weights. The sizes of `--input` begin with the net's own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

import vggc
from vggc.api.compile import applied_at
from vggc.compiler.error_budget import MAX_ERROR, allotment
from vggc.compiler.targets import on_threads, resolve
from vggc.passes.prepare import prepared
from vggc.plan.plan import Plan
from vggc.program import load
from vggc.runtime.artifact import Target
from vggc.runtime.plans import plans_for
from vggc.support.batches import parse_batches
from vggc_runtime.folder import WEIGHTS
from vggc_runtime.processors import num_cores

Size = tuple[int, int]
REST = 0.05
"""Seconds between two calls, after which no thread looks for work any more."""
WARM_UP = 2


def sizes(text: str) -> list[Size]:
    """`224,256x320` as heights and widths."""
    each = [part.split("x") for part in text.split(",") if part]
    return [(int(part[0]), int(part[-1])) for part in each]


def milliseconds(
    artifacts: dict[str, vggc.Artifact], x: np.ndarray, rounds: int
) -> dict[str, list[float]]:
    """The milliseconds of each round of each artifact."""
    found: dict[str, list[float]] = {name: [] for name in artifacts}
    for number in range(WARM_UP + rounds):
        for name in sorted(artifacts, reverse=bool(number % 2)):
            time.sleep(REST)
            started = time.perf_counter()
            artifacts[name](x)
            found[name].append(1e3 * (time.perf_counter() - started))
    return {name: times[WARM_UP:] for name, times in found.items()}


def show_costs(net: str, own: list[Size], dense: list[Size], batches: Sequence[int]) -> None:
    """Prints the stated cost of each size and batch beside that of its kernels chosen alone."""
    target = on_threads(resolve("cpu"), num_cores())
    graphs = [prepared(each.spread.graph) for each in applied_at(load(net), own, dense)]
    plans = plans_for(graphs, batches, target, "float32")
    for plan, together in zip(plans, costs(plans, target), strict=True):
        (alone,) = costs([plan], target)
        _, height, width = plan.input
        print(f"{height}x{width}, batch {plan.batch}: {together / alone:.2f} by stated cost")


def costs(plans: Sequence[Plan], target: Target) -> tuple[float, ...]:
    """The stated cost of each of several plans whose kernels are chosen together."""
    may = allotment(plans, target, MAX_ERROR)
    return may.costs(may.taken({}))


def main() -> None:
    """Prints a line a size and batch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("net")
    parser.add_argument("--input", type=sizes, default=[(224, 224)])
    parser.add_argument("--dense", type=sizes, default=[])
    parser.add_argument("--batch", type=parse_batches, default=(1,))
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    show_costs(options.net, options.input, options.dense, options.batch)
    if not options.rounds:
        return
    with TemporaryDirectory(prefix="vggc-sizes-") as folder:

        def made(name: str, own: list[Size], dense: list[Size], batch: list[int]) -> vggc.Artifact:
            return vggc.compile(
                options.net,
                out=Path(folder, name),
                size=own,
                dense=dense,
                batch=batch,
                seed=0,
                tuned=False,
                threads=options.threads,
            )

        together = made("together", options.input, options.dense, [*options.batch])
        print(f"together: {megabytes(together):,.1f} MB of weights")
        for size in [*options.input, *options.dense]:
            for batch in options.batch:
                dense = [size] if size in options.dense else []
                alone = made(f"{size}-{batch}", [] if dense else [size], dense, [batch])
                x = np.random.default_rng(0).standard_normal((batch, 3, *size), np.float32)
                one, other = alone(x), together(x)
                error = np.linalg.norm(one - other) / np.linalg.norm(one)
                times = milliseconds({"alone": alone, "together": together}, x, options.rounds)
                middle = {name: median(each) for name, each in times.items()}
                print(
                    f"{size[0]}x{size[1]}, batch {batch}: {middle['together']:.2f} ms, alone "
                    f"{middle['alone']:.2f} ms, ratio {middle['together'] / middle['alone']:.3f}, "
                    f"difference {error:.1e}, alone {megabytes(alone):,.1f} MB of weights",
                    flush=True,
                )


def megabytes(artifact: vggc.Artifact) -> float:
    """The size of an artifact's weights."""
    return (artifact.path / WEIGHTS).stat().st_size / 1e6


if __name__ == "__main__":
    main()

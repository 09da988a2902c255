"""What localisation costs beside classification, over one whole picture at several scales.

Both apply the same net densely: D, whose scores are averaged and, where it localises, with a box
for each of its 1000 classes on the same trunk, of which those of the best five classes are merged.
Each round times both, in turn.

    python benchmarks/localising.py [--rounds N] [--scales 256,384,512] [--threads N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch

from vggc.evaluation.images import in_memory
from vggc.evaluation.judge import judge
from vggc.evaluation.localise import LocatingNet, localising_views, sightings
from vggc.evaluation.located import Locator, PictureSights
from vggc.evaluation.viewer import Viewer
from vggc.ir.weights import seeded
from vggc.passes.heads import with_heads
from vggc.program import Program
from vggc.support.source import Source
from vggc.syntax.parse import parse
from vggc.training.learner import TrainMachine
from vggc_runtime.preprocessing import Preprocessing

NET = """
net both from {net}
head box: @fc7 | boxes-1000
"""
WIDTH, HEIGHT = 500, 375


def main() -> None:
    """Times both and prints their medians."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--scales", default="256,384,512")
    options.add_argument("--threads", type=int, default=0)
    options.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options.add_argument("--flip", action="store_true")
    options.add_argument("--net", default="vgg16", help="or vgg16(width=0.25), for a look")
    given = options.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    timed = contestants(given)
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    used: dict[str, list[float]] = {name: [] for name in timed}
    for work in timed.values():
        work()
    for number in range(given.rounds):
        for name, work in timed.items():
            start, busy = time.perf_counter(), time.process_time()
            work()
            seconds[name].append(time.perf_counter() - start)
            used[name].append(time.process_time() - busy)
        told = ", ".join(f"{name} {taken[-1]:.2f} s" for name, taken in seconds.items())
        print(f"round {number + 1}: {told}", flush=True)
    for what, found in (("by the clock", seconds), ("of processors' time", used)):
        first, second = map(median, found.values())
        print(f"{what}: {first:.2f} s and {second:.2f} s, {second / first:.3f} times as much")


def contestants(given: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """What is timed, by what it is called; classification first."""
    graph = Program(parse(Source("both.vgg", NET.format(net=given.net)))).graph
    weights = seeded(graph, 0)
    how = Preprocessing((224, 224), 256, (0.5,) * 3, (0.25,) * 3)
    scales = [int(each) for each in given.scales.split(",")]
    views = localising_views(scales, dense=True, flip=given.flip)
    machine, device = TrainMachine(given.device, "float32"), torch.device(given.device)
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    part, first = in_memory(["picture"], [pixels]), np.zeros(1, np.int64)
    classes = with_heads(graph, ["output"])
    viewer = Viewer(classes, weights, how, views, machine, device, 32)
    net = LocatingNet(
        graph, weights, how, views, machine, device, 32, ("boxes", "classes"), offsets=False
    )
    locator = Locator((np.arange(1000),))

    def classify() -> object:
        return [*judge([viewer], part, first, 0)]

    def localise() -> object:
        found = [*sightings([net], part, first, 0)]
        return [locator.best(each) for each in found if isinstance(each, PictureSights)]

    return {"classification": classify, "localisation": localise}


if __name__ == "__main__":
    main()

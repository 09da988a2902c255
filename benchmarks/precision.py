"""How exact artifacts for GPUs are in each precision, told without a GPU.

    vggc train benchmarks/nets/vgg16_quarter_cifar.vgg --data CIFAR10 --out RUN
    python benchmarks/precision.py RUN --data CIFAR10/test --calibrate CIFAR10/train
    python benchmarks/precision.py RUN --data PHOTOGRAPHS --calibrate OTHERS --as vgg16 --images 20

The first measures the trained net on all held-out images: the scores against float64, and how many
images have the top-1 of float32. The second measures a wider net of the zoo with as many layers, in
which the trained one is copied.

What an artifact computes is `tests/support/rounded_reference.py`'s to say: weights and values are
rounded as kernels round them, sums are PyTorch's in float32. What float32 errs by in three products
of tf32, `python -m tests.support.emulated_gpu` tells.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tests.support.rounded_reference import RoundedNet
from vggc.api.trained import Subject, for_input, from_run
from vggc.backends.torch import reference
from vggc.compiler.calibrate import calibrate, choose_images
from vggc.compiler.quantize import ValueRange, converted_weights
from vggc.compiler.targets import resolve
from vggc.ir.graph import Graph, Node
from vggc.ir.ops import Conv2d, Linear, Softmax
from vggc.ir.weights import Weights, save
from vggc.passes.fold import fold
from vggc.plan.plan import Plan
from vggc.program import load
from vggc.runtime.plans import plan_for
from vggc.support.precision import ArtifactPrecision
from vggc.training.run import Run
from vggc_runtime.preprocessing import Preprocessing

PRECISIONS: tuple[ArtifactPrecision, ...] = ("float32", "tf32", "float16", "bfloat16", "int8")
OF_FLOATS: tuple[ArtifactPrecision, ...] = ("float16", "bfloat16")
"""What is shown by layer; int8 weights cannot be rounded one without the others."""
CALIBRATION, AT_ONCE = 300, 250
"""Images that int8 is calibrated on, and small images that are computed at once."""
CALIBRATION_OF_LARGE = 16
"""Images that int8 is calibrated on in the larger net."""

Images: TypeAlias = NDArray[np.float32]
Scores: TypeAlias = NDArray[np.floating]


@dataclass(frozen=True)
class Case:
    """A net with its folded weights, the images to measure on, each `(1, C, H, W)`, and those to
    calibrate on.
    """

    graph: Graph
    weights: Weights
    images: Sequence[Images]
    calibration: Sequence[Images]
    at_once: int
    ranges: dict[str, ValueRange] = field(default_factory=dict)

    @cached_property
    def folded(self) -> Graph:
        return fold(self.graph).graph

    @property
    def batches(self) -> Iterator[Images]:
        for start in range(0, len(self.images), self.at_once):
            yield np.concatenate(self.images[start : start + self.at_once])

    @property
    def scores_of(self) -> str:
        """The node that gives the scores: what the soft-max reads, or the first head."""
        node = self.folded.nodes[self.folded.heads[0].node]
        return self.folded.nodes[node.inputs[0]].name if isinstance(node.op, Softmax) else node.name

    def plan(self, precision: ArtifactPrecision, batch: int) -> Plan:
        return plan_for(self.graph, batch, resolve("cuda"), precision)

    def net(self, precision: ArtifactPrecision, batch: int) -> RoundedNet:
        plan = self.plan(precision, batch)
        if precision == "int8" and not self.ranges:
            self.ranges.update(calibrate(self.folded, self.weights, plan, self.calibration))
        return RoundedNet(plan, converted_weights(plan, self.weights, self.ranges))

    def scores(self, precision: ArtifactPrecision) -> Scores:
        """The scores `(N, classes)` of all images in a precision."""
        nets: dict[int, RoundedNet] = {}
        found = []
        for x in self.batches:
            if len(x) not in nets:
                nets[len(x)] = self.net(precision, len(x))
            found.append(nets[len(x)].outputs(x)[self.scores_of].reshape(len(x), -1))
        return np.concatenate(found)

    def exact_scores(self) -> Scores:
        """The scores in float64."""
        run = reference(self.folded, self.weights)
        found = [run(x)[self.scores_of].reshape(len(x), -1) for x in self.batches]
        return np.concatenate(found)


def error(got: Scores, exact: Scores) -> float:
    """The relative L2 error over all images."""
    return float(np.linalg.norm(got - exact) / np.linalg.norm(exact))


def worst(got: Scores, exact: Scores) -> float:
    """The largest relative L2 error of an image."""
    return float((np.linalg.norm(got - exact, axis=1) / np.linalg.norm(exact, axis=1)).max())


def show(case: Case, labels: NDArray[np.int64] | None = None) -> None:
    """A table of all precisions, with `labels` of what top-1 is right."""
    exact = case.exact_scores()
    single = case.scores("float32")
    judged = ("top-1 of float32", "accuracy") if labels is not None else ()
    header = ("precision", "error of scores", "worst image", *judged)
    row(*header)
    row("---", *["---:"] * (len(header) - 1))
    for precision in PRECISIONS:
        got = single if precision == "float32" else case.scores(precision)
        cells = [f"{each(got, exact):.1e}" for each in (error, worst)]
        if labels is not None:
            best = got.argmax(1)
            cells += [f"{(best == wanted).mean():.2%}" for wanted in (single.argmax(1), labels)]
        row(precision, *cells)


def show_layers(case: Case, precision: ArtifactPrecision, images: int) -> None:
    """What each layer adds to the error of the scores by itself: its weight and what it gives are
    rounded, and nothing else is.
    """
    x = np.concatenate(case.images[:images])
    exact = reference(case.folded, case.weights)(x)[case.scores_of].reshape(len(x), -1)
    plan = case.plan(precision, len(x))
    tensors = converted_weights(plan, case.weights, {})
    everything = range(len(plan.steps))
    row(precision, "error of scores")
    row("---", "---:")
    for index, step in enumerate(plan.steps):
        alone = RoundedNet(plan, tensors, exact=frozenset(everything) - {index})
        got = alone.outputs(x)[case.scores_of].reshape(len(x), -1)
        row(step.name, f"{error(got, exact):.1e}")


# ------------------------------------------------------------------- a wider net


def widened(small: Graph, trained: Weights, large: Graph) -> Weights:
    """Weights of a folded graph that computes as a trained one does, with more channels.

    Both have as many convolutions and dense layers, the same kernels, and the trained one gives its
    dense layers maps of one pixel. Each channel of the larger net is a copy of a trained one, and
    reads of each trained channel one copy, or for a dense layer one pixel of one, that is drawn;
    its other weights are zero. So weights, values and how many of these are zero are a trained
    net's, and nothing is averaged that was rounded: shares of several copies, as "Net2Net" has them
    (Chen, Goodfellow and Shlens 2016, arXiv 1511.05641), would make errors smaller than they are.
    """
    rng = np.random.default_rng(0)
    pairs = list(zip(weight_layers(small), weight_layers(large), strict=True))
    read = np.arange(small.input[0])
    weights: Weights = {}
    for narrow, wide in pairs:
        weight, bias = (trained[f"{narrow.name}.{role}"] for role in ("weight", "bias"))
        shape = large.all_weights[f"{wide.name}.weight"].shape
        assert weight.shape[2:] == shape[2:], wide.name
        read = np.repeat(read, shape[1] // len(read))  # the pixels of a map, C, H, W
        copied = rng.permutation(shape[0]) % len(bias)
        filters = np.zeros(shape, np.float32)
        for channel in range(weight.shape[1]):
            place = rng.choice(np.flatnonzero(read == channel), shape[0])
            filters[np.arange(shape[0]), place] = weight[copied, channel]
        weights[f"{wide.name}.weight"] = filters
        weights[f"{wide.name}.bias"] = bias[copied]
        read = copied
    return weights


def weight_layers(graph: Graph) -> list[Node]:
    """The convolutions and dense layers of a net, in order."""
    return [node for node in graph.nodes if isinstance(node.op, Conv2d | Linear)]


def zeros(graph: Graph, weights: Weights, images: Images) -> list[float]:
    """The share of zeros behind the activation of each weight layer but the last."""
    values = reference(graph, weights)(images)
    return [float((values[f"{node.name}.relu"] == 0).mean()) for node in weight_layers(graph)[:-1]]


# ------------------------------------------------------------------- images


def read(folder: Path, count: int, preprocessing: Preprocessing) -> list[Images]:
    """So many images of a folder, or all, at even distances."""
    files = choose_images(folder, count, preprocessing).files
    return [preprocessing.read(path) for path in files]


def labelled(folder: Path, subject: Subject, count: int) -> tuple[list[Images], NDArray[np.int64]]:
    """Images in folders of classes, and their classes' numbers."""
    files = choose_images(folder, count, subject.preprocessing).files
    labels = [subject.classes.index(path.parent.name) for path in files]
    return [subject.preprocessing.read(path) for path in files], np.array(labels)


def row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="a net trained by `vggc train`")
    parser.add_argument("--data", type=Path, required=True, help="images, in folders of classes")
    parser.add_argument("--calibrate", type=Path, required=True, help="images for int8")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--as", dest="net", help="a wider net, with weights made of the trained")
    parser.add_argument("--layers", type=int, metavar="N", help="by layer, on N images")
    parser.add_argument("--keep", type=Path, help="file for the weights that are made")
    asked = parser.parse_args()
    subject = from_run(Run.load(asked.run), None)
    graph, folded = subject.program.graph, fold(subject.program.graph)
    weights = folded.weights(subject.weights)
    if asked.net is None:
        images, labels = labelled(asked.data, subject, asked.images)
        calibration = read(asked.calibrate, CALIBRATION, subject.preprocessing)
        case = Case(graph, weights, images, calibration, AT_ONCE)
        print(f"{subject.program.net.name}, {len(images):,} images\n")
        show(case, labels)
    else:
        large = load(asked.net).graph
        _, height, width = large.input
        preprocessing = for_input(subject.preprocessing, (height, width))
        images = read(asked.data, asked.images, preprocessing)
        calibration = read(asked.calibrate, CALIBRATION_OF_LARGE, preprocessing)
        wide = widened(folded.graph, weights, fold(large).graph)
        print(f"{asked.net} as {subject.program.net.name}, {len(images):,} images\n")
        print("zeros behind each ReLU, in percent:")
        print(" ".join(f"{100 * each:.0f}" for each in zeros(fold(large).graph, wide, images[0])))
        print()
        if asked.keep:
            save(asked.keep, wide)
        case = Case(large, wide, images, calibration, at_once=1)
        show(case)
    for precision in OF_FLOATS if asked.layers else ():
        print()
        show_layers(case, precision, asked.layers)


if __name__ == "__main__":
    main()

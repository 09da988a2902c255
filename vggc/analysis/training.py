"""How much memory a training takes: a sum of terms, each of which is somebody's to hold.

On a CPU it is the peak of what the training process occupies, as `/usr/bin/time -v` tells it
("maximum resident set size"); on a GPU what lies on the device beside CUDA's own context. Worker
processes that decode images are apart. `benchmarks/training_memory.py` holds it against what is
measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from vggc.ir.graph import Graph, Node
from vggc.ir.ops import Conv2d, ConvTranspose2d, Linear, Op, Shape

FLOAT, HALF = 4, 2
"""Bytes of a number, float32 and in 16 bits."""

PROCESS = 400_000_000
"""A process that trains next to nothing. Source: `tiny_vgg` in batches of 1, PyTorch 2.13 for CPUs;
three quarters are code and data of PyTorch, NumPy and Python, the rest kernels made at run time
and Matplotlib, which draws the curves."""

COMPILER = 80_000_000
"""What `torch.compile` adds to it. Source: the same, PyTorch 2.13."""

GAPS = 1.7
"""What comes and goes in every step takes so many times its size on a CPU. PyTorch asks for blocks
at multiples of 64 bytes, for which glibc looks for a hole a little larger than the block: that of a
block of the same size, just freed, does not do. Source: between 1.2 and 2.1 in what
`benchmarks/training_memory.py` measures."""

FORMULA = (
    "training memory = a process of 400 MB + 2 × (weights, optimiser's state, averages; once more"
    " while a checkpoint is written) + 1.7 × (gradients, images, and batch × what layers save for"
    " the backward pass); on a GPU without the process, the checkpoint and the 1.7"
)


@dataclass(frozen=True)
class TrainingSetup:
    """The facts about a training that decide about its memory.

    `images` go through the net at once, `parts` times in a step; the optimiser keeps `moments`
    numbers for each parameter, `averaged` weights are kept beside the others, and those that are
    `frozen`, by their full names, have neither gradient nor moments. In `half` layers compute in
    16 bits; `by_columns`, they do so on a CPU without instructions for that, where PyTorch unfolds
    a convolution's input. `pictures` are bytes of images that are kept in memory.
    """

    images: int = 1
    parts: int = 1
    moments: int = 1
    averaged: bool = False
    frozen: frozenset[str] = frozenset()
    half: bool = False
    by_columns: bool = False
    compiled: bool = False
    pictures: int = 0


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes by who holds them: the `process` itself, `pictures` in memory, the `state` that a
    checkpoint holds, and what comes and goes in a `step` at its fullest.
    """

    process: int
    pictures: int
    state: int
    step: int

    @property
    def on_cpu(self) -> int:
        """The bytes that the process takes when it trains on a CPU."""
        return self.process + self.pictures + 2 * self.state + round(GAPS * self.step)

    @property
    def on_gpu(self) -> int:
        """The bytes that lie on the device when it trains on a GPU."""
        return self.state + self.step


def training_need(graph: Graph, course: TrainingSetup) -> TrainingMemory:
    """How much memory a training of the graph needs."""
    layers = list(parts_of(graph, course))
    copies = 2 if course.averaged else 1
    return TrainingMemory(
        PROCESS + (COMPILER if course.compiled else 0),
        course.pictures,
        FLOAT * sum(copies * layer.stored + course.moments * layer.trained for layer in layers),
        of_images(graph, course) + fullest(layers),
    )


class NodeMemory(NamedTuple):
    """What one node takes: numbers of weights and of trained ones; bytes that a batch has it save
    for the backward pass, and that its backward pass needs for itself.
    """

    stored: int
    trained: int
    saved: int
    passing: int


def parts_of(graph: Graph, course: TrainingSetup) -> Iterator[NodeMemory]:
    """What each node takes; nothing is saved in front of the first weight that moves, but the
    image.
    """
    known: dict[tuple[Op, tuple[Shape, ...]], NodeMemory] = {}  # deep nets repeat themselves
    begun = False
    for node in graph.nodes:
        sources = graph.sources(node)
        layer = known.get((node.op, sources))
        if layer is None:
            layer = known[node.op, sources] = layer_of(graph, node, course)
        if course.frozen:
            weights = graph.weights(node).items()
            moving = [w for name, w in weights if w.trained and name not in course.frozen]
            trained = sum(weight.size for weight in moving)
            layer = layer._replace(trained=trained)
        begun = begun or layer.trained > 0
        yield layer if begun or not node.inputs else layer._replace(saved=0, passing=0)


def layer_of(graph: Graph, node: Node, course: TrainingSetup) -> NodeMemory:
    """What a node takes if its weights are trained."""
    sources, element = graph.sources(node), HALF if course.half else FLOAT
    weights = node.op.weights(sources[0])
    trained = sum(weight.size for weight in weights if weight.trained)
    cast = (
        HALF * trained
        if course.half and isinstance(node.op, Conv2d | ConvTranspose2d | Linear)
        else 0
    )
    return NodeMemory(
        sum(weight.size for weight in weights),
        trained,
        course.images * node.op.saved(element, *sources) + cast,
        course.images * node.op.passing(element, *sources) + columns(graph, node, course),
    )


def of_images(graph: Graph, course: TrainingSetup) -> int:
    """The bytes of the images of a step: as bytes before and after some are mirrored, and as
    float32; what the input's node saves counts there.
    """
    numbers, step = prod(graph.input), course.images * course.parts
    apart = step if course.half else step - course.images
    return numbers * (2 * step + FLOAT * apart)


def fullest(layers: Sequence[NodeMemory]) -> int:
    """The most bytes that are there at once on the way back through the net: what the layers up to
    one have saved, what its own backward pass needs, its gradients and those of the layers behind
    it.
    """
    most, before, gradients = 0, sum(layer.saved for layer in layers), 0
    for layer in reversed(layers):
        gradients += FLOAT * layer.trained
        most = max(most, before + layer.passing + gradients)
        before -= layer.saved
    return most


def columns(graph: Graph, node: Node, course: TrainingSetup) -> int:
    """The bytes of the unfolded input of a convolution in 16 bits where the CPU knows none: for
    each output position all that its window sees. Source: PyTorch's `slow_conv2d`.
    """
    if not (course.half and course.by_columns and isinstance(node.op, Conv2d)):
        return 0
    if (node.op.kernel, node.op.stride, node.op.padding) == ((1, 1), (1, 1), (0, 0, 0, 0)):
        return 0  # the input is what it would be unfolded to
    channels = graph.source(node)[0] // node.op.groups
    return HALF * course.images * channels * prod(node.op.kernel) * prod(node.shape[1:])

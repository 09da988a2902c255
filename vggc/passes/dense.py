"""A net over whole images: its fully-connected layers as convolutions.

What reads a map through `Flatten` becomes a convolution whose window is that map; on a larger map
it slides. Each class then has a map of scores, which is averaged over space before a soft-max
and where a head ends. Of the net's own input size the outputs are those of the net.
Source: Simonyan & Zisserman (2015), section 3.2; Sermanet et al. (2014), section 3.5.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from vggc.ir.graph import Graph, Node
from vggc.ir.ops import (
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Input,
    Linear,
    Misfit,
    PRelu,
    Scale,
    Shape,
    Softmax,
    describe,
)
from vggc.ir.weights import Weights
from vggc.support.diagnostics import Diagnostic, UserError


class NotDense(Diagnostic):
    title = "{net} cannot be applied to whole images"
    label = "{reason}"
    help = "test it on crops: `--protocol crops`"
    net: str
    reason: str


class NotDenseAt(Diagnostic):
    title = "{net} cannot be applied to images of {size} pixels"
    label = "{reason}"
    help = "test it on crops: `--protocol crops`"
    net: str
    size: str
    reason: str


@dataclass(frozen=True)
class DenseGraph:
    """A graph that takes images of its own input size or larger, and the weights that have
    another shape there.
    """

    graph: Graph
    reshaped: dict[str, Shape]

    def weights(self, weights: Weights) -> Weights:
        """The weights of the dense graph from those of the net, in the same memory."""
        return {
            name: weight.reshape(self.reshaped.get(name, weight.shape))
            for name, weight in weights.items()
        }


@dataclass(frozen=True)
class _Value:
    """The node that stands for a value of the net.

    Where that is a map in the place of a vector, `spread` (C, H, W) is the map of the net's own
    input size whose values were the vector's; `grid` tells which maps slide together.
    """

    node: int
    spread: Shape | None = None
    grid: int = -1


def dense(graph: Graph) -> DenseGraph:
    """The graph applied densely.

    Raises:
        UserError: something in it tells the places of a map apart.
    """
    return _Spreading(graph).result()


class _Spreading:
    """The dense graph as it grows."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Node] = []
        self.values: list[_Value] = []
        self.means: dict[int, _Value] = {}
        self.reshaped: dict[str, Shape] = {}

    def result(self) -> DenseGraph:
        for node in self.graph.nodes:
            self.values.append(self.value(node, [self.values[read] for read in node.inputs]))
        heads = tuple(
            replace(head, node=self.averaged(self.graph.nodes[head.node], self.values[head.node]))
            for head in self.graph.heads
        )
        return DenseGraph(replace(self.graph, nodes=tuple(self.nodes), heads=heads), self.reshaped)

    def value(self, node: Node, reads: list[_Value]) -> _Value:
        """What stands for a node that reads these."""
        first = next(iter(reads), _Value(-1))
        match node.op:
            case Flatten() if first.spread is None:
                source = self.graph.source(node)
                return replace(first, spread=source, grid=first.node) if source[1:] else first
            case Flatten():
                return first
            case Linear() if first.spread is not None:
                return self.convolution(node, node.op, first.node, first.spread, first.grid)
            case Activation() | Dropout():
                return replace(first, node=self.add(node, first.node))
            case BatchNorm() | Scale() | PRelu():
                if first.spread and first.spread[1:] != (1, 1):
                    raise self.refused(node, "it has weights of its own for each place of a map")
                return replace(first, node=self.add(node, first.node))
            case Concat() | Add() if any(read.spread for read in reads):
                return self.joined(node, reads)
            case Softmax():
                return _Value(self.add(node, self.averaged(node, first)))
            case _:
                return _Value(self.add(node, *(read.node for read in reads)))

    def convolution(self, node: Node, op: Linear, read: int, spread: Shape, grid: int) -> _Value:
        """A fully-connected layer whose window is what it saw of the net's own input."""
        kernel = spread[1], spread[2]
        weight = next(iter(op.weights(self.graph.source(node))))
        self.reshaped[f"{node.name}.{weight.role}"] = (op.features, *spread)
        conv = replace(node, op=Conv2d(channels=op.features, kernel=kernel, bias=op.bias))
        place = self.add(conv, read)
        return _Value(place, (op.features, 1, 1), grid if kernel == (1, 1) else place)

    def joined(self, node: Node, reads: list[_Value]) -> _Value:
        """A join of vectors: of maps that slide together as maps, of others by their means."""
        first = reads[0]
        together = {read.grid for read in reads} == {first.grid} and all(r.spread for r in reads)
        points = all(read.spread is None or read.spread[1:] == (1, 1) for read in reads)
        if together and (points or isinstance(node.op, Add)):
            place = self.add(node, *(read.node for read in reads))
            spread = node.op.output(*(read.spread for read in reads if read.spread))
            return _Value(place, spread, first.grid)
        return _Value(self.add(node, *(self.averaged(node, read) for read in reads)))

    def averaged(self, reader: Node, value: _Value) -> int:
        """The node of a value as the vector that a reader wants: a map's mean over space."""
        if value.spread is None:
            return value.node
        if value.spread[1:] != (1, 1):
            raise self.refused(reader, "it reads the places of a map one by one")
        if value.node not in self.means:
            read = self.nodes[value.node]
            mean = replace(read, name=f"{read.name}.mean", op=GlobalAvgPool())
            self.means[value.node] = _Value(self.add(mean, value.node))
        return self.means[value.node].node

    def add(self, node: Node, *reads: int) -> int:
        """Adds a node that reads these; its index."""
        shapes = [self.nodes[read].shape for read in reads] or [node.shape]
        self.nodes.append(replace(node, inputs=reads, shape=node.op.output(*shapes)))
        return len(self.nodes) - 1

    def refused(self, node: Node, reason: str) -> UserError:
        return UserError(NotDense(self.graph.name, reason, place=node.layer.span))


def resized(graph: Graph, size: tuple[int, int]) -> Graph:
    """A dense graph as it is for images of another height and width.

    Raises:
        UserError: they are too small for it, or its paths do not fit together any more.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        op = (
            replace(node.op, shape=(node.shape[0], *size))
            if isinstance(node.op, Input)
            else node.op
        )
        shapes = [nodes[read].shape for read in node.inputs] or [node.shape]
        try:
            nodes.append(replace(node, op=op, shape=op.output(*shapes)))
        except Misfit as misfit:
            name, span = graph.name, node.layer.span
            raise UserError(NotDenseAt(name, describe(size), misfit.reason, place=span)) from None
    return replace(graph, nodes=tuple(nodes))


def peak(graph: Graph) -> int:
    """The most values that are in memory at once while the graph computes one image."""
    last = {read: index for index, node in enumerate(graph.nodes) for read in node.inputs}
    ending: dict[int, int] = {}
    for read, index in last.items():
        ending[index] = ending.get(index, 0) + prod(graph.nodes[read].shape)
    alive = most = 0
    for index, node in enumerate(graph.nodes):
        alive += prod(node.shape)
        most = max(most, alive)
        alive -= ending.get(index, 0)
    return most

"""A net over whole images: its fully-connected layers as convolutions.

What reads a map through `Flatten` becomes a convolution whose window is that map; on a larger map
it slides. Each class then has a map of scores, which is averaged over space before a soft-max
and where a head ends. Of the net's own input size the outputs are those of the net.

Heads may be kept as maps: boxes, of which each position gives others. Position (i, j) sees what the
net would see of a crop of its own input's size that begins i strides below and j strides right of
the image's first pixel; what the net pads with zeros around a crop is the image around it here.
Source: Simonyan & Zisserman (2015), section 3.2; Sermanet et al. (2014), section 3.5.
"""

from __future__ import annotations

from collections.abc import Collection, Set
from dataclasses import dataclass, field, replace
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggc.ir.graph import Graph, Node
from vggc.ir.ops import (
    AvgPool2d,
    Conv2d,
    Flatten,
    GlobalAvgPool,
    GroupNorm,
    Input,
    LayerNorm,
    Linear,
    Misfit,
    Mul,
    Op,
    Pair,
    Shape,
    TakeChannels,
    TakePart,
    describe,
)
from vggc.ir.weights import Weights
from vggc.passes.heads import ancestors
from vggc.support.diagnostics import Diagnostic, UserError
from vggc_runtime.outputs import HeadKind

Shares: TypeAlias = NDArray[np.float64]
"""Windows (rows, columns, 4): left, top, right and bottom in shares of an image."""


ON_CROPS = "test it on crops: `--protocol crops`, or the centre one alone: `--protocol centre`"
"""What to do about a net of classes that cannot be applied densely."""

ON_THE_CENTRE = "look at the centre crop alone: `--protocol centre`"
"""What to do about a net of boxes that cannot be applied densely."""


class NotDense(Diagnostic):
    title = "{net} cannot be applied to whole images"
    label = "{reason}"
    help = "{instead}"
    net: str
    reason: str
    instead: str


class NotDenseAt(Diagnostic):
    title = "{net} cannot be applied to images of {size} pixels"
    label = "{reason}"
    help = "{instead}"
    net: str
    size: str
    reason: str
    instead: str


@dataclass(frozen=True)
class Positions:
    """Where the positions of a head's map look: position (i, j) at the crop of `size` (H, W), the
    net's own input, that begins in row i · `stride[0]` and column j · `stride[1]`.
    """

    size: Pair
    stride: Pair

    def windows(self, count: Pair, image: Pair, *, mirrored: bool = False) -> Shares:
        """What each of so many rows and columns of positions sees of an image (H, W), as left, top,
        right and bottom in shares of it: (rows, columns, 4).

        A net that is given the `mirrored` image sees mirrored crops, of which left and right are
        exchanged. The last windows reach beyond 1 where the net makes no use of its last rows, or
        counts windows of pools that are not full.
        """
        starts = [np.arange(n) * step for n, step in zip(count, self.stride, strict=True)]
        top, bottom = (starts[0] + edge for edge in (0, self.size[0]))
        left, right = (starts[1] + edge for edge in (0, self.size[1]))
        if mirrored:
            left, right = image[1] - left, image[1] - right
        edges = np.broadcast_arrays(left, top[:, None], right, bottom[:, None])
        return np.stack(edges, axis=-1) / np.asarray([*image[::-1], *image[::-1]], np.float64)


@dataclass(frozen=True)
class DenseGraph:
    """A net applied densely: a graph that takes images of its own input size or larger, and the
    weights that have another shape there. Of heads kept as maps, `positions` tells by their names
    where these look.
    """

    graph: Graph
    reshaped: dict[str, Shape]
    positions: dict[str, Positions] = field(default_factory=dict)

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


def dense(graph: Graph, maps: Collection[HeadKind] = (), instead: str = ON_CROPS) -> DenseGraph:
    """A net's graph applied densely, to images of its own input size or larger.

    Heads of the kinds `maps` stay maps (channels, rows, columns), a position for each place where
    the net fits. What they take of a whole map's mean they then take of the map that the net has
    on its own input, which slides, too; so do other heads that share it. `instead` says what else
    to do with a net for which there is no such graph.

    Raises:
        UserError: something in it tells the places of a map apart.
    """
    return _Spreading(graph, frozenset(maps), instead).result()


def dense_at(
    graph: Graph, size: Pair, maps: Collection[HeadKind] = (), instead: str = ON_CROPS
) -> DenseGraph:
    """`dense`, for images of a height and width.

    Raises:
        UserError: something in it tells the places of a map apart, or does not fit together there.
    """
    spread = dense(graph, maps, instead)
    return replace(spread, graph=resized(spread.graph, size, instead))


class _Spreading:
    """The dense graph as it grows."""

    def __init__(self, graph: Graph, maps: frozenset[HeadKind], instead: str) -> None:
        self.graph, self.maps, self.instead = graph, maps, instead
        self.sliding = ancestors(graph, (h.node for h in graph.heads if h.kind in maps))
        self.nodes: list[Node] = []
        self.strides: list[Pair | None] = []
        self.values: list[_Value] = []
        self.means: dict[int, _Value] = {}
        self.reshaped: dict[str, Shape] = {}

    def result(self) -> DenseGraph:
        for index, node in enumerate(self.graph.nodes):
            reads = [self.values[read] for read in node.inputs]
            self.values.append(self.value(node, reads, slides=index in self.sliding))
        heads, positions = [], {}
        for head in self.graph.heads:
            node, value = self.graph.nodes[head.node], self.values[head.node]
            if head.kind not in self.maps or value.spread is None:
                place = self.averaged(node, value)
            else:
                place = self.point(node, value)
                positions[head.name] = self.positions(node, place)
            heads.append(replace(head, node=place))
        graph = replace(self.graph, nodes=tuple(self.nodes), heads=tuple(heads))
        return DenseGraph(graph, self.reshaped, positions)

    def positions(self, node: Node, place: int) -> Positions:
        """Where the positions of a map of the dense graph look."""
        stride = self.strides[place]
        if stride is None:
            raise self.refused(node, "paths of other strides lead to it")
        return Positions((self.graph.input[1], self.graph.input[2]), stride)

    def value(self, node: Node, reads: list[_Value], *, slides: bool) -> _Value:
        """The value of the dense graph that stands for a node that reads these; it `slides` where
        heads that stay maps need it.
        """
        first = next(iter(reads), _Value(-1))
        if node.op.window(self.graph.source(node)).spread != (1, 1):
            raise self.refused(node, "between its places lie some that no crop begins at")
        match node.op:
            case Flatten() if first.spread is None:
                source = self.graph.source(node)
                return replace(first, spread=source, grid=first.node) if source[1:] else first
            case Flatten():
                return first
            case Linear() if first.spread is not None:
                return self.convolution(node, node.op, first.node, first.spread, first.grid)
            case Mul() if slides and len({*map(len, self.graph.sources(node))}) > 1:
                raise self.refused(node, "it multiplies whole channels, by one number each")
            case GlobalAvgPool() if slides:
                return self.mean_of_window(node, first.node)
            case GroupNorm() if first.spread is not None or len(node.shape) == 3:
                raise self.refused(
                    node, "it normalises groups by the mean and variance of a whole map"
                )
            case LayerNorm() if first.spread is not None:
                return replace(first, node=self.add(node, self.point(node, first)))
            case TakePart() | TakeChannels() if first.spread is not None:
                place = self.add(node, self.point(node, first))
                return _Value(place, node.op.output(first.spread), first.grid)
            case _ if len(reads) > 1 and any(read.spread for read in reads):
                return self.joined(node, reads, slides=slides)
            case op if op.elementwise and first.spread is not None:
                if first.spread[1:] != (1, 1) and self.graph.weights(node):
                    raise self.refused(node, "it has weights of its own for each place of a map")
                return replace(first, node=self.add(node, first.node))
            case _ if slides and first.spread is not None:
                raise self.refused(
                    node, "it is a soft-max, which the positions of a map have none of"
                )
            case _:
                return self.apart(node, reads)

    def convolution(self, node: Node, op: Linear, read: int, spread: Shape, grid: int) -> _Value:
        """A fully-connected layer whose window is what it saw of the net's own input."""
        kernel = spread[1], spread[2]
        weight = next(iter(op.weights(self.graph.source(node))))
        self.reshaped[f"{node.name}.{weight.role}"] = (op.features, *spread)
        conv = replace(node, op=Conv2d(channels=op.features, kernel=kernel, bias=op.bias))
        place = self.add(conv, read)
        return _Value(place, (op.features, 1, 1), grid if kernel == (1, 1) else place)

    def mean_of_window(self, node: Node, read: int) -> _Value:
        """The mean over what the net has of a map on its own input, wherever that lies."""
        channels, height, width = self.graph.source(node)
        pool = replace(node, op=AvgPool2d(kernel=(height, width), stride=(1, 1)))
        place = self.add(pool, read)
        return _Value(place, (channels, 1, 1), place)

    def joined(self, node: Node, reads: list[_Value], *, slides: bool) -> _Value:
        """A join of vectors: of maps that slide together as maps, of others by their means."""
        first = reads[0]
        together = {read.grid for read in reads} == {first.grid} and all(r.spread for r in reads)
        if slides and not together:
            # Of equal strides the same positions look at the same crops.
            together = len({self.strides[read.node] for read in reads}) == 1
            if not together:
                raise self.refused(node, "its paths move over an image by other strides")
        points = all(read.spread is None or read.spread[1:] == (1, 1) for read in reads)
        if together and (points or node.op.elementwise):
            place = self.add(node, *(read.node for read in reads))
            spread = node.op.output(*(read.spread for read in reads if read.spread))
            return _Value(place, spread, first.grid)
        return self.apart(node, reads)

    def apart(self, node: Node, reads: list[_Value]) -> _Value:
        """A node that reads maps as maps, and vectors as vectors."""
        return _Value(self.add(node, *(self.averaged(node, read) for read in reads)))

    def averaged(self, reader: Node, value: _Value) -> int:
        """The node of a value as the vector that a reader wants: a map's mean over space."""
        if value.spread is None:
            return value.node
        self.point(reader, value)
        if value.node not in self.means:
            read = self.nodes[value.node]
            mean = replace(read, name=f"{read.name}.mean", op=GlobalAvgPool())
            self.means[value.node] = _Value(self.add(mean, value.node))
        return self.means[value.node].node

    def point(self, reader: Node, value: _Value) -> int:
        """The node of a value that is a map with a position for each place of the net."""
        assert value.spread
        if value.spread[1:] != (1, 1):
            raise self.refused(reader, "it reads the places of a map one by one")
        return value.node

    def add(self, node: Node, *reads: int) -> int:
        """Adds a node that reads these; its index."""
        shapes = [self.nodes[read].shape for read in reads] or [node.shape]
        self.strides.append(moved({self.strides[read] for read in reads}, node.op, shapes[0]))
        self.nodes.append(replace(node, inputs=reads, shape=node.op.output(*shapes)))
        return len(self.nodes) - 1

    def refused(self, node: Node, reason: str) -> UserError:
        return UserError(NotDense(self.graph.name, reason, self.instead, place=node.layer.span))


def moved(before: Set[Pair | None], op: Op, source: Shape) -> Pair | None:
    """The strides over an image of what an op gives that reads values of these; None where they
    differ.
    """
    match [*before]:
        case []:
            return 1, 1
        case [(rows, columns)]:
            down, right = op.window(source).stride
            return rows * down, columns * right
        case _:
            return None


def resized(graph: Graph, size: Pair, instead: str = ON_CROPS) -> Graph:
    """A graph as it is for images of another height and width, one of a net that is applied densely
    or one whose weights keep their shapes; `instead` says what else to do where there is none.

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
            told = graph.name, describe(size), misfit.reason, instead
            raise UserError(NotDenseAt(*told, place=node.layer.span)) from None
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

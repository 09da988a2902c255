"""A net as the compiler sees it: nodes in topological order, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from vggc.ir.layer_recipe import UNSAID, LayerRecipe
from vggc.ir.ops import Input, Op, Shape, Weight, describe
from vggc.support.sheet import Sheet, as_html
from vggc.support.source import Span
from vggc_runtime.outputs import HeadKind

BOX = 4
"""The numbers of a box: centre x, centre y, width, height."""


@dataclass(frozen=True)
class Layer:
    """A layer as the user wrote it: the nodes that came of it point here.

    `path` holds the names of the joins around it, the outermost first; `recipe` is what it says of
    its training.
    """

    name: str
    kind: str
    text: str
    span: Span
    path: tuple[str, ...] = ()
    recipe: LayerRecipe = UNSAID


@dataclass(frozen=True)
class Node:
    """One op of a graph, the indices of the nodes that it reads, and the shape it gives a
    sample.
    """

    name: str
    op: Op
    inputs: tuple[int, ...]
    shape: Shape
    layer: Layer


@dataclass(frozen=True)
class Head:
    """An output of a net, one of the things that it tells of an image: the value of a node.

    Scores or probabilities of classes; boxes, four numbers (centre x, centre y, width,
    height) for each class or for all of them; or features.
    """

    name: str
    kind: HeadKind
    node: int


@dataclass(frozen=True)
class Graph:
    """A whole net, as nodes; the first node is its input, the first head its main output."""

    name: str
    nodes: tuple[Node, ...]
    heads: tuple[Head, ...]

    @property
    def input(self) -> Shape:
        """The shape of the input of one sample, `(C, H, W)`."""
        return self.nodes[0].shape

    @property
    def output(self) -> Shape:
        """The shape of the main output of one sample."""
        return self.nodes[self.heads[0].node].shape

    @property
    def outputs(self) -> dict[str, Shape]:
        """The shape of each head's output of one sample, by its name, in order."""
        return {head.name: self.nodes[head.node].shape for head in self.heads}

    @property
    def num_classes(self) -> int | None:
        """How many classes its heads tell apart, or give a box for each of; None where none of them
        knows of classes.
        """
        for head in self.heads:
            size = self.nodes[head.node].shape[0]
            if head.kind == "classes":
                return size
            if head.kind == "boxes" and size > BOX:
                return size // BOX
        return None

    def has(self, kind: HeadKind) -> bool:
        """Whether a head of this kind is among the net's."""
        return any(head.kind == kind for head in self.heads)

    def source(self, node: Node) -> Shape:
        """The shape that a node reads, the first of several; for the input node its own."""
        return self.nodes[node.inputs[0]].shape if node.inputs else node.shape

    def sources(self, node: Node) -> tuple[Shape, ...]:
        """The shapes that a node reads; for the input node its own."""
        return tuple(self.nodes[i].shape for i in node.inputs) or (node.shape,)

    def weights(self, node: Node) -> dict[str, Weight]:
        """A node's weights by their full names, such as `conv1_1.weight`."""
        return {f"{node.name}.{w.role}": w for w in node.op.weights(self.source(node))}

    @cached_property
    def all_weights(self) -> Mapping[str, Weight]:
        """Every weight of the net by its full name, in order."""
        return {name: w for node in self.nodes for name, w in self.weights(node).items()}

    def readers(self) -> tuple[tuple[int, ...], ...]:
        """For each node the indices of the nodes that read it."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for index, node in enumerate(self.nodes):
            for read in node.inputs:
                found[read].append(index)
        return tuple(map(tuple, found))

    @property
    def table(self) -> Sheet:
        """The nodes as a table, a row each."""
        rows = tuple(
            (
                node.name,
                str(node.op),
                ", ".join(self.nodes[read].name for read in node.inputs),
                describe(node.shape),
                ", ".join(self.weights(node)),
            )
            for node in self.nodes
        )
        header = ("node", "op", "reads", "gives", "weights")
        return Sheet(title=self.name, header=header, rows=rows, numbers=(False,) * len(header))

    def _repr_html_(self) -> str:
        return as_html(self.table)

    def verify(self) -> None:
        """Raises: AssertionError where a node contradicts its op; a bug in vggc, not a mistake."""
        assert isinstance(self.nodes[0].op, Input)
        assert len({node.name for node in self.nodes}) == len(self.nodes)
        assert self.heads
        assert len({head.name for head in self.heads}) == len(self.heads)
        assert all(0 <= head.node < len(self.nodes) for head in self.heads)
        for index, node in enumerate(self.nodes):
            assert all(read < index for read in node.inputs), node.name
            assert node.shape == node.op.output(*self.sources(node)), node.name

"""The layers of a net whose values are features: a graph that ends in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from vggc.features import diagnostics
from vggc.ir.graph import Graph, Head, Node
from vggc.ir.ops import (
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Input,
    Linear,
    Softmax,
)
from vggc.recipe.layer_names import layer_names, suggestion
from vggc.support.diagnostics import UserError

HEAD = "features"
"""The head of a graph that ends in features."""


@dataclass(frozen=True)
class FeatureNet:
    """A net up to the layers whose values are features.

    The graph has one head, whose vector holds the `widths` values of each of the `layers`, one
    behind the other. The value of a layer that gives a map is the mean of each channel.
    """

    graph: Graph
    layers: tuple[str, ...]
    widths: tuple[int, ...]


def feature_net(graph: Graph, layers: Sequence[str] = ()) -> FeatureNet:
    """A net up to these layers, by the names that `vggc summary` shows; without any, up to its
    head of features, or else to its last hidden layer.

    A join's value is what its paths are joined to; a head of features is known by its name, too.

    Raises:
        UserError: there is no such layer, or one is named twice.
    """
    places = places_of(graph)
    names = tuple(layers) or (usual_layer(graph),)
    for number, name in enumerate(names):
        if isinstance(graph.nodes[places.get(name, 0)].op, Softmax):
            raise UserError(diagnostics.LayerOfProbabilities(graph.name, name))
        if name not in places:
            hint = suggestion(name, tuple(places))
            raise UserError(diagnostics.UnknownFeatureLayer(graph.name, name, hint))
        if name in names[:number]:
            raise UserError(diagnostics.LayerTwice(name))
    ends = [places[name] for name in names]
    widths = tuple(graph.nodes[end].shape[0] for end in ends)
    return FeatureNet(ending_in(graph, ends), names, widths)


def places_of(graph: Graph) -> Mapping[str, int]:
    """The node that gives the value of each layer, and of each head of features, by name."""
    inner = {name: index for index, n in enumerate(graph.nodes) for name in n.layer.path}
    own = {node.layer.name: index for index, node in enumerate(graph.nodes) if node.inputs}
    heads = {head.name: head.node for head in graph.heads if head.kind == "features"}
    found = {**inner, **own}
    return {**{name: found[name] for name in layer_names(graph)}, **heads, **own}


def usual_layer(graph: Graph) -> str:
    """The name of a net's first head of features; without one, of its last hidden layer: what its
    last layer with weights reads, dropout and flattening left out.

    Raises:
        UserError: there is none.
    """
    for head in graph.heads:
        if head.kind == "features":
            return head.name
    node = graph.nodes[graph.heads[0].node]
    while not isinstance(node.op, Linear | Conv2d | ConvTranspose2d):
        node = before(graph, node)
    node = before(graph, node)
    while isinstance(node.op, Dropout | Flatten):
        node = before(graph, node)
    if isinstance(node.op, Input):
        raise UserError(diagnostics.NoHiddenLayer(graph.name))
    return node.layer.name


def before(graph: Graph, node: Node) -> Node:
    """The node that a node reads.

    Raises:
        UserError: it reads none, or several.
    """
    if len(node.inputs) != 1:
        raise UserError(diagnostics.NoHiddenLayer(graph.name))
    return graph.nodes[node.inputs[0]]


def ending_in(graph: Graph, ends: Sequence[int]) -> Graph:
    """The graph of what these nodes take, with one head: their values behind one another, the mean
    of each channel of those that are maps.
    """
    nodes = [*graph.nodes]

    def add(node: Node) -> int:
        nodes.append(node)
        return len(nodes) - 1

    vectors = []
    for end in ends:
        node = nodes[end]
        if len(node.shape) > 1:
            op = GlobalAvgPool()
            pooled = replace(node, name=f"{node.name}.mean", op=op, inputs=(end,))
            end = add(replace(pooled, shape=op.output(node.shape)))
        vectors.append(end)
    (last, *others) = vectors
    if others:
        joined = Concat()
        shape = joined.output(*(nodes[each].shape for each in vectors))
        node = replace(nodes[last], name="features.joined", op=joined, inputs=tuple(vectors))
        last = add(replace(node, shape=shape))
    return pruned(replace(graph, nodes=tuple(nodes), heads=(Head(HEAD, "features", last),)))


def pruned(graph: Graph) -> Graph:
    """The graph without the nodes that no head takes."""
    taken = {head.node for head in graph.heads} | {0}
    for index in reversed(range(len(graph.nodes))):
        if index in taken:
            taken.update(graph.nodes[index].inputs)
    order = sorted(taken)
    place = {index: number for number, index in enumerate(order)}
    nodes = tuple(
        replace(graph.nodes[i], inputs=tuple(place[read] for read in graph.nodes[i].inputs))
        for i in order
    )
    heads = tuple(replace(head, node=place[head.node]) for head in graph.heads)
    return replace(graph, nodes=nodes, heads=heads)

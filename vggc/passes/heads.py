"""A net for some of its heads."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from vggc.ir.graph import Graph


def ancestors(graph: Graph, nodes: Iterable[int]) -> frozenset[int]:
    """The nodes that some nodes of a graph are computed from, and these, by their indices."""
    found = {*nodes}
    for index in range(len(graph.nodes) - 1, -1, -1):
        if index in found:
            found.update(graph.nodes[index].inputs)
    return frozenset(found)


def classifier(graph: Graph) -> Graph | None:
    """The graph of its first head of classes alone; None where it has none."""
    name = next((head.name for head in graph.heads if head.kind == "classes"), None)
    if name is None:
        return None
    return graph if len(graph.heads) == 1 else with_heads(graph, [name])


def with_heads(graph: Graph, names: Collection[str]) -> Graph:
    """The graph of these heads, one at least, without the nodes that no other head needs."""
    heads = [head for head in graph.heads if head.name in names]
    needed = sorted(ancestors(graph, [0, *(head.node for head in heads)]))
    place = {node: index for index, node in enumerate(needed)}
    nodes = (graph.nodes[index] for index in needed)
    return replace(
        graph,
        nodes=tuple(replace(n, inputs=tuple(place[read] for read in n.inputs)) for n in nodes),
        heads=tuple(replace(head, node=place[head.node]) for head in heads),
    )

"""The means that passes are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vggc.ir.graph import Graph, Node


def without(graph: Graph, unwanted: Callable[[int], bool]) -> Graph:
    """The graph less the nodes of unwanted indices, each of which must read one node of its
    own shape: whoever reads an unwanted node, heads included, then reads that one.
    """
    kept: list[Node] = []
    place: list[int] = []
    for index, node in enumerate(graph.nodes):
        if unwanted(index):
            (read,) = node.inputs
            place.append(place[read])
            continue
        place.append(len(kept))
        kept.append(replace(node, inputs=tuple(place[read] for read in node.inputs)))
    heads = tuple(replace(head, node=place[head.node]) for head in graph.heads)
    return replace(graph, nodes=tuple(kept), heads=heads)

"""The means that passes are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from vggc.ir.graph import Graph, Node


def without(graph: Graph, unwanted: Callable[[Node], bool]) -> Graph:
    """The graph less the unwanted nodes, each of which must read one node of its own shape."""
    kept: list[Node] = []
    place: dict[int, int] = {}
    for index, node in enumerate(graph.nodes):
        if unwanted(node):
            (read,) = node.inputs
            place[index] = place[read]
            continue
        place[index] = len(kept)
        kept.append(replace(node, inputs=tuple(place[read] for read in node.inputs)))
    return replace(graph, nodes=tuple(kept))

"""What a net no longer needs once it is trained, and what it does not need yet."""

from __future__ import annotations

from dataclasses import replace

from vggc.ir.graph import Graph
from vggc.ir.ops import Dropout, Softmax
from vggc.passes.rewrite import without


def drop_dropout(graph: Graph) -> Graph:
    """The graph without dropout, which passes everything on outside training."""
    return without(graph, lambda index: isinstance(graph.nodes[index].op, Dropout))


def drop_final_softmax(graph: Graph) -> Graph:
    """The graph whose heads end in scores: losses take the logarithm of the soft-max themselves.

    A soft-max that other layers read, too, stays.
    """
    readers = graph.readers()
    final = {
        head.node
        for head in graph.heads
        if isinstance(graph.nodes[head.node].op, Softmax) and not readers[head.node]
    }
    return without(graph, final.__contains__)


def one_head(graph: Graph, name: str) -> Graph:
    """The graph that has the head of this name alone, and no node that it does not need."""
    head = next(head for head in graph.heads if head.name == name)
    needed = {0, head.node}
    for index in range(head.node, 0, -1):
        if index in needed:
            needed.update(graph.nodes[index].inputs)
    kept = sorted(needed)
    place = {index: number for number, index in enumerate(kept)}
    nodes = tuple(
        replace(graph.nodes[index], inputs=tuple(place[read] for read in graph.nodes[index].inputs))
        for index in kept
    )
    return replace(graph, nodes=nodes, heads=(replace(head, node=place[head.node]),))

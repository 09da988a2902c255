"""What a net no longer needs once it is trained, and what it does not need yet."""

from __future__ import annotations

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

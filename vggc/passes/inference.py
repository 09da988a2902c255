"""What a net no longer needs once it is trained, and what it does not need yet."""

from __future__ import annotations

from vggc.ir.graph import Graph, Node
from vggc.ir.ops import Dropout, Softmax
from vggc.passes.rewrite import without


def drop_dropout(graph: Graph) -> Graph:
    """The graph without dropout, which passes everything on outside training."""
    return without(graph, lambda node: isinstance(node.op, Dropout))


def drop_final_softmax(graph: Graph) -> Graph:
    """The graph that ends in scores: losses take the logarithm of the soft-max themselves."""
    last: Node = graph.nodes[-1]
    return without(graph, lambda node: node is last and isinstance(node.op, Softmax))

"""Joins of many paths, as kernels can take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vggc.ir.graph import Graph, Node

MAX_READS = 32
"""The most values that a join reads at once. LLVM's time and memory for a kernel grow with the
square of its buffers: 32 take half a second and 40 MB, 500 two minutes and 3 GB."""


def narrowed(graph: Graph) -> Graph:
    """The graph with joins of `MAX_READS` values at most: those of more join what others, `NAME.1`,
    `NAME.2` and so on, join of their values, neighbours first.

    A concatenation so copies a value once for each of its levels, and a sum is rounded less often
    on the way from a summand. Narrowing a narrow graph changes nothing.
    """
    nodes: list[Node] = []
    place: list[int] = []
    for node in graph.nodes:
        reads = tuple(place[read] for read in node.inputs)
        if node.op.joins_in_parts:
            reads = _joined(node, reads, nodes)
        place.append(len(nodes))
        nodes.append(replace(node, inputs=reads))
    heads = tuple(replace(head, node=place[head.node]) for head in graph.heads)
    return replace(graph, nodes=tuple(nodes), heads=heads)


def _joined(join: Node, reads: tuple[int, ...], nodes: list[Node]) -> tuple[int, ...]:
    """What is left for `join` to read once the joins before it are among the nodes."""
    parts = 0
    while len(reads) > MAX_READS:
        level: list[int] = []
        for start in range(0, len(reads), MAX_READS):
            some = reads[start : start + MAX_READS]
            if len(some) > 1:
                parts += 1
                nodes.append(_part(f"{join.name}.{parts}", join, some, nodes))
                some = (len(nodes) - 1,)
            level += some
        reads = tuple(level)
    return reads


def _part(name: str, join: Node, reads: tuple[int, ...], nodes: Sequence[Node]) -> Node:
    shape = join.op.output(*(nodes[read].shape for read in reads))
    return replace(join, name=name, inputs=reads, shape=shape)

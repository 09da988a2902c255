"""A dense net with multiple pooling offsets: its positions as close as they were before its last
pool.

A pool of stride s keeps one position in s along each axis. Applied once more from each of the
positions 0 to s - 1 on, with what stands behind it, it gives the s² maps that lie between one
another. Source: Sermanet et al. (2014), "OverFeat", section 3.3 and figure 3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vggc.ir.graph import Graph, Head
from vggc.ir.ops import Input, Pair, Pool2d
from vggc.passes.dense import DenseGraph, Positions, resized
from vggc.passes.heads import ancestors, with_heads
from vggc.support.diagnostics import Diagnostic, UserError


class NoOffsets(Diagnostic):
    title = "{net} has no pooling offsets"
    label = "{reason}"
    help = "leave `--offsets` out"
    net: str
    reason: str


@dataclass(frozen=True)
class OffsetGraph:
    """A dense graph in two parts: `before` gives the map that its last pool reads, and `after`
    makes the heads of such a map. From each of the first rows and columns of it, `stride` of
    them, `after` gives another part of the heads' maps, whose `positions` are those of all parts.
    """

    before: Graph
    after: Graph
    stride: Pair
    positions: dict[str, Positions]

    def fits(self, size: Pair) -> bool:
        """Whether a map of a height and width has a position for what stands behind."""
        try:
            resized(self.after, size)
        except UserError:
            return False
        return True


def with_offsets(spread: DenseGraph) -> OffsetGraph:
    """A dense graph, all of whose heads are maps, around its last pool.

    Raises:
        UserError: it has none that every head goes through, or not as the last layer with a stride.
    """
    graph = spread.graph
    pool = last_pool(graph)
    if pool is None:
        raise UserError(NoOffsets(graph.name, "it has no pool with a stride"))
    node = graph.nodes[pool]
    if goes_around(graph, pool):
        reason = f"not all of it goes through its last pool, {node.name}"
        raise UserError(NoOffsets(graph.name, reason, place=node.layer.span))
    behind = graph.nodes[pool + 1 :]
    if late := next((n for n in behind if n.op.window(graph.source(n)).stride != (1, 1)), None):
        reason = f"{late.name} behind its last pool has a stride"
        raise UserError(NoOffsets(graph.name, reason, place=late.layer.span))
    stride = node.op.window(graph.source(node)).stride
    finer = {
        name: replace(at, stride=(at.stride[0] // stride[0], at.stride[1] // stride[1]))
        for name, at in spread.positions.items()
    }
    return OffsetGraph(*split(graph, pool), stride, finer)


def last_pool(graph: Graph) -> int | None:
    """The last pool with a stride, by its index."""
    pools = (
        index
        for index, node in enumerate(graph.nodes)
        if isinstance(node.op, Pool2d) and node.op.stride != (1, 1)
    )
    return max(pools, default=None)


def goes_around(graph: Graph, pool: int) -> bool:
    """Whether a head needs something before a node, or beside it, that it does not get through
    it.
    """
    front = ancestors(graph, graph.nodes[pool].inputs)
    behind = {pool}
    for index in sorted(ancestors(graph, (head.node for head in graph.heads)) - front - {pool}):
        if not behind.issuperset(graph.nodes[index].inputs):
            return True
        behind.add(index)
    return not behind.issuperset(head.node for head in graph.heads)


def split(graph: Graph, node: int) -> tuple[Graph, Graph]:
    """What gives the map that a node reads, and what makes the heads of such a map."""
    (read,) = graph.nodes[node].inputs
    source = graph.nodes[read]
    before = replace(graph, heads=(Head("map", "features", read),))
    start = replace(source, op=Input(source.shape), inputs=())
    shift = node - 1
    behind = (
        replace(each, inputs=tuple(max(0, place - shift) for place in each.inputs))
        for each in graph.nodes[node:]
    )
    heads = tuple(replace(head, node=head.node - shift) for head in graph.heads)
    after = replace(graph, nodes=(start, *behind), heads=heads)
    return with_heads(before, ["map"]), with_heads(after, [head.name for head in heads])

"""A graph as text, one node a line, for people who debug the compiler."""

from __future__ import annotations

from vggc.ir.graph import Graph
from vggc.ir.ops import describe


def print_graph(graph: Graph) -> str:
    lines = [f"graph {graph.name}"]
    for node in graph.nodes:
        reads = ", ".join(graph.nodes[i].name for i in node.inputs)
        lines.append(f"  {node.name} = {node.op!r}({reads})  {describe(node.shape)}")
    return "\n".join(lines) + "\n"

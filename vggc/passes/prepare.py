"""The passes before planning, in order."""

from __future__ import annotations

from vggc.ir.graph import Graph
from vggc.passes.fold import fold
from vggc.passes.joins import narrowed


def prepared(graph: Graph) -> Graph:
    """The graph that is planned for `graph`: folded, with narrow joins.

    `vggc.compiler.pipeline` carries out the same passes one by one, to show what each made.
    """
    return narrowed(fold(graph).graph)

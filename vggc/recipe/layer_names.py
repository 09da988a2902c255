"""Layers that a block names, held against a net: `conv1_1..conv3_2,fc6`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vggc.ir.graph import Graph
from vggc.recipe import diagnostics
from vggc.support.diagnostics import Diagnostic, did_you_mean, nearest
from vggc.support.source import Span
from vggc.syntax import ast
from vggc.syntax.values import items

MOST_LISTED, MOST_COMPARED = 12, 300
"""Layers that a suggestion lists, and looks among for one that was meant."""


def layer_names(graph: Graph) -> tuple[str, ...]:
    """The layers of a net by name, in order, without its input; a join before what is in it."""
    names = (name for n in graph.nodes if n.inputs for name in (*n.layer.path, n.layer.name))
    return tuple(dict.fromkeys(names))


def ends(graph: Graph) -> dict[str, str]:
    """The last layer inside each join: who names a join means all of it."""
    return {name: node.layer.name for node in graph.nodes for name in node.layer.path}


def with_weights(graph: Graph) -> dict[str, tuple[str, ...]]:
    """The layers that have weights, in order, and the full names of those weights."""
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        if names := graph.weights(node):
            found.setdefault(node.layer.name, []).extend(names)
    return {layer: tuple(names) for layer, names in found.items()}


def selected(names: Iterable[str], graph: Graph) -> dict[str, str]:
    """The layers that names and ranges as written mean, in the net's order, each with the
    first that means it. A join means itself and all that is in it.

    They are names that `unfit` has no word against.
    """
    order = layer_names(graph)
    position = {name: index for index, name in enumerate(order)}
    inside = {name: position[last] for name, last in ends(graph).items()}
    chosen: dict[str, str] = {}
    for name in names:
        first, dots, last = name.partition("..")
        end = last if dots else first
        for layer in order[position[first] : inside.get(end, position[end]) + 1]:
            chosen.setdefault(layer, name)
    return {layer: chosen[layer] for layer in order if layer in chosen}


def unfit(value: ast.Value, order: Sequence[str]) -> list[Diagnostic]:
    """What is wrong with names and ranges, each at its place: unknown, or backwards."""
    position = {name: index for index, name in enumerate(order)}
    found: list[Diagnostic] = []
    for item in items(value):
        first, dots, last = str(item).partition("..")
        ends = (first, last) if dots else (first,)
        unknown = [end for end in ends if end not in position]
        found += [
            diagnostics.UnknownLayerName(end, suggestion(end, order), place=_end(item, end))
            for end in unknown
        ]
        if dots and not unknown and position[first] > position[last]:
            found.append(diagnostics.BackwardRange(first, last, place=item.span))
    return found


def _end(item: ast.Value, name: str) -> Span:
    """The place of one end of a range."""
    start = item.span.text.find(name)
    return item.span.part(start, start + len(name)) if start >= 0 else item.span


def suggestion(name: str, order: Sequence[str]) -> str:
    """The layer that was meant; of a deep net not all are compared or listed."""
    if len(order) <= MOST_LISTED or (len(order) <= MOST_COMPARED and nearest(name, order)):
        return did_you_mean(name, order)
    return f"layers run from `{order[0]}` to `{order[-1]}`; `vggc summary` lists them"

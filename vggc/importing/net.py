"""A foreign net as one of ours: its text, its graph, and its weights by our names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggc.importing.diagnostics import NotSayable, NoWordFor, Tangled, WeightNotUsable
from vggc.importing.foreign import Foreign, ForeignTensor
from vggc.importing.fuse import fused
from vggc.importing.items import ForeignItem, ForeignItems
from vggc.importing.outline import TangledError, outline
from vggc.importing.rules import HINTS, translate
from vggc.importing.text import identifier, net_text, word_text
from vggc.ir.graph import Graph
from vggc.ir.ops import Pair, Shape
from vggc.ir.weights import Weights, all_finite
from vggc.layers.elaborate import MAIN, MAX_NET_NAME, elaborate
from vggc.layers.kinds import BY_WORD
from vggc.support.diagnostics import Diagnostic, UserError
from vggc.support.source import Source
from vggc.support.tensors import Pieces
from vggc.syntax.ast import Net
from vggc.syntax.parse import parse

NO_WORDS = {
    "reorder": "another order of channels",
    "div": "a quotient of two values",
    "sub": "a difference of two values",
    "mean": "a mean over channels",
    "square": "a square",
    "sqrt": "a square root",
    "erf": "an error function",
    "cut": "a part of a map",
}
"""What items are that stood for a part of something, and are left."""


@dataclass(frozen=True)
class ImportedNet:
    """A net of ours that was a foreign one. `tensors` holds for each weight of its graph, by its
    name, where its values come from, `heads` for each output of the original the name of the head
    that gives it; `notes` tell what is otherwise than in the original.
    """

    foreign: Foreign
    text: str
    graph: Graph
    tensors: Mapping[str, ForeignTensor]
    items: ForeignItems
    heads: tuple[str, ...]
    notes: tuple[str, ...]

    def weights(self) -> Weights:
        """All weights in memory. Raises: UserError where one holds what no weight can."""
        return {name: self.values(name) for name in self.tensors}

    def pieces(self) -> dict[str, Pieces]:
        """The weights to be written: each is read when its turn comes, and not kept.

        Their `make` raises UserError where one holds what no weight can.
        """

        def make(name: str) -> Callable[[], Iterable[NDArray[np.float32]]]:
            return lambda: Pieces.of(self.values(name)).make()

        dtype = np.dtype("f4")
        shapes = {name: weight.shape for name, weight in self.graph.all_weights.items()}
        return {name: Pieces(dtype, shapes[name], make(name)) for name in self.tensors}

    def values(self, name: str) -> NDArray[np.float32]:
        """A weight. Raises: UserError where it holds what it cannot."""
        weight = self.graph.all_weights[name]
        with np.errstate(over="ignore", invalid="ignore"):
            values = self.tensors[name].read().astype(np.float32, copy=False)
        values = values.reshape(weight.shape)
        if not values.flags.writeable:
            values = values.copy()  # torch wants to be able to write
        what = ""
        if not all_finite(values):
            what = "NaN or infinity"
        elif weight.role == "running_var" and (values < 0).any():
            what = "variances below zero"
        if what:
            where = name.rpartition(".")[0]
            raise UserError(WeightNotUsable(self.foreign.files[0], where, what, name))
        return values


def import_foreign(foreign: Foreign, size: Pair | None = None) -> ImportedNet:
    """The net of ours that computes what a foreign one does; `size` is (H, W) of its input where
    that is open.

    Raises: UserError naming what the language cannot express, or what is wrong with the file.
    """
    path = foreign.files[0]
    items = fused(translate(foreign, size))
    _refuse_unknown(path, items)
    try:
        plan = outline(items)
    except (TangledError, RecursionError):
        raise UserError(Tangled(path)) from None
    name = identifier(foreign.name, MAX_NET_NAME)
    written = net_text(items, plan, name, _comments(foreign))
    graph = _graph(path, written.text, items)
    tensors = _named(path, graph, [items.items[index] for index in written.order])
    heads = [written.heads.get(place, MAIN) for place in range(len(items.outputs))]
    return ImportedNet(
        foreign=foreign,
        text=written.text,
        graph=graph,
        tensors=tensors,
        items=items,
        heads=tuple(heads),
        notes=(*foreign.notes, *items.notes),
    )


def _comments(foreign: Foreign) -> list[str]:
    source = f"Imported by vggc from {', '.join(foreign.files)}"
    source = "".join(c if c.isprintable() else "?" for c in source)
    return [source + ("," if foreign.sha256 else "."), f"SHA-256 {foreign.sha256}."][
        : 2 if foreign.sha256 else 1
    ]


def _refuse_unknown(path: str, net: ForeignItems) -> None:
    """Raises: UserError where an item is none of the language's words."""
    for item in net.items[1:]:
        if item.word not in BY_WORD:
            what = NO_WORDS.get(item.word, f"`{item.word}`")
            hint = HINTS.get(item.node.kind) or (
                "cut the net off before it: docs/importing.md says how"
            )
            raise UserError(NoWordFor(path, what, item.node.place, item.node.inputs, hint))


def _graph(path: str, text: str, net: ForeignItems) -> Graph:
    """The graph of a text that was made of items.

    Raises: UserError where the language takes its words, but not in this form.
    """
    try:
        tree: Net = parse(Source(path, text))
        return elaborate(tree)
    except UserError as error:
        found = error.diagnostic
        item = _blamed(found, net)
        reason = found.fill(found.label) or found.fill(found.title)
        where = item.node.place if item else "the net"
        layer = word_text(item) if item else found.fill(found.title)
        raise UserError(
            NotSayable(
                path=path, layer=layer, where=where, reason=reason, hint=found.fill(found.help)
            )
        ) from None


def _blamed(problem: Diagnostic, net: ForeignItems) -> ForeignItem | None:
    """The item that a mistake in the text is about, as far as its line tells."""
    if problem.place is None:
        return None
    number, column = problem.place.position
    line = problem.place.source.line(number)[: column + len(problem.place.text)]
    words = [(line.rfind(word_text(item)), item) for item in net.items[1:]]
    place, item = max(words, key=lambda each: (each[0], len(word_text(each[1]))))
    return item if place >= 0 else None


def _named(path: str, graph: Graph, items: list[ForeignItem]) -> dict[str, ForeignTensor]:
    """Where each weight of a graph comes from, whose layers are these items in this order."""
    layers = list(dict.fromkeys(node.layer.name for node in graph.nodes[1:]))
    by_name = dict(zip(layers, items, strict=True))
    found: dict[str, ForeignTensor] = {}
    for node in graph.nodes[1:]:
        item = by_name[node.layer.name]
        prefix = node.name.removeprefix(node.layer.name).removeprefix(".")
        for full, weight in graph.weights(node).items():
            role = f"{prefix}.{weight.role}" if prefix else weight.role
            tensor = item.tensors.get(role)
            assert tensor is not None, f"{full} comes from nowhere"
            if tensor.size != weight.size or not _same(tensor.shape, weight.shape):
                reason = f"{full} is {weight.shape}, and the file has {tensor.shape}"
                raise UserError(
                    NotSayable(
                        path=path,
                        layer=word_text(item),
                        where=item.node.place,
                        reason=reason,
                        hint="",
                    )
                )
            found[full] = tensor
    return found


def _same(left: Shape, right: Shape) -> bool:
    """Whether two shapes differ in axes of size 1 only."""
    return [n for n in left if n > 1] == [n for n in right if n > 1]

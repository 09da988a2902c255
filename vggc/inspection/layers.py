"""The maps of a net that are looked at: which layer gives each, and what its units see.

Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from vggc.analysis.receptive import Field, PixelSteps, receptive_fields
from vggc.inspection import diagnostics
from vggc.ir.graph import Graph, Node
from vggc.ir.ops import (
    Activation,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    GroupNorm,
    LayerNorm,
    PRelu,
    Scale,
    describe,
)
from vggc.support.diagnostics import Diagnostic, UserError, did_you_mean, listed
from vggc_runtime.preprocessing import Pixels

FINISHING = BatchNorm | GroupNorm | LayerNorm | Scale | Activation | PRelu
"""What is still of a layer where it stands behind it and nobody else reads that layer."""


@dataclass(frozen=True)
class PixelBox:
    """A part of an image: rows from `top` to before `bottom`, columns from `left` to before
    `right`.
    """

    top: int
    left: int
    bottom: int
    right: int

    def cut(self, pixels: Pixels) -> Pixels:
        """The part of pixels (H, W, C)."""
        return pixels[self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True)
class MapLayer:
    """A layer that gives a map, (channels, rows, columns).

    `node` is where its values are final: behind its normalisation and its activation, even where
    these are written as layers of their own. A unit of it is one value, of a channel at a place.
    """

    name: str
    node: int
    shape: tuple[int, int, int]
    field: Field

    @property
    def channels(self) -> int:
        """How many filters the layer has."""
        return self.shape[0]

    def seen(self, row: int, column: int, size: tuple[int, int]) -> PixelBox:
        """What the units at a place see of an image of a `size` (H, W): their receptive field, cut
        at the image's border.
        """
        spans = []
        starts = self.field.first((row, column))
        for first, length, side in zip(starts, self.field.size, size, strict=True):
            begin = min(max(0, first), side - 1)
            spans.append((begin, max(begin + 1, min(side, first + length))))
        (top, bottom), (left, right) = spans
        return PixelBox(top, left, bottom, right)


@dataclass(frozen=True)
class ChosenLayer:
    """A layer to look at; `filters` are the numbers of those that somebody named, in order, and
    empty where they are to be found.
    """

    layer: MapLayer
    filters: tuple[int, ...] = ()


def map_layers(graph: Graph) -> dict[str, MapLayer]:
    """Every layer of a net that gives a map, by name, in order; the input is none."""
    readers, fields = graph.readers(), receptive_fields(graph)
    last = {node.layer.name: index for index, node in enumerate(graph.nodes) if index}
    found = {}
    for name, index in last.items():
        if (shape := _map(graph.nodes[index])) is None:
            continue
        end = index
        while len(after := readers[end]) == 1 and isinstance(graph.nodes[after[0]].op, FINISHING):
            end = after[0]
        found[name] = MapLayer(name, end, shape, fields[index])
    return found


def last_of_blocks(graph: Graph) -> tuple[MapLayer, ...]:
    """The last convolution of each block of a net, or the outermost join that it stands in.

    A block is what has one stride on the image, as what lies between two pools has. Maps of a
    single place are left out: there is nothing to see of where.
    """
    layers, fields = map_layers(graph), receptive_fields(graph)
    found: dict[PixelSteps, MapLayer] = {}
    for index, node in enumerate(graph.nodes):
        shape = _map(node)
        is_convolution = isinstance(node.op, Conv2d | ConvTranspose2d)
        if not is_convolution or shape is None or shape[1:] == (1, 1):
            continue
        around = layers.get(node.layer.path[0]) if node.layer.path else None
        is_whole = around is not None and around.field.stride == fields[index].stride
        chosen = around if around is not None and is_whole else layers[node.layer.name]
        found[fields[index].stride] = chosen
    return tuple(found.values())


def chosen_layers(graph: Graph, words: str | None) -> tuple[ChosenLayer, ...]:
    """The layers that somebody names, `conv3_2,conv4_1:17`, or the last ones of the blocks.

    Raises:
        UserError: with every name that no layer with a map has, and every number that no filter
            has.
    """
    if words is None:
        return tuple(map(ChosenLayer, last_of_blocks(graph)))
    layers = map_layers(graph)
    wrong: list[Diagnostic] = []
    filters: dict[str, list[int]] = {}
    for word in (each.strip() for each in words.split(",")):
        name, colon, number = word.partition(":")
        if name not in layers:
            wrong.append(_unknown(graph, name, layers))
        elif colon and not (_is_number(number) and int(number) < layers[name].channels):
            most = layers[name].channels - 1
            wrong.append(diagnostics.UnknownFilter(word, name, most + 1, f"{name}:{most}"))
        else:
            numbers = filters.setdefault(name, [])
            numbers += [int(number)] if colon and int(number) not in numbers else []
    if wrong:
        raise UserError(*wrong)
    return tuple(ChosenLayer(layers[name], tuple(each)) for name, each in filters.items())


def _unknown(graph: Graph, name: str, layers: dict[str, MapLayer]) -> Diagnostic:
    """What is wrong with the name of a layer."""
    of_layer = [node for node in graph.nodes if node.layer.name == name]
    if of_layer:
        given, known = of_layer[-1], listed([*layers]) or "none"
        return diagnostics.LayerWithoutMap(
            name, describe(given.shape), known, place=given.layer.span
        )
    hint = did_you_mean(name, [*layers]) if layers else "leave `--layer` out"
    return diagnostics.LayerNotThere(name, graph.name, hint)


def _map(node: Node) -> tuple[int, int, int] | None:
    """The shape of what a node gives where that is a map."""
    match node.shape:
        case (channels, rows, columns):
            return channels, rows, columns
        case _:
            return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 8

"""How a trained net is tested: the `test { … }` block as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from vggc.ir.graph import Graph
from vggc.ir.ops import describe
from vggc.recipe import diagnostics
from vggc.recipe.blocks import OptionalPart, Plain, Reading, Schema, Switch, option, report, setting
from vggc.recipe.train import FindGraph, Recipe, scale_too_small, unknown_net
from vggc.support.diagnostics import Diagnostic
from vggc.syntax import ast
from vggc.syntax.values import MAX_SIDE, Grid, Maybe, NameList, Several, WholeNumber, items

MAX_SCALES, MAX_GRID, MAX_NETS = 16, 20, 16


@dataclass(frozen=True)
class Crops:
    """A regular grid of `grid` × `grid` crops of the net's input size."""

    example: ClassVar[str] = "crops grid=5x5"
    doc: ClassVar[str] = "a regular grid of crops, whose outputs are averaged"

    grid: int = option("crops along each side", Grid(MAX_GRID), 5)


@dataclass(frozen=True)
class Protocol:
    """How images are tested; the soft-max outputs of all that is asked for are averaged.

    `scales` are lengths in pixels to which an image's shorter side is brought, one after
    the other; None: the image is made to just cover the net's input. `dense` applies the
    net to the whole image, its fully-connected layers as convolutions; `crops` to a grid of
    crops. `flip` adds the mirrored image. `fuse` names further nets.

    Source: Simonyan & Zisserman (2015), section 3.2.
    """

    scales: tuple[int, ...] | None = setting(
        Plain(
            Maybe(Several(WholeNumber(1, MAX_SIDE, unit="px"), MAX_SCALES, "sizes")),
            "scales 224,256,288",
            "the shorter side of an image, one after the other; off: that of the training",
        )
    )
    dense: bool = setting(
        Switch("dense", "the net over the whole image, its fully-connected layers as convolutions"),
        True,
    )
    crops: Crops | None = setting(OptionalPart(Crops))
    flip: bool = setting(Switch("flip", "the mirrored image, too"), True)
    fuse: tuple[str, ...] | None = setting(
        Plain(
            Maybe(NameList("nets", most=MAX_NETS)),
            "fuse vgg16,vgg19",
            "other nets whose soft-max outputs are averaged with this one's",
        )
    )


TEST = Schema("test", Protocol)


def read_protocol(
    block: ast.Block | None,
    recipe: Recipe,
    graph: Graph | None = None,
    find: FindGraph | None = None,
    nets: Sequence[str] = (),
) -> Protocol:
    """The protocol that a `test` block describes.

    What it leaves out is as in the paper: the scale that the recipe trains at, or the
    middle of its range; dense, unless the block asks for crops alone; with flips. With a
    graph it is held against that net. `find` and `nets` are as in `read_recipe`.

    Raises:
        UserError: with every mistake in the block.
    """
    reading = TEST.read(block)
    protocol = reading.value
    if "scales" not in reading.table and recipe.scale:
        protocol = replace(protocol, scales=(sum(recipe.scale) // 2,))
    if "dense" not in reading.table:
        protocol = replace(protocol, dense=protocol.crops is None)
    found = list(reading.found)
    if not protocol.dense and protocol.crops is None:
        found.append(diagnostics.NothingTested(place=reading.span("dense")))
    if graph is not None:
        found += scale_mistakes(reading, graph) + crop_mistakes(reading, protocol, graph)
        found += fuse_mistakes(reading, graph, find, nets)
    report(found)
    return protocol


def scale_mistakes(reading: Reading[Protocol], graph: Graph) -> list[Diagnostic]:
    """Scales at which an image would not cover the net's input."""
    if reading.value.scales is None or "scales" not in reading.table:
        return []
    places = [item.span for item in items(reading.table["scales"])]
    return [
        scale_too_small("scales", span, scale, graph)
        for scale, span in zip(reading.value.scales, places, strict=True)
        if scale < max(graph.input[1:])
    ]


def crop_mistakes(reading: Reading[Protocol], protocol: Protocol, graph: Graph) -> list[Diagnostic]:
    """A grid of more crops than there are places for along an image's shorter side."""
    if protocol.crops is None:
        return []
    grid, side = protocol.crops.grid, min(graph.input[1:])
    scale = min(protocol.scales or (side,))  # without one, images just cover the input
    places = scale - side + 1
    if not 0 < places < grid:
        return []
    span, shown = reading.span("crops.grid") or reading.span("crops"), describe(graph.input[1:])
    return [diagnostics.TooManyCrops(grid, scale, shown, places, side + grid - 1, place=span)]


def fuse_mistakes(
    reading: Reading[Protocol], graph: Graph, find: FindGraph | None, nets: Sequence[str]
) -> list[Diagnostic]:
    """Nets that there are not, or whose outputs are not this net's."""
    if reading.value.fuse is None or "fuse" not in reading.table or find is None:
        return []
    found: list[Diagnostic] = []
    for item in items(reading.table["fuse"]):
        other = find(str(item))
        if other is None:
            found.append(unknown_net(item.span, str(item), "fuse", nets))
        elif other.output != graph.output:
            shown = describe(other.output), describe(graph.output)
            found.append(diagnostics.FusedOutputs(str(item), *shown, place=item.span))
    return found

"""What there is to see of how a net looks at an image: what the page of `vggc inspect` shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from vggc.inspection.image import SeenImage
from vggc.inspection.layers import ChosenLayer, MapLayer
from vggc.ir.graph import Graph
from vggc.ir.weights import Weights
from vggc.report.filters import Filters, drawn, first_filters

if TYPE_CHECKING:
    from vggc.data.crops import Framed
    from vggc.inspection.ascent import ClassImage
    from vggc.inspection.net import InspectedNet
    from vggc.inspection.occlusion import Occlusion
    from vggc.inspection.patches import Patch
    from vggc.inspection.saliency import Evidence

InspectSection: TypeAlias = Literal[
    "image", "activations", "filters", "saliency", "occlusion", "class-image"
]
SECTIONS: tuple[InspectSection, ...] = (
    "image",
    "activations",
    "filters",
    "saliency",
    "occlusion",
    "class-image",
)
"""The sections of the page, in order."""

MAPS_SHOWN = 12
"""Maps of a layer that are shown, the strongest."""
BEST_CLASSES = 5
MACS = 1.2e12
"""What is computed of images in search of patches, unless their number is given: half a minute of
two processors."""
MOST_IMAGES, LEAST_IMAGES = 1000, 50
"""So many images are looked at in search of patches at most, and, where there are so many, at
least, whatever they take."""

NO_MAPS = "The net has no convolution whose map has more than one place: nothing lies in space."
NO_FILTER = "No filter of these layers has a value above 0 for this image."

OnSection: TypeAlias = Callable[[InspectSection, int, int], None]
"""Is told of a section how much of how much is done."""
FoundImages: TypeAlias = "Framed | str"
"""Images to look for patches in, or why there are none."""


@dataclass(frozen=True)
class InspectOptions:
    """What of a net is looked at, and how closely; None stands for what is usual.

    `layers` are words as `conv3_2,conv4_1:17`; `filters` are shown of each layer, `patches` of each
    filter, found in `images` images of the place `data`. SmoothGrad takes so many `copies`, which
    draw from the `seed`. The square that covers parts of the image has `window` pixels and is moved
    by `stride`.
    """

    sections: tuple[InspectSection, ...] = SECTIONS
    class_name: str | None = None
    layers: str | None = None
    filters: int = 4
    patches: int = 6
    images: int | None = None
    data: str | None = None
    copies: int = 0
    window: int | None = None
    stride: int | None = None
    seed: int = 0
    weights: Path | None = None
    preprocessing: str | None = None
    device: Literal["cpu", "cuda", "auto"] = "auto"


@dataclass(frozen=True)
class ClassGuess:
    """A class, its score and its probability."""

    name: str
    score: float
    probability: float


@dataclass(frozen=True)
class LayerMaps:
    """The strongest maps of a layer for an image, float32 (F, h, w), and of which filters they
    are.
    """

    layer: MapLayer
    filters: tuple[int, ...]
    maps: npt.NDArray[np.float32]


@dataclass(frozen=True)
class FilterPatches:
    """A filter, the patch of the inspected image that excites it most, and those of others."""

    layer: MapLayer
    number: int
    here: Patch
    patches: tuple[Patch, ...]


@dataclass(frozen=True)
class FilterFindings:
    """The filters of the first layer, where they can be seen as colours, and what excites those of
    deeper layers, found in so many of `total` images, `unread` of which could not be read.
    `why_none` says why no images were looked at.
    """

    first: Filters | None
    filters: tuple[FilterPatches, ...]
    images: int
    total: int
    unread: int
    why_none: str | None


@dataclass(frozen=True)
class Inspection:
    """How a net looks at an image. Of what was not asked for there is None; text says why something
    that was cannot be had.
    """

    seen: SeenImage
    best: tuple[ClassGuess, ...]
    explained: ClassGuess
    activations: tuple[LayerMaps, ...] | str | None = None
    filters: FilterFindings | None = None
    saliency: Evidence | None = None
    occlusion: Occlusion | None = None
    class_image: ClassImage | None = None


@dataclass(frozen=True)
class InspectSubject:
    """What is inspected: a net that has one head, of scores of these classes, its weights, and the
    image. Grad-CAM is taken at the deepest of the `layers`. `explained` is the number of the class
    to explain; None stands for the best one.
    """

    graph: Graph
    weights: Weights
    net: InspectedNet
    classes: tuple[str, ...]
    seen: SeenImage
    layers: tuple[ChosenLayer, ...]
    explained: int | None


def inspect(
    subject: InspectSubject,
    options: InspectOptions,
    images: Callable[[], FoundImages],
    on_section: OnSection = lambda section, done, total: None,
) -> Inspection:
    """Looks at everything that the options ask for. `images` finds those to look for patches in, if
    that is among it.

    Raises:
        UserError: the images that are asked for are not there.
        CheckFailed: the net's scores are not finite.
    """
    from vggc.inspection.ascent import class_image
    from vggc.inspection.occlusion import Square, occlusion
    from vggc.inspection.saliency import evidence

    net, pixels, asked = subject.net, subject.seen.pixels, options.sections

    def told(section: InspectSection) -> Callable[[int, int], None]:
        return lambda done, total: on_section(section, done, total)

    guesses = guessed(subject)
    number = subject.explained if subject.explained is not None else best_of(guesses)[0]
    layers = maps_of(subject) if {"activations", "filters"} & {*asked} else {}
    chosen = [each.layer for each in subject.layers]
    deepest = max(chosen, key=lambda layer: layer.node, default=None)
    square = Square.usual(pixels.shape[:2], options.window, options.stride)
    on_section("image", 1, 1)
    return Inspection(
        seen=subject.seen,
        best=tuple(guesses[place] for place in best_of(guesses)[:BEST_CLASSES]),
        explained=guesses[number],
        activations=activations(subject, layers) if "activations" in asked else None,
        filters=filters(subject, options, layers, images, told("filters"))
        if "filters" in asked
        else None,
        saliency=evidence(
            net,
            pixels,
            number,
            deepest,
            options.copies,
            options.seed,
            told("saliency"),
        )
        if "saliency" in asked
        else None,
        occlusion=occlusion(net, pixels, number, square, told("occlusion"))
        if "occlusion" in asked
        else None,
        class_image=class_image(net, number, options.seed, told("class-image"))
        if "class-image" in asked
        else None,
    )


def guessed(subject: InspectSubject) -> tuple[ClassGuess, ...]:
    """What the net says of each class, in their order.

    Raises:
        CheckFailed: it is not finite.
    """
    from vggc.support.diagnostics import CheckFailed

    scores, probabilities = subject.net.look(subject.seen.pixels)
    if not np.isfinite(scores).all():
        raise CheckFailed("the net gives scores that are not finite; are its weights?")
    told = zip(subject.classes, scores.tolist(), probabilities.tolist(), strict=True)
    return tuple(ClassGuess(*each) for each in told)


def best_of(guesses: tuple[ClassGuess, ...]) -> list[int]:
    """The numbers of the classes, that with the greatest score first."""
    return sorted(range(len(guesses)), key=lambda number: -guesses[number].score)


def maps_of(subject: InspectSubject) -> dict[str, npt.NDArray[np.float32]]:
    """The maps of each chosen layer for the image, by the layer's name."""
    chosen = [each.layer for each in subject.layers]
    found = subject.net.maps(subject.seen.pixels, {layer.node for layer in chosen})
    return {layer.name: found[layer.node] for layer in chosen}


def activations(
    subject: InspectSubject, maps: Mapping[str, npt.NDArray[np.float32]]
) -> tuple[LayerMaps, ...] | str:
    """The strongest maps of each chosen layer."""
    from vggc.inspection.patches import strongest_filters

    if not subject.layers:
        return NO_MAPS
    found = []
    for chosen in subject.layers:
        of_layer = maps[chosen.layer.name]
        numbers = chosen.filters or strongest_filters(of_layer, MAPS_SHOWN)
        found.append(LayerMaps(chosen.layer, numbers, of_layer[list(numbers)]))
    return tuple(found)


def filters(
    subject: InspectSubject,
    options: InspectOptions,
    maps: Mapping[str, npt.NDArray[np.float32]],
    images: Callable[[], FoundImages],
    on_look: Callable[[int, int], None],
) -> FilterFindings:
    """What excites the filters that somebody named, or else those that the image excites most."""
    from vggc.inspection.patches import (
        FoundPatches,
        WantedFilters,
        patch_here,
        spread_out,
        strongest_filters,
        strongest_patches,
    )

    first = first_filters(subject.graph)
    wanted = [
        WantedFilters(
            each.layer, each.filters or strongest_filters(maps[each.layer.name], options.filters)
        )
        for each in subject.layers
    ]
    wanted = [each for each in wanted if each.numbers]
    why_none, total, patches = None if subject.layers else NO_MAPS, 0, FoundPatches({}, 0, 0)
    if subject.layers and not wanted:
        why_none = NO_FILTER
    if wanted:
        found = images()
        if isinstance(found, str):
            why_none = found
        else:
            total = len(found)
            deepest = max(each.layer.node for each in wanted)
            count = options.images or usual_images(subject.graph, deepest)
            chosen = spread_out(total, count)
            patches = strongest_patches(
                subject.net, found, chosen, wanted, options.patches, on_look
            )
    return FilterFindings(
        first=drawn(first, subject.weights[first]) if first else None,
        filters=tuple(
            FilterPatches(
                each.layer,
                number,
                patch_here(
                    subject.seen.name,
                    subject.seen.pixels,
                    each.layer,
                    maps[each.layer.name][number],
                ),
                patches.by_filter.get((each.layer.name, number), ()),
            )
            for each in wanted
            for number in each.numbers
        ),
        images=patches.images,
        total=total,
        unread=patches.unread,
        why_none=why_none,
    )


def usual_images(graph: Graph, deepest: int) -> int:
    """How many images are looked at in search of patches, by what the net takes for one up to its
    deepest node of which patches are wanted.
    """
    macs = sum(node.op.macs(graph.source(node)) for node in graph.nodes[: deepest + 1])
    return min(MOST_IMAGES, max(LEAST_IMAGES, int(MACS / max(1, macs))))

"""The page of how a net looks at an image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vggc.analysis.receptive import PixelSteps
from vggc.inspection.layers import MapLayer
from vggc.ir.ops import describe
from vggc.report import images
from vggc.report.filters import Filters
from vggc.report.heat import FloatMap, heat, legend, located, over, stretched
from vggc.report.html import Element, element
from vggc.report.inspection import (
    FilterFindings,
    FilterPatches,
    Inspection,
    InspectOptions,
    LayerMaps,
)
from vggc.report.page import Section, drawn_table, filter_sheet, framed
from vggc.report.words import counted, percent, rounded
from vggc.support.sheet import Sheet
from vggc_runtime.preprocessing import Pixels

if TYPE_CHECKING:
    from vggc.inspection.ascent import ClassImage
    from vggc.inspection.occlusion import Occlusion
    from vggc.inspection.patches import Patch
    from vggc.inspection.saliency import Evidence

MAP_SIDE = 112
"""Pixels along the longer side of a map or a patch, which are many; larger ones are made
smaller."""
PLACE_SIDE = 96
"""Pixels along the longer side of a picture that shows only where a patch lies in it."""
WHOLE_SIDE = 256
"""Pixels along the longer side of the whole picture."""
BRIGHTEST = 99.0
"""The percentile of a saliency map that is drawn as its greatest value: a few single pixels would
else leave all others dark."""


@dataclass(frozen=True)
class PageSubject:
    """What a page is on: a net, which tells so many classes, and an image.

    `mark` tells pages on this net from those on others; `weights` says where its weights are from,
    where that is not the run in whose folder the page lies.
    """

    net: str
    mark: str
    num_classes: int
    image: Path
    weights: str = ""

    @property
    def generator(self) -> str:
        """What a page on this net and this image says that it was made by."""
        told = "\0".join([self.mark, str(self.image.absolute())])
        return f"vggc inspect {hashlib.sha256(told.encode(errors='replace')).hexdigest()[:16]}"


def inspection_page(
    subject: PageSubject, found: Inspection, options: InspectOptions, now: datetime
) -> str:
    """The whole page."""
    net, explained = subject.net, found.explained
    title = f"{net} looks at {found.seen.name}"
    heading = [
        element("h1", element("span", net, class_="name"), " looks at ", _name(found.seen.name)),
        element(
            "p",
            "What follows explains the class ",
            element("b", explained.name, class_="name"),
            f", which the net gives {percent(explained.probability)}.",
        ),
    ]
    if subject.weights:
        told = element("span", subject.weights, class_="name")
        heading.append(element("p", "The weights are ", told, "."))
    made = f"Made by vggc inspect at {now:%Y-%m-%d %H:%M}, with seed {options.seed}."
    sections = [*_sections(subject.num_classes, found)]
    return framed(title, subject.generator, heading, sections, made)


def _sections(num_classes: int, found: Inspection) -> Iterator[Section]:
    """The sections that were asked for: address, title and what stands in them."""
    name = found.explained.name
    yield "image", "Image", _image(num_classes, found)
    if found.activations is not None:
        yield "activations", "Activations", _activations(found.activations)
    if found.filters is not None:
        yield "filters", "What excites filters", _filters(found.filters)
    if found.saliency is not None:
        yield "saliency", "Saliency", _saliency(found.saliency, found.seen.pixels, name)
    if found.occlusion is not None:
        yield "occlusion", "Occlusion", _occlusion(found.occlusion, found.seen.pixels, name)
    if found.class_image is not None:
        yield "class-image", "Class image", _class_image(found.class_image, name)


# The image and its classes


def _image(num_classes: int, found: Inspection) -> list[Element]:
    seen = found.seen
    height, width = seen.pixels.shape[:2]
    told = (
        f"Brought to {describe(seen.whole.shape[:2])} pixels, of which the net sees the centre, "
        f"{describe((height, width))}."
    )
    pictures = [
        element(
            "figure",
            element(
                "img",
                src=images.exact(located(seen.whole, seen.box, WHOLE_SIDE)),
                alt=f"{seen.name}; a frame shows the part that the net sees",
            ),
            element("figcaption", "framed: what the net sees"),
        ),
        _picture(seen.pixels, f"{seen.name} as the net sees it", "as the net sees it"),
    ]
    rows = tuple(
        (guess.name, percent(guess.probability), f"{guess.score:.4g}") for guess in found.best
    )
    table = Sheet(
        title="",
        header=("class", "probability", "score"),
        rows=rows,
        numbers=(False, True, True),
    )
    shown = (
        f"The {len(rows)} best of {num_classes:,} classes, by a soft-max of their scores."
        if num_classes > len(rows)
        else "The classes, by a soft-max of their scores."
    )
    return [
        element("p", told),
        element("div", *pictures, class_="shots large"),
        element("p", shown),
        *drawn_table(table, "guesses"),
    ]


# Activations


def _activations(found: Sequence[LayerMaps] | str) -> list[Element]:
    if isinstance(found, str):
        return [element("p", found)]
    told = (
        "What layers give of the image, behind normalisation and activation: of each the maps with "
        "the greatest values, the strongest first. All maps of a layer have one scale."
    )
    return [element("p", told), *(each for layer in found for each in _maps(layer))]


def _maps(found: LayerMaps) -> list[Element]:
    layer, (_, rows, columns) = found.layer, found.layer.shape
    name = element("h3", element("span", layer.name, class_="name"))
    if not found.filters:
        told = f"None of its {layer.channels:,} maps has a value above 0."
        return [name, element("p", told)]
    shown = len(found.filters)
    count = f"{shown} of {layer.channels:,}" if shown < layer.channels else f"All {shown}"
    low, high = min(0.0, float(found.maps.min())), max(0.0, float(found.maps.max()))
    pictures = [
        element(
            "figure",
            element(
                "img",
                src=images.exact(_small(heat(values, low, high))),
                alt=f"map {number} of {layer.name}, up to {values.max():.3g}",
                class_="small",
            ),
            element("figcaption", f"{layer.name}:{number}", class_="faint name"),
        )
        for number, values in zip(found.filters, found.maps, strict=True)
    ]
    return [
        name,
        element("p", f"{count} maps of {describe((rows, columns))}; {_seen_by(layer)}."),
        _legend(f"{low:.3g}", f"{high:.3g}"),
        element("div", *pictures, class_="shots"),
    ]


def _seen_by(layer: MapLayer) -> str:
    """What one unit of a layer sees, in words."""
    field = layer.field
    return (
        f"a unit sees {describe(field.size)} pixels, the next one those "
        f"{_one(field.stride)} further on"
    )


def _one(pair: PixelSteps) -> str:
    return str(pair[0]) if pair[0] == pair[1] else describe(pair)


def _small(pixels: Pixels, side: int = MAP_SIDE) -> Pixels:
    """A picture whose longer side has `side` pixels at most."""
    image = images.image_of(pixels)
    image.thumbnail((side, side))
    return np.asarray(image).reshape(image.height, image.width, -1)


# Filters


def _filters(found: FilterFindings) -> list[Element]:
    inside = _first(found.first) if found.first else []
    if found.filters:
        told = (
            "For each filter the part of this image that excites it most, and those of other "
            "images: cut out by the receptive field of the unit that is excited, as far as it lies "
            "within the image. A frame shows where that is. The numbers are the unit's values."
        )
        inside.append(element("p", told))
    if found.why_none:
        inside.append(element("p", found.why_none))
    elif found.filters:
        looked = f"{found.images:,} of {counted(found.total, 'image')}, evenly spread,"
        if found.images == found.total:
            looked = f"All {counted(found.total, 'image')}"
        unread = f"; {found.unread:,} could not be read" * bool(found.unread)
        inside.append(element("p", f"{looked} were looked at{unread}."))
    layer = ""
    for each in found.filters:
        if each.layer.name != layer:
            layer = each.layer.name
            heading = element("h3", element("span", layer, class_="name"))
            inside += [heading, element("p", f"{_capital(_seen_by(each.layer))}.")]
        inside += _patches(each)
    return inside


def _first(filters: Filters) -> list[Element]:
    """The filters of the first layer."""
    return [element("h3", element("span", filters.layer, class_="name")), *filter_sheet(filters)]


def _patches(found: FilterPatches) -> list[Element]:
    name = f"{found.layer.name}:{found.number}"
    shots = [
        _shot(found.here, name, "this image"),
        *(_shot(p, name, p.name) for p in found.patches),
    ]
    return [
        element("h4", name, class_="name"),
        element("div", *shots, class_="shots"),
    ]


def _shot(patch: Patch, filter_name: str, said: str) -> Element:
    cut = np.ascontiguousarray(patch.box.cut(patch.pixels))
    height, width = cut.shape[:2]
    return element(
        "figure",
        element(
            "img",
            src=images.thumbnail(_small(cut)),
            alt=f"{describe((height, width))} pixels of {said} that excite {filter_name}",
            class_="small" if max(height, width) <= images.SMALL else None,
        ),
        element(
            "img",
            src=images.thumbnail(located(patch.pixels, patch.box, PLACE_SIDE)),
            alt=f"where they lie in {said}",
            class_="place",
        ),
        element(
            "figcaption",
            element("b", rounded(patch.value)),
            " ",
            element("span", said, class_="name faint clip", title=said),
        ),
    )


# Where the score comes from


def _saliency(found: Evidence, pixels: Pixels, name: str) -> list[Element]:
    high = float(np.percentile(found.gradient, BRIGHTEST))
    pictures = [
        _picture(pixels, "the image", "the image"),
        _over(found.gradient, high, None, f"the gradient of the score of {name}", "gradient"),
    ]
    told = [
        "Gradient: by how much the score changes for one grey level of a pixel, the greatest of "
        f"its channels. Light is {high:.3g} and more, the {BRIGHTEST:g}th percentile."
    ]
    if found.smooth is not None:
        high = float(np.percentile(found.smooth, BRIGHTEST))
        alt = f"SmoothGrad of the score of {name}"
        pictures.append(_over(found.smooth, high, None, alt, "SmoothGrad"))
        told.append(
            f"SmoothGrad: the same of the mean gradient at {_copies(found.copies)} "
            f"of the image with noise. Light is {high:.3g} and more."
        )
    if found.cam is None or found.layer is None:
        told.append("Grad-CAM has no meaning here: no convolution has a map of several places.")
    else:
        high = float(found.cam.max())
        alt = f"Grad-CAM of {name} at {found.layer.name}"
        whole = stretched(found.cam, pixels.shape[:2])
        pictures.append(_over(whole, high, pixels, alt, f"Grad-CAM at {found.layer.name}"))
        told.append(
            f"Grad-CAM: the {found.layer.channels:,} maps of {found.layer.name}, of "
            f"{describe(found.layer.shape[1:])} places, each by the mean gradient of the score by "
            "it; " + (f"light is {high:.3g}." if high > 0 else "no place speaks for the class.")
        )
    return [
        element("div", *pictures, class_="shots large"),
        _legend("0", "greatest"),
        *(element("p", each) for each in told),
    ]


def _occlusion(found: Occlusion, pixels: Pixels, name: str) -> list[Element]:
    square, (rows, columns) = found.square, found.covered.shape
    low, high = float(found.at_pixels.min()), float(found.at_pixels.max())
    told = (
        f"A grey square of {square.window} pixels was put to {rows}×{columns} places, "
        f"{counted(square.stride, 'pixel')} apart: the probability of {name} while it covers a "
        f"pixel, the mean over the squares that do. Uncovered it is {percent(found.uncovered)}; "
        f"the square that harms most leaves {percent(float(found.covered.min()))}."
    )
    covered = over(pixels, heat(found.at_pixels, low, high))
    alt = f"the probability of {name} by what is covered"
    pictures = [
        _picture(pixels, "the image", "the image"),
        _picture(covered, alt, "probability where covered"),
    ]
    return [
        element("p", told),
        element("div", *pictures, class_="shots large"),
        _legend(percent(low), percent(high)),
    ]


def _class_image(found: ClassImage, name: str) -> list[Element]:
    told = (
        f"From the mean image, {counted(found.steps, 'step')} along the gradient of the score of "
        f"{name} less a penalty of the squares of all values took it from "
        f"{found.score_before:.4g} to {found.score:.4g}; the net gives this image "
        f"{percent(found.probability)}."
    )
    picture = _picture(found.pixels, f"an image that the net takes for {name}", name)
    return [element("p", told), element("div", picture, class_="shots large")]


# Pictures


def _picture(pixels: Pixels, alt: str, caption: str) -> Element:
    """A picture with what it is."""
    return element("figure", _img(pixels, alt), element("figcaption", caption, class_="name"))


def _img(pixels: Pixels, alt: str) -> Element:
    small = max(pixels.shape[:2]) <= images.SMALL
    return element("img", src=images.thumbnail(pixels), alt=alt, class_="small" if small else None)


def _over(values: FloatMap, high: float, pixels: Pixels | None, alt: str, caption: str) -> Element:
    """A map of values from 0 as colours, over a picture where there is one."""
    colours = heat(values, 0.0, high)
    return _picture(colours if pixels is None else over(pixels, colours), alt, caption)


def _legend(low: str, high: str) -> Element:
    """The colours of maps, with the values that the darkest and the lightest stand for."""
    bar = element("img", src=images.exact(legend()), alt="from dark blue to yellow", class_="scale")
    return element("p", f"{low} ", bar, f" {high}", class_="legend")


def _name(text: str) -> Element:
    return element("span", text, class_="name")


def _copies(number: int) -> str:
    return f"{number:,} {'copy' if number == 1 else 'copies'}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]

"""What of many images excites the filters of a net most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vggc.data.crops import Cut, Framed
from vggc.data.stores import Numbers
from vggc.inspection.layers import MapLayer, PixelBox
from vggc.inspection.net import InspectedNet, MapValues, OnLook, batch_of
from vggc_runtime.preprocessing import Pixels


@dataclass(frozen=True)
class Excited:
    """Where a filter is excited most in an image: the image's number, the filter's value, and the
    place on its map.
    """

    image: int
    value: float
    row: int
    column: int


@dataclass(frozen=True)
class Patch:
    """The part of an image that excites a filter: the image as the net sees it, (H, W, C), and
    what of it the unit sees; `name` says which image that is.
    """

    name: str
    value: float
    pixels: Pixels
    box: PixelBox


class Strongest:
    """The few images of a stream that excite each of some filters most, one place an image; where
    several places or images do so equally, the first.
    """

    def __init__(self, filters: Sequence[int], most: int) -> None:
        self.filters, self.most = list(filters), most
        self.values = torch.empty(0, len(self.filters))
        self.images = torch.empty(0, len(self.filters), dtype=torch.int64)
        self.places = torch.empty(0, len(self.filters), dtype=torch.int64)
        self.width = 1

    def add(self, maps: Tensor, images: Tensor) -> None:
        """Takes the maps (N, K, h, w) of images, by their numbers (N,)."""
        self.width = maps.shape[3]
        values, places = (each.cpu() for each in maps[:, self.filters].flatten(2).max(2))
        of = images[:, None].expand(-1, len(self.filters))
        values = torch.cat([self.values, values])
        order = values.argsort(dim=0, descending=True, stable=True)[: self.most]
        self.values = values.gather(0, order)
        self.images = torch.cat([self.images, of]).gather(0, order)
        self.places = torch.cat([self.places, places]).gather(0, order)

    def found(self) -> dict[int, list[Excited]]:
        """For each filter the images that excite it, the most first; those that do not are left
        out.
        """
        return {
            number: [
                Excited(image, value, *divmod(place, self.width))
                for image, value, place in zip(
                    self.images[:, column].tolist(),
                    self.values[:, column].tolist(),
                    self.places[:, column].tolist(),
                    strict=True,
                )
                if value > 0
            ]
            for column, number in enumerate(self.filters)
        }


def spread_out(total: int, most: int) -> Numbers:
    """At most so many of `total` numbers, in order and evenly spread: images often lie class by
    class.
    """
    count = min(total, most)
    return np.arange(count) * total // max(1, count)


@dataclass(frozen=True)
class WantedFilters:
    """Filters of a layer, by their numbers, that patches are looked for of."""

    layer: MapLayer
    numbers: tuple[int, ...]


@dataclass(frozen=True)
class FoundPatches:
    """The patches of each filter, by its layer's name and its number, the most exciting first; how
    many images were looked at for them, and how many more could not be read.
    """

    by_filter: Mapping[tuple[str, int], tuple[Patch, ...]]
    images: int
    unread: int


def strongest_patches(
    net: InspectedNet,
    images: Framed,
    indices: Numbers,
    wanted: Sequence[WantedFilters],
    most: int,
    on_look: OnLook = lambda done, total: None,
) -> FoundPatches:
    """The patches, at most so many, of images that excite each of the wanted filters most; the
    images are those at some places of their part.

    Memory holds a batch of images, `most` places for each filter, and at last the images that are
    shown. `on_look` is told how many images of how many have been looked at.
    """
    best = [Strongest(each.numbers, most) for each in wanted]
    unread = 0
    for start in range(0, len(indices), net.at_once):
        group = indices[start : start + net.at_once]
        crops = images.centres(group)
        there = {
            index: crop.pixels
            for index, crop in zip(group.tolist(), crops, strict=True)
            if isinstance(crop, Cut)
        }
        unread += len(group) - len(there)
        if there:
            numbers = torch.tensor([*there])
            with torch.inference_mode():
                inputs = net.inputs(batch_of([*there.values()]))
                maps = net.outputs(inputs, {each.layer.node for each in wanted})
            for each, kept in zip(wanted, best, strict=True):
                kept.add(maps[each.layer.node], numbers)
        on_look(start + len(group), len(indices))
    found = {
        (each.layer.name, number): (each.layer, excited)
        for each, kept in zip(wanted, best, strict=True)
        for number, excited in kept.found().items()
    }
    return FoundPatches(shown(images, found), len(indices) - unread, unread)


def shown(
    images: Framed, found: Mapping[tuple[str, int], tuple[MapLayer, Sequence[Excited]]]
) -> dict[tuple[str, int], tuple[Patch, ...]]:
    """The patches of what was found; each image is read again, once."""
    numbers = sorted({each.image for _, excited in found.values() for each in excited})
    crops = dict(zip(numbers, images.centres(np.asarray(numbers, np.int64)), strict=True))
    return {
        key: tuple(
            patch_of(images.part.name(each.image), crop.pixels, layer, each)
            for each in excited
            if isinstance(crop := crops[each.image], Cut)
        )
        for key, (layer, excited) in found.items()
    }


def patch_of(name: str, pixels: Pixels, layer: MapLayer, found: Excited) -> Patch:
    """The patch of an image, as the net sees it, that excites a filter of a layer."""
    height, width = pixels.shape[:2]
    return Patch(name, found.value, pixels, layer.seen(found.row, found.column, (height, width)))


def patch_here(name: str, pixels: Pixels, layer: MapLayer, filter_map: MapValues) -> Patch:
    """The patch of an image that excites a filter most, by the filter's map (h, w) of it."""
    row, column = divmod(int(filter_map.argmax()), filter_map.shape[1])
    found = Excited(0, float(filter_map[row, column]), row, column)
    return patch_of(name, pixels, layer, found)


def strongest_filters(maps: MapValues, most: int) -> tuple[int, ...]:
    """The filters of maps (K, h, w) with the greatest values, at most so many, the strongest
    first; those without a value above 0 are left out.
    """
    values = maps.max((1, 2))
    order = np.argsort(-values, kind="stable")[:most]
    return tuple(number for number in order.tolist() if values[number] > 0)

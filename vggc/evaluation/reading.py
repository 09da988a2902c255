"""Images read by worker processes, resized to what the views want, those of one size together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vggc.data.crops import Framing, attempt
from vggc.data.parts import Part, Skipped
from vggc.data.stores import Numbers, PictureSource
from vggc_runtime.preprocessing import BrokenImageError, Pixels

CHUNK = 8
"""Images that a worker reads at a time."""

HELD_BATCHES = 8
"""So many batches wait at most for images of their size."""


class ImageGroup(NamedTuple):
    """Images of one size in one framing: uint8 (N, H, W, C), and their places in their part (N,).

    `framing` is the number of the framing.
    """

    framing: int
    indices: Tensor
    pixels: Tensor

    @property
    def area(self) -> int:
        """The number of pixels in all images of the group."""
        count, height, width, _ = self.pixels.shape
        return count * height * width


@dataclass(frozen=True)
class LostImage:
    """An image that could not be read, by its place in its part, with the reason."""

    index: int
    skipped: Skipped


class Chunk(NamedTuple):
    """A few images as they are read: in groups of one size and framing, and those that could not
    be.
    """

    groups: tuple[ImageGroup, ...]
    lost: tuple[LostImage, ...]


@dataclass(frozen=True)
class Chunks(Dataset[Chunk]):
    """The images of a part at these places, a few at a time, in each of the framings."""

    part: Part
    indices: Numbers
    framings: tuple[Framing, ...]

    def __len__(self) -> int:
        return -(-len(self.indices) // CHUNK)

    def __getitem__(self, number: int) -> Chunk:
        indices = self.indices[number * CHUNK : (number + 1) * CHUNK]
        look = partial(framed, framings=self.framings)
        together: dict[tuple[int, tuple[int, ...]], list[tuple[int, Pixels]]] = {}
        lost = []
        for index, picture in zip(indices.tolist(), self.part.fetch(indices), strict=True):
            match attempt(look, picture):
                case BrokenImageError() as fault:
                    lost.append(LostImage(index, Skipped(self.part.name(index), str(fault))))
                case looks:
                    for framing, pixels in enumerate(looks):
                        together.setdefault((framing, pixels.shape), []).append((index, pixels))
        groups = (
            ImageGroup(
                framing,
                torch.tensor([index for index, _ in members]),
                torch.from_numpy(np.stack([pixels for _, pixels in members])),
            )
            for (framing, _), members in together.items()
        )
        return Chunk(tuple(groups), tuple(lost))


def framed(picture: PictureSource, framings: Iterable[Framing]) -> list[Pixels]:
    """A picture in each framing, uint8 (H, W, C); opened once for each number of channels and each
    look.
    """
    ways = {(framing.shape[0], framing.look): framing for framing in framings}
    opened = {way: framing.open(picture) for way, framing in ways.items()}
    return [f.resized(opened[f.shape[0], f.look]) for f in framings]


def gathered(chunks: Iterable[Chunk], areas: tuple[int, ...]) -> Iterator[ImageGroup | LostImage]:
    """What is in the chunks, groups of one framing and size put together.

    A group comes when it has `areas[framing]` pixels or more, the largest one when too many wait,
    and the others at the end.
    """
    waiting: dict[tuple[int, torch.Size], ImageGroup] = {}
    for chunk in chunks:
        yield from chunk.lost
        for group in chunk.groups:
            key = group.framing, group.pixels.shape[1:]
            waiting[key] = group = joined(waiting.pop(key, None), group)
            if group.area >= areas[group.framing]:
                yield waiting.pop(key)
        while sum(group.area for group in waiting.values()) > HELD_BATCHES * max(areas):
            yield waiting.pop(max(waiting, key=lambda key: waiting[key].area))
    yield from waiting.values()


def joined(first: ImageGroup | None, second: ImageGroup) -> ImageGroup:
    """Two groups of one framing and size as one."""
    if first is None:
        return second
    return ImageGroup(
        first.framing,
        torch.cat([first.indices, second.indices]),
        torch.cat([first.pixels, second.pixels]),
    )

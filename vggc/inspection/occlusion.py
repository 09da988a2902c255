"""What becomes of a class's probability where a part of the image is covered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vggc.inspection.net import InspectedNet, MapValues, OnLook, batch_of
from vggc_runtime.preprocessing import Pixels

GREY = 128.0
"""The value of what is covered, in each channel."""
ACROSS = 7
"""How many squares lie beside one another along the shorter side of an image."""
PLACES = 11
"""About how many places along the longer side a square is put to."""


@dataclass(frozen=True)
class Square:
    """A square of `window` pixels that is moved by `stride` pixels at a time."""

    window: int
    stride: int

    @classmethod
    def usual(
        cls, size: tuple[int, int], window: int | None = None, stride: int | None = None
    ) -> Square:
        """The square for images of a size (H, W), of what is not given already."""
        window = window or max(1, round(min(size) / ACROSS))
        return cls(window, stride or max(1, -(-(max(size) - window) // (PLACES - 1))))

    def places(self, length: int) -> list[int]:
        """Where it begins along a side: every `stride` pixels, and at last at the edge."""
        window = min(self.window, length)
        return [*range(0, length - window, self.stride), length - window]


@dataclass(frozen=True)
class Occlusion:
    """The probability of a class while parts of an image are covered.

    `uncovered` is that of the whole image; `covered` (rows, columns) that with the square at each
    of its places; `at_pixels` (H, W) the mean over the squares that cover a pixel, and the
    probability of the whole image where squares lie too far apart for any to do so.
    """

    square: Square
    uncovered: float
    covered: MapValues
    at_pixels: MapValues


def occlusion(
    net: InspectedNet,
    pixels: Pixels,
    number: int,
    square: Square,
    on_look: OnLook = lambda done, total: None,
) -> Occlusion:
    """What becomes of the probability of the class `number` while a grey square is moved over
    an image, uint8 (H, W, C). `on_look` is told how many places of how many are done.

    Source: Zeiler & Fergus (2014), section 4.2.
    """
    image = batch_of([pixels])
    height, width = image.shape[2:]
    rows, columns = square.places(height), square.places(width)
    corners = [(top, left) for top in rows for left in columns]
    found: list[float] = []
    for covered in covered_copies(image, corners, square.window, net.at_once):
        found += net.probabilities(covered)[:, number].tolist()
        on_look(len(found), len(corners))
    uncovered = float(net.probabilities(image)[0, number])
    return Occlusion(
        square=square,
        uncovered=uncovered,
        covered=torch.tensor(found).view(len(rows), len(columns)).numpy(),
        at_pixels=spread(found, corners, square.window, (height, width), uncovered).numpy(),
    )


def covered_copies(
    pixels: Tensor, corners: list[tuple[int, int]], window: int, at_once: int
) -> Iterator[Tensor]:
    """Copies (N, C, H, W) of pixels (1, C, H, W), each with a grey square at one of the corners, at
    most so many at once.
    """
    for start in range(0, len(corners), at_once):
        group = corners[start : start + at_once]
        copies = pixels.to(torch.float32).repeat(len(group), 1, 1, 1)
        for copy, (top, left) in zip(copies, group, strict=True):
            copy[:, top : top + window, left : left + window] = GREY
        yield copies


def spread(
    values: list[float],
    corners: list[tuple[int, int]],
    window: int,
    size: tuple[int, int],
    elsewhere: float,
) -> Tensor:
    """The mean, for each pixel (H, W), of the values of the squares that cover it; `elsewhere`
    where none does.
    """
    total, count = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    for value, (top, left) in zip(values, corners, strict=True):
        place = slice(top, top + window), slice(left, left + window)
        total[place] += value
        count[place] += 1
    return torch.where(count > 0, total / count.clamp(min=1), elsewhere).float()

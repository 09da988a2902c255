"""What the first layer looks for, as a picture of its filters."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from vggc.ir.graph import Graph, Node
from vggc.ir.ops import Conv2d, Pad2d
from vggc_runtime.preprocessing import IMAGE_CHANNELS, Pixels

MOST = 256
"""Filters that are shown: those of nearly all nets, and a picture of bounded size."""
TILE = 48
"""Pixels along the side of a tile, nearly: each weight becomes a square of whole pixels."""
MOST_SIDE = 64
"""Weights along the side of a filter; larger ones are shown by every second, third, … weight."""
GAP = 6
"""Pixels between tiles, in which the page shows."""
ROWS = 8, 16
"""Tiles in a row, up to 64 of them and above."""


@dataclass(frozen=True)
class Filters:
    """Tiles of equal size, uint8 (N, H, W, C), of the layer's `total` filters."""

    layer: str
    tiles: Pixels
    total: int

    @property
    def sheet(self) -> Pixels:
        """All tiles in one picture, row by row: red, green, blue and opacity (H, W, 4)."""
        count, height, width, _ = self.tiles.shape
        across = min(ROWS[count > 64], count)
        down = ceil(count / across)
        sheet = np.zeros((down * (height + GAP) - GAP, across * (width + GAP) - GAP, 4), np.uint8)
        for index, tile in enumerate(self.tiles):
            row, column = divmod(index, across)
            top, left = row * (height + GAP), column * (width + GAP)
            place = sheet[top : top + height, left : left + width]
            place[:, :, :3], place[:, :, 3] = tile, 255
        return sheet


def first_filters(graph: Graph) -> str | None:
    """The name of the weight of a convolution that reads images, grey or RGB, all channels at
    once, if that is how the net begins.
    """
    readers = graph.readers()
    first = readers[0]
    if [type(graph.nodes[each].op) for each in first] == [Pad2d]:
        first = readers[first[0]]
    match [graph.nodes[each] for each in first]:
        case [Node(op=Conv2d(groups=1)) as conv] if graph.input[0] in IMAGE_CHANNELS:
            return f"{conv.name}.weight"
        case _:
            return None


def drawn(name: str, weight: npt.NDArray[np.float32]) -> Filters:
    """The filters (K, C, h, w) of a weight, each from its least value in black to its greatest
    in white, its channels together; one of equal values is grey.
    """
    skip = ceil(max(weight.shape[2:]) / MOST_SIDE)
    shown = weight[:MOST, :, ::skip, ::skip].astype(np.float64).transpose(0, 2, 3, 1)
    low, high = (bound(shown, axis=(1, 2, 3), keepdims=True) for bound in (np.min, np.max))
    span = high - low
    shares = np.where(span > 0, (shown - low) / np.where(span > 0, span, 1), 0.5)
    tiles = np.rint(255 * shares).astype(np.uint8)
    scale = max(1, TILE // max(tiles.shape[1:3]))
    tiles = tiles.repeat(scale, axis=1).repeat(scale, axis=2)
    return Filters(name.removesuffix(".weight"), tiles, len(weight))

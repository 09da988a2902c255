"""Maps of values as pictures: in colours that everybody tells apart, and over what they are of."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from vggc.inspection.layers import PixelBox
from vggc_runtime.preprocessing import Pixels

FloatMap: TypeAlias = npt.NDArray[np.float32]

VIRIDIS = (
    (68, 1, 84),
    (71, 44, 122),
    (59, 81, 139),
    (44, 113, 142),
    (33, 144, 141),
    (39, 173, 129),
    (92, 200, 99),
    (170, 220, 50),
    (253, 231, 37),
)
"""Red, green and blue from the least value, dark, to the greatest, light, in equal steps: their
lightness grows evenly, for readers who see fewer colours, too, and in print.
Source: Smith & van der Walt (2015), matplotlib's viridis."""
SHARE = 0.65
"""How much of a map's colour there is where it lies over an image."""
FRAME = (255, 255, 255), (0, 0, 0)
"""The colours of a frame, inside and around it: one of them shows on any picture."""
SHOWN_SIDE = 128
"""Pixels along the longer side that a small picture is enlarged to before a frame is drawn."""


def heat(values: FloatMap, low: float, high: float) -> Pixels:
    """Values (h, w) as colours, uint8 (h, w, 3), from `low`, dark, to `high`, light; what lies
    beyond is cut off. All is dark where there is nothing between the two.
    """
    span = high - low
    shares = np.clip((values - low) / span, 0, 1) if span > 0 else np.zeros_like(values)
    steps = np.linspace(0, 1, len(VIRIDIS))
    table = np.asarray(VIRIDIS, np.float64)
    colours = [np.interp(shares, steps, table[:, channel]) for channel in range(3)]
    drawn: Pixels = np.rint(np.stack(colours, axis=2)).astype(np.uint8)
    return drawn


def over(pixels: Pixels, colours: Pixels) -> Pixels:
    """Colours (H, W, 3) over a picture (H, W, C), which is grey below them: then every colour is
    the map's.
    """
    grey = pixels.astype(np.float64).mean(axis=2, keepdims=True)
    blended: Pixels = np.rint((1 - SHARE) * grey + SHARE * colours).astype(np.uint8)
    return blended


def stretched(values: FloatMap, size: tuple[int, int]) -> FloatMap:
    """A map (h, w) at another size (H, W), by linear interpolation."""
    image = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR), np.float32)


def enlarged(pixels: Pixels, side: int = SHOWN_SIDE) -> Pixels:
    """A picture (H, W, C) of which each pixel has become a square, so that the longer side has
    `side` pixels or a little less; as it is where it has as many already.
    """
    times = max(1, side // max(pixels.shape[:2]))
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def located(pixels: Pixels, box: PixelBox, side: int = SHOWN_SIDE) -> Pixels:
    """A picture (H, W, C) with a frame around a part of it, uint8 (h, w, 3), its longer side about
    `side` pixels.
    """
    height, width = pixels.shape[:2]
    whole = Image.fromarray(np.ascontiguousarray(enlarged(pixels, side).squeeze()))
    image = whole.convert("RGB")
    if max(image.size) > side:
        image.thumbnail((side, side))
    across, down = image.width / width, image.height / height
    left, top = round(box.left * across), round(box.top * down)
    right, bottom = round(box.right * across) - 1, round(box.bottom * down) - 1
    pen = ImageDraw.Draw(image)
    inside, around = FRAME
    pen.rectangle((left - 1, top - 1, max(left, right) + 1, max(top, bottom) + 1), outline=around)
    pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=inside)
    return np.asarray(image)


def legend(width: int = 128) -> Pixels:
    """All colours of a map beside one another, (1, width, 3)."""
    return heat(np.linspace(0, 1, width, dtype=np.float32)[None], 0, 1)

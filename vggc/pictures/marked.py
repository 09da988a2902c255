"""Boxes drawn into a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from PIL import Image, ImageDraw, ImageFont

MarkLook: TypeAlias = Literal["true", "given"]

COLOURS: dict[MarkLook, str] = {"true": "#56b4e9", "given": "#e69f00"}
"""Sky blue and orange, which people who confuse red and green tell apart.
Source: Okabe & Ito (2008), "Color Universal Design".
"""
EDGE = "#000000"
LINE_SHARE = 1 / 150
"""How wide a line is, as a share of the picture's longer side."""
TEXT_SHARE = 1 / 28
"""How high text is, as a share of the picture's longer side."""
LEAST_TEXT = 11
"""Pixels below which text cannot be read."""


@dataclass(frozen=True)
class MarkedBox:
    """A box (left, top, right, bottom) in pixels, whose it is, and what is written at it."""

    corners: tuple[float, float, float, float]
    look: MarkLook
    text: str = ""


def marked(image: Image.Image, boxes: Sequence[MarkedBox]) -> Image.Image:
    """A copy of the image, in RGB, with boxes drawn into it: those of objects in sky blue, those
    that a net gives in orange; text stands at a box's upper left corner, within the picture.
    """
    drawn = image.convert("RGB")
    pen = ImageDraw.Draw(drawn)
    longer = max(drawn.size)
    width = max(1, round(longer * LINE_SHARE))
    font = ImageFont.load_default(max(LEAST_TEXT, round(longer * TEXT_SHARE)))
    for box in boxes:
        inside = within(box.corners, drawn.size)
        # A dark edge keeps the line in sight on grounds of its own colour.
        pen.rectangle(inside, outline=EDGE, width=width + 2)
        pen.rectangle(tuple(shrunk(inside)), outline=COLOURS[box.look], width=width)
    for box in boxes:
        if box.text:
            write(pen, box, drawn.size, font)
    return drawn


def within(
    corners: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """The corners of a box, those beyond a picture of a size (W, H) at its edges."""
    width, height = size
    left, top, right, bottom = corners
    return (
        min(max(left, 0), width - 1),
        min(max(top, 0), height - 1),
        min(max(right, 0), width - 1),
        min(max(bottom, 0), height - 1),
    )


def shrunk(corners: tuple[float, float, float, float]) -> Sequence[float]:
    """A box whose edges lie a pixel further inside, as far as it has room."""
    left, top, right, bottom = corners
    x, y = min(left + 1, (left + right) / 2), min(top + 1, (top + bottom) / 2)
    return x, y, max(right - 1, x), max(bottom - 1, y)


def write(
    pen: ImageDraw.ImageDraw,
    box: MarkedBox,
    size: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Writes a box's text on a ground of its colour, at its upper left corner or below it where
    there is no room above.
    """
    left, top, _, _ = within(box.corners, size)
    across, down = pen.textbbox((0, 0), box.text, font=font)[2:]
    x = max(0, min(left, size[0] - across - 4))
    y = top - down - 4 if top >= down + 4 else top
    pen.rectangle((x, y, x + across + 4, y + down + 4), fill=COLOURS[box.look])
    pen.text((x + 2, y + 1), box.text, fill=EDGE, font=font)

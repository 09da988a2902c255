"""Pictures that stand in the page itself."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from PIL import Image

from vggc.data.objects import Corners
from vggc.pictures.marked import MarkedBox, MarkLook, marked
from vggc_runtime.preprocessing import Pixels

if TYPE_CHECKING:
    from vggc.training.judgement import MissedBox

SMALL = 64
"""Pixels along the sides up to which nothing may be lost; above, a JPEG is as good, and smaller."""
MOST_SIDE = 256
"""Pixels along a side of what is shown; larger pictures are made smaller."""
QUALITY = 85


def exact(pixels: Pixels) -> str:
    """Pixels (H, W, C) as the address of a PNG."""
    return address(image_of(pixels), "PNG", optimize=True)


def thumbnail(pixels: Pixels) -> str:
    """Pixels (H, W, C) as the address of a small picture."""
    image = image_of(pixels)
    if max(image.size) <= SMALL:
        return address(image, "PNG", optimize=True)
    image.thumbnail((MOST_SIDE, MOST_SIDE))
    return address(image, "JPEG", quality=QUALITY)


def with_boxes(missed: MissedBox) -> str:
    """A picture with the boxes of its objects and the box that a net gave, as the address of a
    small one.
    """
    image = image_of(missed.pixels)
    # A box is drawn at the size at which it is seen.
    scale = min(1.0, MOST_SIDE / max(image.size)) if max(image.size) > SMALL else 2.0
    image = image.resize([max(1, round(side * scale)) for side in image.size])
    width, height = image.size
    boxes: list[tuple[Corners, MarkLook]] = [(box, "true") for box in missed.objects]
    boxes.append((missed.box, "given"))
    drawn = marked(
        image,
        [
            MarkedBox((b[0] * width, b[1] * height, b[2] * width, b[3] * height), look)
            for b, look in boxes
        ],
    )
    return address(drawn, "JPEG", quality=QUALITY)


def image_of(pixels: Pixels) -> Image.Image:
    """Pixels (H, W, C) as an image, a grey one where C is 1."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def address(image: Image.Image, kind: str, **options: int) -> str:
    """A `data:` URL, which needs no file."""
    written = io.BytesIO()
    image.save(written, kind, **options)
    text = base64.b64encode(written.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{text}"

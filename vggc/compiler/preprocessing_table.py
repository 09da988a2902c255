"""What is done to a picture before a net sees it, as C reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image

from vggc.images.preprocessing import IMAGE_CHANNELS, Preprocessing

LEVELS = 256
"""Values of a channel of 8 bits."""

PER_LINE = 8
"""Numbers in a line of C."""

PassOrder: TypeAlias = Literal["rows", "columns"]
"""Which sides of a picture are resized first: its rows, or its columns, one below the other."""

PROBED = (8, 64)
"""Width and height of a picture whose resizing tells the orders that Pillow takes."""

RULES: dict[tuple[PassOrder | None, ...], bool] = {
    ("rows", "rows", "rows"): False,
    ("rows", "columns", "rows"): True,
}
"""Whether tall pictures are resized by columns first, by the orders of `PROBES`. Pillow takes rows
first before version 13, and from then on columns where the height loses more than twice as many
pixels as the width.
Source: Pillow's pull request 9549.
"""

PROBES = ((4, 56), (4, 55), (12, 72))
"""The sizes that it is resized to: the height loses twice as much as the width, loses more than
that, gains."""


def preprocessing_initialiser(how: Preprocessing) -> str | None:
    """What fills in the `plan_preprocessing` of `vggc/native/pictures.h`; None where a net takes
    neither one nor three channels, the preprocessing is out of range, or Pillow resizes in an order
    that C does not know.

    C repeats what is done to pictures of 8 bits. What is white in deeper greys is left to whoever
    decodes them.
    """
    channels = len(how.mean)
    by_columns = resizes_tall_by_columns()
    out_of_range = how.problem((channels, *how.size)) is not None
    if channels not in IMAGE_CHANNELS or out_of_range or by_columns is None:
        return None
    levels = np.arange(LEVELS, dtype=np.uint8).reshape(1, 1, LEVELS, 1)
    values = how.normalise(np.repeat(levels, channels, axis=3)).reshape(channels, LEVELS)
    height, width = how.size
    lines = (
        "{",
        f"  .channels = {channels},",
        f"  .height = {height}, .width = {width},",
        f"  .scale = {how.scale or 0},",
        f"  .tall_by_columns = {int(by_columns)},",
        "  .values = {",
        *(f"    {{\n{numbers(row.tolist())}\n    }}," for row in values),
        "  },",
        "}",
    )
    return "\n".join(lines)


def numbers(values: Sequence[float]) -> str:
    """Lines of float32 constants, exact in any compiler."""
    each = [re.sub(r"\.?0*p", "p", value.hex()) + "f" for value in values]
    rows = (each[i : i + PER_LINE] for i in range(0, len(each), PER_LINE))
    return "\n".join(f"      {', '.join(row)}," for row in rows)


@cache
def resizes_tall_by_columns() -> bool | None:
    """Whether this machine's Pillow resizes columns first where a picture loses most of its
    height; None where it follows none of `RULES`.

    The order of the two passes shows in the last bit, as the first one's result is rounded.
    """
    return RULES.get(tuple(order(size) for size in PROBES))


def order(size: tuple[int, int]) -> PassOrder | None:
    """The order in which Pillow resizes the probed picture to a width and height; None where it is
    neither.
    """
    (width, height), (new_width, new_height) = PROBED, size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)
    at_once, rows, columns = (
        in_passes(Image.fromarray(pixels), passes)
        for passes in ([size], [(new_width, height), size], [(width, new_height), size])
    )
    if rows == columns:
        return None
    return "rows" if at_once == rows else "columns" if at_once == columns else None


def in_passes(image: Image.Image, sizes: Sequence[tuple[int, int]]) -> bytes:
    """The pixels of an image that is resized to one size after the other."""
    for size in sizes:
        image = image.resize(size, Image.Resampling.BILINEAR)
    return image.tobytes()

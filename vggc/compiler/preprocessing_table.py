"""What is done to a picture before a net sees it, as C reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from vggc_runtime.preprocessing import (
    IMAGE_CHANNELS,
    Fit,
    Interpolation,
    Preprocessing,
    in_grey,
)

LEVELS = 256
"""Values of a channel of 8 bits."""

COLOURS = 3

PER_LINE = 8
"""Numbers in a line of C."""


FITS: dict[Fit, str] = {"crop": "FIT_CROP", "squash": "FIT_SQUASH", "pad": "FIT_PAD"}

FILTERS_IN_C: dict[Interpolation, str] = {
    "nearest": "BY_NEAREST",
    "box": "BY_BOX",
    "bilinear": "BY_BILINEAR",
    "bicubic": "BY_BICUBIC",
}
"""What C calls the filters that it has."""


def preprocessing_initialiser(how: Preprocessing) -> str | None:
    """What fills in the `plan_preprocessing` of `vggc/native/pictures.h`; None where a net takes
    neither one nor three channels, the preprocessing is out of range, or C lacks its filter.

    C repeats what is done to pictures of 8 bits. What is white in deeper greys is left to whoever
    decodes them.
    """
    channels = len(how.mean)
    if channels not in IMAGE_CHANNELS or how.problem((channels, *how.size)):
        return None
    if how.interpolation not in FILTERS_IN_C:
        return None
    levels = np.arange(LEVELS, dtype=np.uint8).reshape(1, 1, LEVELS, 1)
    values = how.normalise(np.repeat(levels, channels, axis=3)).reshape(channels, LEVELS)
    height, width = how.size
    ground = how.background if channels == COLOURS else (in_grey(how.background),)
    sources = [*range(channels)][:: -1 if how.order == "bgr" else 1]
    lines = (
        "{",
        f"  .channels = {channels},",
        f"  .fit = {FITS[how.fit]}, .interpolation = {FILTERS_IN_C[how.interpolation]},",
        f"  .background = {{{', '.join(map(str, ground))}}},",
        f"  .from = {{{', '.join(map(str, sources))}}},",
        f"  .height = {height}, .width = {width},",
        f"  .scale = {how.scale or 0},",
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

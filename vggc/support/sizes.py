"""The sizes of images that a net is compiled for: heights and widths in pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from vggc.support.diagnostics import Diagnostic, UserError

HeightWidth: TypeAlias = tuple[int, int]

MAX_SIZES = 8
"""The most sizes that an artifact is compiled for."""


class TooManySizes(Diagnostic):
    title = "cannot compile for {count} sizes of images"
    label = "an artifact is for {most} at most"
    help = "compile the net twice"
    count: int
    most: int


class SizeTwice(Diagnostic):
    title = "images of {size} pixels are asked for by `--input` and by `--dense`"
    label = "of one size an artifact computes one thing"
    help = "leave the size out of one of them; of a net's own size both give the same scores"
    size: str


def spelt_size(size: HeightWidth) -> str:
    """A size as options take it: `224` of a square, otherwise `256x320`, height first."""
    height, width = size
    return str(height) if height == width else f"{height}x{width}"


def checked_sizes(
    plain: Iterable[HeightWidth], dense: Iterable[HeightWidth]
) -> tuple[tuple[HeightWidth, ...], tuple[HeightWidth, ...]]:
    """Sizes in their order, each once: those that a net is built for, and those of images that it
    is applied densely to.

    Raises:
        UserError: they are too many, or one is among both.
    """
    found, spread = tuple(dict.fromkeys(plain)), tuple(dict.fromkeys(dense))
    both = [size for size in found if size in spread]
    if both:
        raise UserError(SizeTwice(spelt_size(both[0])))
    if (count := len(found) + len(spread)) > MAX_SIZES:
        raise UserError(TooManySizes(count, MAX_SIZES))
    return found, spread


def listed_sizes(sizes: Sequence[HeightWidth]) -> str:
    """Sizes as options take them: `224,256x320`."""
    return ",".join(map(spelt_size, sizes))


def sizes_of(given: HeightWidth | Sequence[HeightWidth] | None) -> tuple[HeightWidth, ...]:
    """Sizes (H, W), of which one may stand for itself."""
    match given:
        case None:
            return ()
        case (int(height), int(width)):
            return ((height, width),)
        case _:
            return tuple(given)

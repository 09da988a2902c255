"""How an image is looked at when a net is tested: a protocol as a list of views."""

from __future__ import annotations

from dataclasses import dataclass

from vggc.recipe.protocol import Protocol
from vggc_runtime.preprocessing import Preprocessing


@dataclass(frozen=True)
class View:
    """A way to look at an image: resized until its shorter side has `scale` pixels, or until it
    just covers the net's input for None; all of it, or a regular grid of `grid` × `grid` crops.

    The net's soft-max output, the mean over the crops, has the weight `share` in that of all views.
    """

    scale: int | None
    grid: int | None
    share: float


@dataclass(frozen=True)
class Views:
    """All views of an image; with `flip` each is of the image and of its mirror image."""

    views: tuple[View, ...]
    flip: bool


def views_of(protocol: Protocol, how: Preprocessing) -> Views:
    """The views of a protocol; at the scale of the preprocessing where it names none. What is not
    cut out of a picture at a scale has none.

    The whole image and its crops count the same, however many scales and crops there are.
    Source: Simonyan & Zisserman (2015), section 3.2.
    """
    scales = protocol.scales if protocol.scales and how.fit == "crop" else (how.scale,)
    ways = [None] if protocol.dense else []
    grids = [*ways, protocol.crops.grid] if protocol.crops else ways
    share = 1 / (len(grids) * len(scales))
    return Views(
        tuple(View(scale, grid, share) for grid in grids for scale in scales), protocol.flip
    )


def places(length: int, window: int, count: int) -> tuple[int, ...]:
    """Where `count` windows begin that lie regularly along a side, from edge to edge.

    One alone, and the middle one of several, lie where `preprocessing.centre` cuts.
    """
    spare = length - window
    if count == 1:
        return (spare // 2,)
    return tuple(index * spare // (count - 1) for index in range(count))

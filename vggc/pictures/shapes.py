"""What a picture is made of. Lengths are pixels; y grows downwards."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal, TypeAlias

Point: TypeAlias = tuple[float, float]
Anchor: TypeAlias = Literal["start", "middle", "end"]


@dataclass(frozen=True)
class Polygon:
    """A filled shape with an outline. `tip` is what a reader who points at it is told."""

    points: tuple[Point, ...]
    fill: str
    stroke: str
    tip: str = ""


@dataclass(frozen=True)
class Rectangle:
    """With round corners; `dashed` for frames."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    stroke: str
    radius: float = 0.0
    dashed: bool = False


@dataclass(frozen=True)
class Circle:
    """A circle about a point, in pixels, and the colours of its inside and its line."""

    x: float
    y: float
    radius: float
    fill: str
    stroke: str


@dataclass(frozen=True)
class Line:
    """Straight lines from point to point, in one colour."""

    points: tuple[Point, ...]
    stroke: str


@dataclass(frozen=True)
class Text:
    """A line of text on its base line."""

    x: float
    y: float
    text: str
    size: float
    colour: str
    anchor: Anchor = "start"
    bold: bool = False


Mark: TypeAlias = Polygon | Rectangle | Circle | Line | Text


@dataclass(frozen=True)
class Picture:
    """Marks from the lowest to the topmost, on white."""

    title: str
    width: float
    height: float
    marks: tuple[Mark, ...]


# ---------------------------------------------------------------- the width of text

NARROW = {
    **dict.fromkeys("ijl'|", 0.32),
    **dict.fromkeys(" ,.:;!", 0.35),
    **dict.fromkeys("frtI()[]-/", 0.42),
}
WIDE = {**dict.fromkeys("mwMW@%", 1.0), **dict.fromkeys("×+=~<>…→√", 0.9)}
USUAL = 0.64
BOLD = 1.12


def text_width(text: str, size: float, bold: bool = False) -> float:
    """How wide a text is at most in the usual sans-serif fonts, of which DejaVu is widest."""
    em = sum(map(_advance, text))
    return em * size * (BOLD if bold else 1.0)


def _advance(char: str) -> float:
    if (known := NARROW.get(char) or WIDE.get(char)) is not None:
        return known
    if unicodedata.combining(char):
        return 0.0
    if char.isupper():
        return 0.75
    return 1.05 if unicodedata.east_asian_width(char) in "WF" else USUAL


def shortened(text: str, size: float, room: float, bold: bool = False) -> str:
    """The text, its middle left out where it is wider than `room`."""
    if text_width(text, size, bold) <= room:
        return text

    def cut(keep: int) -> str:
        return text[: (keep + 1) // 2] + "…" + text[len(text) - keep // 2 :]

    kept = range(2, len(text))
    fitting = bisect_right(kept, room, key=lambda keep: text_width(cut(keep), size, bold))
    return cut(max(2, fitting + 1))

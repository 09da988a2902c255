"""A picture as SVG: plain text, no script, no font of its own."""

from __future__ import annotations

from typing import assert_never
from xml.sax.saxutils import escape, quoteattr

from vggc.pictures.shapes import Circle, Line, Mark, Picture, Point, Polygon, Rectangle, Text

FONTS = "Helvetica, Arial, 'DejaVu Sans', sans-serif"


def as_svg(picture: Picture) -> str:
    """An SVG document. Every text is escaped; what XML cannot hold is left out."""
    width, height = _number(picture.width), _number(picture.height)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        f' viewBox="0 0 {width} {height}" role="img" font-family="{FONTS}"'
        ' stroke-linejoin="round">',
        f"<title>{_text(picture.title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *map(_element, picture.marks),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _element(mark: Mark) -> str:
    match mark:
        case Polygon(points, fill, stroke, tip):
            look = f'points="{_points(points)}" fill="{fill}" stroke="{stroke}"'
            if not tip:
                return f"<polygon {look}/>"
            return f"<polygon {look}><title>{_text(tip)}</title></polygon>"
        case Rectangle(x, y, width, height, fill, stroke, radius, dashed):
            place = f'x="{_number(x)}" y="{_number(y)}"'
            size = f'width="{_number(width)}" height="{_number(height)}" rx="{_number(radius)}"'
            dashes = ' stroke-dasharray="5 3"' if dashed else ""
            return f'<rect {place} {size} fill="{fill}" stroke="{stroke}"{dashes}/>'
        case Circle(x, y, radius, fill, stroke):
            place = f'cx="{_number(x)}" cy="{_number(y)}" r="{_number(radius)}"'
            return f'<circle {place} fill="{fill}" stroke="{stroke}"/>'
        case Line(points, stroke):
            return f'<polyline points="{_points(points)}" fill="none" stroke="{stroke}"/>'
        case Text(x, y, text, size, colour, anchor, bold):
            place = f'x="{_number(x)}" y="{_number(y)}"'
            weight = ' font-weight="bold"' if bold else ""
            look = f'font-size="{_number(size)}" fill={quoteattr(colour)} text-anchor="{anchor}"'
            return f"<text {place} {look}{weight}>{_text(text)}</text>"
        case _:
            assert_never(mark)


def _points(points: tuple[Point, ...]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points)


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _text(text: str) -> str:
    return escape("".join(char for char in text if char.isprintable() or char == "\n"))

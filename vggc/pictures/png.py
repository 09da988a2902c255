"""A picture as PNG."""

from __future__ import annotations

import io
import warnings
from typing import assert_never

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle as RoundPatch
from matplotlib.patches import FancyBboxPatch, Patch
from matplotlib.patches import Polygon as PolygonPatch

from vggc.pictures.shapes import Circle, Line, Picture, Polygon, Rectangle, Text

DENSITY = 2
"""Dots a pixel of the layout, for screens of today."""
MAX_SIDE = 60_000
"""Dots along one side; the rasteriser ends at 2¹⁶."""
MAX_DOTS = 40_000_000
"""In all: 160 MB while it is drawn."""
POINTS_PER_INCH = 72
ALIGNED = {"start": "left", "middle": "center", "end": "right"}


def as_png(picture: Picture) -> bytes:
    """The bytes of a PNG file."""
    width, height = picture.width, picture.height
    density = min(DENSITY, MAX_SIDE / max(width, height), (MAX_DOTS / (width * height)) ** 0.5)
    # A figure of one inch a hundred pixels, so that widths of lines are pixels over 100 inches.
    inch = 100
    figure = Figure(figsize=(width / inch, height / inch), dpi=inch * density)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    point = POINTS_PER_INCH / inch
    for order, mark in enumerate(picture.marks):
        match mark:
            case Text(x, y, text, size, colour, anchor, bold):
                axes.text(
                    x,
                    y,
                    text,
                    size=size * point,
                    color=colour,
                    ha=ALIGNED[anchor],
                    va="baseline",
                    weight="bold" if bold else "normal",
                    family="DejaVu Sans",
                    parse_math=False,
                    zorder=order,
                )
            case Line(points, stroke):
                x_values, y_values = zip(*points, strict=True)
                line = Line2D(x_values, y_values, color=stroke, linewidth=point, zorder=order)
                axes.add_line(line)
            case Polygon() | Rectangle() | Circle():
                axes.add_patch(_patch(mark, point, order))
            case _:
                assert_never(mark)
    data = io.BytesIO()
    with warnings.catch_warnings(), matplotlib.rc_context({"text.usetex": False}):
        # A name in a script that the font lacks is shown as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(data, format="png", metadata={"Title": picture.title, "Software": None})
    return data.getvalue()


def _patch(mark: Polygon | Rectangle | Circle, point: float, order: int) -> Patch:
    patch: Patch
    match mark:
        case Polygon(points):
            patch = PolygonPatch(points, closed=True, joinstyle="round")
        case Circle(x, y, radius):
            patch = RoundPatch((x, y), radius)
        case Rectangle(x, y, width, height, radius=radius, dashed=dashed):
            style = f"round,pad=0,rounding_size={radius}" if radius else "square,pad=0"
            patch = FancyBboxPatch((x, y), width, height, boxstyle=style)
            patch.set_linestyle((0, (5, 3)) if dashed else "solid")
        case _:
            assert_never(mark)
    patch.set(facecolor=mark.fill, edgecolor=mark.stroke, linewidth=point, zorder=order)
    return patch

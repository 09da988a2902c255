"""Boxes drawn into pictures."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vggc.pictures.marked import COLOURS, MarkedBox, marked

EDGES = st.floats(-3, 9, allow_nan=False)


@given(st.tuples(EDGES, EDGES, EDGES, EDGES), st.integers(1, 6), st.integers(1, 6))
def test_a_box_of_any_size_and_place_is_drawn_into_a_picture_of_any(
    edges: tuple[float, float, float, float], width: int, height: int
) -> None:
    (left, right), (top, bottom) = sorted(edges[:2]), sorted(edges[2:])
    box = MarkedBox((left, top, right, bottom), "given", "cat")
    assert marked(Image.new("L", (width, height)), [box]).size == (width, height)


def test_a_box_is_drawn_along_its_edges_into_a_copy() -> None:
    picture = Image.new("RGB", (40, 30), "white")
    drawn = np.asarray(marked(picture, [MarkedBox((5, 4, 20, 15), "true")]))
    assert np.asarray(picture).min() == 255
    colour = [int(COLOURS["true"][place : place + 2], 16) for place in (1, 3, 5)]
    rows, columns = np.nonzero((drawn == colour).all(2))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (6, 5, 19, 14)

"""Pictures are resized to the same numbers by every version of Pillow."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from vggc_runtime.preprocessing import Pixels, resize, target_size

SIZES = ((40, 39), (40, 80), (40, 81), (200, 40), (20, 100), (24, 700))
"""Widths and heights; from 13 on Pillow begins with the columns of those that lose most height."""

BY_ROWS_FIRST = "4e022ea2c49f7007"


def noise(width: int, height: int) -> Pixels:
    """Pixels that look like noise, by Knuth's multiplicative hashing, in any version of numpy."""
    numbers = np.arange(height * width * 3, dtype=np.uint64) * np.uint64(2654435761)
    return (numbers >> np.uint64(13)).astype(np.uint8).reshape(height, width, 3)


def narrowed(pixels: Pixels, width: int) -> Pixels:
    """Each row by itself at another width, which no order of passes can change."""
    rows = [Image.fromarray(row[None]) for row in pixels]
    size = (width, 1)
    return np.concatenate([row.resize(size, Image.Resampling.BILINEAR) for row in rows])


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_rows_are_resized_before_columns(width: int, height: int) -> None:
    pixels = noise(width, height)
    new_width, new_height = target_size((width, height), 32, (28, 28))
    rows = narrowed(pixels, new_width)
    both = narrowed(rows.swapaxes(0, 1), new_height).swapaxes(0, 1)
    assert np.array_equal(resize(Image.fromarray(pixels), 32, (28, 28)), both)


def test_the_order_shows_in_a_tall_picture() -> None:
    pixels = noise(40, 200)
    turned = Image.fromarray(pixels.swapaxes(0, 1))
    upright = resize(Image.fromarray(pixels), 32, (28, 28))
    assert not np.array_equal(resize(turned, 32, (28, 28)).swapaxes(0, 1), upright)


def test_the_numbers_are_those_that_they_have_always_been() -> None:
    """Of Pillow 12 and 13."""
    whole = hashlib.sha256()
    for width, height in SIZES:
        whole.update(resize(Image.fromarray(noise(width, height)), 32, (28, 28)).tobytes())
    assert whole.hexdigest().startswith(BY_ROWS_FIRST)

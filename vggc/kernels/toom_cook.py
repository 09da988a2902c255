"""The matrices of minimal filtering F(m, r): m outputs of an r-tap filter from m + r - 1 products.

`y = Aᵀ[(G·g) ⊙ (Bᵀ·d)]` for `m + r - 1` inputs d and r taps g; nested for two dimensions,
`Y = Aᵀ[(G·g·Gᵀ) ⊙ (Bᵀ·d·B)]A`. Source: Winograd 1980; Lavin & Gray 2016, sections 3 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import prod, sqrt

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

TAPS = 3
"""The taps of a filter in each direction, unless told."""

POINTS = {
    2: (0.0, 1.0, -1.0),
    4: (0.0, sqrt(0.5), -sqrt(0.5), sqrt(2.0), -sqrt(2.0)),
    6: (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5),
}
"""The finite points of interpolation, by the m that three taps have of them; the last is infinity.

They decide the rounding error (`tests/kernels/test_winograd.py`): a pair of ±√½ and ±√2 halves
that of the usual ±1 and ±2. Points ±p share their even and odd parts.
"""


@dataclass(frozen=True)
class Transforms:
    """The matrices of F(m, r): Aᵀ `(m, n)`, G `(n, r)` and Bᵀ `(n, n)`, n = m + r - 1."""

    output: Matrix
    filter: Matrix
    input: Matrix


def filtering(m: int, taps: int = TAPS) -> Transforms:
    """The matrices of F(m, taps) by our points of interpolation."""
    return transforms(POINTS[m + taps - TAPS], taps)


@cache
def transforms(points: tuple[float, ...], taps: int = TAPS) -> Transforms:
    """The matrices of F(m, taps) by m + taps - 2 finite points of interpolation."""
    n = len(points) + 1
    m = n - taps + 1
    output, filter_, input_ = np.zeros((m, n)), np.zeros((n, taps)), np.zeros((n, n))
    for j, point in enumerate(points):
        others = [other for other in points if other != point]
        output[:, j] = [point**i for i in range(m)]
        filter_[j] = [point**i / prod(point - other for other in others) for i in range(taps)]
        input_[j, : n - 1] = np.poly(others)[::-1]
    output[m - 1, n - 1] = filter_[n - 1, taps - 1] = 1.0
    input_[n - 1] = np.poly(points)[::-1]
    # What vanishes does so exactly only where the points are rational.
    return Transforms(*(_cleaned(matrix) for matrix in (output, filter_, input_)))


def _cleaned(matrix: Matrix) -> Matrix:
    rounded = np.round(matrix * 64) / 64
    return np.where(np.abs(matrix - rounded) < 1e-12, rounded, matrix)

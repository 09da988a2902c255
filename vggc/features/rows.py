"""From what layers give of pictures to rows of features. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vggc.data.parts import Skipped
from vggc.features.file import Combine, LayerColumns
from vggc.features.layers import FeatureNet
from vggc.support.diagnostics import CheckFailed

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RowBlock:
    """The features (n, D) of the pictures of a part from one place up to `stop`, but for those that
    are `lost`, by their places.
    """

    stop: int
    rows: Rows
    lost: dict[int, Skipped]


def features_of(values: Rows, widths: Sequence[int], combine: Combine) -> Rows:
    """The features (n, D) of pictures by what layers of some `widths` give of them at each scale,
    (n, scales, W), the mean over positions and views.

    The values of a layer at a scale are brought to an L2 norm of 1; then the scales are averaged,
    or those of each layer stand behind one another.
    Source: Simonyan & Zisserman (2015), appendix B.

    Raises:
        CheckFailed: some are not finite.
    """
    if not np.isfinite(values).all():
        raise CheckFailed("the net gives features that are not finite")
    layers = [normalised(layer) for layer in np.split(values, np.cumsum(widths)[:-1], axis=2)]
    if combine == "average":
        return np.concatenate([layer.mean(1) for layer in layers], 1)
    return np.concatenate([layer.reshape(len(layer), -1) for layer in layers], 1)


def normalised(values: Rows) -> Rows:
    """Vectors (…, W) brought to an L2 norm of 1; those of zeros stay so."""
    # By the largest first, whose square neither overflows nor vanishes.
    scaled = over(values, np.abs(values).max(-1, keepdims=True))
    return over(scaled, np.sqrt(np.square(scaled).sum(-1, keepdims=True)))


def over(values: Rows, divisors: Rows) -> Rows:
    """The values over what is not zero of their divisors."""
    result = values / np.where(divisors > 0, divisors, np.float32(1))
    return result.astype(np.float32, copy=False)


def columns_of(
    net: FeatureNet, scales: Sequence[int | None], combine: Combine
) -> tuple[LayerColumns, ...]:
    """The columns of features: layer by layer, and within a layer scale by scale where those are
    stacked.
    """
    groups = [(scale,) for scale in scales] if combine == "stack" else [tuple(scales)]
    found, start = [], 0
    for layer, width in zip(net.layers, net.widths, strict=True):
        for group in groups:
            found.append(LayerColumns(layer, group, start, start + width))
            start += width
    return tuple(found)

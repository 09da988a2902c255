"""Average precision, as Pascal VOC measures it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

STEPS = 10


@dataclass(frozen=True)
class AveragePrecision:
    """The two average precisions of VOC, from 0 to 1: the mean precision at eleven recalls, as in
    2007, and the `area` below the curve, as from 2010 on.
    """

    eleven: float
    area: float


def average_precision(
    scores: npt.NDArray[np.floating], positive: npt.NDArray[np.bool_]
) -> AveragePrecision | None:
    """The average precision of pictures' scores (N,) for a class that some show; None where none
    does.

    The precision at a recall is the greatest at that recall or beyond. Pictures of one score are
    taken together, so that their order decides nothing.
    Source: Everingham et al. (2010), section 4.2, formulas 1 and 2, for eleven recalls; the VOC
    2012 development kit, section 3.4.1, for the area.
    """
    count = int(positive.sum())
    if count == 0:
        return None
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.diff(scores[order], append=np.nan) != 0)
    found = positive[order].cumsum()[ends]
    precision = found / (ends + 1)
    beyond = np.maximum.accumulate(precision[::-1])[::-1]
    gained = np.diff(found, prepend=0) / count
    # In whole numbers: at a recall of 0.3, 3 of 10 are enough.
    reached = [np.searchsorted(STEPS * found, step * count) for step in range(STEPS + 1)]
    return AveragePrecision(float(beyond[reached].mean()), float((gained * beyond).sum()))

"""What pictures show where one picture may show several classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vggc.data.parts import Part

SHOWN, NOT_SHOWN, DIFFICULT = 1, 0, -1


def multilabels_of(parts: Sequence[Part], num_classes: int) -> npt.NDArray[np.int8] | None:
    """The classes that each picture of some parts shows, (N, classes), by its objects: 1 for those
    that it shows, 0 for others, -1 for those that it shows only in objects which are hard to make
    out. None where no picture has objects.

    Of a part without objects, pictures show their class alone.
    Source: Everingham et al. (2010), section 3.3: difficult objects count neither way.
    """
    if not any(part.objects is not None for part in parts):
        return None
    return np.concatenate([shown_in(part, num_classes) for part in parts])


def shown_in(part: Part, num_classes: int) -> npt.NDArray[np.int8]:
    """The classes that each picture of a part shows, as `multilabels_of` tells them."""
    found = np.full((len(part), num_classes), NOT_SHOWN, np.int8)
    objects = part.objects
    if objects is None:
        found[np.arange(len(part)), part.labels] = SHOWN
        return found
    rows = np.repeat(np.arange(len(part)), np.diff(objects.starts))
    hard = objects.difficult
    found[rows[hard], objects.classes[hard]] = DIFFICULT
    found[rows[~hard], objects.classes[~hard]] = SHOWN
    return found

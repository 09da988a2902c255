"""Which values of pictures a foreign net takes, told by what it does to them first."""

from __future__ import annotations

import numpy as np

from vggc.importing.items import ForeignItems

PIXELS, SHARES = 255, 1
"""What white is: pixels run to 255, shares of them to 1."""
MOST_OF_SHARES = 2.0
"""What is subtracted from shares, and what they are divided by, is less than this."""


def white_of(net: ForeignItems) -> int | None:
    """The value of white at the input of a net: 255 where that takes whole numbers. A net that
    begins with a `scale` normalises its pictures by itself: by the mean that this subtracts and
    the deviation that it divides by, they run to 255 or to 1. None where nothing tells.
    """
    if net.input_type.kind in "iu":
        return PIXELS
    readers = [item for item in net.items if 0 in item.reads]
    if len(readers) != 1 or readers[0].word != "scale":
        return None
    tensors = {role: tensor.read() for role, tensor in readers[0].tensors.items()}
    with np.errstate(all="ignore"):
        deviation = 1 / np.abs(tensors["weight"].astype(np.float64))
        mean = np.abs(tensors.get("bias", np.zeros(1))) * deviation
    largest = max(float(deviation.max()), float(mean.max()))
    if not np.isfinite(largest):
        return None
    return PIXELS if largest > MOST_OF_SHARES else SHARES

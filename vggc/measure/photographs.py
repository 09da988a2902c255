"""Photographs that every installation has, for comparing nets on what they are made for."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggc_runtime.preprocessing import Preprocessing

NAMES = ("china.jpg", "flower.jpg")
"""Two that come with scikit-learn."""


def photographs(preprocessing: Preprocessing) -> dict[str, NDArray[np.float32]]:
    """Two photographs as a net's input, `(1, C, H, W)`. The library that they come with is not
    imported, which takes seconds.
    """
    found = find_spec("sklearn")
    assert found is not None
    assert found.origin is not None
    folder = Path(found.origin).parent / "datasets" / "images"
    return {name: preprocessing.read(folder / name) for name in NAMES}

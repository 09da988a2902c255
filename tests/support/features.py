"""Features of pictures that nobody has taken."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from vggc.features.file import (
    NORMALISED,
    DescribedPictures,
    FeatureTable,
    LayerColumns,
    Provenance,
    TextColumn,
)
from vggc.support.tensors import Pieces
from vggc_runtime.preprocessing import Preprocessing

PROVENANCE = Provenance(
    format=1,
    vggc="0",
    net="tiny",
    source="runs/tiny",
    weights_from="runs/tiny/weights.safetensors",
    weights_sha256="ab",
    pictures=DescribedPictures("/images", ("train", "test"), "cd"),
    columns=(LayerColumns("fc7", (256,), 0, 3),),
    combine="average",
    dense=True,
    grid=None,
    flip=True,
    normalised=NORMALISED,
    input=(3, 8, 8),
    preprocessing=Preprocessing((8, 8), 10, (0.5,) * 3, (0.25,) * 3),
    device="cpu",
    precision="float32",
    batch=32,
    block=8,
)


def table(names: Sequence[str], multilabels: np.ndarray | None = None) -> FeatureTable:
    """Three features of each picture: those of class `a` and `größer` by turns, the last one to
    test on.
    """
    count = len(names)
    parts = [*["train"] * (count - 1), "test"]
    return FeatureTable(
        features=Pieces.of(np.arange(3 * count, dtype=np.float32).reshape(count, 3)),
        labels=np.arange(count) % 2,
        multilabels=multilabels,
        names=TextColumn(partial(iter, names)),
        parts=TextColumn(partial(iter, parts)),
        classes=TextColumn(partial(iter, ("a", "größer"))),
        provenance=PROVENANCE,
    )

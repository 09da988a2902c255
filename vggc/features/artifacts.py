"""The features that an artifact gives: those of its heads of features, of the centre crop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from vggc.data.parts import Part, Skipped
from vggc.data.stores import PictureSource
from vggc.features.file import Combine
from vggc.features.rows import RowBlock, Rows, features_of
from vggc.runtime.session import Session
from vggc_runtime.preprocessing import BrokenImageError, Preprocessing

SAVED_AFTER = 256
"""About so many pictures lie between two savings."""


def block_of(session: Session) -> int:
    """How many pictures lie between two savings: a whole number of batches."""
    batch = session.manifest.largest.batch
    return -(-SAVED_AFTER // batch) * batch


def describe(
    session: Session, heads: Sequence[str], part: Part, start: int, combine: Combine
) -> Iterator[RowBlock]:
    """The features of the pictures of a part from the place `start` on, a block at a time.

    Raises:
        CheckFailed: the artifact gives what is no number.
    """
    block, batch = block_of(session), session.manifest.largest.batch
    for first in range(start, len(part), block):
        places = range(first, min(first + block, len(part)))
        values, widths, lost = [], [0], dict[int, Skipped]()
        for begin in range(first, places.stop, batch):
            indices = np.arange(begin, min(begin + batch, places.stop))
            images = {}
            for index, picture in zip(indices.tolist(), part.fetch(indices), strict=True):
                try:
                    images[index] = prepared(session.manifest.preprocessing, picture)
                except BrokenImageError as fault:
                    lost[index] = Skipped(part.name(index), str(fault))
            vectors = vectors_of(session, heads, [*images.values()])
            widths = [vector.shape[1] for vector in vectors]
            values.append(np.concatenate(vectors, 1))
        yield RowBlock(
            places.stop, features_of(np.concatenate(values)[:, None], widths, combine), lost
        )


def prepared(how: Preprocessing, picture: PictureSource | BrokenImageError) -> Rows:
    """A picture as a net's input (1, C, H, W).

    Raises:
        BrokenImageError: it is no usable picture.
    """
    match picture:
        case BrokenImageError():
            raise picture
        case Path():
            return how.read(picture)
        case bytes():
            return how.of(how.open(BytesIO(picture)))
        case pixels:
            return how.of_picture(Image.fromarray(pixels))


def vectors_of(session: Session, heads: Sequence[str], images: Sequence[Rows]) -> list[Rows]:
    """What heads give of images (1, C, H, W): (n, W) each, the mean of each channel of a map."""
    none = np.zeros((0, *session.manifest.input), np.float32)
    found = session.run_all(np.concatenate([none, *images]))
    kept = [found[head] for head in heads]
    return [value.reshape(*value.shape[:2], -1).mean(2) for value in kept]

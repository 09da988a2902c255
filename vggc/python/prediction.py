"""What a net takes an image for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from PIL.Image import Image

from vggc.api.evaluate import Seen
from vggc.api.predict import Predictor
from vggc.evaluation.diagnostics import UnreadableImage
from vggc.evaluation.named import OpenImage
from vggc.support.diagnostics import UserError
from vggc.support.sheet import Sheet, as_html
from vggc_runtime.outputs import best_classes
from vggc_runtime.text import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ImageLike: TypeAlias = str | os.PathLike[str] | Image
"""The path of an image's file, or an image of Pillow."""


@dataclass(frozen=True, repr=False)
class Prediction:
    """The most probable classes of an image, the best first, with their probabilities. A notebook
    shows them as a table.
    """

    image: str
    """The path of its file, or what kind of image it was."""
    best: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.best[0][0]

    @property
    def probability(self) -> float:
        """The probability of the most probable class, from 0 to 1."""
        return self.best[0][1]

    @property
    def table(self) -> Sheet:
        """The classes and their probabilities as a table."""
        rows = tuple((name, f"{value:.4f}") for name, value in self.best)
        return Sheet(
            title=self.image, header=("class", "probability"), rows=rows, numbers=(False, True)
        )

    def _repr_html_(self) -> str:
        return as_html(self.table)

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {value:.1%}" for name, value in self.best)
        return printable(f"<Prediction {self.image}: {told}>")


def predicted(
    image: str, probabilities: NDArray[np.float32], classes: Sequence[str], top: int
) -> Prediction:
    """The `top` classes of an image by their probabilities (classes,)."""
    return Prediction(image, tuple(best_classes(probabilities, classes.__getitem__, top)))


def predictions(
    predictor: Predictor, images: ImageLike | Iterable[ImageLike], top: int
) -> Prediction | list[Prediction]:
    """What a net takes an image for, or each of several.

    Raises:
        UserError: with every image that cannot be read.
        CheckFailed: the net gives values that are not finite.
    """
    if isinstance(images, str | os.PathLike | Image):
        return for_each(predictor, [images], top)[0]
    return for_each(predictor, images, top)


def for_each(predictor: Predictor, images: Iterable[ImageLike], top: int) -> list[Prediction]:
    """What a net takes each of several images for, as `predictions` tells it."""
    found = [*predictor.tell(given(image) for image in images)]
    lost = [each for each in found if not isinstance(each, Seen)]
    if lost:
        raise UserError(*(UnreadableImage(each.name, each.reason) for each in lost))
    seen = [each for each in found if isinstance(each, Seen)]
    return [predicted(each.path, each.probabilities, predictor.classes, top) for each in seen]


def given(image: ImageLike) -> str | OpenImage:
    """An image as functions of `api/` take it."""
    if not isinstance(image, Image):
        return os.fspath(image)
    name = getattr(image, "filename", "")
    return OpenImage(
        os.fspath(name) or f"{image.mode} image of {image.width}×{image.height}", image
    )

"""Where objects are in images, in Python."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from PIL.Image import Image

from vggc.api import localise as localisations
from vggc.api.localise import Localised, LocalisedObject, LocaliseOptions
from vggc.evaluation.diagnostics import UnreadableImage
from vggc.pictures.marked import MarkedBox, marked
from vggc.python.run import TrainingRun
from vggc.support.diagnostics import UserError
from vggc_runtime.processors import limit_threads
from vggc_runtime.text import printable

RunLike: TypeAlias = TrainingRun | str | os.PathLike[str]
"""A run, or the folder of one."""
ImagePath: TypeAlias = str | os.PathLike[str]


@dataclass(frozen=True, repr=False)
class Localisation:
    """The objects that nets see in an image, the most probable first. A notebook shows the image
    with their boxes.
    """

    image: str
    """The path of its file."""
    objects: tuple[LocalisedObject, ...]
    """Each with a `name`, a `probability`, a `box` in pixels (left, top, right and bottom) and a
    `score`.
    """
    picture: Image
    """The image, set upright."""

    def drawn(self) -> Image:
        """The image with the boxes drawn into it."""
        told = reversed(self.objects)  # the best on top
        return marked(
            self.picture,
            [MarkedBox(each.box, "given", f"{each.name} {each.probability:.0%}") for each in told],
        )

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.drawn().save(file, "PNG")
        return file.getvalue()

    def __repr__(self) -> str:
        told = ", ".join(
            f"{each.name} {each.probability:.1%} at {' '.join(f'{edge:.0f}' for edge in each.box)}"
            for each in self.objects
        )
        return printable(f"<Localisation {self.image}: {told}>")


def localise(
    runs: RunLike | Sequence[RunLike],
    images: ImagePath | Iterable[ImagePath],
    top: int = 1,
    *,
    classifier: RunLike | Sequence[RunLike] = (),
    protocol: Literal["dense", "centre"] = "dense",
    scales: str | None = None,
    flip: bool | None = None,
    offsets: bool = False,
    weights: ImagePath | None = None,
) -> list[Localisation]:
    """The `top` objects that nets which give boxes see in each image, in order: see `vggc
    localise`, whose options these are.

    Raises:
        UserError: with every image that cannot be read; a run gives no boxes, or they do not go
            together.
        CheckFailed: a net gives values that are not finite.
    """
    limit_threads()
    paths = [images] if isinstance(images, str | os.PathLike) else [*images]
    options = LocaliseOptions(
        weights=None if weights is None else Path(weights),
        scales=scales,
        flip=flip,
        offsets=offsets,
    )
    planned = localisations.plan(
        folders(runs), folders(classifier), options, [protocol], alone=True, needs_class=True
    )
    named = (os.fspath(path) for path in paths)
    found = [*localisations.localise(planned, named, top)]
    if lost := [each for each in found if not isinstance(each, Localised)]:
        raise UserError(*(UnreadableImage(each.name, each.reason) for each in lost))
    seen = [each for each in found if isinstance(each, Localised)]
    return [Localisation(each.path, each.objects, each.picture) for each in seen]


def folders(runs: RunLike | Sequence[RunLike]) -> list[Path]:
    """The folders of runs."""
    if isinstance(runs, TrainingRun | str | os.PathLike):
        runs = [runs]
    return [each.path if isinstance(each, TrainingRun) else Path(each) for each in runs]

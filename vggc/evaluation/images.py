"""Which images are tested on. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vggc.data.cifar import read_cifar
from vggc.data.find import (
    HELD_OUT_NAMES,
    class_folders,
    digits,
    find_images,
    parts_in,
    pictures_in,
    pictures_of,
)
from vggc.data.mistakes import UnreadableFolder
from vggc.data.parts import Images, Part, Pictures, Skipped, fingerprint
from vggc.data.shards import is_pattern
from vggc.data.stores import Files
from vggc.data.strings import Strings
from vggc.diagnostics import UserError
from vggc.evaluation import mistakes
from vggc.training.run import Run, refuse_moved

SHOWN = 5
"""Classes that are named one by one."""


@dataclass(frozen=True)
class Labelled:
    """Labelled images. `path` says where they are from; None stands for the embedded digits. Some
    were `skipped` before anybody looked into them.
    """

    path: str | None
    part: Part
    skipped: tuple[Skipped, ...] = ()

    @property
    def shown(self) -> str:
        return self.path or "scikit-learn's scanned digits"


def held_out(runs: Sequence[Run]) -> Labelled:
    """The images that all these runs held out.

    Raises:
        UserError: they held out different ones, or the images are gone or others now.
    """
    first, origin = runs[0], runs[0].record.data
    for run in runs[1:]:
        other = run.record.data
        if other.fingerprint != origin.fingerprint:
            raise UserError(mistakes.OtherImages(None, str(first.folder), str(run.folder)))
    images = found_again(first)
    return Labelled(images.path, known(first, images.path, images.classes, images.val))


def found_again(run: Run) -> Images:
    """The images of a run, split as they were.

    Raises:
        UserError: they are gone, or no longer those that the run was trained with.
    """
    origin = run.record.data
    seed = run.record.seed
    for place in (origin.path, origin.val_path):
        refuse_moved(run, place)
    images = find_images(origin.path, seed, origin.val_path) if origin.path else digits()
    if not are_those_of(run, images):
        where = origin.path or "scikit-learn"
        raise UserError(mistakes.HeldOutLost(None, str(run.folder), where))
    return images


def are_those_of(run: Run, images: Images) -> bool:
    """Whether a run was trained with these images, those aside that it skipped. Where only a look
    into them tells which those were, it is taken.
    """
    origin = run.record.data
    if fingerprint(images.classes, images.train, images.val) == origin.fingerprint:
        return True
    found = len(images.train) + len(images.val) + len(images.skipped)
    same = found == origin.train + origin.val + origin.skipped
    if not same or origin.skipped == len(images.skipped):
        return False

    from vggc.data.prepare import readable
    from vggc.training.augment import window_of

    parts = readable(images, run.record.input, run.recipe.scale, window_of(run.recipe))
    return fingerprint(images.classes, *parts) == origin.fingerprint


def images_in(place: str, run: Run) -> Labelled:
    """All images in a place: of a folder those in `val/` or `test/`, if it has such; of CIFAR and
    of shards the held-out part, if they bring one.

    Raises:
        UserError: there are none, or some are of classes that the run does not know.
    """
    try:
        found = pictures(place, run.record.classes)
    except OSError as fault:
        path, reason = str(fault.filename or place), fault.strerror or str(fault)
        raise UserError(UnreadableFolder(None, path, reason)) from None
    return Labelled(place, known(run, place, found.classes, found.part), found.skipped)


def pictures(place: str, classes: Sequence[str]) -> Pictures:
    """All pictures in a place. Shards that only number their classes mean these."""
    folder = Path(place)
    if is_pattern(place):
        return pictures_in(place, classes)
    if (cifar := read_cifar(folder)) is not None:
        return Pictures(cifar.classes, cifar.val)
    inside = next((folder / name for name in HELD_OUT_NAMES if (folder / name).is_dir()), folder)
    if has_folders(inside):
        return class_folders(inside)
    parts = parts_in(place) if inside == folder else None
    return pictures_of(place, parts[1], classes) if parts else pictures_in(str(inside), classes)


def has_folders(folder: Path) -> bool:
    return folder.is_dir() and any(
        child.is_dir() and not child.name.startswith(".") for child in folder.iterdir()
    )


def known(run: Run, path: str | None, classes: Sequence[str], part: Part) -> Part:
    """The part with the labels that a run gives its classes.

    Raises:
        UserError: some classes are none of the run's.
    """
    numbers = {name: number for number, name in enumerate(run.record.classes)}
    unknown = [name for name in classes if name not in numbers]
    if unknown:
        shown = listed(unknown), listed(run.record.classes)
        raise UserError(mistakes.UnknownClasses(None, path or "", str(run.folder), *shown))
    labels = np.asarray([numbers[name] for name in classes], np.int64)
    return Part(part.store, part.numbers, labels[part.labels])


def check_classes(runs: Sequence[Run]) -> None:
    """Raises: UserError when runs that are to be fused do not know the same classes, in order."""
    first = runs[0]
    for run in runs[1:]:
        mine, other = first.record.classes, run.record.classes
        if mine != other:
            names = str(first.folder), str(run.folder)
            raise UserError(mistakes.OtherClasses(None, *names, differing(mine, other)))


def differing(first: Sequence[str], second: Sequence[str]) -> str:
    """How the classes of two runs differ, in words."""
    only = {
        "the first": sorted({*first} - {*second}),
        "the second": sorted({*second} - {*first}),
    }
    told = [f"only {who} knows {listed(names)}" for who, names in only.items() if names]
    return "; ".join(told) or "they come in another order"


def listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def single(paths: Sequence[Path]) -> Part:
    """Images that somebody named, without labels."""
    names = Strings.of(map(str, paths))
    return Part.all(Files(Path(), names), np.zeros(len(paths), np.int64))

"""Which images are tested on. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from vggc.data.aims import of_its_class
from vggc.data.annotations.read import read_annotated
from vggc.data.cifar import read_cifar
from vggc.data.diagnostics import UnreadableFolder
from vggc.data.find import digits, find_images, pictures_in, pictures_of, whole
from vggc.data.parts import Part, Pictures, Skipped, content_of, names_of, objects_of, of_part
from vggc.data.place import (
    AnnotatedFolder,
    CifarPlace,
    PartedFolder,
    PlainFolder,
    ShardPattern,
    parse_place,
)
from vggc.data.split import for_testing
from vggc.data.stores import Files, Given
from vggc.data.strings import Strings
from vggc.evaluation import diagnostics
from vggc.evaluation.class_match import ClassMatch, match_classes
from vggc.pretrained.facts import class_names
from vggc.support.diagnostics import UserError, nearest
from vggc.training.run import Run, refuse_moved
from vggc_runtime.preprocessing import BrokenImageError, Pixels

SHOWN = 5
"""Classes that are named one by one."""


@dataclass(frozen=True)
class Labelled:
    """Labelled images to test on; `path` says where they are from, and is None for the embedded
    digits.

    Some were `skipped` before anybody looked into them. `notes` say what is used and what is not.
    """

    path: str | None
    part: Part
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """Where the images are from, in words."""
        return self.path or "scikit-learn's scanned digits"


@dataclass(frozen=True)
class KnownClasses:
    """The classes that a net tells apart, in the order of its scores, and what commands call it;
    whether somebody has named them, or they have numbers only.
    """

    named: str
    names: tuple[str, ...]
    is_named: bool = True

    @classmethod
    def of(cls, run: Run) -> KnownClasses:
        """The classes of a run."""
        return cls(str(run.folder), run.record.classes)


def held_out(runs: Sequence[Run]) -> Labelled:
    """The images that all these runs held out.

    Raises:
        UserError: they held out different ones, or the images are gone or others now.
    """
    for one, other in combinations(runs, 2):
        marks = one.record.data.fingerprints.val, other.record.data.fingerprints.val
        if not marks[0].shows(marks[1]):
            raise UserError(diagnostics.OtherImages(str(one.folder), str(other.folder)))
    return held_out_by(runs[0])


def held_out_by(run: Run) -> Labelled:
    """The images that a run held out, with its labels; of those in a place of their own nothing
    else needs to be as it was.

    Raises:
        UserError: they are gone, or others now.
    """
    origin = run.record.data
    found = found_again(run)
    place = origin.val_path or origin.path
    if change := changed(run, found):
        where = place or "scikit-learn"
        raise UserError(diagnostics.HeldOutLost(str(run.folder), where, change))
    part = known(KnownClasses.of(run), place, found.classes, found.part)
    return Labelled(place, part, of_part(found.skipped, ""))


def found_again(run: Run) -> Pictures:
    """The images that are now where a run's held-out images were.

    Raises:
        UserError: nothing is there, or it cannot be used.
    """
    origin, classes = run.record.data, run.record.classes
    if origin.path is None:
        images = digits()
        return Pictures(images.classes, images.val)
    refuse_moved(run, origin.val_path or origin.path)
    if origin.val_path:
        return whole(origin.val_path, classes)
    match parse_place(origin.path, classes):
        case PartedFolder(parts=parts):
            piece = parts.one_for("val") or parts.one_for("test")
            if piece and piece != parts.one_for("train"):
                return pictures_of(parts.folder, piece, classes)
        case ShardPattern() | CifarPlace() | AnnotatedFolder() | PlainFolder():
            pass
    images = find_images(origin.path, run.record.seed)
    skipped = tuple(each for each in images.skipped if each.part == "val")
    return Pictures(images.classes, images.val, skipped)


def changed(run: Run, found: Pictures) -> str | None:
    """How the images found now differ from those that a run held out; None where they do not.

    Images that the run skipped do not count. Where only a look into the images tells which those
    were, it is taken.
    """
    origin, part = run.record.data, aimed_at(run, found.part)
    mark = origin.fingerprints.val
    if 0 < len(part) - origin.val <= origin.skipped:
        from vggc.data.prepare import readable

        white = run.record.preprocessing.white
        part = readable(part, run.record.input, run.recipe.scale, white)
    if names_of(found.classes, part) != mark.names:
        return "the held-out images have other names or classes now"
    if objects_of(found.classes, part) != mark.objects:
        return "objects in held-out images have other boxes or classes now, or are more or fewer"
    try:
        is_same = content_of(part) == mark.content
    except BrokenImageError as fault:
        return f"a held-out image cannot be read: {fault}"
    return None if is_same else "held-out images have kept their names, but not their content"


def aimed_at(run: Run, part: Part) -> Part:
    """A part as a run held it out: where it was to find objects, with those of each picture's
    class, and without any where it was not.
    """
    if run.recipe.boxes is None or part.objects is None:
        return replace(part, objects=None)
    return of_its_class(part)


def images_in(place: str, net: KnownClasses) -> Labelled:
    """All images in a place; in one that brings parts, the part to hold out or else to test on.
    Notes say how its classes were found among the net's.

    Raises:
        UserError: there are none, or some are of classes that the net does not know.
    """
    try:
        found = pictures(place, net.names)
    except OSError as fault:
        path, reason = str(fault.filename or place), fault.strerror or str(fault)
        raise UserError(UnreadableFolder(path, reason)) from None
    match = matched(net, place, found.classes, found.part)
    part = found.part.renumbered(np.asarray(match.numbers, np.int64))
    used, count = len(np.unique(part.labels)), len(net.names)
    notes = [*found.notes, *([match.told] if match.told else [])]
    if used < count:
        notes.append(
            f"The images are of {used:,} of the {count:,} classes that the net chooses among."
        )
    return Labelled(place, part, found.skipped, tuple(notes))


def pictures(place: str, classes: Sequence[str]) -> Pictures:
    """All pictures in a place. Shards that only number their classes mean these."""
    match parse_place(place, classes):
        case CifarPlace(files=files):
            cifar = read_cifar(files)
            return Pictures(cifar.classes, cifar.val)
        case PartedFolder(parts=parts):
            chosen, notes = for_testing(parts)
            found = pictures_of(parts.folder, chosen, classes)
            return replace(found, notes=(*notes, *found.notes))
        case AnnotatedFolder(source=source):
            return read_annotated(source, classes)
        case ShardPattern() | PlainFolder() as unparted:
            return pictures_in(unparted, classes)


def known(net: KnownClasses, path: str | None, classes: Sequence[str], part: Part) -> Part:
    """The part with the labels that a net gives its classes.

    Raises:
        UserError: some images are of classes that are none of the net's.
    """
    match = matched(net, path, classes, part)
    return part.renumbered(np.asarray(match.numbers, np.int64))


def matched(net: KnownClasses, path: str | None, classes: Sequence[str], part: Part) -> ClassMatch:
    """Which of a net's classes those of a part are.

    Raises:
        UserError: some images are of classes that are none of the net's.
    """
    match = match_classes(classes, net.names, net.is_named)
    used = {classes[label] for label in np.unique(part.labels)}
    numbered = zip(classes, match.numbers, strict=True)
    unknown = [name for name, number in numbered if name in used and number < 0]
    if unknown and match.is_imagenet:
        near = nearest(unknown[0], class_names())
        hint = f"; did you mean `{near}`?" if near else ""
        raise UserError(diagnostics.NotOfImageNet(path or "", net.named, listed(unknown), hint))
    if unknown:
        shown = listed(unknown), listed(net.names)
        raise UserError(diagnostics.UnknownClasses(path or "", net.named, *shown))
    return match


def check_classes(nets: Sequence[KnownClasses]) -> None:
    """Raises: UserError when nets that are to be fused do not know the same classes, in order."""
    for net in nets[1:]:
        first = nets[0]
        if first.names != net.names:
            difference = differing(first.names, net.names)
            raise UserError(diagnostics.OtherClasses(first.named, net.named, difference))


def differing(first: Sequence[str], second: Sequence[str]) -> str:
    """How the classes of two runs differ, in words."""
    only = {
        "the first": sorted({*first} - {*second}),
        "the second": sorted({*second} - {*first}),
    }
    told = [f"only {who} knows {listed(names)}" for who, names in only.items() if names]
    return "; ".join(told) or "they come in another order"


def listed(names: Sequence[str]) -> str:
    """Names in a row, the first few and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def single(paths: Sequence[str]) -> Part:
    """Images that somebody named, without labels."""
    names = Strings.of(paths)
    return Part.all(Files(Path(), names), np.zeros(len(paths), np.int64))


def in_memory(names: Sequence[str], pixels: Sequence[Pixels]) -> Part:
    """Images that somebody has opened, without labels."""
    return Part.all(Given(names, pixels), np.zeros(len(names), np.int64))

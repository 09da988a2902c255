"""A part of pictures, each labelled by the largest object that annotations mark in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vggc.data import diagnostics
from vggc.data.annotations.coco import read_coco
from vggc.data.annotations.described import NO_OBJECT, Described, Reading
from vggc.data.annotations.sizes import sizes_of
from vggc.data.annotations.sources import CocoSource, Source, TableSource, VocSource, YoloSource
from vggc.data.annotations.table import read_table
from vggc.data.annotations.upright import Frames, Mask, frames_of, in_frames
from vggc.data.annotations.voc import read_voc
from vggc.data.annotations.yolo import read_yolo
from vggc.data.objects import Objects
from vggc.data.parts import Part, Pictures, Skipped
from vggc.data.shards import are_all_numbers
from vggc.data.stores import Files, Numbers
from vggc.data.strings import Strings
from vggc.images.preprocessing import BrokenImageError
from vggc.support.diagnostics import UserError, in_line

LISTED = 5
"""Names that a note shows."""
ONLY_DIFFICULT = "all its objects are difficult"


@dataclass(frozen=True)
class Told:
    """The pictures that show objects, by their `names`: their objects, whose classes are numbers of
    `classes`. What else there is, is `lost` by a fault or `blank`; of the pictures that are used
    some objects are left out as `faulty`, and some boxes are `cut`.
    """

    names: Strings
    objects: Objects
    classes: tuple[str, ...]
    lost: tuple[Skipped, ...]
    blank: tuple[Skipped, ...]
    faulty: tuple[Skipped, ...]
    cut: int


def read_annotated(source: Source, known: Sequence[str] = ()) -> Pictures:
    """The pictures of a part that show objects, each with the class of its largest one that is not
    difficult.

    Where classes are `known` these come first, and others that label a picture follow; else there
    are only such, in the order of the format. Objects of all other classes are left out.

    Raises:
        UserError: a file that tells of all pictures cannot be used, or most pictures cannot.
        OSError: a folder cannot be read.
    """
    reading = reading_of(source)
    told = looked_at(reading, source.pictures)
    place = str(source.place)
    refuse_useless(place, told)
    files = Files(source.pictures, told.names)
    everything = np.arange(len(told.names))
    classes, numbers = numbered(told, labels_of(told.objects), reading.classes, known)
    whole = Part(files, everything, labels_of(told.objects), told.objects)
    notes = (
        f"Boxes in {in_line(place)} are read from {source.kind}.",
        *reading.notes,
        *remarks(in_line(place), told, numbers, known),
    )
    skipped = (*told.lost, *told.blank, *told.faulty)
    return Pictures(classes, whole.renumbered(numbers), skipped, notes)


def reading_of(source: Source) -> Reading:
    """What the annotations of a part say, whatever their format is.

    Raises:
        UserError: a file that tells of all pictures cannot be used.
        OSError: a folder cannot be read.
    """
    match source:
        case VocSource():
            return read_voc(source)
        case CocoSource():
            return read_coco(source)
        case YoloSource():
            return read_yolo(source)
        case TableSource():
            return read_table(source)


# Boxes


def looked_at(reading: Reading, folder: Path) -> Told:
    """What annotations say of the pictures in a folder, with boxes as shares of each as it stands
    upright.
    """
    described, frames, misfits = framed(reading, folder)
    marks = [mark for each in described for mark in each.objects]
    number_of = {name: number for number, name in enumerate(dict.fromkeys(m.name for m in marks))}
    annotated = Objects(
        np.cumsum([0, *(len(each.objects) for each in described)], dtype=np.int64),
        np.asarray([mark.box for mark in marks], np.float64).reshape(-1, 4),
        np.asarray([number_of[mark.name] for mark in marks], np.int64),
        np.asarray([mark.difficult for mark in marks], np.bool_),
    )
    boxes, faults, cut = in_frames(annotated.boxes, frames.take(annotated.owners))
    reasons = {index: [*each.faults] for index, each in enumerate(described) if each.faults}
    owners, bad = annotated.owners, np.zeros(len(marks), np.bool_)
    for reason, which in faults.items():
        bad |= which
        for row in np.flatnonzero(which).tolist():
            name = f"{reading.noun} {marks[row].number} ({marks[row].name})"
            reasons.setdefault(int(owners[row]), []).append(f"{name}: {reason}")
    objects = Objects(annotated.starts, boxes, annotated.classes, annotated.difficult).kept(~bad)
    shown = objects.counts > 0
    easy = objects.kept(~objects.difficult).counts > 0
    used = np.flatnonzero(easy)
    lost, blank = unused(described, shown, easy, reasons)
    names = Strings.of(described[index].picture for index in used.tolist())
    faulty = [
        Skipped(described[index].where, reason)
        for index in used.tolist()
        for reason in reasons.get(index, ())
    ]
    return Told(
        names=names,
        objects=objects.take(used),
        classes=tuple(number_of),
        lost=(*reading.lost, *misfits, *lost),
        blank=(*reading.blank, *blank),
        faulty=tuple(faulty),
        cut=int(np.isin(owners[cut & ~bad], used).sum()),
    )


def framed(reading: Reading, folder: Path) -> tuple[list[Described], Frames, list[Skipped]]:
    """The pictures that are as large as annotations have it, what their boxes are measured in, and
    the other pictures.
    """
    described = sorted(reading.described, key=lambda each: each.picture)
    if reading.in_shares:
        return described, Frames.of_shares(len(described)), []
    sizes = sizes_of(folder, [each.picture for each in described])
    lost, sound, lying = [], [], []
    for each, size in zip(described, sizes, strict=True):
        if isinstance(size, BrokenImageError):
            lost.append(Skipped(each.picture, str(size)))
        else:
            sound.append(each)
            lying.append(size)
    stored = np.asarray(lying, np.int64).reshape(-1, 3)
    declared = np.asarray([each.size for each in sound], np.float64).reshape(-1, 2)
    frames = frames_of(declared, stored[:, :2].astype(np.float64), stored[:, 2])
    for index in np.flatnonzero(~frames.fit).tolist():
        (width, height), (wide, high, _) = sound[index].size, lying[index]
        reason = f"it is annotated as {width:g}x{height:g} pixels, and is of {wide}x{high}"
        lost.append(Skipped(sound[index].picture, reason))
    fit = np.flatnonzero(frames.fit)
    return [sound[index] for index in fit.tolist()], frames.take(fit), lost


def unused(
    described: Sequence[Described],
    shown: Mask,
    easy: Mask,
    reasons: Mapping[int, Sequence[str]],
) -> tuple[list[Skipped], list[Skipped]]:
    """The pictures without an object that is not difficult: those whose objects are faulty, and
    those that never had one.
    """
    lost, blank = [], []
    for index in np.flatnonzero(~easy).tolist():
        each, told = described[index], reasons.get(index, ())
        if shown[index]:
            blank.append(Skipped(each.picture, ONLY_DIFFICULT))
        elif told:
            more = f" and {len(told) - 1:,} more" if len(told) > 1 else ""
            lost.append(Skipped(each.picture, f"{told[0]}{more}, and no other object is in it"))
        else:
            blank.append(Skipped(each.picture, NO_OBJECT))
    return lost, blank


def refuse_useless(place: str, told: Told) -> None:
    """Raises: UserError where no picture shows an object, or most pictures and annotations are
    faulty.
    """
    good, bad = len(told.names), len(told.lost)
    if bad > good:
        first = told.lost[0]
        raise UserError(
            diagnostics.UnusableAnnotations(place, bad, good + bad, first.name, first.reason)
        )
    if good == 0:
        reason = "no picture is there"
        if told.blank:
            name, why = told.blank[0].name, told.blank[0].reason
            reason = f"{len(told.blank):,} are left out, such as {name}: {why}"
        raise UserError(diagnostics.NoObjects(place, reason))


# Classes


def labels_of(objects: Objects) -> Numbers:
    """The class of the largest object of each picture that is not difficult; each has one."""
    easy = objects.kept(~objects.difficult).by_size()
    return easy.classes[easy.starts[:-1]]


def numbered(
    told: Told, labels: Numbers, listed: Sequence[str] | None, known: Sequence[str]
) -> tuple[tuple[str, ...], Numbers]:
    """The classes, and the number among them of each class of objects, -1 of one that is none.

    They are the `known` ones and others that label a picture: in the order in which a format has
    them `listed`, or by number or name.
    """
    used = {told.classes[label] for label in np.unique(labels).tolist()}
    order = listed
    if order is None:
        order = sorted(used, key=int if are_all_numbers([*used]) else str)
    classes = (*known, *(name for name in order if name in used and name not in {*known}))
    number_of = {name: number for number, name in enumerate(classes)}
    return classes, np.asarray([number_of.get(name, -1) for name in told.classes], np.int64)


def remarks(place: str, told: Told, numbers: Numbers, known: Sequence[str]) -> Iterator[str]:
    """What there is to say of boxes that are not as they were annotated, and of objects that are
    left out for their classes.
    """
    if told.cut:
        yield f"In {place}, {told.cut:,} boxes reach beyond their pictures, and are cut there."
    counts = np.bincount(told.objects.classes, minlength=len(told.classes))
    others = np.flatnonzero((numbers < 0) & (counts > 0))
    if len(others):
        names = shown(told.classes[other] for other in others.tolist())
        why = "are not trained on" if known else "are in no picture the largest"
        yield f"In {place}, {counts[others].sum():,} objects are left out that {why}: {names}."


def shown(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    every = [*map(in_line, names)]
    more = f" and {len(every) - LISTED:,} more" if len(every) > LISTED else ""
    return ", ".join(every[:LISTED]) + more

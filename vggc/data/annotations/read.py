"""A part of pictures, each labelled by the largest object that annotations mark in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vggc.data import diagnostics
from vggc.data.annotations.coco import read_coco
from vggc.data.annotations.described import Annotations
from vggc.data.annotations.look import Annotated, look, remarks
from vggc.data.annotations.sizes import sizes_of
from vggc.data.annotations.sources import (
    AnnotationSource,
    CocoSource,
    TableSource,
    VocSource,
    YoloSource,
)
from vggc.data.annotations.table import read_table
from vggc.data.annotations.voc import read_voc
from vggc.data.annotations.yolo import read_yolo
from vggc.data.parts import Part, Pictures, Skipped
from vggc.data.shards import are_all_numbers
from vggc.data.stores import Files, Numbers
from vggc.data.strings import Strings
from vggc.support.diagnostics import UserError
from vggc_runtime.text import in_line


def read_annotated(source: AnnotationSource, known: Sequence[str] = ()) -> Pictures:
    """The pictures of a part that show objects, each with the class of its largest one that is not
    difficult.

    Where classes are `known` these come first, and others that label a picture follow; else there
    are only such, in the order of the format. Objects of all other classes are left out.

    Raises:
        UserError: a file that tells of all pictures cannot be used, or most pictures cannot.
        OSError: a folder cannot be read.
    """
    reading = reading_of(source)
    described = sorted(reading.described, key=lambda each: each.picture)
    names = [each.picture for each in described]
    sizes = None if reading.in_shares else sizes_of(source.pictures, names)
    told = look(replace(reading, described=described), sizes)
    lost, blank = [*reading.lost, *told.lost], [*reading.blank, *told.blank]
    place = str(source.place)
    refuse_useless(place, len(told.used), lost, blank)
    classes, numbers = numbered(told, reading.classes, known)
    files = Files(source.pictures, Strings.of(names[index] for index in told.used.tolist()))
    part = Part(files, np.arange(len(told.used)), told.labels, told.objects)
    counts = np.bincount(told.objects.classes, minlength=len(told.classes)).tolist()
    left_out = {
        name: count
        for name, number, count in zip(told.classes, numbers, counts, strict=True)
        if number < 0 and count
    }
    notes = (
        f"Boxes in {in_line(place)} are read from {source.kind}.",
        *reading.notes,
        *remarks(in_line(place), told.cut, left_out, is_known=bool(known)),
    )
    skipped = (*lost, *blank, *told.faulty)
    return Pictures(classes, part.renumbered(numbers), skipped, notes)


def reading_of(source: AnnotationSource) -> Annotations:
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


def refuse_useless(
    place: str, good: int, lost: Sequence[Skipped], blank: Sequence[Skipped]
) -> None:
    """Raises: UserError where no picture shows an object, or most pictures and annotations are
    faulty.
    """
    if (bad := len(lost)) > good:
        name, reason = lost[0].name, lost[0].reason
        raise UserError(diagnostics.UnusableAnnotations(place, bad, good + bad, name, reason))
    if good == 0:
        reason = "no picture is there"
        if blank:
            first = f"{blank[0].name}: {blank[0].reason}"
            reason = f"{len(blank):,} left out, such as {first}"
        raise UserError(diagnostics.NoObjects(place, reason))


def numbered(
    told: Annotated, listed: Sequence[str] | None, known: Sequence[str]
) -> tuple[tuple[str, ...], Numbers]:
    """The classes, and the number among them of each class of objects, -1 of one that is none.

    They are the `known` ones and others that label a picture: in the order in which a format has
    them `listed`, or by number or name.
    """
    used = {told.classes[label] for label in np.unique(told.labels).tolist()}
    order = listed
    if order is None:
        order = sorted(used, key=int if are_all_numbers([*used]) else str)
    classes = (*known, *(name for name in order if name in used and name not in {*known}))
    number_of = {name: number for number, name in enumerate(classes)}
    return classes, np.asarray([number_of.get(name, -1) for name in told.classes], np.int64)

"""What annotations and the sizes of pictures tell together: boxes as shares of pictures that stand
upright, and what is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vggc.data.annotations.described import NO_OBJECT, Annotation, Annotations
from vggc.data.annotations.sizes import Lying
from vggc.data.annotations.upright import Frames, Mask, frames_of, in_frames
from vggc.data.objects import Objects
from vggc.data.parts import Skipped
from vggc.data.stores import Numbers
from vggc_runtime.preprocessing import BrokenImageError
from vggc_runtime.text import in_line

LISTED = 5
"""Names that a note shows."""
ONLY_DIFFICULT = "all its objects are difficult"


@dataclass(frozen=True)
class Annotated:
    """What is known of pictures that are described: the places of those that are `used`, as they
    show objects; their objects, whose classes are numbers of `classes`; and the class of the
    largest one of each that is not difficult.

    Other pictures are `lost` by a fault, or `blank`. Of those that are used some objects are left
    out as `faulty`, and some boxes are `cut`.
    """

    used: Numbers
    objects: Objects
    labels: Numbers
    classes: tuple[str, ...]
    lost: list[Skipped]
    blank: list[Skipped]
    faulty: list[Skipped]
    cut: int


def look(reading: Annotations, sizes: Sequence[Lying | BrokenImageError] | None) -> Annotated:
    """What is known of the pictures that are described, by their `sizes`; boxes that are shares
    already need none.
    """
    described, frames = reading.described, Frames.of_shares(len(reading.described))
    lost: list[Skipped] = []
    fit = np.arange(len(described))
    if sizes is not None:
        fit, frames, lost = fitted(described, sizes)
        described = [described[place] for place in fit.tolist()]
    marks = [mark for each in described for mark in each.objects]
    number_of = {name: number for number, name in enumerate(dict.fromkeys(m.name for m in marks))}
    annotated = Objects(
        np.cumsum([0, *(len(each.objects) for each in described)], dtype=np.int64),
        np.asarray([mark.box for mark in marks], np.float64).reshape(-1, 4),
        np.asarray([number_of[mark.name] for mark in marks], np.int64),
        np.asarray([mark.difficult for mark in marks], np.bool_),
    )
    owners, bad = annotated.owners, np.zeros(len(marks), np.bool_)
    boxes, faults, cut = in_frames(annotated.boxes, frames.take(owners))
    reasons = {index: [*each.faults] for index, each in enumerate(described) if each.faults}
    for reason, which in faults.items():
        bad |= which
        for row in np.flatnonzero(which).tolist():
            name = f"{reading.noun} {marks[row].number} ({marks[row].name})"
            reasons.setdefault(int(owners[row]), []).append(f"{name}: {reason}")
    objects = Objects(annotated.starts, boxes, annotated.classes, annotated.difficult).kept(~bad)
    easy = objects.kept(~objects.difficult).by_size()
    is_used = easy.counts > 0
    useless, blank = unused(described, objects.counts > 0, is_used, reasons)
    rows = np.flatnonzero(is_used)
    return Annotated(
        used=fit[rows],
        objects=objects.take(rows),
        labels=easy.classes[easy.starts[rows]],
        classes=tuple(number_of),
        lost=lost + useless,
        blank=blank,
        faulty=[
            Skipped(described[row].where, reason)
            for row in rows.tolist()
            for reason in reasons.get(row, ())
        ],
        cut=int((cut & ~bad & is_used[owners]).sum()),
    )


def fitted(
    described: Sequence[Annotation], sizes: Sequence[Lying | BrokenImageError]
) -> tuple[Numbers, Frames, list[Skipped]]:
    """The places of the pictures that are as large as annotations have it, what their boxes are
    measured in, and the other pictures.
    """
    lost, lying, sound = [], [], []
    for place, (each, size) in enumerate(zip(described, sizes, strict=True)):
        if isinstance(size, BrokenImageError):
            lost.append(Skipped(each.picture, str(size)))
        else:
            sound.append(place)
            lying.append(size)
    stored = np.asarray(lying, np.int64).reshape(-1, 3)
    declared = np.asarray([described[place].size for place in sound], np.float64).reshape(-1, 2)
    frames = frames_of(declared, stored[:, :2].astype(np.float64), stored[:, 2])
    for index in np.flatnonzero(~frames.fit).tolist():
        each, (wide, high, _) = described[sound[index]], lying[index]
        told = f"{each.size[0]:g}x{each.size[1]:g}"
        reason = f"it is annotated as {told} pixels, and is of {wide}x{high}"
        lost.append(Skipped(each.picture, reason))
    fit = np.flatnonzero(frames.fit)
    return np.asarray(sound, np.int64)[fit], frames.take(fit), lost


def unused(
    described: Sequence[Annotation],
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


def remarks(place: str, cut: int, left_out: Mapping[str, int], *, is_known: bool) -> Iterator[str]:
    """What there is to say of so many boxes that are cut, and of objects that are `left_out` for
    their classes, of which there are so many each: those that are trained on are known, or not.
    """
    if cut:
        yield f"In {place}, boxes are cut that reach beyond their pictures: {cut:,}."
    if count := sum(left_out.values()):
        why = "are not trained on" if is_known else "are in no picture the largest"
        names = shown(left_out)
        yield f"In {place}, objects are left out whose classes {why}: {count:,}, of {names}."


def shown(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    every = [*map(in_line, names)]
    more = f" and {len(every) - LISTED:,} more" if len(every) > LISTED else ""
    return ", ".join(every[:LISTED]) + more

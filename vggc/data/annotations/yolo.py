"""Annotations as YOLO has them: a text file for each picture, and the names of classes in another.

Source: https://docs.ultralytics.com/datasets/detect and its pages on segmentation, poses and
oriented boxes.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

from vggc.data.annotations.catalogue import Catalogue, beside, only, stems_below, unclaimed
from vggc.data.annotations.class_names import ClassNames, names_in
from vggc.data.annotations.described import (
    NO_ANNOTATION,
    UNTOLD,
    Annotation,
    AnnotationError,
    Annotations,
    Box,
    Marked,
    content_of,
    in_threads,
    number,
)
from vggc.data.annotations.sources import YoloSource
from vggc.data.parts import Skipped

NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")
"""Files of names, one a line, that the pictures' folder may hold, too."""
NOT_LABELS = {*NAME_FILES, "train.txt", "valid.txt", "val.txt", "test.txt", "readme.txt"} | {
    *("readme.dataset.txt", "readme.roboflow.txt", "labels.txt", "notes.txt")
}
"""Text files beside labels that are none."""
NOUN = "line"


def read_yolo(source: YoloSource) -> Annotations:
    """What the text files of a part say.

    Raises:
        UserError: the names of classes cannot be read.
        OSError: a folder cannot be read.
    """
    known = names_in(source.names) if source.names else None
    catalogue = Catalogue.of(source.pictures)
    stems = {
        path: stem
        for path, stem in stems_below(source.labels, ".txt").items()
        if os.path.basename(path).lower() not in NOT_LABELS or catalogue.beside(stem)
    }
    start = beside(source.labels, source.pictures)
    contents = in_threads(text_at, [source.labels / path for path in stems])
    claims: dict[str, list[str]] = defaultdict(list)
    texts: dict[str, str] = {}
    spoilt: set[str] = set()
    lost = []
    for (path, stem), text in zip(stems.items(), contents, strict=True):
        name = start + path
        try:
            if isinstance(text, AnnotationError):
                raise text
            if not (found := catalogue.beside(stem)):
                raise AnnotationError("its picture is not there")
            claims[only(found)].append(name)
            texts[name] = text
        except AnnotationError as fault:
            lost.append(Skipped(name, str(fault)))
            spoilt.update(catalogue.beside(stem))
    paired, alone = unclaimed(catalogue.files, claims, spoilt=spoilt)
    described = [described_by(*pair, texts[pair[1]], known) for pair in paired.items()]
    notes = () if known else (UNNAMED,)
    return Annotations(
        described=described,
        lost=[*lost, *(each for each in alone if each.reason != NO_ANNOTATION)],
        # Pictures that show nothing may have no file at all.
        blank=[*(each for each in alone if each.reason == NO_ANNOTATION), *catalogue.skipped],
        noun=NOUN,
        in_shares=True,
        classes=[*dict.fromkeys(known.names.values())] if known else None,
        notes=notes,
    )


UNNAMED = "No file names the classes (data.yaml, classes.txt or obj.names): their numbers do."


def text_at(path: Path) -> str | AnnotationError:
    """The text in the file at a path, or why it cannot be used."""
    try:
        return content_of(path).decode("utf-8-sig")
    except AnnotationError as fault:
        return fault
    except UnicodeDecodeError:
        return AnnotationError("it is no UTF-8 text")
    except OSError as fault:
        return AnnotationError(fault.strerror or str(fault))


def described_by(picture: str, name: str, text: str, known: ClassNames | None) -> Annotation:
    """What a text file says of its picture."""
    found, faults = [], []
    for count, line in enumerate(text.splitlines(), start=1):
        if not (words := line.split()):
            continue
        try:
            has_points = known is not None and known.has_points
            box = box_of(words[1:5] if has_points else words[1:])
            found.append(Marked(count, class_of(words[0], known), box))
        except AnnotationError as fault:
            faults.append(f"{NOUN} {count}: {fault}")
    return Annotation(picture, name, UNTOLD, found, faults)


def class_of(word: str, known: ClassNames | None) -> str:
    """The name of the class with this number.

    Raises:
        AnnotationError: it is no number of a class.
    """
    value = number(word)
    if not 0 <= value < 2**31 or value != int(value):
        raise AnnotationError(f"`{word}` is no number of a class")
    if known is None:
        return str(int(value))
    if int(value) not in known.names:
        raise AnnotationError(f"class {int(value)} is none of the {len(known.names):,} named ones")
    return known.names[int(value)]


def box_of(words: list[str]) -> Box:
    """The edges of a box that is told by its middle, width and height, maybe with a confidence, or
    by the points of an outline.

    Raises:
        AnnotationError: it is neither.
    """
    values = [number(word) for word in words]
    if len(values) in (4, 5):
        x, y, width, height = values[:4]
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    if len(values) < 6 or len(values) % 2:
        raise AnnotationError(f"{len(values)} numbers behind the class are no box and no outline")
    if not all(abs(value) < float("inf") for value in values):  # NaN compares with nothing
        return values[0], values[1], float("nan"), float("nan")
    across, down = values[::2], values[1::2]
    return min(across), min(down), max(across), max(down)

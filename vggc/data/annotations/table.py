"""Annotations in a table: one CSV file for many pictures, a line for each object.

Sources: the names of columns are those of TensorFlow's object detection API and of Roboflow's and
MakeSense's exports; tables without a header are those of https://github.com/fizyr/keras-retinanet.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Literal, TypeAlias

from vggc.data import diagnostics
from vggc.data.annotations.catalogue import Catalogue
from vggc.data.annotations.described import (
    NO_ANNOTATION,
    NO_OBJECT,
    UNTOLD,
    Annotation,
    AnnotationError,
    Annotations,
    Box,
    DeclaredSize,
    Marked,
    class_name,
    number,
    table_of,
)
from vggc.data.annotations.sources import TableSource
from vggc.data.parts import Skipped
from vggc.support.diagnostics import UserError

BoxForm: TypeAlias = Literal["edges", "sides"]

PICTURE = ("filename", "file_name", "file", "image", "image_name", "img", "path", "image_path")
CLASS = ("class", "class_name", "label", "label_name", "category", "name")
BOX: tuple[tuple[BoxForm, tuple[str, ...]], ...] = (
    ("edges", ("xmin", "ymin", "xmax", "ymax")),
    ("edges", ("x_min", "y_min", "x_max", "y_max")),
    ("edges", ("x1", "y1", "x2", "y2")),
    ("edges", ("left", "top", "right", "bottom")),
    ("sides", ("bbox_x", "bbox_y", "bbox_width", "bbox_height")),
    ("sides", ("x", "y", "width", "height")),
    ("sides", ("x", "y", "w", "h")),
    ("sides", ("left", "top", "width", "height")),
)
SIZE = (("image_width", "image_height"), ("img_width", "img_height"), ("width", "height"))
"""What columns are called, in small letters, the names that count most first."""

SIGNS = ",;\t"
"""What may stand between the cells of a line."""
NOUN = "line"


@dataclass(frozen=True)
class TableColumns:
    """Which cell of a line holds what. A box is told by its edges or by left, top, width and
    height; a table without a `header` begins with its first object.
    """

    sign: str
    picture: int
    name: int
    box: tuple[int, ...]
    form: BoxForm
    size: tuple[int, ...] = ()
    difficult: int | None = None
    header: bool = True


BARE = TableColumns(sign=",", picture=0, name=5, box=(1, 2, 3, 4), form="edges", header=False)
"""Six columns without names: path, left, top, right, bottom and class."""


def columns_of(line: str) -> TableColumns | None:
    """What the first line of a table tells of its columns; None where it tells of no boxes."""
    sign = max(SIGNS, key=line.count)
    try:
        cells = [cell.strip() for cell in next(csv.reader([line], delimiter=sign), [])]
    except csv.Error:
        return None
    names = [cell.lower().replace(" ", "_") for cell in cells]
    place = {name: names.index(name) for name in names}
    picture = next((place[each] for each in PICTURE if each in place), None)
    name = next((place[each] for each in CLASS if each in place), None)
    form, box = next((each for each in BOX if {*each[1]} <= {*place}), ("edges", ()))
    if picture is None or name is None or not box:
        return BARE if sign == BARE.sign and is_bare(cells) else None
    size = next((each for each in SIZE if {*each} <= {*place} - {*box}), ())
    return TableColumns(
        sign=sign,
        picture=picture,
        name=name,
        box=tuple(place[each] for each in box),
        form=form,
        size=tuple(place[each] for each in size),
        difficult=place.get("difficult"),
    )


def is_bare(cells: Sequence[str]) -> bool:
    """Whether a line without names of columns tells of an object, or of a picture without any."""
    if len(cells) != 6 or not cells[0]:
        return False
    return not any(cells[1:]) or (bool(cells[5]) and all(map(is_number, cells[1:5])))


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        number(text)
    except AnnotationError:
        return False
    return True


def read_table(source: TableSource) -> Annotations:
    """What the lines of a table say.

    Boxes are in shares of pictures where most boxes of the whole table have no edge above 1.

    Raises:
        UserError: it cannot be read, or is no sound CSV.
        OSError: a folder cannot be read.
    """
    catalogue = Catalogue.of(source.pictures)
    told = TableReader(source, catalogue)
    for line, cells, columns in lines_of(source):
        told.take(line, cells, columns)
    blank = [Skipped(name, NO_OBJECT) for name, each in told.pictures.items() if is_empty(each)]
    if source.own:
        alone = (file for file in catalogue.files if file not in told.pictures)
        blank += [*(Skipped(file, NO_ANNOTATION) for file in alone), *catalogue.skipped]
    described = [each for _, each in sorted(told.pictures.items()) if not is_empty(each)]
    return Annotations(
        described=described,
        lost=told.lost,
        blank=blank,
        noun=NOUN,
        in_shares=are_shares(described),
    )


def is_empty(told: Annotation) -> bool:
    """Whether nothing is said of a picture but that it is there."""
    return not told.objects and not told.faults


def are_shares(described: Sequence[Annotation]) -> bool:
    """Whether boxes can be no pixels: most of them lie within the first one. A share may be rounded
    up to a little more than 1, or be a mistake.
    """
    boxes = [one.box for each in described for one in each.objects]
    within = [box for box in boxes if max(box) <= 1]
    return 2 * len(within) > len(boxes) and any(0 < edge < 1 for box in within for edge in box)


def lines_of(source: TableSource) -> Iterator[tuple[int, list[str], TableColumns]]:
    """The lines behind the header that are not empty, each with its number.

    Raises:
        UserError: it cannot be read, or is no sound CSV.
    """
    path = str(source.file)
    try:
        text = table_of(source.file).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(diagnostics.BadAnnotations(path, "it is no UTF-8 text")) from None
    columns = columns_of(text.partition("\n")[0].rstrip("\r"))
    if columns is None:
        reason = "its first line names no columns of pictures, boxes and classes"
        raise UserError(diagnostics.BadAnnotations(path, reason))
    rows = csv.reader(StringIO(text, newline=""), delimiter=columns.sign, strict=True)
    try:
        for cells in rows:
            if cells and (rows.line_num > 1 or not columns.header):
                yield rows.line_num, cells, columns
    except csv.Error as fault:
        reason = f"line {rows.line_num}: {fault}"
        raise UserError(diagnostics.BadAnnotations(path, reason)) from None


class TableReader:
    """What the lines of a table have told so far: of `pictures`, and which lines are `lost`."""

    def __init__(self, source: TableSource, catalogue: Catalogue) -> None:
        self.source, self.catalogue = source, catalogue
        self.pictures: dict[str, Annotation] = {}
        self.lost: list[Skipped] = []
        self.called: dict[str, str | AnnotationError] = {}

    def take(self, line: int, cells: list[str], columns: TableColumns) -> None:
        """Learns what a line has to tell."""
        where = f"{self.source.file.name}, {NOUN} {line}"
        most = max(columns.picture, columns.name, *columns.box)
        try:
            if len(cells) <= most:
                raise AnnotationError(f"it has {len(cells)} cells, and {most + 1} are needed")
            picture = self.picture(cells[columns.picture])
        except AnnotationError as fault:
            self.lost.append(Skipped(where, str(fault)))
            return
        size, file = size_of(cells, columns), self.source.file.name
        told = self.pictures.setdefault(picture, Annotation(picture, file, size, [], []))
        if not any(cells[each].strip() for each in columns.box):
            return
        try:
            if size != told.size:
                raise AnnotationError("the line gives its picture another size than one before")
            told.objects.append(marked(line, cells, columns))
        except AnnotationError as fault:
            told.faults.append(f"{NOUN} {line}: {fault}")

    def picture(self, name: str) -> str:
        """The picture that lines call so.

        Raises:
            AnnotationError: there is none, or there are several.
        """
        if name not in self.called:
            try:
                self.called[name] = self.catalogue.called(name, self.source.file.parent)
            except AnnotationError as fault:
                self.called[name] = fault
        found = self.called[name]
        if isinstance(found, AnnotationError):
            raise AnnotationError(str(found))
        return found


def marked(line: int, cells: list[str], columns: TableColumns) -> Marked:
    """The object that a line tells of.

    Raises:
        AnnotationError: it has no class, or its box is not of numbers.
    """
    name = class_name(cells[columns.name])
    first, second, third, fourth = (number(cells[each].strip()) for each in columns.box)
    box: Box = (first, second, third, fourth)
    if columns.form == "sides":
        box = (first, second, first + third, second + fourth)
    place = columns.difficult
    word = cells[place].strip().lower() if place is not None and place < len(cells) else ""
    return Marked(line, name, box, word in ("1", "true"))


def size_of(cells: Sequence[str], columns: TableColumns) -> DeclaredSize:
    """The size that a line takes its picture to have, where it tells one."""
    try:
        width, height = (number(cells[each].strip()) for each in columns.size)
    except (AnnotationError, IndexError, ValueError):
        return UNTOLD
    return width, height

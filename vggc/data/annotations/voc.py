"""Annotations as Pascal VOC and ILSVRC have them: an XML file for each picture.

Source: Everingham, Winn (2012), "The PASCAL Visual Object Classes Challenge 2012 Development Kit",
sections 3.1 and 8.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from vggc.data import diagnostics
from vggc.data.annotations.catalogue import (
    Catalogue,
    beside,
    only,
    stems_below,
    unclaimed,
    without_ending,
)
from vggc.data.annotations.described import (
    MAX_NAME,
    NO_ANNOTATION,
    UNTOLD,
    Annotation,
    AnnotationError,
    Annotations,
    Box,
    DeclaredSize,
    Marked,
    class_name,
    content_of,
    in_threads,
    number,
    table_of,
)
from vggc.data.annotations.sources import VocSource
from vggc.data.parts import Skipped
from vggc.support.diagnostics import UserError

MAX_DEPTH = 32
"""The most elements of XML within one another."""
EDGES = ("xmin", "ymin", "xmax", "ymax")
NOUN = "object"


class OtherXmlError(AnnotationError):
    """An XML file is no annotation of a picture, but something else."""


@dataclass
class VocFile:
    """What one XML file says."""

    filename: str = ""
    size: DeclaredSize = UNTOLD
    objects: list[Marked] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_voc(source: VocSource) -> Annotations:
    """What the XML files of a part say. With a list only its pictures are looked for.

    Raises:
        UserError: the list cannot be read.
        OSError: a folder cannot be read.
    """
    catalogue = Catalogue.of(source.pictures)
    stems = stems_below(source.annotations, ".xml")
    lost: list[Skipped] = []
    if source.listed:
        catalogue, lost = listed(source.listed, catalogue)
        stems = {path: stem for path, stem in stems.items() if catalogue.beside(stem)}
    start = beside(source.annotations, source.pictures)
    found = in_threads(file_at, [source.annotations / path for path in stems])
    claims: dict[str, list[str]] = defaultdict(list)
    files: dict[str, VocFile] = {}
    spoilt: set[str] = set()
    for (path, stem), file in zip(stems.items(), found, strict=True):
        name = start + path
        try:
            if isinstance(file, AnnotationError):
                raise file
            claims[picture_of(file, stem, catalogue)].append(name)
            files[name] = file
        except AnnotationError as fault:
            lost.append(Skipped(name, str(fault)))
            spoilt.update(catalogue.beside(stem))
    paired, alone = unclaimed(catalogue.files, claims, spoilt=spoilt)
    described = [
        Annotation(picture, name, files[name].size, files[name].objects, files[name].faults)
        for picture, name in paired.items()
    ]
    blank: list[Skipped] = []
    for each in (*alone, *catalogue.skipped):
        is_meant = source.sparse and each.reason == NO_ANNOTATION
        (blank if is_meant else lost).append(each)
    return Annotations(described=described, lost=lost, blank=blank, noun=NOUN)


def picture_of(file: VocFile, stem: str, catalogue: Catalogue) -> str:
    """The picture that an XML file tells of: that of its own name, or else that which it names.

    Raises:
        AnnotationError: there is none, or there are several.
    """
    found = catalogue.beside(stem)
    if len(found) > 1:
        named = os.path.basename(file.filename)
        return only([each for each in found if os.path.basename(each) == named] or found)
    if found:
        return found[0]
    if file.filename:
        return catalogue.called(file.filename)
    raise AnnotationError("its picture is not there")


def listed(path: Path, catalogue: Catalogue) -> tuple[Catalogue, list[Skipped]]:
    """The pictures that a list names, one a line, by their names without an ending; a number may
    stand behind. And the lines that name none.

    Raises:
        UserError: it cannot be read, or is no text.
    """
    try:
        lines = table_of(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(diagnostics.BadAnnotations(str(path), "it is no UTF-8 text")) from None
    found: dict[str, None] = {}
    lost = []
    for count, line in enumerate(lines, start=1):
        name, _, last = line.strip().rpartition(" ")
        stem = without_ending(name.strip() if name and is_whole(last) else line.strip())
        if not stem:
            continue
        if not (pictures := catalogue.beside(stem)):
            lost.append(Skipped(stem[:MAX_NAME], f"{path.name}, line {count}: it is not there"))
        found |= dict.fromkeys(pictures)
    return Catalogue(catalogue.folder, sorted(found), catalogue.skipped), lost


def is_whole(text: str) -> bool:
    """Whether a text is a whole number."""
    return text.removeprefix("-").isdecimal()


def file_at(path: Path) -> VocFile | AnnotationError:
    """What the XML file at a path says, or why it cannot be used."""
    try:
        return parse(content_of(path))
    except AnnotationError as fault:
        return fault
    except OSError as fault:
        return AnnotationError(fault.strerror or str(fault))


def parse(content: bytes) -> VocFile:
    """What an XML file says.

    Raises:
        AnnotationError: it is no sound XML, declares entities, or holds something else.
    """
    reader = XmlReader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.EntityDeclHandler = refuse_entity
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text.append
    try:
        parser.Parse(content, True)
    except expat.ExpatError as fault:
        told = expat.ErrorString(fault.code)
        raise AnnotationError(f"it is no sound XML, line {fault.lineno}: {told}") from None
    except (ValueError, LookupError):
        raise AnnotationError("it is no sound XML: its encoding is not known") from None
    return reader.found


def refuse_entity(*told: object) -> None:
    """Raises: AnnotationError, as an entity may stand for anything, of any length."""
    raise AnnotationError("it declares an XML entity, which no annotation needs")


class XmlReader:
    """Takes an annotation from the elements of its XML as they come. Those that stand elsewhere, as
    the parts of a person within an object, are passed over.
    """

    def __init__(self) -> None:
        self.found = VocFile()
        self.text: list[str] = []
        self.path: list[str] = []
        self.size: dict[str, str] = {}
        self.object: dict[str, str] = {}
        self.count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins.

        Raises:
            AnnotationError: it is within too many, or the file is no annotation.
        """
        self.path.append(name)
        self.text.clear()
        if len(self.path) > MAX_DEPTH:
            raise AnnotationError(f"more than {MAX_DEPTH} elements are within one another")
        if self.path[0] != "annotation":
            raise OtherXmlError(f"it holds <{name[:40]}>, not <annotation>")
        if self.path[1:] == ["object"]:
            self.object = {}

    def end(self, name: str) -> None:
        """An element ends."""
        match self.path[1:]:
            case ["filename"]:
                self.found.filename = self.value
            case ["size", what]:
                self.size[what] = self.value
            case ["size"]:
                self.found.size = told_size(self.size)
            case ["object", "name" | "difficult" as what] | ["object", "bndbox", what]:
                self.object[what] = self.value
            case ["object"]:
                self.count += 1
                self.take()
            case _:
                pass
        self.path.pop()

    @property
    def value(self) -> str:
        """The text of the element that ends now."""
        return "".join(self.text).strip()

    def take(self) -> None:
        """Adds the object that has ended, or why it is left out."""
        try:
            self.found.objects.append(marked(self.count, self.object))
        except AnnotationError as fault:
            self.found.faults.append(f"{NOUN} {self.count}: {fault}")


def told_size(told: dict[str, str]) -> DeclaredSize:
    """The size of the picture, where it is told."""
    try:
        return number(told.get("width", "")), number(told.get("height", ""))
    except AnnotationError:
        return UNTOLD


def marked(count: int, told: dict[str, str]) -> Marked:
    """An object by the texts of its elements.

    Raises:
        AnnotationError: it has no class or no box.
    """
    name = class_name(told.get("name", ""))
    if missing := [edge for edge in EDGES if edge not in told]:
        raise AnnotationError(f"it has no box: there is no <{missing[0]}>")
    left, top, right, bottom = (number(told[edge]) for edge in EDGES)
    difficult = told.get("difficult", "").lower() in ("1", "true")
    return Marked(count, name, from_one((left, top, right, bottom)), difficult)


def from_one(box: Box) -> Box:
    """The edges of a box whose first and last pixels are told, counted from 1."""
    left, top, right, bottom = box
    return left - 1, top - 1, right, bottom

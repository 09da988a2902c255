"""What annotations say, before anybody has looked at a picture: alike for all formats."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from vggc.data import diagnostics
from vggc.data.parts import Skipped
from vggc.support.diagnostics import UserError
from vggc_runtime.files import open_file
from vggc_runtime.processors import num_processors

MAX_FILE = 2**20
"""The most bytes of a file that tells of one picture, or of the names of classes."""
MAX_TABLE = 2**30
"""The most bytes of a file that tells of all pictures."""
MAX_NAME = 200
"""The most characters of a class's name."""
AT_ONCE = 64
"""Files that a thread reads at a time."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom."""
DeclaredSize: TypeAlias = tuple[float, float]
"""Width and height in pixels; zeros where nobody has told them."""

UNTOLD: DeclaredSize = (0.0, 0.0)


class AnnotationError(Exception):
    """What an annotation says cannot be used; the message tells why."""


@dataclass(frozen=True, slots=True)
class Marked:
    """An object as it was annotated, with the number that a person finds it by: which one of its
    file it is, or its line.
    """

    number: int
    name: str
    box: Box
    difficult: bool = False


@dataclass(frozen=True, slots=True)
class Annotation:
    """What the annotation in the file `where` says of one picture: the size that it takes the
    picture to have, its objects, and why others are left out.
    """

    picture: str
    where: str
    size: DeclaredSize
    objects: list[Marked]
    faults: list[str]


@dataclass(frozen=True)
class Annotations:
    """What all annotations of a part say.

    Boxes are `in_shares` of pictures, or in pixels of the declared sizes; a `noun` is what the
    number of an object counts. Pictures and annotations that are `lost` have no partner or are
    faulty; those that are `blank` show nothing, as far as is told. `classes` are as the format
    lists them, None where it does not.
    """

    described: list[Annotation]
    lost: list[Skipped]
    blank: list[Skipped]
    noun: str
    in_shares: bool = False
    classes: Sequence[str] | None = None
    notes: tuple[str, ...] = ()


NO_ANNOTATION = "it has no annotation"
NO_OBJECT = "no object in it is annotated"


def number(text: str) -> float:
    """The number that a text is.

    Raises:
        AnnotationError: it is none.
    """
    try:
        if "_" in text:  # Python's own way to write 1_000
            raise ValueError
        return float(text)
    except ValueError:
        raise AnnotationError(f"`{text[:MAX_NAME]}` is no number") from None


def class_name(text: str) -> str:
    """The name of a class, without white space around it.

    Raises:
        AnnotationError: it is none.
    """
    name = text.strip()
    if not name:
        raise AnnotationError("it has no class")
    if len(name) > MAX_NAME or not name.isprintable():
        raise AnnotationError("the name of its class is not fit to be shown")
    return name


def content_of(path: Path, limit: int = MAX_FILE) -> bytes:
    """The bytes of a file.

    Raises:
        AnnotationError: it is larger than the limit.
        OSError: it cannot be read.
    """
    with open_file(path) as file:
        # A file that grows meanwhile is read to its old end: no bytes are kept ready for the limit.
        content = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
    if len(content) > limit:
        raise AnnotationError(f"it is larger than {limit >> 20:,} MiB")
    return content


def table_of(path: Path) -> bytes:
    """The bytes of a file that tells of all pictures.

    Raises:
        UserError: it cannot be read, or is too large.
    """
    try:
        return content_of(path, MAX_TABLE)
    except AnnotationError as fault:
        raise UserError(diagnostics.BadAnnotations(str(path), str(fault))) from None
    except OSError as fault:
        reason = fault.strerror or str(fault)
        raise UserError(diagnostics.BadAnnotations(str(path), reason)) from None


Named = TypeVar("Named")
Answer = TypeVar("Answer")


def in_threads(function: Callable[[Named], Answer], items: Sequence[Named]) -> Iterator[Answer]:
    """What a function that reads files makes of each, in order."""
    groups = [items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE)]
    with ThreadPoolExecutor(min(16, 4 * num_processors())) as threads:
        for found in threads.map(lambda group: [*map(function, group)], groups):
            yield from found

"""Annotations as COCO has them: one JSON file for many pictures.

Source: the data format of https://cocodataset.org/#format-data, sections 1 and 2.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggc.data import diagnostics
from vggc.data.annotations.catalogue import Catalogue, unclaimed
from vggc.data.annotations.described import (
    MAX_NAME,
    NO_ANNOTATION,
    NO_OBJECT,
    Annotation,
    AnnotationError,
    Annotations,
    Box,
    DeclaredSize,
    Marked,
    class_name,
    table_of,
)
from vggc.data.annotations.sources import CocoSource
from vggc.data.parts import Skipped
from vggc.support.diagnostics import UserError

KEYS = ("images", "annotations", "categories")
"""The lists that a file of this format holds, at its top."""

OUTLINES = re.compile(rb'("(?:segmentation|counts|keypoints)"\s*:\s*)\[[-+0-9eE.,\s\[\]]*\]')
"""Lists of numbers that are most of such a file, and nothing of a box.

A text within quotes cannot look so: its own quotes have backslashes before them.
"""
NOUN = "annotation"


def read_coco(source: CocoSource) -> Annotations:
    """What the JSON file of a part says.

    Raises:
        UserError: it cannot be read, is no JSON or of another form.
        OSError: a folder cannot be read.
    """
    content = lists_of(source.file)
    names = categories(content["categories"], source.file)
    marks = marked(content["annotations"], names)
    catalogue = Catalogue.of(source.pictures)
    images, lost = listed(content["images"], source.file, catalogue)
    claims: dict[str, list[str]] = defaultdict(list)
    for key, image in images.items():
        claims[image.picture].append(key)
    paired, several = unclaimed(claims, claims, "listed images")
    described, blank = [], []
    for picture, key in paired.items():
        objects, faults = marks.get(key, ([], []))
        if objects or faults:
            where = f"{source.file.name}, image {key}"
            described.append(Annotation(picture, where, images[key].size, objects, faults))
        else:
            blank.append(Skipped(picture, NO_OBJECT))
    known = {str(key) for key in ids_of(content["images"])}
    for key in [key for key in marks if key not in known]:
        name = f"{source.file.name}, image {key}" if key else source.file.name
        lost.append(Skipped(name, why_stray(*marks[key])))
    if source.own:
        alone = (file for file in catalogue.files if file not in claims)
        blank += [*(Skipped(file, NO_ANNOTATION) for file in alone), *catalogue.skipped]
    return Annotations(
        described=described,
        lost=[*lost, *several],
        blank=blank,
        noun=NOUN,
        classes=[*dict.fromkeys(names.values())],
    )


def why_stray(objects: Sequence[Marked], faults: Sequence[str]) -> str:
    """Why annotations belong to no picture."""
    if faults and not objects:
        return faults[0]
    return f"it is not listed, and annotations tell of it: {len(objects) + len(faults):,}"


def lists_of(path: Path) -> Mapping[str, list[Any]]:
    """The lists at the top of a file.

    Raises:
        UserError: it cannot be read, is no JSON or of another form.
    """
    content = table_of(path)
    try:
        found = parsed(content)
    except AnnotationError as fault:
        raise UserError(diagnostics.BadAnnotations(str(path), str(fault))) from None
    for key in KEYS:
        if not isinstance(found, dict) or not isinstance(found.get(key), list):
            reason = f"it holds no list called `{key}`"
            raise UserError(diagnostics.BadAnnotations(str(path), reason))
    return {key: found[key] for key in KEYS}


def parsed(content: bytes) -> Any:
    """What a text in JSON says, less the outlines in it.

    Raises:
        AnnotationError: it is no JSON.
    """
    try:
        return json.loads(OUTLINES.sub(rb"\g<1>0", content))
    except json.JSONDecodeError:
        pass
    except RecursionError:
        raise AnnotationError("its lists are nested too deeply") from None
    except ValueError:
        raise AnnotationError(
            "it is no JSON: it is no UTF-8 text, or a number is too long"
        ) from None
    try:  # Once more, for the line as it stands in the file.
        return json.loads(content)
    except json.JSONDecodeError as fault:
        raise AnnotationError(f"it is no JSON, line {fault.lineno}: {fault.msg}") from None
    except (ValueError, RecursionError):
        raise AnnotationError("it is no JSON") from None


def categories(entries: list[Any], path: Path) -> dict[str, str]:
    """The names of the categories by their ids, in the order of the file.

    Raises:
        UserError: one has no id or name, or two have one id.
    """
    found: dict[str, str] = {}
    for count, entry in enumerate(entries, start=1):
        try:
            key = key_of(entry, "id")
            if key in found:
                raise AnnotationError(f"its id, {key}, is that of another one, too")
            name = entry.get("name")
            if not isinstance(name, str):
                raise AnnotationError("it has no name")
            found[key] = class_name(name)
        except AnnotationError as fault:
            reason = f"category {count}: {fault}"
            raise UserError(diagnostics.BadAnnotations(str(path), reason)) from None
    return found


@dataclass(frozen=True)
class Listed:
    """A picture that a file lists, and the size that it takes it to have."""

    picture: str
    size: DeclaredSize


def listed(
    entries: Sequence[Any], path: Path, catalogue: Catalogue
) -> tuple[dict[str, Listed], list[Skipped]]:
    """The pictures that a file lists, by their ids, and what it lists in vain."""
    counts = Counter(ids_of(entries))
    found, lost = {}, []
    for count, entry in enumerate(entries, start=1):
        where = f"{path.name}, images[{count - 1}]"
        try:
            key = key_of(entry, "id")
            where = f"{path.name}, image {key}"
            if counts[key] > 1:
                raise AnnotationError("several images have this id")
            name = entry.get("file_name")
            if not isinstance(name, str):
                raise AnnotationError("it has no file_name")
            picture = catalogue.called(name, path.parent)
            found[key] = Listed(picture, (side(entry.get("width")), side(entry.get("height"))))
        except AnnotationError as fault:
            lost.append(Skipped(where, str(fault)))
    return found, lost


def ids_of(entries: Sequence[Any]) -> Iterator[str]:
    """The ids of those entries that have one."""
    for entry in entries:
        with suppress(AnnotationError):
            yield key_of(entry, "id")


def marked(
    entries: Sequence[Any], names: Mapping[str, str]
) -> dict[str, tuple[list[Marked], list[str]]]:
    """The objects of each image by its id, and why others are left out; without crowds. Those that
    name no image are under an empty id.
    """
    found: dict[str, tuple[list[Marked], list[str]]] = defaultdict(lambda: ([], []))
    for count, entry in enumerate(entries, start=1):
        told = entry.get("id") if isinstance(entry, dict) else None
        image, number = "", told if type(told) is int else count
        try:
            image = key_of(entry, "image_id")
            if entry.get("iscrowd") in (1, True):
                continue
            category = key_of(entry, "category_id")
            if category not in names:
                raise AnnotationError(f"its category, {category}, is not listed")
            if entry.get("bbox") is None:
                raise AnnotationError("it has no bbox")
            found[image][0].append(Marked(number, names[category], box_of(entry["bbox"])))
        except AnnotationError as fault:
            found[image][1].append(f"{NOUN} {number}: {fault}")
    return {**found}


def key_of(entry: Any, name: str) -> str:
    """An id in an entry, a whole number or a text that may be one, as a text.

    Raises:
        AnnotationError: there is none.
    """
    value = entry.get(name) if isinstance(entry, dict) else None
    if type(value) is int or isinstance(value, str):
        return str(value)[:MAX_NAME]
    raise AnnotationError(f"it has no {name}")


def box_of(told: Any) -> Box:
    """The edges of a box that is told by its left, top, width and height.

    Raises:
        AnnotationError: it is none.
    """
    left, top, width, height = four_numbers(told)
    return left, top, left + width, top + height


def four_numbers(told: Any) -> Box:
    """The four numbers of a box in JSON.

    Raises:
        AnnotationError: it has others.
    """
    if isinstance(told, list) and len(told) == 4 and all(map(is_number, told)):
        with suppress(OverflowError):
            first, second, third, fourth = map(float, told)
            return first, second, third, fourth
    raise AnnotationError("its box is not of four numbers")


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number."""
    return type(value) in (int, float)


def side(told: Any) -> float:
    """A side of a picture, 0 where it is not told."""
    return float(told) if is_number(told) and 0 < told < 1e9 else 0.0

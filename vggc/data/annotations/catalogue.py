"""The pictures below a folder, by what annotations call them. A name is only looked up among those
that are there, so that no path leads out of the folder.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vggc.data.annotations.described import MAX_NAME, NO_ANNOTATION, AnnotationError
from vggc.data.listing import images_below, walk
from vggc.data.parts import Skipped
from vggc_runtime.preprocessing import FORMATS

DEEP = 4
"""Parts of a path that count where only its end is known."""
SHOWN = 3
"""Names that a reason shows."""


@dataclass(frozen=True)
class Catalogue:
    """Pictures by their sorted paths from a folder, and those there that are in no format that is
    read.
    """

    folder: Path
    files: Sequence[str]
    skipped: Sequence[Skipped] = ()

    @classmethod
    def of(cls, folder: Path) -> Catalogue:
        """The pictures anywhere below a folder.

        Raises:
            OSError: a folder cannot be read.
        """
        listing = images_below(folder)
        return cls(folder, listing.files, listing.skipped)

    @cached_property
    def by_path(self) -> frozenset[str]:
        """All paths."""
        return frozenset(self.files)

    @cached_property
    def by_end(self) -> Mapping[str, list[str]]:
        """The paths that have each end."""
        return grouped((end, file) for file in self.files for end in ends(file))

    @cached_property
    def by_stem(self) -> Mapping[str, list[str]]:
        """The paths that are each one without its ending."""
        return grouped((os.path.splitext(file)[0], file) for file in self.files)

    @cached_property
    def by_end_of_stem(self) -> Mapping[str, list[str]]:
        """The paths that have each end once they are without their endings."""
        return grouped(
            (end, file)
            for stem in self.by_stem
            for end in ends(stem)
            for file in self.by_stem[stem]
        )

    def beside(self, stem: str) -> Sequence[str]:
        """The pictures that a file with this path, less its ending, is called like: those of the
        same path, or else those of which one path is the end of the other.
        """
        if found := self.by_stem.get(stem) or self.by_end_of_stem.get(stem):
            return found
        return next((self.by_stem[end] for end in ends(stem) if end in self.by_stem), ())

    def called(self, path: str, base: Path | None = None) -> str:
        """The picture that an annotation calls so: by its path from the folder or from `base`, or
        as the only one of which one path is the end of the other.

        Raises:
            AnnotationError: there is none, or there are several.
        """
        asked = os.path.normpath(path.strip().replace("\\", "/"))
        if asked in self.by_path:
            return asked
        if "\0" in path or asked == ".":
            raise AnnotationError("it names no picture")
        from_here = os.path.relpath(os.path.join(base or self.folder, asked), self.folder)
        if from_here in self.by_path:
            return from_here
        shown = path if len(path) <= MAX_NAME else f"{path[:MAX_NAME]}…"
        if os.path.isabs(asked) or asked.startswith("../") or asked[1:2] == ":":
            raise AnnotationError(
                f"its picture {shown} lies outside of the folder, or is not there"
            )
        if found := self.by_end.get(asked):
            return only(found)
        for end in ends(asked):
            if end in self.by_path:
                return end
        raise AnnotationError(f"its picture {shown} is not there")


def grouped(pairs: Iterable[tuple[str, str]]) -> Mapping[str, list[str]]:
    """The values of each key, in their order."""
    found: dict[str, list[str]] = defaultdict(list)
    for key, value in pairs:
        found[key].append(value)
    return {**found}


def ends(path: str) -> Iterator[str]:
    """The ends of a path, the longest first, of `DEEP` parts at most: `a/1.jpg` and `1.jpg`."""
    parts = path.split("/")[-DEEP:]
    return ("/".join(parts[start:]) for start in range(len(parts)))


def beside(annotations: Path, pictures: Path) -> str:
    """How the paths of annotations begin that are told from the folder around them and their
    pictures: `labels/train/` where the pictures lie in `images/train`.
    """
    inner = os.path.abspath(annotations)
    name = os.path.relpath(inner, os.path.commonpath([inner, os.path.abspath(pictures)]))
    return "" if name == "." else f"{name}/"


def only(found: Sequence[str]) -> str:
    """The one picture that was found.

    Raises:
        AnnotationError: there are several.
    """
    if len(found) > 1:
        raise AnnotationError(f"{len(found):,} pictures have its name: {first_of(found)}")
    return found[0]


def first_of(names: Sequence[str]) -> str:
    """The first names, and that there are more."""
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def stems_below(folder: Path, ending: str) -> dict[str, str]:
    """The paths, from a folder, of all files below it with this ending, and each one without it."""
    found = (path for entry, path in walk(folder) if entry.name.lower().endswith(ending))
    return {path: path[: -len(ending)] for path in sorted(found)}


def without_ending(name: str) -> str:
    """A picture's path without its ending, if it has one."""
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in FORMATS else name


def unclaimed(
    pictures: Iterable[str],
    claims: Mapping[str, Sequence[str]],
    noun: str = "annotations",
    spoilt: Collection[str] = (),
) -> tuple[dict[str, str], list[Skipped]]:
    """The pictures that one annotation claims, with that one; and those of which none or several
    tell. A `noun` says what they are. Of pictures that are `spoilt` by an annotation which cannot
    be used, that one is named already.
    """
    found, lost = {}, []
    for picture in pictures:
        match claims.get(picture, ()):
            case [] if picture in spoilt:
                pass
            case []:
                lost.append(Skipped(picture, NO_ANNOTATION))
            case [single]:
                found[picture] = single
            case several:
                reason = f"{len(several):,} {noun} tell of it: {first_of(several)}"
                lost.append(Skipped(picture, reason))
    return found, lost

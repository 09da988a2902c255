"""Images that somebody names: files, folders, patterns, and lists of them. Imports no torch."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from itertools import dropwhile
from pathlib import Path
from typing import TypeAlias

from PIL.Image import Image

from vggc.data import listing
from vggc.data.diagnostics import UnreadableFolder
from vggc.data.parts import Skipped
from vggc.data.strings import Strings
from vggc.evaluation import diagnostics
from vggc.support.diagnostics import Diagnostic, UserError
from vggc.support.paths import absence
from vggc_runtime.preprocessing import FORMATS

LONGEST = 1 << 16
"""Bytes that no path has."""

HOW_TO_NAME = "name images, folders with images, or patterns in quotes, behind the run"
NamedImage: TypeAlias = str | Skipped
"""The path of an image's file, or what is none."""


@dataclass(frozen=True)
class OpenImage:
    """An image that somebody has opened, and what it is called."""

    name: str
    image: Image

    def __str__(self) -> str:
        return self.name


GivenImage: TypeAlias = NamedImage | OpenImage


class Places:
    """The images at places that are given one by one, in order: files, all images below folders,
    what patterns find; of a place, sorted by path.
    """

    def __init__(self, places: Sequence[str]) -> None:
        """Raises: UserError with every place at which there is no image."""
        found: list[str] = []
        self.lost: list[Skipped] = []
        wrong: list[Diagnostic] = []
        for place in places:
            try:
                for each in images_at(place):
                    if isinstance(each, Skipped):
                        self.lost.append(each)
                    else:
                        found.append(each)
            except UserError as error:
                wrong += error.diagnostics
        if wrong:
            raise UserError(*wrong)
        self.names = Strings.of(found)

    def __len__(self) -> int:
        return len(self.names) + len(self.lost)

    def __iter__(self) -> Iterator[NamedImage]:
        yield from self.lost
        yield from self.names


def images_at(place: str) -> Iterable[NamedImage]:
    """The images at a place, which may be a pattern unless there is something of that name.

    Raises:
        UserError: there are none.
    """
    if os.path.lexists(place) or not glob.has_magic(place):
        return plain(place)
    matches = matches_of(place)
    if not matches:
        reason = "nothing matches that pattern"
        raise UserError(diagnostics.UnreadableImage(place, reason, HOW_TO_NAME))
    images: dict[NamedImage, None] = {}
    for match in matches:
        if os.path.isdir(match or "."):
            images |= dict.fromkeys(images_below(match))
        elif not listing.is_hidden(os.path.basename(match)) and listing.ending_of(match) in FORMATS:
            images[match] = None
    if not images:
        raise UserError(diagnostics.NoImagesThere(place, endings()))
    return images


def matches_of(pattern: str) -> list[str]:
    """The paths that a pattern stands for, sorted; "" for the folder that one is in.

    `**` goes through no links to folders: they may form rings, of which there is no end.
    """
    before, star, after = parted(pattern)
    if not star:
        return sorted(glob.glob(pattern))
    tops = glob.glob(before) if before else [""]
    if not after:
        return sorted(tops)
    inside = {glob.escape(each) for top in tops for each in folders_below(top)}
    found = {match for each in inside for match in matches_of(os.path.join(each, after))}
    return sorted(each for each in found if not (os.path.islink(each) and os.path.isdir(each)))


def parted(pattern: str) -> tuple[str, bool, str]:
    """The parts of a pattern: what stands before the first `**`, whether there is one, and what
    stands behind it.
    """
    parts = pattern.split("/")
    if "**" not in parts:
        return pattern, False, ""
    first = parts.index("**")
    rest = dropwhile(lambda part: part in ("**", ""), parts[first:])
    return "".join(f"{part}/" for part in parts[:first]), True, "/".join(rest)


def folders_below(folder: str) -> Iterator[str]:
    """A folder, and the folders below it at any depth but hidden ones and links."""
    yield folder
    for above, names, _ in os.walk(folder or "."):
        names[:] = [name for name in names if not listing.is_hidden(name)]
        for name in names:
            path = os.path.join(above, name)
            if not os.path.islink(path):
                yield path if folder else os.path.relpath(path)


def plain(place: str) -> Iterable[NamedImage]:
    """The image in a file, or those below a folder.

    Raises:
        UserError: there are none.
    """
    if os.path.isfile(place):
        return [place]
    if not os.path.isdir(place):
        raise UserError(diagnostics.UnreadableImage(place, absence(place), HOW_TO_NAME))
    found = images_below(place)
    if not found:
        raise UserError(diagnostics.NoImagesThere(place, endings()))
    return found


def endings() -> str:
    """The endings of files that are images, in a row."""
    return " ".join(sorted(FORMATS))


def images_below(folder: str) -> list[NamedImage]:
    """The images below a folder, those that are none first.

    Raises:
        UserError: a folder cannot be read.
    """
    try:
        found = listing.images_below(Path(folder))
    except OSError as fault:
        path, reason = str(fault.filename or folder), fault.strerror or str(fault)
        raise UserError(UnreadableFolder(path, reason)) from None
    lost = (Skipped(os.path.join(folder, each.name), each.reason) for each in found.skipped)
    return [*lost, *(os.path.join(folder, name) for name in found.files)]


def listed(stream: BufferedIOBase, *, null: bool) -> Iterator[NamedImage]:
    """The images at the places that a list names, one a line, or each ended by a NUL; why there are
    none shows in their place. What is in a list is no pattern: whoever made it has found the files.

    The list is read as its images are asked for.
    """
    for path in split(stream, b"\0" if null else b"\n"):
        place = os.fsdecode(path if null else path.rstrip(b"\r"))
        if not place:
            continue
        try:
            yield from plain(place)
        except UserError as error:
            fault = error.diagnostics[0]
            yield Skipped(place, fault.fill(fault.label))


def split(stream: BufferedIOBase, end: bytes) -> Iterator[bytes]:
    """The pieces of a stream: what comes before each `end`, and behind the last.

    Raises:
        UserError: something is longer than any path.
    """
    rest = b""
    while piece := stream.read1(LONGEST):
        *whole, rest = (rest + piece).split(end)
        yield from whole
        if len(rest) > LONGEST:
            raise UserError(diagnostics.NoList("NULs" if end == b"\0" else "line breaks"))
    yield rest

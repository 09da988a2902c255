"""Which pictures features are taken of: all that a place brings, or one of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from vggc.data.annotations.read import read_annotated
from vggc.data.cifar import read_cifar
from vggc.data.diagnostics import UnreadableFolder
from vggc.data.find import pictures_in, pictures_of
from vggc.data.parts import Part, Pictures, Skipped
from vggc.data.place import (
    AnnotatedFolder,
    CifarPlace,
    PartedFolder,
    PlainFolder,
    ShardPattern,
    parse_place,
)
from vggc.data.split import Parts, shown
from vggc.data.usual import PartRole
from vggc.features import diagnostics
from vggc.support.diagnostics import UserError

Role: TypeAlias = Literal["train", "val", "test", ""]
"""What a picture's part is for; nothing where its place brings no parts."""


@dataclass(frozen=True)
class UsedPart:
    """A part of a place whose pictures are used, with labels that all parts share."""

    role: Role
    part: Part


@dataclass(frozen=True)
class PlacePictures:
    """The pictures of a place: its parts one after the other, and the classes of all.

    Some were `skipped` before anybody looked into them. `notes` are whole sentences on what is
    used and what is not.
    """

    place: str
    classes: tuple[str, ...]
    parts: tuple[UsedPart, ...]
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(len(each.part) for each in self.parts)


def pictures_at(place: str, only: Role | None = None) -> PlacePictures:
    """All pictures of a place, or those of one of its parts.

    Raises:
        UserError: there are none, or no such part.
    """
    try:
        found, notes = parts_at(place)
    except OSError as fault:
        path, reason = str(fault.filename or place), fault.strerror or str(fault)
        raise UserError(UnreadableFolder(path, reason)) from None
    if only is not None:
        there = tuple(role for role in found if role)
        if only not in there:
            raise UserError(diagnostics.NoSuchPart(place, only, ", ".join(there) or "none"))
        found = {only: found[only]}
    classes = tuple(dict.fromkeys(name for each in found.values() for name in each.classes))
    parts = tuple(UsedPart(role, known(each, classes)) for role, each in found.items())
    skipped = tuple(each for pictures in found.values() for each in pictures.skipped)
    notes += tuple(note for pictures in found.values() for note in pictures.notes)
    return PlacePictures(place, classes, parts, skipped, notes)


def known(found: Pictures, classes: Sequence[str]) -> Part:
    """The part of some pictures, with the labels that these classes have."""
    number_of = {name: number for number, name in enumerate(classes)}
    return found.part.renumbered(np.asarray([number_of[c] for c in found.classes], np.int64))


def parts_at(place: str) -> tuple[dict[Role, Pictures], tuple[str, ...]]:
    """The pictures of each part of a place, and what there is to say of parts."""
    match parse_place(place):
        case CifarPlace(files=files):
            cifar = read_cifar(files)
            both = Pictures(cifar.classes, cifar.train), Pictures(cifar.classes, cifar.val)
            return {"train": both[0], "test": both[1]}, ()
        case PartedFolder(parts=parts):
            return in_folder(parts)
        case AnnotatedFolder(source=source):
            return {"": read_annotated(source)}, ()
        case ShardPattern() | PlainFolder() as unparted:
            return {"": pictures_in(unparted)}, ()


def in_folder(parts: Parts) -> tuple[dict[Role, Pictures], tuple[str, ...]]:
    """The pictures of each part in a folder; a `trainval` is trained on.

    Raises:
        UserError: there are two for one use.
    """
    order: tuple[PartRole, ...] = ("train", "val", "test")
    found: dict[Role, Pictures] = {}
    for role in order:
        piece = parts.one_for(role, alone=role != "train")
        if piece is not None:
            found[role] = pictures_of(parts.folder, piece)
    left = [each.piece.shown for each in parts.named if not each.is_sorted]
    left += parts.others
    if not left:
        return found, ()
    return found, (f"Left out, as no part with class folders: {shown(left)}.",)

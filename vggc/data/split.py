"""The parts of a set of images: told by their usual names, and by what is in them.

A folder is called `val`, `Validation` or `valid_set` by one and `dev` by another; and one that is
called `train` may hold pictures of trains. A part holds class folders, or shards; a class holds
pictures. Where that does not tell, nothing is guessed.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vggc.data import diagnostics
from vggc.data.annotations.sources import AnnotationSource
from vggc.data.listing import Holds, folders_in, has_images, holds
from vggc.data.shards import ENDING, expanded, shards_in
from vggc.data.usual import USUAL, PartRole, roles_of, usual_name, words_of
from vggc.support.diagnostics import UserError, in_command
from vggc_runtime.text import in_line

DEPTH = 8
"""Folders that hold nothing but another one are passed through, so many at most."""
LISTED = 5
"""Names that a message shows."""


# What a place brings


@dataclass(frozen=True)
class PartPlace:
    """A part in a folder: a folder in it, the shards there that are called so, or what annotations
    there tell of, by the path of the folder or file that names it.
    """

    name: str
    shards: tuple[str, ...] = ()
    source: AnnotationSource | None = None

    @property
    def shown(self) -> str:
        """What a person calls the place: `train/`, or the first shard `to` the last."""
        if self.source and self.source.is_file:
            return self.name
        if not self.shards:
            return f"{self.name}/"
        ends = dict.fromkeys(os.path.basename(self.shards[i]) for i in (0, -1))
        return " to ".join(ends)

    def place(self, folder: str) -> str | None:
        """What `--data` takes to mean this part alone, if one name or pattern does."""
        if not self.shards:
            return os.path.join(folder, self.name)
        return pattern_of(self.shards)


@dataclass(frozen=True)
class NamedPart:
    """A part by its name, what it is for, and where images lie in it. Shards hold `folders`.

    Beside parts whose annotations tell what pictures show, it is one of pictures that are
    `annotated` or not.
    """

    piece: PartPlace
    roles: frozenset[PartRole]
    holds: Holds
    annotated: bool | None = None

    @property
    def is_sorted(self) -> bool:
        """Whether it tells the classes of its images."""
        return self.annotated or (self.annotated is None and self.holds in ("folders", "both"))

    @property
    def lack(self) -> str:
        """Why nobody knows the classes of its images, in words."""
        return NOT_SORTED[self.holds] if self.annotated is None else "has no annotations"


@dataclass(frozen=True)
class Parts:
    """The parts in a folder, and the names of what else there holds images."""

    folder: str
    named: tuple[NamedPart, ...]
    others: tuple[str, ...]

    def all_for(self, role: PartRole) -> list[NamedPart]:
        """The parts that may have the role, in the order of the folder."""
        return [each for each in self.named if role in each.roles]

    def one_for(self, role: PartRole, *, alone: bool = False) -> PartPlace | None:
        """The part with sorted images for this use, and for it `alone`, if there is one.

        Raises:
            UserError: there are two.
        """
        found = [
            each.piece
            for each in self.all_for(role)
            if each.is_sorted and not (alone and len(each.roles) > 1)
        ]
        if len(found) > 1:
            names = shown(piece.shown for piece in found)
            raise UserError(diagnostics.TwoForOne(self.folder, USES[role], names))
        return found[0] if found else None


@dataclass(frozen=True)
class Split:
    """Which parts of a place are trained on and held out; `notes` tell that, and what is not."""

    folder: str
    train: PartPlace
    val: PartPlace | None
    notes: tuple[str, ...]


USES: Mapping[PartRole, str] = {"train": "to train on", "val": "held out", "test": "to test on"}


def parts_of(folder: Path, known: Sequence[str] = ()) -> Parts | None:
    """The parts that a folder brings; None where its folders are classes, or its shards are of one
    kind. Where classes are `known`, folders that all have their names are those.

    Raises:
        UserError: it cannot be told what the folders are.
        OSError: a folder cannot be read.
    """
    if not folder.is_dir():
        return None
    for _ in range(DEPTH):
        children = folders_in(folder)
        if children and {child.name for child in children} <= {*known}:
            return None
        if roles := roles_of(child.name for child in children):
            return parts_of_folders(folder, children, roles, known)
        if found := parts_of_shards(folder, children):
            return found
        # Archives are packed in a folder of their own.
        if len(children) != 1 or holds(folder) == "both":
            return None
        folder = children[0]
    return None


def parts_of_shards(folder: Path, children: Sequence[Path]) -> Parts | None:
    """The parts among the shards in a folder, by a word in their names."""
    named: dict[str, list[str]] = defaultdict(list)
    others = []
    for shard in shards_in(folder):
        name = os.path.basename(shard)
        stem = name.removesuffix(ENDING)
        found = {word for word in map(usual_name, (stem, *words_of(stem))) if word}
        if len(found) == 1:
            named[found.pop()].append(shard)
        else:
            others.append(name)
    pieces = (PartPlace(name, tuple(shards)) for name, shards in named.items())
    parts = tuple(NamedPart(piece, USUAL[piece.name], "folders") for piece in pieces)
    others += [f"{child.name}/" for child in children if has_images(child)]
    return Parts(str(folder), parts, tuple(others)) if parts else None


def parts_of_folders(
    folder: Path,
    children: Sequence[Path],
    roles: dict[str, frozenset[PartRole]],
    known: Sequence[str],
) -> Parts | None:
    """The parts among the folders in a folder, some of which are called so; None where these are
    classes.
    """
    named = [
        NamedPart(PartPlace(c.name), roles[c.name], held(c)) for c in children if c.name in roles
    ]
    parts = [each for each in named if each.is_sorted]
    flat = [each for each in named if each.holds == "images" and each.piece.name not in known]
    others = [c for c in children if c.name not in roles and has_images(c)]
    found = Parts(str(folder), tuple(named), tuple(f"{child.name}/" for child in others))
    if not parts:
        if len({each.roles for each in flat}) > 1 or (flat and not others):
            names, first = shown(each.piece.shown for each in flat), flat[0].piece.name
            raise UserError(diagnostics.UnsortedParts(str(folder), names, first))
        return None
    if not others:
        return found
    train = [each for each in parts if "train" in each.roles]
    if train and len(parts) > len(train):
        return found
    (name, *_) = (each.piece.name for each in train or parts)
    inner = {child.name for child in folders_in(folder / name)}
    if shared := sorted({child.name for child in others} & inner):
        names = shown(shared)
        raise UserError(diagnostics.PartAmongClasses(str(folder), name, names))
    if not train:
        alike = [{each.name for each in folders_in(child)} >= inner for child in others]
        if len(inner) == 1 or not all(alike):
            return None
    elif train[0].holds == "both":
        return None
    raise UserError(diagnostics.PartOrClass(str(folder), name, shown(found.others)))


def held(folder: Path) -> Holds:
    """Where images lie in a folder; shards count as sorted ones."""
    found = holds(folder)
    return "folders" if found == "nothing" and shards_in(folder) else found


# What is done with them


def for_training(parts: Parts) -> Split:
    """Which parts are trained on and held out: a `val`, or else a `test`.

    Raises:
        UserError: there is none to train on, or two for one use.
    """
    train = parts.one_for("train")
    if train is None:
        raise UserError(diagnostics.NoTrainingPart(parts.folder, without_training(parts)))
    val, notes = parts.one_for("val"), []
    if val == train:  # a `trainval`
        val = None
    if val is None and (useless := [each for each in parts.all_for("val") if not each.is_sorted]):
        name, reason = useless[0].piece.name, useless[0].lack
        raise UserError(diagnostics.UselessPart(parts.folder, name, reason))
    tests = parts.all_for("test")
    if val is None and (test := parts.one_for("test")):
        val, tests = test, [each for each in tests if each.piece != test]
    if val:
        notes.append(f"In {parts.folder}, {train.shown} is trained on and {val.shown} held out.")
    else:
        notes.append(
            f"{parts.folder} holds no part to hold out: a fifth of each class of {train.shown} "
            "is, drawn by --seed."
        )
    notes += [unused(parts.folder, test) for test in tests]
    return Split(parts.folder, train, val, (*notes, *left_out(parts)))


def for_testing(parts: Parts) -> tuple[PartPlace, tuple[str, ...]]:
    """Which part is tested on, a `val` or else a `test`, and what there is to say of it.

    Raises:
        UserError: there is none, or two.
    """
    chosen = parts.one_for("val", alone=True) or parts.one_for("test")
    if chosen is None:
        there = (each.piece.place(parts.folder) for each in parts.named if each.is_sorted)
        name = next(filter(None, there), parts.folder)
        raise UserError(diagnostics.NoPartToTest(parts.folder, without_testing(parts), name))
    rest = [each.piece.shown for each in parts.named if each.piece != chosen]
    notes = [f"Of {parts.folder}, {chosen.shown} is tested on."]
    if rest:
        notes = [f"Of {parts.folder}, {chosen.shown} is tested on, and not {shown(rest)}."]
    return chosen, (*notes, *left_out(parts))


NOT_SORTED: Mapping[Holds, str] = {
    "nothing": "holds no images",
    "images": "holds images and no class folders",
}


def unused(folder: str, test: NamedPart) -> str:
    """What becomes of a part to test on that is not held out."""
    piece = test.piece
    if not test.is_sorted:
        return f"{piece.shown} {test.lack}, and is left out."
    place = piece.place(folder) or "PATTERN"
    return (
        f"{piece.shown} is not used in training: "
        f"`vggc eval RUN --data {in_command(place)}` measures on it."
    )


def left_out(parts: Parts) -> list[str]:
    """What is said of folders and shards that hold images and are no parts."""
    if not parts.others:
        return []
    return [f"Left out, since no part is called so: {shown(parts.others)}."]


def without_training(parts: Parts) -> str:
    """What there is in place of a part to train on, in words."""
    told = [
        f"{each.piece.shown} {each.lack}" for each in parts.all_for("train") if not each.is_sorted
    ]
    there = [each.piece.shown for each in parts.named if "train" not in each.roles]
    return "; ".join([*told, f"there is {shown([*there, *parts.others])}"])


def without_testing(parts: Parts) -> str:
    """What there is in place of a part to test on, in words."""
    told = [f"{each.piece.shown} {each.lack}" for each in parts.named if not each.is_sorted]
    there = [each.piece.shown for each in parts.named if each.is_sorted]
    return "; ".join([*told, *(f"{name} is there to train on" for name in there)])


def shown(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    every = [*map(in_line, names)]
    more = f" and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return ", ".join(every[:LISTED]) + more


def pattern_of(shards: Sequence[str]) -> str | None:
    """The pattern that stands for just these shards, if one does: `test-{0000..0003}.tar`."""
    first, last = shards[0], shards[-1]
    if len(shards) == 1:
        return first
    for number in re.finditer("[0-9]+", first):
        start, end = first[: number.start()], first[number.end() :]
        pattern = f"{start}{{{number[0]}..{last[len(start) : len(last) - len(end)]}}}{end}"
        with suppress(UserError):
            if expanded(pattern) == [*shards]:
                return pattern
    return None


# Folders that hold another one and nothing else


def unwrapped(folder: Path, known: Sequence[str]) -> Path:
    """Where the class folders of a part are: in the folder, or in the only one that it holds, as
    in `train/train/cat/`. One that is called as a `known` class is that class.

    Raises:
        OSError: a folder cannot be read.
    """
    for _ in range(DEPTH):
        children = folders_in(folder)
        if len(children) != 1 or children[0].name in known or holds(folder) != "folders":
            return folder
        if holds(children[0]) != "folders":
            return folder
        folder = children[0]
    return folder

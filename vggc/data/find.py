"""Images found where the user says they are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from vggc.data import mistakes
from vggc.data.cifar import read_cifar
from vggc.data.parts import Images, Part, Pictures, Skipped
from vggc.data.shards import expanded, is_pattern, read_shards, shards_in
from vggc.data.stores import Arrays, Files
from vggc.data.strings import Strings
from vggc.diagnostics import UserError
from vggc.preprocessing import FORMATS

HELD_OUT = 5
"""One image in so many is held out of a folder that brings no held-out part."""
HELD_OUT_NAMES = ("val", "test")
"""What a held-out part is called, the first that is there."""

NO_FILE = "not a file, or a link to none"


def digits() -> Images:
    """scikit-learn's 1,797 scanned digits, 8×8 pixels, with a fixed fifth held out.

    Source: E. Alpaydin, C. Kaynak (1998), "Optical Recognition of Handwritten Digits",
    UCI Machine Learning Repository; the test part, as shipped with scikit-learn.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    names = tuple(f"digit {i}" for i in range(len(pixels)))
    whole = Part.all(Arrays(names, pixels), bunch.target.astype(np.int64))
    return hold_out(None, Pictures(tuple("0123456789"), whole), seed=0)


def find_images(data: str | Path, seed: int, val: str | Path | None = None) -> Images:
    """The images in a place, and those in the place `val` to hold out.

    A place is a folder or, for shards, a pattern of paths or URLs: see docs/data.md. Without `val`
    it brings a held-out part of its own (`val/` or `test/` beside `train/`, shards with such names,
    CIFAR's test part), or a fifth of it is held out by the seed.

    Raises:
        UserError: there is no such place, or it is not of this form or cannot be read.
    """
    try:
        found = images_in(str(data), seed) if val is None else both(str(data), str(val))
    except OSError as fault:
        path, reason = str(fault.filename or data), fault.strerror or str(fault)
        raise UserError(mistakes.UnreadableFolder(None, path, reason)) from None
    if len(found.classes) == 1:
        raise UserError(mistakes.OnlyOneClass(None, str(data), found.classes[0]))
    return found


def images_in(place: str, seed: int) -> Images:
    """The images in a place, some of them held out."""
    if not is_pattern(place) and (cifar := read_cifar(Path(place))) is not None:
        return cifar
    parts = parts_in(place)
    if parts is None:
        return hold_out(place, pictures_in(place), seed)
    train = pictures_of(place, parts[0])
    return joined(place, train, pictures_of(place, parts[1], train.classes), parts[1].name, None)


def both(data: str, val: str) -> Images:
    """The images in one place, and those to hold out in another."""
    if data == val or (os.path.exists(data) and os.path.realpath(data) == os.path.realpath(val)):
        raise UserError(mistakes.HeldOutToo(None, data))
    for place in (data, val):
        if is_pattern(place):
            continue
        parts = parts_in(place)
        if parts is not None or read_cifar(Path(place)) is not None:
            raise UserError(mistakes.HeldOutTwice(None, place))
    train = pictures_in(data)
    return joined(data, train, pictures_in(val, train.classes), val, val)


def joined(place: str, train: Pictures, val: Pictures, other: str, val_path: str | None) -> Images:
    """A training part and one held out, which have to be of the same classes."""
    if train.classes != val.classes:
        difference = differing(train.classes, val.classes)
        raise UserError(mistakes.ClassesDiffer(None, place, other, difference))
    skipped = (*train.skipped, *val.skipped)
    return Images(place, train.classes, train.part, val.part, val_path, skipped)


@dataclass(frozen=True)
class Piece:
    """One of two parts in a folder: a folder in it, or the shards there whose names begin so."""

    name: str
    shards: tuple[str, ...] = ()


def parts_in(place: str) -> tuple[Piece, Piece] | None:
    """The training part and the held-out part that a folder brings, if it does."""
    folder = Path(place)
    if is_pattern(place) or not folder.is_dir():
        return None
    if (folder / "train").is_dir():
        other = next((name for name in HELD_OUT_NAMES if (folder / name).is_dir()), None)
        if other is None:
            raise UserError(mistakes.NoHeldOutFolder(None, place))
        return Piece("train"), Piece(other)
    shards = {name: tuple(shards_in(folder, name)) for name in ("train", *HELD_OUT_NAMES)}
    other = next((name for name in HELD_OUT_NAMES if shards[name]), None)
    if other is None or not shards["train"]:
        return None
    return Piece("train", shards["train"]), Piece(other, shards[other])


def pictures_of(place: str, piece: Piece, known: Sequence[str] | None = None) -> Pictures:
    """The pictures of one part in a folder."""
    if piece.shards:
        return read_shards(place, piece.shards, known)
    return pictures_in(os.path.join(place, piece.name), known)


def pictures_in(place: str, known: Sequence[str] | None = None) -> Pictures:
    """All pictures of a place that is not parted. Shards may take their classes from those that
    are `known`.
    """
    if is_pattern(place):
        return read_shards(place, expanded(place), known)
    folder = Path(place)
    if not folder.is_dir():
        kind = mistakes.NotAFolder if folder.exists() else mistakes.NoSuchFolder
        raise UserError(kind(None, place))
    shards = shards_in(folder)
    if shards and not any(path.is_dir() and path.name[0] != "." for path in folder.iterdir()):
        return read_shards(place, shards, known)
    return class_folders(folder)


def class_folders(folder: Path) -> Pictures:
    """The class folders that hold images, sorted by name, and all their images."""
    found: dict[str, list[str]] = {}
    skipped: list[Skipped] = []
    for child in sorted(folder.iterdir()):
        if not child.is_dir() or child.name.startswith("."):
            continue
        files, others = image_files(child)
        skipped += [
            Skipped(f"{child.name}/{name}", "not a file, or a link to none") for name in others
        ]
        if files:
            found[child.name] = files
        else:
            skipped.append(Skipped(f"{child.name}/", "a folder without images"))
    if not found:
        raise UserError(mistakes.NoClassFolders(None, str(folder), " ".join(sorted(FORMATS))))
    labels = np.repeat(np.arange(len(found)), [len(files) for files in found.values()])
    names = (f"{name}/{file}" for name, files in found.items() for file in files)
    part = Part.all(Files(folder, Strings.of(names)), labels.astype(np.int64))
    return Pictures(tuple(found), part, tuple(skipped))


def image_files(folder: Path) -> tuple[list[str], list[str]]:
    """What is below a folder that is called as images are, by sorted paths from there: the files,
    and what is none. Links to folders are not followed.
    """
    files: list[str] = []
    others: list[str] = []
    for parent, _, names in os.walk(folder, onerror=refuse):
        for name in names:
            if os.path.splitext(name)[1].lower() in FORMATS and not name.startswith("."):
                path = os.path.join(parent, name)
                (files if os.path.isfile(path) else others).append(os.path.relpath(path, folder))
    return sorted(files), sorted(others)


def refuse(fault: OSError) -> NoReturn:
    # Left to itself, `os.walk` passes a folder over that it cannot read.
    raise fault


def differing(train: Sequence[str], val: Sequence[str]) -> str:
    """Which classes only one of two parts holds, in words."""
    only = {
        "to train on": sorted({*train} - {*val}),
        "held out": sorted({*val} - {*train}),
    }
    told = (
        f"only {part}: {', '.join(names[:5])}" + f" and {len(names) - 5} more" * (len(names) > 5)
        for part, names in only.items()
        if names
    )
    return "; ".join(told) or "they are the same in another order"


def hold_out(path: str | None, found: Pictures, seed: int) -> Images:
    """A fifth of each class held out, drawn by the seed; a single image stays in training."""
    whole, generator = found.part, np.random.default_rng(seed)
    chosen = []
    for label in range(len(found.classes)):
        members = np.flatnonzero(whole.labels == label)
        count = max(1, round(len(members) / HELD_OUT)) if len(members) > 1 else 0
        chosen.append(generator.permutation(members)[:count])
    val = np.sort(np.concatenate(chosen))
    if len(val) == 0:
        raise UserError(mistakes.NothingHeldOut(None, str(path)))
    train = np.setdiff1d(np.arange(len(whole)), val)
    return Images(path, found.classes, whole.take(train), whole.take(val), skipped=found.skipped)

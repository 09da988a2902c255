"""Images found where the user says they are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vggc.data import diagnostics
from vggc.data.annotations.read import read_annotated
from vggc.data.cifar import read_cifar
from vggc.data.listing import Listing, folders_in, has_images, images_below, visible
from vggc.data.listing import images_in as images_in_folder
from vggc.data.parts import Images, Part, Pictures, Skipped, of_part
from vggc.data.place import (
    AnnotatedFolder,
    CifarPlace,
    PartedFolder,
    PlainFolder,
    ShardPattern,
    parse_place,
)
from vggc.data.shards import expanded, read_shards, shards_in
from vggc.data.split import PartPlace, Parts, for_training, shown, unwrapped
from vggc.data.stores import Arrays, Files
from vggc.data.strings import Strings
from vggc.data.usual import roles_of
from vggc.support.diagnostics import Diagnostic, UserError
from vggc_runtime.preprocessing import FORMATS

HELD_OUT = 5
"""One image in so many is held out of a folder that brings no held-out part."""


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
    it brings a held-out part of its own (folders or shards with the usual names of parts, CIFAR's
    test part), or a fifth of it is held out by the seed.

    Raises:
        UserError: there is no such place, or it is not of this form or cannot be read.
    """
    try:
        found = images_in(str(data), seed) if val is None else both(str(data), str(val))
    except OSError as fault:
        path, reason = str(fault.filename or data), fault.strerror or str(fault)
        raise UserError(diagnostics.UnreadableFolder(path, reason)) from None
    if len(found.classes) == 1 and found.train.objects is None:
        raise UserError(only_one(str(data), found.classes[0]))
    return found


MEANT_TO_ANNOTATE = (".csv", ".tsv", ".json", ".xml")
"""Endings of files that may tell of pictures."""


def only_one(data: str, name: str) -> Diagnostic:
    """The mistake of images of one class. Its folder may be one around the classes."""
    inside = Path(data, name)
    around = inside.is_dir() and len(folders_in(inside)) > 1
    if around:
        hint = f"; if the classes are the folders in `{name}`: `--data {inside}`"
    elif unknown := unknown_annotation(Path(data)):
        hint = f", or annotations, and `{unknown}` is none in a form of docs/data.md"
    else:
        hint = ""
    return diagnostics.OnlyOneClass(data, name, hint)


def unknown_annotation(folder: Path) -> str | None:
    """The first file, by name, in a folder that might be meant as an annotation of its pictures."""
    if not folder.is_dir():
        return None
    names = sorted(entry.name for entry in visible(folder) if entry.is_file())
    return next((name for name in names if name.lower().endswith(MEANT_TO_ANNOTATE)), None)


def images_in(place: str, seed: int) -> Images:
    """The images in a place, some of them held out."""
    match parse_place(place):
        case CifarPlace(files=files):
            return read_cifar(files)
        case PartedFolder(parts=parts):
            return images_in_parts(place, parts, seed)
        case AnnotatedFolder(source=source):
            return hold_out(place, read_annotated(source), seed)
        case ShardPattern() | PlainFolder() as unparted:
            return hold_out(place, pictures_in(unparted), seed)


def images_in_parts(place: str, parts: Parts, seed: int) -> Images:
    """The images of a place that brings parts: its own part held out, or some by the seed."""
    split = for_training(parts)
    train = pictures_of(split.folder, split.train)
    sources = [each.piece.source for each in parts.named if each.piece.source]
    folder = Path(split.folder)
    is_part = any(source.pictures == folder for source in sources)
    beside = [] if is_part else strays(images_in_folder(folder), "it lies in no part")
    if split.val is None:
        found = hold_out(place, train, seed)
    else:
        val = pictures_of(split.folder, split.val, train.classes)
        found = joined(place, train, val, split.val.shown, None)
    return replace(found, skipped=(*found.skipped, *beside), notes=(*split.notes, *found.notes))


def both(data: str, val: str) -> Images:
    """The images in one place, and those to hold out in another."""
    if data == val or (os.path.exists(data) and os.path.realpath(data) == os.path.realpath(val)):
        raise UserError(diagnostics.HeldOutToo(data))
    train = whole(data)
    return joined(data, train, whole(val, train.classes), val, val)


def whole(place: str, known: Sequence[str] = ()) -> Pictures:
    """All pictures of a place, which may bring one part and no other."""
    match parse_place(place, known):
        case CifarPlace(files=files):
            read_cifar(files)  # an archive of something else is a mistake of its own
            raise UserError(diagnostics.HeldOutTwice(place, "CIFAR's"))
        case PartedFolder(parts=parts) if len(parts.named) > 1 or parts.others:
            names = shown((*(each.piece.shown for each in parts.named), *parts.others))
            raise UserError(diagnostics.HeldOutTwice(place, names))
        case PartedFolder(parts=parts):
            return pictures_of(parts.folder, parts.named[0].piece, known)
        case AnnotatedFolder(source=source):
            return read_annotated(source, known)
        case ShardPattern() | PlainFolder() as unparted:
            return pictures_in(unparted, known)


def joined(
    place: str,
    train: Pictures,
    val: Pictures,
    other: str,
    val_path: str | None,
) -> Images:
    """A training part and one held out, which may lack some of the classes."""
    number_of = {name: number for number, name in enumerate(train.classes)}
    used = {val.classes[label]: None for label in np.unique(val.part.labels)}
    if unknown := [name for name in used if name not in number_of]:
        known = shown(train.classes)
        raise UserError(diagnostics.ClassesDiffer(place, other, shown(unknown), known))
    numbers = np.asarray([number_of.get(name, -1) for name in val.classes], np.int64)
    part = val.part.renumbered(numbers)
    missing = [name for name in train.classes if name not in used]
    notes = (f"{other} has no images of {shown(missing)}.",) if missing else ()
    return Images(
        path=place,
        classes=train.classes,
        train=train.part,
        val=part,
        val_path=val_path,
        skipped=(*of_part(train.skipped, "train"), *of_part(val.skipped, "val")),
        notes=(*notes, *train.notes, *val.notes),
    )


def pictures_of(folder: str, piece: PartPlace, known: Sequence[str] = ()) -> Pictures:
    """The pictures of one part in a folder."""
    if piece.source:
        return read_annotated(piece.source, known)
    if piece.shards:
        return read_shards(folder, piece.shards, known)
    return pictures_in(PlainFolder(str(unwrapped(Path(folder, piece.name), known))), known)


def pictures_in(place: ShardPattern | PlainFolder, known: Sequence[str] = ()) -> Pictures:
    """All pictures of a place that is not parted. Shards may take their classes from those that
    are `known`.

    Raises:
        UserError: there is no such place, or no pictures are in it.
        OSError: a folder cannot be read.
    """
    match place:
        case ShardPattern(text):
            return read_shards(text, expanded(text), known)
        case PlainFolder(text):
            return pictures_in_folder(text, known)


def pictures_in_folder(place: str, known: Sequence[str]) -> Pictures:
    """All pictures of a folder: those of its shards, or else of its class folders."""
    folder = Path(place)
    if not folder.is_dir():
        kind = diagnostics.NotAFolder if folder.exists() else diagnostics.NoSuchFolder
        raise UserError(kind(place))
    children = folders_in(folder)
    if (shards := shards_in(folder)) and not any(map(has_images, children)):
        found = read_shards(place, shards, known)
        beside = strays(images_in_folder(folder), "it lies in no shard")
        return replace(found, skipped=(*found.skipped, *beside))
    return class_folders(folder, children)


def class_folders(folder: Path, children: Sequence[Path]) -> Pictures:
    """The class folders that hold images, sorted by name, and all their images. A class whose
    images are all passed over is a class nevertheless.
    """
    beside = images_in_folder(folder)
    skipped, others = strays(beside, "it lies in no class folder"), beside.others
    found: dict[str, list[str]] = {}
    for child in children:
        listing = images_below(child)
        others += listing.others
        skipped += [replace(each, name=f"{child.name}/{each.name}") for each in listing.skipped]
        if listing.files or listing.skipped:
            found[child.name] = listing.files
        else:
            skipped.append(Skipped(f"{child.name}/", "a folder without images"))
    if not any(found.values()):
        raise UserError(nothing_in(folder, found, skipped, others))
    inner = [folders_of(files) for files in found.values() if files]
    shared, parts = sorted(set.intersection(*inner)), roles_of(set.union(*inner))
    if len({*parts.values()}) > 1 and all(each & {*parts} for each in inner):
        first = next(iter(found))
        raise UserError(diagnostics.PartsInClasses(str(folder), shown(sorted(parts)), first))
    labels = np.repeat(np.arange(len(found)), [len(files) for files in found.values()])
    names = (f"{name}/{file}" for name, files in found.items() for file in files)
    part = Part.all(Files(folder, Strings.of(names)), labels.astype(np.int64))
    notes = remarks(folder, tuple(found), shared, others)
    return Pictures(tuple(found), part, tuple(skipped), tuple(notes))


def folders_of(files: Iterable[str]) -> set[str]:
    """The folders that the first steps of some paths lead to."""
    return {path.partition("/")[0] for path in files if "/" in path}


def strays(beside: Listing, reason: str) -> list[Skipped]:
    """The images that lie beside what is looked at."""
    return [*(Skipped(name, reason) for name in beside.files), *beside.skipped]


def nothing_in(
    folder: Path,
    found: Mapping[str, list[str]],
    skipped: Sequence[Skipped],
    others: Counter[str],
) -> Diagnostic:
    """The mistake of a folder whose class folders hold no image that can be used."""
    if found:
        first = next(each for each in skipped if not each.name.endswith("/"))
        told = f"{first.name}: {first.reason}"
        return diagnostics.NothingUsable(str(folder), len(skipped), told)
    more = f"; there are others: {by_ending(others)}" if others else ""
    return diagnostics.NoClassFolders(str(folder), " ".join(sorted(FORMATS)), more)


def remarks(
    folder: Path, classes: Sequence[str], shared: Sequence[str], others: Counter[str]
) -> Iterator[str]:
    """What may be otherwise than it was meant. All classes have folders with the `shared` names."""
    for name in roles_of(classes):
        yield f"{name}/ in {folder} is taken for a class, though parts are called so."
    if len(classes) > 1 < len(shared):
        yield (
            f"All folders in {folder} hold folders called {shown(shared)}. If those are the "
            "classes, call the others as parts are: train/ and val/."
        )
    if others:
        told = by_ending(others)
        yield f"{folder} holds other files, too, that are no images by their names: {told}."


def by_ending(others: Counter[str]) -> str:
    """How many files end how, the most frequent first."""
    return shown(f"{n:,} {ending or 'without an ending'}" for ending, n in others.most_common())


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
        raise UserError(diagnostics.NothingHeldOut(str(path)))
    train = np.setdiff1d(np.arange(len(whole)), val)
    return Images(
        path=path,
        classes=found.classes,
        train=whole.take(train),
        val=whole.take(val),
        skipped=found.skipped,
        notes=found.notes,
    )

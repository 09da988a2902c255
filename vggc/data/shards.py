"""Sets of shards: which there are, and which classes their samples have."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np

from vggc.data import diagnostics
from vggc.data.annotations.described import NO_OBJECT
from vggc.data.annotations.look import ONLY_DIFFICULT, remarks
from vggc.data.listing import folders_in, is_hidden
from vggc.data.objects import Objects
from vggc.data.parts import Part, Pictures, Skipped
from vggc.data.remote import cannot_open, filesystem, is_url, reason_of
from vggc.data.shard_index import Index, Shard, index_of, shard_at
from vggc.data.stores import Members, Numbers
from vggc.data.strings import Strings
from vggc.data.usual import usual_name
from vggc.support.diagnostics import UserError
from vggc_runtime.files import open_file

ENDING = ".tar"
COMPRESSED = re.compile(r"\.(tar\.(gz|bz2|xz|zst)|tgz|tbz2?|txz)$", re.IGNORECASE)
MAX_SHARDS = 100_000
MAX_CLASSES_FILE = 16 * 2**20
"""The most bytes of a classes.txt."""
BLANK = (NO_OBJECT, ONLY_DIFFICULT)
"""Why a sample is left out that has no fault."""
NO_BOXES = "it has no boxes, and others have"
LISTED = 5
"""Names that a message shows."""


# Which shards


def is_pattern(place: str) -> bool:
    """Whether this names shards one by one, and no folder."""
    if is_url(place):
        return True
    return not Path(place).is_dir() and ("{" in place or place.endswith(ENDING))


def expanded(pattern: str) -> list[str]:
    """The paths or URLs that a pattern stands for: `{0000..0146}` for numbers of so many digits,
    `{a,b}` for either.

    Raises:
        UserError: the braces are of another form, or stand for too many.
    """
    pieces = re.split(r"\{([^{}]*)\}", pattern)
    if any(brace in piece for piece in pieces[::2] for brace in "{}"):
        raise UserError(diagnostics.BadPattern(pattern, "a brace has no partner"))
    choices = [
        choices_of(pattern, piece) if index % 2 else [piece] for index, piece in enumerate(pieces)
    ]
    if np.prod([float(len(each)) for each in choices]) > MAX_SHARDS:
        raise UserError(diagnostics.BadPattern(pattern, f"more than {MAX_SHARDS:,} shards"))
    return ["".join(combination) for combination in product(*choices)]


def choices_of(pattern: str, braced: str) -> list[str]:
    """What may stand for a pair of braces."""
    if "," in braced:
        return braced.split(",")
    match = re.fullmatch(r"([0-9]{1,9})\.\.([0-9]{1,9})", braced)
    if match is None or int(match[1]) > int(match[2]):
        reason = f"`{{{braced}}}` is no range"
        raise UserError(diagnostics.BadPattern(pattern, reason))
    first, last = int(match[1]), int(match[2])
    if last - first >= MAX_SHARDS:
        raise UserError(diagnostics.BadPattern(pattern, f"more than {MAX_SHARDS:,} shards"))
    return [f"{number:0{len(match[1])}}" for number in range(first, last + 1)]


def shards_in(folder: Path) -> list[str]:
    """The shards in a folder, sorted.

    Raises:
        UserError: those that there are, are compressed.
    """
    names = sorted(path.name for path in folder.iterdir() if not is_hidden(path.name))
    found = [str(folder / name) for name in names if name.endswith(ENDING)]
    compressed = [str(folder / name) for name in names if COMPRESSED.search(name)]
    if compressed and not found and not folders_in(folder):
        raise UserError(diagnostics.CompressedShard(compressed[0]))
    return found


# What is in them


def read_shards(place: str, shards: Sequence[str], known: Sequence[str] = ()) -> Pictures:
    """All samples of these shards, which the user calls `place`. Where some have boxes, it is those
    that do, each with the class of its largest object that is not difficult.

    Classes are those in `classes.txt` beside the shards, one a line; without such a file those
    that are `known` from elsewhere, or all labels there are, in the order of numbers or of
    letters. A label is a class's name or, where all labels are numbers, its place from 0 on.

    Raises:
        UserError: there is a shard that cannot be read, or a label that is none of the classes.
    """
    places = [local(shard) for shard in shards]
    # Pillow warns of odd pictures whose sizes are looked at; limits are our own.
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(8) as threads:
        found = [*threads.map(shard_at, places)]
        listed = listed_classes(places[0])
        indices = [*threads.map(index_of, found)]
    check_samples(place, found, indices)
    labels = [*dict.fromkeys(name for index in indices for name in index.used)]
    others = [*dict.fromkeys(name for index in indices for name in index.labels)]
    classes, numbers = numbered(place, labels, others, listed, known)
    skipped = tuple(
        Skipped(f"{shard.name}/{key}", reason)
        for shard, index in zip(found, indices, strict=True)
        for keys, reasons in ((index.lost, index.reasons), (index.faulty, index.faults))
        for key, reason in zip(keys, reasons, strict=True)
    )
    members, label = gathered(found, indices, numbers)
    whole = Pictures(classes, Part.all(members, label), skipped, dotted(place, members.names))
    if not any(index.counts.any() for index in indices):
        return whole
    return with_boxes(place, whole, indices, numbers, known)


def dotted(place: str, names: Sequence[str]) -> tuple[str, ...]:
    """What is said of samples whose names go on behind their first dot, if there are any."""
    found = [name for name in names if name.rpartition("/")[2].count(".") > 1]
    if not found:
        return ()
    return (
        f"In {place}, {len(found):,} of {len(names):,} samples have a dot in their names, which go "
        f"to the last dot, then: {found[0]}.",
    )


def local(place: str) -> str:
    """The path of a `file:` URL; any other place as it is."""
    return place.removeprefix("file://")


def check_samples(place: str, shards: Sequence[Shard], indices: Sequence[Index]) -> None:
    """Refuses shards of which no sample, or the smaller part, can be used."""
    good = sum(map(len, indices))
    bad = sum(reason not in BLANK for index in indices for reason in index.reasons)
    if bad > good:
        example, reason = next(
            (f"{shard.name}/{key}", reason)
            for shard, index in zip(shards, indices, strict=True)
            for key, reason in zip(index.lost, index.reasons, strict=True)
            if reason not in BLANK
        )
        raise UserError(diagnostics.IncompleteSamples(place, bad, good + bad, example, reason))
    if good == 0:
        raise UserError(diagnostics.NoSamples(place))


def with_boxes(
    place: str,
    found: Pictures,
    indices: Sequence[Index],
    numbers: Mapping[str, int],
    known: Sequence[str],
) -> Pictures:
    """The samples that have boxes, with these; where no classes are `known`, classes are those that
    label a sample.

    Raises:
        UserError: most samples have none.
    """
    names = [*dict.fromkeys(name for index in indices for name in index.labels)]
    objects = objects_in(indices, names)
    boxed, bare = np.flatnonzero(objects.counts), np.flatnonzero(objects.counts == 0)
    lost = tuple(Skipped(found.part.name(index), NO_BOXES) for index in bare.tolist())
    if (bad := len(bare)) > len(boxed):
        example = lost[0].name
        raise UserError(diagnostics.IncompleteSamples(place, bad, len(objects), example, NO_BOXES))
    labels = found.part.labels[boxed]
    kept = range(len(found.classes)) if known else np.unique(labels).tolist()
    number_of = {old: new for new, old in enumerate(kept)}
    to_classes = np.asarray([number_of.get(numbers[name], -1) for name in names], np.int64)
    counts = zip(names, to_classes, np.bincount(objects.classes, minlength=len(names)), strict=True)
    left_out = {name: int(count) for name, number, count in counts if number < 0 < count}
    cut = sum(int(index.cut[0]) for index in indices)
    part = Part(
        store=found.part.store,
        numbers=boxed,
        labels=np.asarray([number_of[label] for label in labels.tolist()], np.int64),
        objects=objects.take(boxed).renumbered(to_classes),
    )
    return Pictures(
        classes=tuple(found.classes[number] for number in kept),
        part=part,
        skipped=(*found.skipped, *lost),
        notes=(*found.notes, *remarks(place, cut, left_out, is_known=bool(known))),
    )


def objects_in(indices: Sequence[Index], names: Sequence[str]) -> Objects:
    """The objects in all samples, whose classes are numbers of `names`."""
    place_of = {name: number for number, name in enumerate(names)}
    kinds = [
        np.asarray([place_of[name] for name in index.labels], np.int64)[index.kinds]
        for index in indices
    ]
    counts = np.concatenate([index.counts for index in indices])
    return Objects(
        starts=np.concatenate([[0], np.cumsum(counts)]),
        boxes=np.concatenate([index.boxes for index in indices]).reshape(-1, 4),
        classes=np.concatenate(kinds),
        difficult=np.concatenate([index.difficult for index in indices]).astype(np.bool_),
    )


def numbered(
    place: str,
    labels: Sequence[str],
    others: Sequence[str],
    listed: Sequence[str] | None,
    known: Sequence[str],
) -> tuple[tuple[str, ...], dict[str, int]]:
    """The classes, and the number among them of each label; that of another name may be too high,
    where it is none of them.
    """
    are_numbers = are_all_numbers(labels)
    classes = tuple(known) if listed is None else tuple(listed)
    if not classes:
        classes = tuple(sorted(labels, key=int if are_numbers else str))
    are_places = are_numbers and (listed is not None or not are_all_numbers(classes))
    number_of = {name: number for number, name in enumerate(classes)}
    numbers = {
        name: int(name)
        if are_places and are_all_numbers([name])
        else number_of.get(name, len(classes))
        for name in (*labels, *others)
    }
    unknown = [label for label in labels if numbers[label] >= len(classes)]
    if unknown:
        shown = ", ".join(f"`{label}`" for label in unknown[:LISTED])
        raise UserError(diagnostics.UnknownLabel(place, shown, len(classes)))
    return classes, numbers


def are_all_numbers(names: Sequence[str]) -> bool:
    """Whether every name consists of the digits 0 to 9."""
    return all(name.isascii() and name.isdecimal() for name in names)


def gathered(
    shards: Sequence[Shard], indices: Sequence[Index], numbers: dict[str, int]
) -> tuple[Members, Numbers]:
    """The samples of all shards in one row, and their classes (N,)."""
    counts = [len(index) for index in indices]
    names = Strings.joined(
        Strings.of(f"{shard.name}/{name}" for name in index.names)
        for shard, index in zip(shards, indices, strict=True)
    )
    labels = [
        np.asarray([numbers[label] for label in index.labels], np.int64)[index.label]
        for index in indices
    ]
    members = Members(
        places=tuple(shard.place for shard in shards),
        mark=hashlib.sha256("".join(shard.key for shard in shards).encode()).hexdigest(),
        names=names,
        inside=np.repeat(np.arange(len(shards)), counts),
        offsets=np.concatenate([index.offsets for index in indices]),
        sizes=np.concatenate([index.sizes for index in indices]),
        headers=np.concatenate([index.headers for index in indices]),
    )
    return members, np.concatenate(labels)


# The names of classes


def listed_classes(shard: str) -> tuple[str, ...] | None:
    """The classes in the `classes.txt` beside a shard, or beside its folder where that is called
    as parts are; None without one.

    Raises:
        UserError: it cannot be read, or is not one name a line.
    """
    for place, content in class_lists(shard):
        if len(content) > MAX_CLASSES_FILE:
            raise UserError(diagnostics.BadClassList(place, "it is larger than 16 MiB"))
        try:
            lines = content.decode("utf-8-sig").rstrip().splitlines()
        except ValueError:
            raise UserError(diagnostics.BadClassList(place, "it is no UTF-8 text")) from None
        names = tuple(line.strip() for line in lines)
        if not names:
            raise UserError(diagnostics.BadClassList(place, "it is empty"))
        if "" in names:
            reason = f"line {names.index('') + 1} is empty"
            raise UserError(diagnostics.BadClassList(place, reason))
        if len({*names}) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(diagnostics.BadClassList(place, f"`{twice}` is there twice"))
        return names
    return None


def class_lists(shard: str) -> Iterator[tuple[str, bytes]]:
    """The class lists that go with a shard, nearest first, and what they hold."""
    folder = (shard if is_url(shard) else os.path.abspath(shard)).rpartition("/")[0]
    above, _, name = folder.rpartition("/")
    for base in (folder, above) if usual_name(name) else (folder,):
        place = f"{base}/classes.txt"
        try:
            if not is_url(shard):
                if os.path.lexists(place):
                    with open_file(place) as file:
                        yield place, file.read(MAX_CLASSES_FILE + 1)
            elif is_url(place):
                files, path = filesystem(place)
                if files.exists(path):
                    yield place, files.cat_file(path, start=0, end=MAX_CLASSES_FILE + 1)
        except UserError:
            raise
        except Exception as fault:  # a network has many ways to fail
            raise cannot_open(place, reason_of(fault)) from None

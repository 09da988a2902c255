"""Labelled pictures, not looked into yet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from vggc.data.objects import Objects
from vggc.data.stores import Numbers, PictureSource, Store, digest_of
from vggc.data.strings import CODEC, ERRORS
from vggc_runtime.preprocessing import BrokenImageError
from vggc_runtime.processors import num_processors


@dataclass(frozen=True)
class Part:
    """Some pictures of a store, by their `numbers` there, with a class each.

    Where boxes tell what a picture shows, its class is that of its largest object, and `objects`
    are those of each picture of the part.
    """

    store: Store
    numbers: Numbers
    labels: Numbers
    objects: Objects | None = None

    @classmethod
    def all(cls, store: Store, labels: Numbers) -> Part:
        """All pictures of a store; their labels (N,)."""
        return cls(store, np.arange(len(labels)), labels)

    def __len__(self) -> int:
        return len(self.numbers)

    def name(self, index: int) -> str:
        """What the store calls the image `index` of the part."""
        return self.store.names[int(self.numbers[index])]

    def fetch(self, indices: Numbers) -> list[PictureSource | BrokenImageError]:
        """The pictures at these places of the part."""
        return self.store.fetch(self.numbers[indices].tolist())

    def take(self, indices: Numbers) -> Part:
        """The part that has only what is at these places."""
        return Part(
            self.store,
            self.numbers[indices],
            self.labels[indices],
            None if self.objects is None else self.objects.take(indices),
        )

    def renumbered(self, numbers: Numbers) -> Part:
        """The part with the class `numbers[c]` in the place of each class c; -1 is none, and
        objects of it are left out.
        """
        objects = None if self.objects is None else self.objects.renumbered(numbers)
        return replace(self, labels=numbers[self.labels], objects=objects)


PartName: TypeAlias = Literal["train", "val", ""]
"""The part of images: trained on, held out, or that of a place that brings no parts."""


@dataclass(frozen=True)
class Skipped:
    """An image that was left out, why, and of which part."""

    name: str
    reason: str
    part: PartName = ""


def of_part(skipped: Iterable[Skipped], part: PartName) -> tuple[Skipped, ...]:
    """What was skipped, each with the part that it was found in."""
    return tuple(replace(each, part=part) for each in skipped)


@dataclass(frozen=True)
class Pictures:
    """What was found in one place: classes, and a part with pictures of each. Some were `skipped`
    before anybody looked into them. `notes` are whole sentences on what is used and what is not.
    """

    classes: tuple[str, ...]
    part: Part
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Images:
    """A training part and a held-out part, whose classes are those that are trained on. `path` says
    where they are from, a path or a URL; None stands for the embedded digits. `val_path` says where
    the held-out part is from, if it is not from there. `notes` as in `Pictures`.
    """

    path: str | None
    classes: tuple[str, ...]
    train: Part
    val: Part
    val_path: str | None = None
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def without_objects(self) -> Images:
        """The pictures with the classes that they have, without their objects."""
        train, val = (replace(each, objects=None) for each in (self.train, self.val))
        return replace(self, train=train, val=val)


# By what they are known again


@dataclass(frozen=True)
class Fingerprint:
    """What a part is known again by: sha256 of what its pictures are called and of which class
    each is; of their `content`, the bytes of their files; and of the `objects` that are looked for
    in them, nothing where none are.
    """

    names: str
    content: str
    objects: str = ""

    def shows(self, other: Fingerprint) -> bool:
        """Whether another part has the same pictures, of the same classes; and the same objects,
        where both look for some.
        """
        pictures = self.names == other.names and self.content == other.content
        return pictures and ("" in (self.objects, other.objects) or self.objects == other.objects)


@dataclass(frozen=True)
class Fingerprints:
    """The fingerprints of both parts, each by itself: who needs one is not held up by the other."""

    train: Fingerprint
    val: Fingerprint

    @property
    def whole(self) -> str:
        """The hash of both fingerprints: it changes with either part."""
        told = [self.train.names, self.train.content, self.val.names, self.val.content]
        told += [each.objects for each in (self.train, self.val) if each.objects]
        return hashlib.sha256(" ".join(told).encode()).hexdigest()

    def change(self, now: Fingerprints) -> str | None:
        """What is not as it was any more, in words; None where all is."""
        told = {
            "images to train on": (self.train, now.train),
            "held-out images": (self.val, now.val),
        }
        for what, (one, other) in told.items():
            if one.names != other.names:
                return f"the {what} that can be read have other names or classes"
            if one.content != other.content:
                return f"{what} have kept their names, but not what is in their files"
            if one.objects != other.objects:
                return f"objects in {what} have other boxes or classes, or are more or fewer"
        return None


def names_of(classes: Sequence[str], part: Part) -> str:
    """The sha256 of the names of a part's pictures, and of that of each one's class."""
    digest = hashlib.sha256()
    for index, label in enumerate(part.labels.tolist()):
        digest.update(f"{part.name(index)}\0{classes[label]}\n".encode(CODEC, ERRORS))
    return digest.hexdigest()


def objects_of(classes: Sequence[str], part: Part) -> str:
    """The sha256 of the boxes around the objects in a part's pictures, and of their classes;
    nothing where it is not known where objects are.
    """
    if (objects := part.objects) is None:
        return ""
    digest = hashlib.sha256()
    kinds = [hashlib.sha256(name.encode(CODEC, ERRORS)).digest()[:8] for name in classes]
    named = np.frombuffer(b"".join(kinds), np.uint64)[objects.classes]
    for column in (objects.starts, objects.boxes, named, objects.difficult):
        digest.update(np.ascontiguousarray(column).data)
    return digest.hexdigest()


CHUNK = 128
"""Pictures that are fetched at a time, so that memory stays bounded."""


def content_of(part: Part) -> str:
    """The sha256 of what a part's pictures are made of, read without a look into them.

    Raises:
        UnreadableError: one cannot be read.
    """
    return of_all(digests_of(part))


def digests_of(part: Part) -> Iterator[bytes]:
    """The digest of each picture of a part."""
    with ThreadPoolExecutor(min(8, num_processors())) as threads:
        for start in range(0, len(part), CHUNK):
            found = part.fetch(np.arange(start, min(start + CHUNK, len(part))))
            yield from threads.map(digest_of, refuse_lost(found))


def refuse_lost(pictures: Sequence[PictureSource | BrokenImageError]) -> list[PictureSource]:
    """The pictures, none of which may be broken.

    Raises:
        BrokenImageError: the first that is.
    """
    for each in pictures:
        if isinstance(each, BrokenImageError):
            raise each
    return [each for each in pictures if not isinstance(each, BrokenImageError)]


def of_all(digests: Iterable[bytes]) -> str:
    """The sha256 of those of pictures, in their order."""
    whole = hashlib.sha256()
    for each in digests:
        whole.update(each)
    return whole.hexdigest()

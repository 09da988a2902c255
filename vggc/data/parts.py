"""Labelled pictures, not looked into yet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from vggc.data.stores import Numbers, Picture, Store
from vggc.data.strings import CODEC, ERRORS
from vggc.preprocessing import BrokenImageError


@dataclass(frozen=True)
class Part:
    """Some pictures of a store, by their `numbers` there, with a class each."""

    store: Store
    numbers: Numbers
    labels: Numbers

    @classmethod
    def all(cls, store: Store, labels: Numbers) -> Part:
        """All pictures of a store; their labels (N,)."""
        return cls(store, np.arange(len(labels)), labels)

    def __len__(self) -> int:
        return len(self.numbers)

    def name(self, index: int) -> str:
        return self.store.names[int(self.numbers[index])]

    def fetch(self, indices: Numbers) -> list[Picture | BrokenImageError]:
        """The pictures at these places of the part."""
        return self.store.fetch(self.numbers[indices].tolist())

    def take(self, indices: Numbers) -> Part:
        """The part that has only what is at these places."""
        return replace(self, numbers=self.numbers[indices], labels=self.labels[indices])


PartName: TypeAlias = Literal["train", "val", ""]
"""Of which part something is: trained on, held out, or of a place that brings no parts."""


@dataclass(frozen=True)
class Skipped:
    """An image that was left out, why, and of which part."""

    name: str
    reason: str
    part: PartName = ""


def of_part(skipped: Iterable[Skipped], part: PartName) -> tuple[Skipped, ...]:
    """The same, said to be of this part."""
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


def fingerprint(classes: Sequence[str], *parts: Part) -> str:
    """The sha256 of the classes and of each part's names and labels."""
    digest = hashlib.sha256("\n".join(classes).encode(CODEC, ERRORS))
    for part in parts:
        digest.update(b"\n\n")
        for index, label in enumerate(part.labels.tolist()):
            digest.update(f"{part.name(index)}\0{label}\n".encode(CODEC, ERRORS))
    return digest.hexdigest()

"""Which classes of a net the classes of images are: by the names that both have, or as ImageNet's
thousand, whose names and numbers in WordNet are known. Imports no torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

from vggc.pretrained.facts import class_names, wordnet_numbers
from vggc.pretrained.table import CLASSES

MatchedBy: TypeAlias = Literal["WordNet's numbers", "ImageNet's names"]
"""What a class of ImageNet is called by."""

SHOWN = 3
"""Classes that are told one by one."""


@dataclass(frozen=True)
class ClassMatch:
    """The number that a net gives each class of images, -1 where it knows it not, and a line on how
    they were found, where they do not bear the net's own names. `is_imagenet` says that the net
    knows the whole of ImageNet's classes.
    """

    numbers: tuple[int, ...]
    told: str = ""
    is_imagenet: bool = False


@dataclass(frozen=True)
class ImageNetClass:
    """A class of ImageNet by its place among the thousand, and what it was called by."""

    index: int
    by: MatchedBy


def match_classes(found: Sequence[str], names: Sequence[str], is_named: bool) -> ClassMatch:
    """Which classes of a net each of those that were `found` is. The net's have these names; where
    not `is_named`, nobody has named them, and a thousand are taken for ImageNet's in their order.

    Names that both have come first. What is left is matched where all classes of the net are
    ImageNet's: by numbers in WordNet, by names, and by names that differ in capitals, or in `_` and
    `-` for blanks, alone.
    """
    own = {name: number for number, name in enumerate(names)} if is_named else {}
    numbers = [own.get(name, -1) for name in found]
    places = imagenet_places(names, is_named)
    if -1 not in numbers or not places:
        return ClassMatch(tuple(numbers), is_imagenet=len(places) == CLASSES)
    matched: list[tuple[str, ImageNetClass]] = []
    for row, name in enumerate(found):
        known = imagenet_class(name)
        if numbers[row] < 0 and known and known.index in places:
            numbers[row] = places[known.index]
            matched.append((name, known))
    told = in_words(matched) if matched else ""
    if told and not is_named:
        told += " That the net's 1,000 outputs are in ImageNet's order is assumed."
    return ClassMatch(tuple(numbers), told, len(places) == CLASSES)


def imagenet_places(names: Sequence[str], is_named: bool) -> Mapping[int, int]:
    """The place among a net's classes of each of ImageNet's that it knows, by its index there; none
    where the net has others, too.
    """
    if not is_named:
        return {index: index for index in range(CLASSES)} if len(names) == CLASSES else {}
    indices = [exact_names().get(name) for name in names]
    if None in indices:
        return {}
    return {index: place for place, index in enumerate(indices) if index is not None}


@cache
def exact_names() -> Mapping[str, int]:
    """The index of each of ImageNet's classes by its name, and by its number in WordNet."""
    return {
        name: index
        for names in (class_names(), wordnet_numbers())
        for index, name in enumerate(names)
    }


@cache
def plain_names() -> Mapping[str, int]:
    """The index of each of ImageNet's classes by its name without capitals, where that is the name
    of one alone: `cardigan` is a dog and a garment.
    """
    counts = Counter(map(plain, class_names()))
    named = enumerate(map(plain, class_names()))
    return {name: index for index, name in named if counts[name] == 1}


def plain(name: str) -> str:
    """A name without capitals, with one blank for each gap between words."""
    return re.sub(r"[\s_-]+", " ", name.casefold()).strip()


def imagenet_class(name: str) -> ImageNetClass | None:
    """The class of ImageNet that is called so; None where none is."""
    index = exact_names().get(name, plain_names().get(plain(name)))
    if index is None:
        return None
    is_number = name == wordnet_numbers()[index]
    return ImageNetClass(index, "WordNet's numbers" if is_number else "ImageNet's names")


def in_words(matched: Sequence[tuple[str, ImageNetClass]]) -> str:
    """How classes were found, and what the first of them are."""
    by = " and ".join(sorted({each.by for _, each in matched}, reverse=True))
    shown = [f"{name} is {class_names()[each.index]}" for name, each in matched[:SHOWN]]
    more = f", and {len(matched) - SHOWN:,} more" if len(matched) > SHOWN else ""
    return f"Classes are known by {by}: {', '.join(shown)}{more}."

"""What a place of images is: told once, from what the user wrote and what lies there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from vggc.data.annotations.layouts import annotated_at
from vggc.data.annotations.sources import AnnotationSource
from vggc.data.cifar import CifarFiles, cifar_at
from vggc.data.shards import is_pattern
from vggc.data.split import Parts, parts_of
from vggc.support.paths import exists


@dataclass(frozen=True)
class ShardPattern:
    """Shards that `text` names one by one: a path or a URL, maybe with braces."""

    text: str


@dataclass(frozen=True)
class CifarPlace:
    """CIFAR's own files, in a folder or an archive."""

    text: str
    files: CifarFiles


@dataclass(frozen=True)
class PartedFolder:
    """A folder that brings parts, such as `train/` and `val/`."""

    text: str
    parts: Parts


@dataclass(frozen=True)
class AnnotatedFolder:
    """Pictures whose annotations tell what they show, all in one part; or the file that says so."""

    text: str
    source: AnnotationSource


@dataclass(frozen=True)
class PlainFolder:
    """Any other place: a folder of class folders or of shards, if it is there at all."""

    text: str


ImagePlace: TypeAlias = ShardPattern | CifarPlace | PartedFolder | AnnotatedFolder | PlainFolder
"""Where a user says that images are; `text` is how."""


def parse_place(text: str, known: Sequence[str] = ()) -> ImagePlace:
    """What a place is. Folders that all bear names of `known` classes are classes, and no parts.

    Raises:
        UserError: it cannot be told what the folders are, or it is CIFAR in a form not read.
        OSError: a folder cannot be read.
    """
    if is_pattern(text):
        return ShardPattern(text)
    if files := cifar_at(Path(text)):
        return CifarPlace(text, files)
    match annotated_at(Path(text), known):
        case Parts() as parts:
            return PartedFolder(text, parts)
        case None:
            pass
        case source:
            return AnnotatedFolder(text, source)
    if found := parts_of(Path(text), known):
        return PartedFolder(text, found)
    return PlainFolder(text)


def is_gone(text: str) -> bool:
    """Whether a place is one of this machine's, and nothing is there; shards are not looked for."""
    return not is_pattern(text) and not exists(text)

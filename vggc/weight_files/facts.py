"""What a file says of the weights in it: how their pictures are prepared, what their classes are
called, where they come from.

A safetensors file has room for it, in the texts of its maker's that stand in its header.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from vggc.support.records import from_json, to_json
from vggc_runtime.json_file import MalformedError, parsed_json
from vggc_runtime.manifest import MOST_CLASSES
from vggc_runtime.preprocessing import Preprocessing

PREPROCESSING = "vggc.preprocessing"
CLASSES = "vggc.classes"
SOURCE = "vggc.source"
"""The names of the facts among the texts of a safetensors file's header."""

LONGEST = 1000
"""The most characters of a class's name and of a source."""

T = TypeVar("T")


@dataclass(frozen=True)
class WeightFacts:
    """What a file says of its weights. `preprocessing` is None where it says nothing of pictures,
    and may be that of another input than a net's: `Preprocessing.problem` tells. `classes` are in
    the order of the outputs, and none where it names none. `source` says in words, or as an
    address, where the weights come from.
    """

    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] = ()
    source: str = ""


def metadata_of(facts: WeightFacts) -> dict[str, str]:
    """Facts as texts for the header of a safetensors file, as `facts_in` reads them."""
    found: dict[str, str] = {}
    if facts.preprocessing is not None:
        found[PREPROCESSING] = json.dumps(to_json(facts.preprocessing), allow_nan=False)
    if facts.classes:
        found[CLASSES] = json.dumps(facts.classes)
    if facts.source:
        found[SOURCE] = facts.source
    return found


def facts_in(metadata: Mapping[str, str]) -> WeightFacts:
    """The facts among the texts of a file's header; other texts are left alone.

    Raises: MalformedError where one of them is not what `metadata_of` writes.
    """
    classes = _read(metadata, CLASSES, tuple[str, ...], ())
    if len(classes) > MOST_CLASSES or any(len(name) > LONGEST for name in classes):
        reason = f"is of more than {MOST_CLASSES:,} classes, or of a name too long"
        raise MalformedError(f"{CLASSES} {reason}")
    source = metadata.get(SOURCE, "")
    if len(source) > LONGEST:
        raise MalformedError(f"{SOURCE} is longer than {LONGEST} characters")
    return WeightFacts(_read(metadata, PREPROCESSING, Preprocessing, None), classes, source)


def _read(metadata: Mapping[str, str], key: str, kind: type[T], absent: T) -> T:
    if key not in metadata:
        return absent
    text = metadata[key].encode("utf-8", "surrogatepass")
    try:
        return from_json(kind, parsed_json(text))
    except MalformedError as fault:
        raise MalformedError(f"{key}: {fault}") from None
